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
import httpx
from anyio import CancelScope, create_task_group
from anyio.abc import TaskStatus
from attrs import define

from resonate_anyio.abc import Clock, Connection, Identity, Network
from resonate_anyio.networks import HttpNetwork, LocalNetwork
from resonate_anyio.server import make_app

from .asgi_transport import asgi_transport


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
        failure: Exception | None = None
        # A shield of its own: a server does not notice that its client's task was cancelled.
        scope = CancelScope(shield=True)
        async with create_task_group() as tasks:
            try:
                transport = await tasks.start(self._serve, scope)
                async with HttpNetwork("http://dev", transport=transport, clock=self._clock).connect(identity) as found:
                    # No message is lost on this way and no clock is set. Looking for that every minute would take a
                    # minute of real time for each year of a virtual one.
                    found.recheck = found.clock_check = math.inf
                    yield found
            except Exception as error:  # noqa: BLE001 - raised again below, without a group around it
                failure = error
            finally:
                scope.cancel()

        if failure is not None:
            raise failure

    async def _serve(self, scope: CancelScope, *, task_status: TaskStatus[httpx.AsyncBaseTransport]) -> None:
        with scope:
            async with asgi_transport(make_app(self._engine)) as transport:
                task_status.started(transport)
                await anyio.sleep_forever()
