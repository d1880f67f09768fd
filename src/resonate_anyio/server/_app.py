"""The embedded engine as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

from attrs import define, field

from .._errors import ResonateError, UsageError
from ..networks import LocalNetwork
from ._asgi import Receive, Scope, Send
from ._auth import Auth
from ._poll import Polls
from ._rpc import Rpc
from ._site import Site


@final
@define(eq=False)
class App:
    """The application. The engine of its network runs at least as long as its lifespan lasts.

    Made by `make_app`.
    """

    network: LocalNetwork
    _auth: Auth | None = None
    _debug: bool = False
    #: Where workers reach this server, as it tells them.
    server_url: str | None = None
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

    def end_streams(self) -> None:
        """End all message streams and refuse new ones, because the server is about to stop."""
        if self._polls is not None:
            self._polls.close()

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
        async with self.network.running() as engine:
            self._polls = Polls(engine, self.server_url)
            self._site = Site(engine, self._auth, Rpc(engine, self._auth, self._debug), self._polls)
            try:
                yield
            finally:
                self.end_streams()
                self._site = self._polls = None


def make_app(
    network: LocalNetwork, *, auth: Auth | None = None, debug: bool = False, server_url: str | None = None
) -> App:
    """Give an ASGI application that answers as a Resonate Server does.

    Args:
        network: the engine. Programs in this process may take part in it beside the application.
        auth: who may do what; None lets everybody do everything.
        debug: whether the debug operations and virtual time are there.
        server_url: where workers reach the server, as `execute` messages tell them.
    """
    return App(network, auth, debug, server_url)
