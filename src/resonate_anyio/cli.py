"""The command `resonate-anyio`.

`resonate-anyio dev` serves the embedded engine over HTTP. It prints one line when it is ready, `listening on URL`, and
ends on SIGINT or SIGTERM.

Web pages may not use the server. A request is refused with 403 if it comes from a foreign origin, from another site
(`Sec-Fetch-Site`), or names a host that is not the server's own; this holds for the port of the metrics too. The
server's own hosts are `localhost`, loopback addresses, the address at which a connection has arrived, and the host of
`--host`. Any other name that clients use (with `--host 0.0.0.0`, or in a container) must be given by `--allow-host`.
"""

from __future__ import annotations

import argparse
import ipaddress
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import anyio
from attrs import frozen

from ._errors import ResonateError
from ._protocol import ANNOUNCED, EMBEDDED, RELEASE, SNAPSHOT, SPECIFIED, Rules
from .abc import Store
from .networks import LocalNetwork
from .stores import MemoryStore, SQLiteStore

if TYPE_CHECKING:
    import socket

    from .server import Auth, Backend, Metrics, Trace

_RULES: Final[dict[str, Rules]] = {
    "embedded": EMBEDDED,
    "release": RELEASE,
    "snapshot": SNAPSHOT,
    "announced": ANNOUNCED,
    "specified": SPECIFIED,
}
_EXTRAS: Final = {
    "hypercorn": "server",
    "prometheus_client": "server",
    "jwt": "server",
    "cryptography": "server",
    "trio": "trio",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _Options(**vars(_parser().parse_args(argv)))
    try:
        _dev(options)
    except (ResonateError, OSError) as error:
        print(f"resonate-anyio: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as missing:
        library = (missing.name or "").partition(".")[0]
        extra = _EXTRAS.get(library)
        if extra is None:
            raise

        text = f"this command needs {library}; install it with: pip install 'resonate-anyio[{extra}]'"
        print(f"resonate-anyio: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130

    return 0


@frozen(kw_only=True)
class _Options:
    path: Path | None
    host: str
    port: int
    rules: str
    durability: str
    debug: bool
    auth_publickey: str | None
    auth_iss: str | None
    auth_aud: str | None
    trace: Path | None
    metrics_port: int | None
    backend: str
    allow_host: list[str]
    allow_origin: list[str]

    @property
    def hosts(self) -> list[str]:
        """The names by which clients may reach the server. Addresses that it listens on need not be named."""
        try:
            ipaddress.ip_address(self.host or "::")
        except ValueError:
            return [*self.allow_host, self.host]

        return self.allow_host


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="resonate-anyio", description="Durable execution for anyio.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dev = commands.add_parser(
        "dev",
        help="serve the embedded engine over HTTP",
        description="Serve the embedded engine over HTTP, as a Resonate Server would, to any number of processes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    dev.add_argument("path", nargs="?", type=Path, help="the SQLite file for the records; without it, in memory")
    dev.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    dev.add_argument("--port", type=_port, default=8001, help="the port to listen on; 0 takes a free one")
    dev.add_argument(
        "--rules",
        choices=_RULES,
        default="embedded",
        help="the server whose rules are followed: embedded accepts the ids of every SDK; release is version 0.9.8; "
        "snapshot is the newer development version; announced has ids like root:child; specified also refuses a timer "
        "with a target, which the TypeScript and Python SDKs create for a sleep",
    )
    dev.add_argument(
        "--durability",
        choices=("process", "power"),
        default="process",
        help="what answered requests survive: the end of the process, or a loss of power",
    )
    dev.add_argument("--debug", action="store_true", help="allow the debug operations and virtual time")
    dev.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio", help="the event loop to run on")
    dev.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write each request and its answer to this file, one line of JSON each",
    )
    dev.add_argument("--metrics-port", type=_port, metavar="PORT", help="serve /metrics on it; 0 takes a free port")
    pages = dev.add_argument_group(
        "web pages",
        "requests of web pages are refused with 403: requests from another origin or site, and requests for a host "
        "that is neither loopback, nor the address at which the connection has arrived, nor named here or by --host",
    )
    pages.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="a further name or address by which clients reach the server, without a port; may be repeated; * is any",
    )
    pages.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="an origin whose pages may use the server, such as https://example.org; may be repeated",
    )
    tokens = dev.add_argument_group("tokens", "without a key, every client may do everything")
    tokens.add_argument("--auth-publickey", metavar="FILE", help="the public key (PEM) of tokens; `none` checks no key")
    tokens.add_argument("--auth-iss", metavar="ISS", help="the issuer that tokens must name")
    tokens.add_argument("--auth-aud", metavar="AUD", help="an audience that tokens must name")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 2**16:
        raise ValueError

    return port


def _dev(options: _Options) -> None:
    # Imported here, because the rest of the package works without the extra.
    from .server import Auth, Metrics, Trace, listen  # noqa: PLC0415
    from .server._guard import is_loopback  # noqa: PLC0415

    import_module(options.backend)
    with ExitStack() as stack:
        key = options.auth_publickey
        auth = None if key is None else Auth(key, options.auth_iss, options.auth_aud)
        trace = None if options.trace is None else stack.enter_context(Trace(options.trace))
        listening = stack.enter_context(listen(options.host, options.port))
        counting = None
        if options.metrics_port is not None:
            counting = (
                Metrics(allowed_hosts=options.allow_host),
                stack.enter_context(listen("127.0.0.1", options.metrics_port)),
            )

        if not is_loopback(options.host):
            if auth is None:
                print(
                    f"every client that can reach {options.host} may do everything: see --auth-publickey",
                    file=sys.stderr,
                )
            if not options.allow_host:
                print(
                    f"clients that use another host than {options.host} are refused: see --allow-host",
                    file=sys.stderr,
                )

        anyio.run(_serve, options, listening, auth, trace, counting, backend=options.backend)


async def _serve(
    options: _Options,
    listening: socket.socket,
    auth: Auth | None,
    trace: Trace | None,
    counting: tuple[Metrics, socket.socket] | None,
) -> None:
    from .server import make_app, serve, url_of  # noqa: PLC0415

    url = url_of(listening)
    network = LocalNetwork(_store(options), rules=_RULES[options.rules], keep_leases=True)
    metrics = None if counting is None else counting[0]
    app = make_app(
        network,
        auth=auth,
        debug=options.debug,
        server_url=url,
        trace=trace,
        metrics=metrics,
        allowed_hosts=options.hosts,
        allowed_origins=options.allow_origin,
    )
    stop = anyio.Event()
    # Signals are received before the server prints that it is ready, so that none is missed.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with network.running(), anyio.create_task_group() as tasks:
            backend = cast("Backend", options.backend)
            if counting is not None:
                print(f"metrics on {url_of(counting[1])}/metrics")
                tasks.start_soon(serve, *counting, backend, stop.wait)

            tasks.start_soon(serve, app, listening, backend, stop.wait)
            print(f"listening on {url}", flush=True)
            await anext(signals)
            stop.set()


def _store(options: _Options) -> Store:
    if options.path is None:
        return MemoryStore()

    return SQLiteStore(options.path, durability="power" if options.durability == "power" else "process")
