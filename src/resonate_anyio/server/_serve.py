"""Serves the application on a socket, with Hypercorn, until it is stopped."""

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
    """Open a socket to which clients can connect from now on. Port 0 takes a free port.

    Raises:
        OSError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        # The rest of the text repeats the address in another form.
        reason = str(error.strerror).partition(" (while ")[0]
        msg = f"cannot listen on {_authority(host, port)}: {reason}"
        raise OSError(msg) from None

    # Head and body are written separately; otherwise the body would wait until the client has acknowledged the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.settimeout(0)
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the URL at which clients reach a socket."""
    host, port, *_ = listening.getsockname()
    return f"http://{_authority(host, port)}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    app: App | Metrics, listening: socket.socket, backend: Backend, stop: Callable[[], Awaitable[None]]
) -> None:
    """Serve until `stop` returns. Then end the streams, let requests finish (10 seconds at most), and close the socket.

    Args:
        app: the application.
        listening: the socket; see `listen`.
        backend: the backend of the running event loop.
        stop: returns when the server is to stop.

    Raises:
        LifespanFailureError: the application could not start.
    """

    async def stopped() -> None:
        await stop()
        if isinstance(app, App):
            # Streams end before Hypercorn closes connections, because it would wait for them.
            await app.end_streams()

    config = _Config(listening)
    wrapped = wrap_app(cast("Any", app), config.wsgi_max_body_size, "asgi")
    with listening:
        await _hypercorn(backend).worker_serve(wrapped, config, shutdown_trigger=stopped)


def _hypercorn(backend: Backend) -> ModuleType:
    """Return a copy of the module of Hypercorn that serves on this backend, with more robust connections.

    It is a copy because other servers of the program may use the original module.
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
    """Return the names of asyncio, with servers whose `wait_closed` does not wait for their connections.

    Since Python 3.12 it waits for them, and Hypercorn calls it before it ends the connections: one peer could prevent
    the stop for ever. Hypercorn then waits for the connections by itself, as long as its grace.
    """

    async def start_server(*args: Any, **kwargs: Any) -> Any:
        server = await library.start_server(*args, **kwargs)
        server.wait_closed = _nothing
        return server

    return SimpleNamespace(**{**vars(library), "start_server": start_server})


async def _nothing() -> None:
    pass


class _Connection:
    """A connection of Hypercorn that ends with its peer or with the server, and does not harm other connections.

    It is the first base of a class; the second base is `TCPServer` of one backend.
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
            # The grace is over. On asyncio this is the end of a task, and Hypercorn logs a task that ends as cancelled.
            if self.backend == "trio":
                raise

    async def _run(self) -> None:
        # Some requests make Hypercorn raise: a path over HTTP/2 that is not ASCII, or a body after the request for a
        # WebSocket. On trio such an error would end the whole server; on asyncio it would be logged.
        try:
            await self._rest.run()
        except* Exception as errors:  # noqa: BLE001 - a peer must not end the server, or fill its log
            _logger.debug("a connection was closed because of an error that its peer has caused: %r", errors.exceptions)

    async def _read_data(self) -> None:
        try:
            await self._rest._read_data()
        except get_cancelled_exc_class():
            await self._cut_off()
            raise
        finally:
            self._over = True
            with CancelScope(shield=True):
                # Otherwise a connection whose peer has gone would be kept until the timeout for the next request.
                await self.idle_task.stop()
                # Otherwise, over HTTP/2, code that answers would wait for ever until its answer is sent.
                for buffer in list(getattr(self.protocol.protocol, "stream_buffers", {}).values()):
                    await buffer.close()

    async def _idle_timeout(self) -> None:
        # Otherwise, after an answer that is finished only now, the connection would wait for the next request.
        if not self._over:
            await self._rest._idle_timeout()

    async def _cut_off(self) -> None:
        # Otherwise, over HTTP/2, a request that is not answered by the end of the grace would wait for ever.
        with move_on_after(_CLOSE_WITHIN, shield=True):
            await self.protocol.handle(Closed())
        if self.backend == "trio":
            # On trio an answer is sent under a shield, and would wait for ever for a peer that does not read.
            self.stream.socket.close()

    async def _close(self) -> None:
        # Otherwise this would wait for ever for a peer that does not read. Data is still sent in this second.
        with move_on_after(_CLOSE_WITHIN, shield=True):
            await self._rest._close()


class _Config(Config):
    """Hypercorn's configuration: one socket, which `serve` closes, and few lines of log."""

    accesslog = None
    errorlog = _logger
    loglevel = "WARNING"
    graceful_timeout = _GRACE
    # If a connection is closed while its client sends a request, the client cannot know whether it took effect.
    keep_alive_timeout = _DAY
    keep_alive_max_requests = sys.maxsize
    include_server_header = False

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def create_sockets(self) -> Sockets:
        return Sockets([], [self._listening], [])
