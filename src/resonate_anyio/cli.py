"""The program `resonate-anyio`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final, NoReturn

import anyio

from ._errors import ResonateError
from ._protocol import EMBEDDED, RELEASE, SNAPSHOT, Rules
from .abc import Store
from .networks import LocalNetwork
from .stores import MemoryStore, SQLiteStore

RULES: Final[dict[str, Rules]] = {"embedded": EMBEDDED, "release": RELEASE, "snapshot": SNAPSHOT}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; give its exit code."""
    options = _parser().parse_args(argv)
    try:
        anyio.run(_dev, options, backend=options.backend)
    except (ResonateError, OSError) as error:
        print(f"resonate-anyio: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="resonate-anyio")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dev = commands.add_parser("dev", help="serve the embedded engine over HTTP")
    dev.add_argument("path", nargs="?")
    dev.add_argument("--host", default="127.0.0.1")
    dev.add_argument("--port", type=int, default=8001)
    dev.add_argument("--rules", choices=RULES, default="embedded")
    dev.add_argument("--debug", action="store_true")
    dev.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    return parser


async def _dev(options: argparse.Namespace) -> None:
    from .server import listen, make_app, serve

    store: Store = MemoryStore() if options.path is None else SQLiteStore(options.path)
    network = LocalNetwork(store, rules=RULES[options.rules], keep_leases=True)
    listening = listen(options.host, options.port)
    host, port = listening.getsockname()[:2]
    url = f"http://{host}:{port}"
    async with network.running():
        print(f"listening on {url}", flush=True)
        await serve(
            make_app(network, debug=options.debug, server_url=url), listening, backend=options.backend, stop=_signalled
        )


async def _signalled() -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return
