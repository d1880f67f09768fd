"""A connection to a server: its requests, its messages, and the facts about the server."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, final

import anyio
from anyio import CancelScope, Lock, Semaphore, current_time
from attrs import frozen

from .._concurrency._background import beside
from .._embedded._clock import ElapsedClock
from .._errors import NetworkError, RequestError, UsageError
from .._protocol import Request, Response
from .._values import ValueObject
from ..abc import Clock, Connection, Dialect, Identity
from ._exchange import Exchange
from ._poll import Poll
from ._probe import CAREFUL, dialect_of, probes
from ._server_clock import ServerClock
from ._token import Token
from ._wire import NoAnswer, Wire

# Maximum number of seconds that the start waits for the server.
_START_WITHIN: Final = 5.0
# Maximum number of requests in progress. More would only wait in the server, which decides one after the other.
_AT_ONCE: Final = 50
_BLOCKING_TIMEOUT: Final = 5.0


@frozen(kw_only=True, eq=False, repr=False)
class Terms(ValueObject):
    """The settings that all connections of one network share."""

    url: str
    token: Token
    request_timeout: float
    max_body: int
    clock: Clock


@final
class RemoteConnection(Connection):
    """A connection to a server in another process."""

    keeps_leases = False
    clock_check = 60.0
    recheck = 60.0

    def __init__(self, wire: Wire, identity: Identity, terms: Terms) -> None:
        self._wire = wire
        self._identity = identity
        self._terms = terms
        self._process = os.getpid()
        self._open = True
        self._clock = ServerClock(terms.clock)
        self._elapsed = ElapsedClock(terms.clock)
        self._slots = Semaphore(_AT_ONCE, fast_acquire=True)
        self._dialect: Dialect | None = None
        self._probing = Lock()
        self.poll = Poll(wire, identity, terms.token, terms.url)
        self.messages = self.poll.messages
        self.blocking_request = self._request_blocking if wire.blocking else None

    @property
    def dialect(self) -> Dialect:
        return self._dialect or CAREFUL

    def now(self) -> int:
        return self._clock.now()

    def elapsed(self) -> float:
        return self._elapsed()

    async def request(self, request: Request) -> Response:
        self._check_usable()
        exchange = self._exchange(request)
        deadline = current_time() + self._terms.request_timeout
        # One deadline limits all of it, and leases rely on that. The request may be cancelled until it has a slot.
        with CancelScope(deadline=deadline) as scope:
            await self._probe_for(exchange)
            async with self._slots:
                scope.shield = True
                return await self._post(exchange)

        raise exchange.unanswered(self._too_late())

    async def _post(self, exchange: Exchange) -> Response:
        sent = self._clock.local()
        try:
            reply, received = await self._wire.post(exchange.body), self._clock.local()
        except NoAnswer as failure:
            reason = str(failure)
        else:
            response = exchange.answer(reply)
            # Not before the answer was read: other replies may come from a proxy with a clock of its own.
            self._clock.observe(reply.date, sent=sent, received=received)
            return response

        raise exchange.unanswered(reason)

    def _request_blocking(self, request: Request) -> Response:
        """Send one request from a worker thread, with another client and connection."""
        self._check_usable()
        exchange = self._exchange(request)
        try:
            # Leases rely on this limit: within one lease a heartbeat may have to be sent twice.
            timeout = min(_BLOCKING_TIMEOUT, self._terms.request_timeout)
            reply = self._wire.post_blocking(exchange.body, timeout)
        except NoAnswer as failure:
            reason = str(failure)
        else:
            return exchange.answer(reply)

        raise exchange.unanswered(reason)

    async def greet(self) -> None:
        """Find out how the server reads ids, and check that it accepts this client. A server may be unreachable.

        Raises:
            RequestError: the server does not accept this client.
        """
        # Requests will raise the other errors, and the poll has logged them.
        with suppress(NetworkError):
            await self._probe_once()

    async def _probe_for(self, exchange: Exchange) -> None:
        try:
            return await self._probe_once()
        except NetworkError as error:
            failure = error

        raise exchange.failed_like(failure)

    async def _probe_once(self) -> None:
        if self._dialect is None:
            async with self._probing:
                if self._dialect is None:
                    self._dialect = await self._probe()

    async def _probe(self) -> Dialect:
        prefix = self._terms.token.prefix
        heartbeats = probes(self._identity.holder, prefix)
        dots, colons = [await self._post(self._exchange(heartbeat)) for heartbeat in heartbeats]
        if dots.status == 401:
            raise RequestError(heartbeats[0].kind, dots.status, dots.error or "")

        dialect = dialect_of(dots, colons, prefix)
        if dialect is None:
            reason = f"the server does not tell how it reads ids: {dots.status} {dots.error}"
            raise NetworkError(heartbeats[0].kind, "", reason, self._terms.url)
        return dialect

    def _exchange(self, request: Request) -> Exchange:
        return Exchange(request, self._terms.token, self._terms.max_body, self._terms.url)

    def _too_late(self) -> str:
        return f"no answer within {self._terms.request_timeout:g} s"

    def _check_usable(self) -> None:
        if self._process != os.getpid():
            msg = (
                "this connection was opened before a fork, and its sockets belong to the parent process; open another "
                "one in the child, with a Resonate object of its own"
            )
            raise UsageError(msg)
        if not self._open:
            msg = "this connection is closed; send requests inside `async with network.connect(...)`"
            raise UsageError(msg)

    def close(self) -> None:
        """Refuse further requests, and end the messages."""
        self._open = False
        self.poll.messages.close()


@asynccontextmanager
async def open_connection(wire: Wire, identity: Identity, terms: Terms) -> AsyncGenerator[RemoteConnection, None]:
    """Open a connection; see `abc.Network.connect`."""
    connection = RemoteConnection(wire, identity, terms)
    async with beside(connection.poll.run, connection.close, name="resonate messages"):
        await _begin(connection)
        yield connection


async def _begin(connection: RemoteConnection) -> None:
    # An `execute` message that is sent while no stream is open is sent again only after half a minute.
    with anyio.move_on_after(_START_WITHIN):
        await connection.greet()
        await connection.poll.attempted.wait()
    connection.poll.expect_gap()
