"""The application on a socket, until somebody says stop."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Final, Literal, TypeAlias

from hypercorn.config import Config, Sockets

from ._app import App
from ._metrics import Metrics

Backend: TypeAlias = Literal["asyncio", "trio"]

_GRACE: Final = 10.0
_DAY: Final = 24 * 3600.0


def listen(host: str, port: int) -> socket.socket:
    """Open a socket on which clients may connect from now on; port 0 is any free one.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        # The text of the error repeats the address, in another form.
        reason = str(error.strerror).partition(" (while ")[0]
        msg = f"cannot listen on {_authority(host, port)}: {reason}"
        raise OSError(msg) from None

    # Heads and bodies are written apart; without this the second would wait for the client to acknowledge the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.settimeout(0)
    return listening


def url_of(listening: socket.socket) -> str:
    """Give the URL that clients reach a socket at."""
    host, port, *_ = listening.getsockname()
    return f"http://{_authority(host, port)}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    app: App | Metrics, listening: socket.socket, backend: Backend, stop: Callable[[], Awaitable[None]]
) -> None:
    """Serve until `stop` returns; then end the streams, let requests finish (10 seconds at most), close the socket.

    Args:
        app: what to serve.
        listening: where; see `listen`.
        backend: the one this runs on.
        stop: returns when it is time to stop.

    Raises:
        LifespanFailureError: the application could not start.
    """

    async def stopped() -> None:
        await stop()
        if isinstance(app, App):
            # Before the server closes connections: a stream that ends after that would hold it up.
            await app.end_streams()

    hypercorn = import_module(f"hypercorn.{backend}")
    with listening:
        await hypercorn.serve(app, _Config(listening), shutdown_trigger=stopped, mode="asgi")


class _Config(Config):
    """How to serve: quietly, on one socket, which stays ours to close."""

    accesslog = None
    errorlog = logging.getLogger("resonate_anyio.server")
    loglevel = "WARNING"
    graceful_timeout = _GRACE
    # A connection that is closed while its client sends the next request costs a request of unknown fate.
    keep_alive_timeout = _DAY
    keep_alive_max_requests = sys.maxsize
    include_server_header = False

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def create_sockets(self) -> Sockets:
        return Sockets([], [self._listening], [])
