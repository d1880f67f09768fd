"""An engine that is reached as a server is: everything that HTTP takes is there but the sockets.

So tests of what goes over HTTP run in virtual time, and a store that a test holds can be looked at. The server lives as
long as those who are connected to it: it dies with its process, and the next one finds what is in the store.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import anyio
from anyio import CancelScope, Event
from attrs import define, field

from resonate_anyio._concurrency._background import beside
from resonate_anyio.abc import Clock, Connection, Identity, Network
from resonate_anyio.networks import HttpNetwork, LocalNetwork
from resonate_anyio.server import make_app

from .asgi_transport import AsgiTransport, asgi_transport


@final
@define(eq=False)
class OverHttp(Network):
    """`resonate-anyio dev` on this engine, and the way to it.

    Each connection has an application of its own before it, as servers behind a load balancer are; the engine is one.
    """

    _engine: LocalNetwork
    _clock: Clock
    request_timeout = 10.0

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncGenerator[Connection, None]:
        server = _Server(self._engine)
        async with beside(server.run, server.scope.cancel, name="dev"):
            await server.started.wait()
            network = HttpNetwork("http://dev", transport=server.transport, clock=self._clock)
            async with network.connect(identity) as connection:
                # No message is lost on this way and no clock is set. Looking for that every minute would take a minute
                # of real time for each year of a virtual one.
                connection.recheck = connection.clock_check = math.inf
                yield connection


@define(eq=False)
class _Server:
    """One application, running."""

    _engine: LocalNetwork
    transport: AsgiTransport = field(init=False)
    started: Event = field(factory=Event, init=False)
    # A shield of its own: a server does not notice that its client's task was cancelled.
    scope: CancelScope = field(factory=lambda: CancelScope(shield=True), init=False)

    async def run(self) -> None:
        with self.scope:
            async with asgi_transport(make_app(self._engine, allowed_hosts=["dev"])) as self.transport:
                self.started.set()
                await anyio.sleep_forever()
