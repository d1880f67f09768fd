"""The application on a socket, until somebody says stop."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec, module_from_spec
from types import ModuleType, SimpleNamespace
from typing import Any, Final, Literal, TypeAlias, cast

from anyio import CancelScope, get_cancelled_exc_class, move_on_after
from hypercorn.config import Config, Sockets
from hypercorn.events import Closed
from hypercorn.utils import wrap_app

from ._app import App
from ._metrics import Metrics

Backend: TypeAlias = Literal["asyncio", "trio"]

_logger: Final = logging.getLogger("resonate_anyio.server")

_GRACE: Final = 10.0
_CLOSE_WITHIN: Final = 1.0
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

    config = _Config(listening)
    wrapped = wrap_app(cast("Any", app), config.wsgi_max_body_size, "asgi")
    with listening:
        await _hypercorn(backend).worker_serve(wrapped, config, shutdown_trigger=stopped)


def _hypercorn(backend: Backend) -> ModuleType:
    """Give a copy of the part of Hypercorn that serves on this backend, with connections that are more robust.

    The copy is there because other servers of the program may use the module itself.
    """
    spec = find_spec(f"hypercorn.{backend}.run")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module)["TCPServer"] = type("Connection", (_Connection, module.TCPServer), {"backend": backend})
    if backend == "asyncio":
        vars(module)["asyncio"] = _not_waiting_for_peers(module.asyncio)
    return module


def _not_waiting_for_peers(library: ModuleType) -> SimpleNamespace:
    """Give the names of asyncio, with servers that do not wait for their connections when they are closed.

    Since Python 3.12 they do, and Hypercorn waits for that before it ends the connections: one peer could hold up the
    stop for ever. It waits for the connections itself, as long as its grace.
    """

    async def start_server(*args: Any, **kwargs: Any) -> Any:
        server = await library.start_server(*args, **kwargs)
        server.wait_closed = _nothing
        return server

    return SimpleNamespace(**{**vars(library), "start_server": start_server})


async def _nothing() -> None:
    pass


class _Connection:
    """A connection of Hypercorn's that ends with its peer or with the server, and harms no other.

    It is the first base of a class; `TCPServer` of one backend is the second.
    """

    backend: Backend = "asyncio"
    # The second base sets these.
    protocol: Any = None
    idle_task: Any = None
    stream: Any = None
    _over = False

    @property
    def _rest(self) -> Any:
        return super()

    async def run(self) -> None:
        try:
            await self._run()
        except get_cancelled_exc_class():
            # At the end of the grace. On asyncio it ends its task, and a task that ends as cancelled is reported.
            if self.backend == "trio":
                raise

    async def _run(self) -> None:
        # Hypercorn does not expect all that a peer may send: a path that is not ASCII over HTTP/2, a body after the
        # request for a WebSocket. What it then raises ends the server on trio, and is in the log on asyncio.
        try:
            await self._rest.run()
        except* Exception as errors:  # noqa: BLE001 - what a peer causes is for the log of those who look for it
            _logger.debug("a connection was closed because of what its peer has sent: %r", errors.exceptions)

    async def _read_data(self) -> None:
        try:
            await self._rest._read_data()
        except get_cancelled_exc_class():
            await self._cut_off()
            raise
        finally:
            self._over = True
            with CancelScope(shield=True):
                # Else a connection whose peer has gone is kept until the timeout for the next request.
                await self.idle_task.stop()
                # Else over HTTP/2 what is to be answered waits for ever for its answer to be sent.
                for buffer in list(getattr(self.protocol.protocol, "stream_buffers", {}).values()):
                    await buffer.close()

    async def _idle_timeout(self) -> None:
        # An answer that is finished only now would have the connection wait for the next request.
        if not self._over:
            await self._rest._idle_timeout()

    async def _cut_off(self) -> None:
        # Else a request that is not answered by the end of the grace waits for that for ever over HTTP/2.
        with move_on_after(_CLOSE_WITHIN, shield=True):
            await self.protocol.handle(Closed())
        if self.backend == "trio":
            # Else an answer that its peer does not read is sent for ever: there it is shielded.
            self.stream.socket.close()

    async def _close(self) -> None:
        # A peer that does not read would have this wait for ever. What it has not read is still sent meanwhile.
        with move_on_after(_CLOSE_WITHIN, shield=True):
            await self._rest._close()


class _Config(Config):
    """How to serve: quietly, on one socket, which stays ours to close."""

    accesslog = None
    errorlog = _logger
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
