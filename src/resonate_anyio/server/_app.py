"""The embedded engine as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import final

from attrs import define, field

from .._errors import ResonateError, UsageError
from ..networks import LocalNetwork
from ..networks._embedded import Engine
from ._asgi import Receive, Scope, Send
from ._auth import Auth
from ._metrics import Metrics
from ._poll import Polls
from ._rpc import Rpc
from ._site import Site
from ._trace import Trace


@final
@define(eq=False)
class App:
    """The application. The engine of its network runs at least as long as its lifespan lasts.

    Made by `make_app`.
    """

    _network: LocalNetwork
    _auth: Auth | None
    _debug: bool
    _server_url: str | None
    _trace: Trace | None
    _metrics: Metrics | None
    _polls: Polls | None = field(init=False, default=None)
    _site: Site | None = field(init=False, default=None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and self._site is not None:
            await self._site.handle(scope, receive, send)
        else:
            msg = (
                "this application speaks HTTP, once its lifespan has begun; serve it with a server that runs lifespans"
            )
            raise UsageError(msg)

    async def end_streams(self) -> None:
        """End all message streams and refuse new ones, because the server is about to stop."""
        if self._polls is not None:
            await self._polls.end()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except ResonateError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        async with self._network.running() as engine:
            observe = None if self._trace is None else self._trace.record
            self._polls = Polls(engine, self._server_url)
            self._site = Site(
                engine, self._auth, Rpc(engine, self._auth, self._debug, observe), self._polls, self._metrics
            )
            with _watched(engine, self._metrics):
                try:
                    yield
                finally:
                    self._polls.close()
                    self._site = self._polls = None


@contextmanager
def _watched(engine: Engine, metrics: Metrics | None) -> Iterator[None]:
    if metrics is None:
        yield
        return

    engine.watchers.append(metrics.committed)
    try:
        yield
    finally:
        engine.watchers.remove(metrics.committed)


def make_app(
    network: LocalNetwork,
    *,
    auth: Auth | None = None,
    debug: bool = False,
    server_url: str | None = None,
    trace: Trace | None = None,
    metrics: Metrics | None = None,
) -> App:
    """Give an ASGI application that answers as a Resonate Server does.

    Args:
        network: the engine. Programs in this process may take part in it beside the application.
        auth: who may do what; None lets everybody do everything.
        debug: whether the debug operations and virtual time are there.
        server_url: where workers reach the server, as `execute` messages tell them.
        trace: records every exchange; it is open as long as the application is used.
        metrics: counts.
    """
    return App(network, auth, debug, server_url, trace, metrics)
