"""As much of ASGI as a host of durable executions meets: an application with a lifespan, and a server for it.

The server does what the real ones do: the lifespan runs in one task and each request in another; who hangs up is a
message to the application; at the end requests are given a while, then cancelled, and then the lifespan is ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import anyio
from anyio import Event, create_memory_object_stream, create_task_group
from anyio.abc import TaskGroup
from anyio.streams.stapled import StapledObjectStream
from attrs import define, field

from resonate_anyio import NotRunning

Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]


# The side of the application, as its framework has it


def application(
    lifespan: Callable[[], AbstractAsyncContextManager[Any]], handle: Callable[[str], Awaitable[object]]
) -> Application:
    """An application that answers each path with what `handle` returns for it."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(lifespan, receive, send)
        else:
            await _respond(partial(handle, scope["path"]), receive, send)

    return app


async def _live(lifespan: Callable[[], AbstractAsyncContextManager[Any]], receive: Receive, send: Send) -> None:
    await receive()
    phase = "startup"
    try:
        async with lifespan():
            await send({"type": "lifespan.startup.complete"})
            phase = "shutdown"
            await receive()
    except Exception as exc:  # noqa: BLE001 - the server is told of whatever it is
        await send({"type": f"lifespan.{phase}.failed", "message": str(exc)})
    else:
        await send({"type": "lifespan.shutdown.complete"})


async def _respond(handle: Callable[[], Awaitable[object]], receive: Receive, send: Send) -> None:
    async def watch() -> None:
        await receive()
        tasks.cancel_scope.cancel()

    async with create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            await send({"status": 200, "body": await handle()})
        except NotRunning as exc:
            await send({"status": 503, "body": str(exc)})
        tasks.cancel_scope.cancel()


# The side of the server


@define(eq=False)
class Request:
    """One request, and its answer once there is one."""

    path: str
    response: Message | None = None
    ended: Event = field(factory=Event, init=False)
    _gone: Event = field(factory=Event, init=False)

    def hang_up(self) -> None:
        """The client closes its connection."""
        self._gone.set()

    async def body(self) -> object:
        """Wait for the answer."""
        await self.ended.wait()
        assert self.response is not None
        return self.response["body"]

    async def run(self, app: Application) -> None:
        """Let the application answer it."""

        async def receive() -> Message:
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.response = message

        try:
            await app({"type": "http", "path": self.path}, receive, send)
        finally:
            self.ended.set()


@define(eq=False)
class Server:
    """A server that has started its application."""

    _app: Application
    _requests: TaskGroup

    def get(self, path: str) -> Request:
        """Send a request."""
        request = Request(path)
        self._requests.start_soon(request.run, self._app)
        return request


class StartupFailed(Exception):
    """The application says why it cannot start."""


@asynccontextmanager
async def serving(app: Application, *, patience: float) -> AsyncIterator[Server]:
    """Serve the application while the block lasts, then shut it down. Requests get `patience` seconds to end.

    Raises:
        StartupFailed: the application did not start.
    """
    to_app = StapledObjectStream[Message](*create_memory_object_stream[Message](1))
    from_app = StapledObjectStream[Message](*create_memory_object_stream[Message](1))
    async with to_app, from_app, create_task_group() as lifespan:
        lifespan.start_soon(app, {"type": "lifespan"}, to_app.receive, from_app.send)
        await to_app.send({"type": "lifespan.startup"})
        started = await from_app.receive()
        if started["type"] == "lifespan.startup.complete":
            async with create_task_group() as requests:
                yield Server(app, requests)
                requests.cancel_scope.deadline = anyio.current_time() + patience
            await to_app.send({"type": "lifespan.shutdown"})
            assert "lifespan.shutdown.complete" == (await from_app.receive())["type"]
            return
    raise StartupFailed(started["message"])
