"""The embedded engine as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, final

from attrs import define, field

from .._embedded._engine import Engine
from .._errors import ResonateError, UsageError
from ..networks import LocalNetwork
from ._asgi import TEXT, Receive, Reply, Scope, Send
from ._auth import Auth
from ._cors import Sharing
from ._guard import Guard, host_of, refuse
from ._metrics import Metrics
from ._poll import Polls
from ._rpc import Rpc
from ._site import Site
from ._trace import Trace

_NO_WEBSOCKETS: Final = Reply(400, b"This server has no WebSockets; send a plain HTTP request\n", TEXT)
_ENDED: Final = Reply(503, b"The server is stopping", TEXT)


@final
@define(eq=False)
class App:
    """The ASGI application. It is made by `make_app`.

    The engine of its network runs at least as long as the lifespan of the application.
    """

    _network: LocalNetwork
    _guard: Guard
    _auth: Auth | None
    _debug: bool
    _server_url: str | None
    _trace: Trace | None
    _metrics: Metrics | None
    _polls: Polls | None = field(init=False, default=None)
    _site: Site | None = field(init=False, default=None)
    _ended: bool = field(init=False, default=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] in {"http", "websocket"} and (self._site is not None or self._ended):
            await self._answer(scope, receive, send)
        else:
            msg = (
                "this application answers HTTP requests after its lifespan has begun; use a server that runs lifespans"
            )
            raise UsageError(msg)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := self._guard.refusal(scope):
            await refuse(refusal, scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse(_NO_WEBSOCKETS, scope, receive, send)
        elif self._site is None:
            await refuse(_ENDED, scope, receive, send)
        elif (origin := self._guard.foreign_origin(scope)) is None:
            await self._site.handle(scope, receive, send)
        else:
            await Sharing(origin).answer(self._site.handle, scope, receive, send)

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
            rpc = Rpc(engine, self._auth, self._debug, observe)
            self._ended = False
            self._polls = Polls(engine, self._server_url)
            self._site = Site(engine, self._guard, self._auth, rpc, self._polls, self._metrics)
            with _watched(engine, self._metrics):
                try:
                    yield
                finally:
                    self._polls.close()
                    self._site = self._polls = None
                    self._ended = True


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


def make_app(  # noqa: PLR0913 - one for each option, all by name
    network: LocalNetwork,
    *,
    auth: Auth | None = None,
    debug: bool = False,
    server_url: str | None = None,
    trace: Trace | None = None,
    metrics: Metrics | None = None,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
) -> App:
    """Return an ASGI application that answers as a Resonate Server does.

    Any web page in a browser on this machine can send requests to this server. Such requests are refused with 403, on
    every path and with every method:

    * requests whose `Origin` is not the origin of this server;
    * requests whose `Sec-Fetch-Site` says that a page of another site or origin has sent them;
    * requests whose `Host` is neither `localhost`, nor a loopback address, nor the address at which the connection has
      arrived, nor allowed by an argument (a page can make a host name of its own point to this server).

    Programs send no `Origin`, so only the rule about `Host` concerns them.

    Args:
        network: the network with the engine. Workers in this process may use it at the same time.
        auth: checks the token of each request; None allows every request.
        debug: whether debug operations and virtual time are allowed.
        server_url: the URL at which workers reach the server. `execute` messages contain it. Its host is allowed.
        trace: records each request with its answer; it must be open as long as the application is used.
        metrics: counts requests and messages.
        allowed_hosts: further host names and addresses by which clients reach the server, without a port. `*` allows
            every host; use it only behind a proxy that checks the host.
        allowed_origins: origins, such as `https://example.org`, whose pages may use the server and read its answers
            (CORS). Any author of such a page can do everything that the server can do.

    Raises:
        InvalidArgument: a host or an origin has the wrong form.
    """
    guard = Guard.of([*allowed_hosts, *host_of(server_url)], allowed_origins)
    return App(network, guard, auth, debug, server_url, trace, metrics)
