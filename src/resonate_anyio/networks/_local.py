"""The network that needs no server process: the embedded engine."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, final

from anyio import CancelScope, Lock, lowlevel
from anyio.lowlevel import EventLoopToken, current_token
from attrs import define, field

from .._concurrency._background import beside
from .._embedded._clock import MonotoneClock, system_clock
from .._embedded._engine import Engine, close_store, open_engine
from .._errors import TooLarge, UsageError
from .._protocol import EMBEDDED, Request, Response, Rules, subject_of
from ..abc import Clock, Connection, Dialect, Identity, Network, Store
from ..stores._too_large import RowTooLarge

_SAFETY_SWEEP: Final = 60.0

_STOPPING_LIMIT: Final = 5.0
"""Seconds for which a request waits for a store that cannot be written, once its sender has begun to stop."""


@final
class LocalNetwork(Network):
    """An embedded engine, shared by all connections of this object.

    The first connection opens the store and takes over the work of earlier processes: it releases their leases and
    sends every task that can run. The last connection closes the store. All connections live in one event loop.

    Args:
        store: the store that keeps the state.
        clock: the wall clock in milliseconds. It may jump: the engine's time stands still while the clock goes back.
        rules: the server's rules to follow.
        safety_sweep: seconds between two sweeps that look for what is due even if no timer has fired, because clocks
            jump and computers sleep. `math.inf` means never. Default: 60 seconds with the system's clock, else never.
        keep_leases: do not release the leases that are found in the store: their holders are other processes, which may
            be alive. For servers.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock = system_clock,
        rules: Rules = EMBEDDED,
        safety_sweep: float | None = None,
        keep_leases: bool = False,
    ) -> None:
        self._store = store
        self._clock = MonotoneClock(clock)
        self._rules = rules
        # An injected clock moves with the event loop. Sweeps that look for its jumps would take a minute of real time
        # for each year of virtual time.
        default = _SAFETY_SWEEP if clock is system_clock else math.inf
        self._safety_sweep = default if safety_sweep is None else safety_sweep
        self._keep_leases = keep_leases
        self._session: _Session | None = None

    def __repr__(self) -> str:
        return f"<LocalNetwork on {self._store!r}>"

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncGenerator[Connection, None]:
        """Open a connection; see `abc.Network.connect`.

        Raises:
            StoreError: the store cannot be opened or written.
            UsageError: connections of another event loop are open, or a connection of the same group and pid is, or
                the clock is past the year 9999.
        """
        async with self.running() as engine:
            if engine.router.has(identity):
                msg = (
                    f"{identity.pid!r} is connected already in the group {identity.group!r}; give each Resonate object "
                    f"that shares this network a pid of its own, or leave it out"
                )
                raise UsageError(msg)
            connection = _LocalConnection(engine, identity, _dialect_of(engine.rules), self._safety_sweep)
            try:
                yield connection
            finally:
                connection.close()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Engine, None]:
        """Keep the engine running during the block, without a connection: for servers.

        Raises:
            StoreError: the store cannot be opened or written.
            UsageError: connections of another event loop are open, or the clock is past the year 9999.
        """
        async with self._opened() as engine, self._timekeeping(engine):
            yield engine

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Engine, None]:
        """Return the engine. The first user opens it, and the last one closes it."""
        session = self._join()
        try:
            async with session.gate:
                if session.engine is None:
                    self._clock.check()
                    session.engine = await open_engine(
                        self._store, self._rules, self._clock, keep_leases=self._keep_leases
                    )

            yield session.engine
        finally:
            await self._leave(session)

    def _join(self) -> _Session:
        loop = current_token()
        session = self._session = self._session or _Session(loop)
        if session.loop != loop:
            msg = (
                "this LocalNetwork is in use in another event loop; one engine lives in one loop, so give this one a "
                "network and a store of its own"
            )
            raise UsageError(msg)

        session.users += 1
        return session

    async def _leave(self, session: _Session) -> None:
        with CancelScope(shield=True):
            async with session.gate:
                session.users -= 1
                if session.users == 0 and session.engine is not None:
                    session.engine.end()
                    session.engine = None
                    await close_store(self._store)

        # A user that joined while the store was being closed uses this session, and opens the store again.
        if session.users == 0:
            self._session = None

    @asynccontextmanager
    async def _timekeeping(self, engine: Engine) -> AsyncGenerator[None, None]:
        # A shield of its own: the cancellation of the host must not stop the timers before the host has left.
        scope = CancelScope(shield=True)
        keep_time = partial(_keep_time, engine, self._safety_sweep, scope)
        async with beside(keep_time, scope.cancel, name="resonate timers"):
            yield


@define(eq=False, repr=False)
class _Session:
    """The time between the first connection and the last, in one event loop."""

    loop: EventLoopToken
    #: Held while the store is being opened or closed.
    gate: Lock = field(init=False, factory=Lock)
    users: int = field(init=False, default=0)
    engine: Engine | None = field(init=False, default=None)


@final
class _LocalConnection(Connection):
    """A connection to the engine of this process."""

    keeps_leases = True

    def __init__(self, engine: Engine, identity: Identity, dialect: Dialect, clock_check: float) -> None:
        self.clock_check = clock_check
        self._engine: Engine | None = engine
        self._dialect = dialect
        self._holder = identity.holder
        self._now = engine.now
        self._mailbox = engine.router.join(identity)
        self.messages = self._mailbox
        engine.holders.append(identity.holder)

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    def now(self) -> int:
        return self._now()

    async def request(self, request: Request, seconds: float = math.inf) -> Response:
        engine = self._engine
        if engine is None:
            await lowlevel.checkpoint()
            raise _closed()

        try:
            return await engine.request(request, limit=partial(self._limit, seconds), check=self._check)
        except RowTooLarge as error:
            # Nothing else here needs the JSON of requests.
            from .._protocol import encode_request  # noqa: PLC0415

            raise TooLarge(request.kind, subject_of(request), len(str(encode_request(request, "")))) from error

    def _check(self) -> None:
        if self._engine is None:
            raise _closed()

    async def request_within(self, request: Request, seconds: float) -> Response:
        return await self.request(request, seconds)

    def _limit(self, seconds: float) -> float:
        # To give up gains nothing, unless the worker is stopping: then it has closed its mailbox.
        return min(seconds, _STOPPING_LIMIT) if self._mailbox.closed else seconds

    def close(self) -> None:
        """Leave the engine: unread messages are sent to others, and leases are no longer renewed."""
        if self._engine is not None:
            self._engine.holders.remove(self._holder)
            self._engine = None
            self._mailbox.close()


def _closed() -> UsageError:
    return UsageError("this connection is closed; send requests inside `async with network.connect(...)`")


async def _keep_time(engine: Engine, safety_sweep: float, scope: CancelScope) -> None:
    with scope:
        await engine.keep_time(safety_sweep)


def _dialect_of(rules: Rules) -> Dialect:
    return Dialect(separator=rules.separator, origins_mix=not rules.heartbeats_within_origin)
