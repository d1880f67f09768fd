"""An ASGI application as httpx meets it over a connection, without a socket, in virtual time too.

Bodies of responses are streamed. Who closes a response before its end, or gives up waiting for it, hangs up: the
application is told so, as a server would tell it. Timeouts for reading hold.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import anyio
import httpx
from anyio import BrokenResourceError, Event, create_memory_object_stream, create_task_group
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]


class StartupFailed(Exception):
    """The application says why it cannot start."""


@asynccontextmanager
async def asgi_transport(app: Application, *, buffer: int = 0) -> AsyncGenerator[AsgiTransport, None]:
    """Start the application and give a transport to it, which any number of clients may share; stop it at the end.

    `buffer` is how many pieces of a response's body lie between the two sides before the application has to wait.
    """
    failure: Exception | None = None
    async with _lifespan(app), create_task_group() as tasks:
        try:
            yield AsgiTransport(app, tasks, buffer)
        except Exception as error:  # noqa: BLE001 - raised again below, without a group around it
            failure = error
        tasks.cancel_scope.cancel()

    if failure is not None:
        raise failure


@asynccontextmanager
async def _lifespan(app: Application) -> AsyncGenerator[None, None]:
    """Have the application started, and stopped whatever happens, a cancellation excepted."""
    failure: StartupFailed | None = None
    to_app, from_server = create_memory_object_stream[Message](1)
    to_server, from_app = create_memory_object_stream[Message](2)
    async with to_app, from_server, to_server, from_app, create_task_group() as tasks:
        scope: Message = {"type": "lifespan", "asgi": {"version": "3.0"}}
        tasks.start_soon(app, scope, from_server.receive, to_server.send)
        for phase in ("startup", "shutdown"):
            await to_app.send({"type": f"lifespan.{phase}"})
            answer = await from_app.receive()
            if answer["type"] != f"lifespan.{phase}.complete":
                failure = StartupFailed(answer.get("message"))
                break
            if phase == "startup":
                yield

    if failure is not None:
        raise failure


@define
class AsgiTransport(httpx.AsyncBaseTransport):
    """Gives each request to the application, in a task of its own."""

    _app: Application
    _tasks: TaskGroup
    _buffer: int

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = b"".join([piece async for piece in _pieces(request)])
        exchange = _Exchange(body, *create_memory_object_stream[bytes](self._buffer))
        self._tasks.start_soon(exchange.run, self._app, _scope(request))
        patience: float | None = request.extensions.get("timeout", {}).get("read")
        try:
            with _read_timeout(patience):
                await exchange.started.wait()
        except BaseException:
            exchange.hang_up()
            raise

        return httpx.Response(exchange.status, headers=exchange.headers, stream=_Body(exchange, patience))


async def _pieces(request: httpx.Request) -> AsyncIterator[bytes]:
    assert isinstance(request.stream, httpx.AsyncByteStream)
    async for piece in request.stream:
        yield piece


def _scope(request: httpx.Request) -> Message:
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 123),
        "server": (url.host, url.port),
    }


@contextmanager
def _read_timeout(patience: float | None) -> Iterator[None]:
    try:
        with anyio.fail_after(patience):
            yield
    except TimeoutError:
        msg = f"nothing came for {patience} s"
        raise httpx.ReadTimeout(msg) from None


@define(eq=False)
class _Exchange:
    """One request and its response, between the client's task and the application's."""

    _request: bytes
    _send: MemoryObjectSendStream[bytes]
    body: MemoryObjectReceiveStream[bytes]
    started: Event = field(init=False, factory=Event)
    status: int = field(init=False, default=500)
    headers: list[tuple[bytes, bytes]] = field(init=False, factory=list)
    #: What the application raised. It is for the client to notice: as with a server, the others go on.
    failure: Exception | None = field(init=False, default=None)
    _asked: bool = field(init=False, default=False)
    _gone: Event = field(init=False, factory=Event)

    def hang_up(self) -> None:
        """The client closes its connection."""
        self._gone.set()
        self.body.close()

    async def run(self, app: Application, scope: Message) -> None:
        """Let the application answer."""
        try:
            await app(scope, self._from_client, self._to_client)
        except Exception as failure:  # noqa: BLE001 - the client notices
            self.failure = failure
        finally:
            self.started.set()
            self._send.close()

    async def _from_client(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request, "more_body": False}

        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _to_client(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", []))
            self.started.set()
            return

        try:
            if piece := message.get("body", b""):
                await self._send.send(piece)
        except BrokenResourceError:
            # A server takes what nobody hears.
            return

        if not message.get("more_body", False):
            self._send.close()


@define(eq=False)
class _Body(httpx.AsyncByteStream):
    _exchange: _Exchange
    _patience: float | None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._next()) is not None:
            yield piece

        if self._exchange.failure is not None:
            msg = f"the application failed: {self._exchange.failure!r}"
            raise httpx.RemoteProtocolError(msg)

    async def _next(self) -> bytes | None:
        with _read_timeout(self._patience):
            try:
                return await self._exchange.body.receive()
            except anyio.EndOfStream:
                return None

    async def aclose(self) -> None:
        self._exchange.hang_up()
