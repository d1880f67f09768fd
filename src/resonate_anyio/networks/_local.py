"""The network that needs no server: the engine runs in this process."""

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
from .._embedded._outage import Patience
from .._errors import TooLarge, UsageError
from .._protocol import EMBEDDED, Request, Response, Rules, encode_request
from ..abc import Clock, Connection, Dialect, Identity, Network, Store
from ..stores._faults import RowTooLarge
from ._exchange import subject_of

_SAFETY_SWEEP: Final = 60.0

_AT_THE_END: Final = 5.0
"""Seconds that a request waits for a store that cannot be written, once its sender has begun to stop."""


@final
class LocalNetwork(Network):
    """An engine in this process, shared by all who connect to this object.

    The first connection opens the store and takes up what earlier processes left: it frees their leases and sends for
    everything that can run. The last one closes it. All connections live in one event loop.

    Args:
        store: where the state is kept.
        clock: the wall clock in milliseconds. It may jump: the engine's time stands still while the clock goes back.
        rules: the server's rules to follow.
        safety_sweep: how often to look for what is due although no timer says so, in seconds: clocks jump, computers
            sleep. `math.inf` for never, which is the default with a clock that is not the system's; else 60 seconds.
        keep_leases: leave the leases that are found in the store to those who hold them, because they are other
            processes that may live. For servers.
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
        # A clock that was injected moves with the event loop; looking for its jumps would take a minute of real time
        # for each year of a virtual one.
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
            UsageError: connections of another event loop are open, or one of the same group and pid; or the clock is
                past the year 9999.
        """
        async with self.running() as engine:
            if engine.router.has(identity):
                msg = (
                    f"{identity.pid!r} is connected already in the group {identity.group!r}; give each Resonate object "
                    f"that shares this network a pid of its own, or leave it out"
                )
                raise UsageError(msg)
            connection = _LocalConnection(engine, identity, _dialect_of(engine.rules))
            connection.clock_check = self._safety_sweep
            try:
                yield connection
            finally:
                connection.close()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Engine, None]:
        """Take part in the engine, for as long as the block lasts, without a connection: for servers.

        Raises:
            StoreError: the store cannot be opened or written.
            UsageError: connections of another event loop are open, or the clock is past the year 9999.
        """
        async with self._opened() as engine, self._timekeeping(engine):
            yield engine

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Engine, None]:
        """Give the engine: the first who comes opens it, the last who goes closes it."""
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

        # Whoever came while the store was being closed has the session on, and opens it again.
        if session.users == 0:
            self._session = None

    @asynccontextmanager
    async def _timekeeping(self, engine: Engine) -> AsyncGenerator[None, None]:
        # A shield of its own: cancelling the host must not stop the timers before the host has left.
        scope = CancelScope(shield=True)
        keep_time = partial(_keep_time, engine, self._safety_sweep, scope)
        async with beside(keep_time, scope.cancel, name="resonate timers"):
            yield


@define
class _Session:
    """The time between the first connection and the last, in one event loop."""

    loop: EventLoopToken
    #: Held while the store is being opened or closed.
    gate: Lock = field(init=False, factory=Lock)
    users: int = field(init=False, default=0)
    engine: Engine | None = field(init=False, default=None)


@final
class _LocalConnection(Connection):
    """A participant in this process."""

    keeps_leases = True

    def __init__(self, engine: Engine, identity: Identity, dialect: Dialect) -> None:
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

    async def request(self, request: Request) -> Response:
        return await self._ask(request, self._patience)

    async def request_within(self, request: Request, seconds: float) -> Response:
        return await self._ask(request, lambda: min(seconds, self._patience()))

    def _patience(self) -> float:
        # Nothing is gained by giving up, unless the worker is about to end: it has stopped listening then.
        return _AT_THE_END if self._mailbox.closed else math.inf

    async def _ask(self, request: Request, patience: Patience) -> Response:
        await lowlevel.checkpoint()
        if self._engine is None:
            msg = "this connection is closed; send requests inside `async with network.connect(...)`"
            raise UsageError(msg)

        try:
            return await self._engine.request(request, patience=patience)
        except RowTooLarge as error:
            raise TooLarge(request.kind, subject_of(request), len(str(encode_request(request, "")))) from error

    def close(self) -> None:
        """Leave the engine: what was not read is for others, and leases are no longer renewed."""
        if self._engine is not None:
            self._engine.holders.remove(self._holder)
            self._engine = None
            self._mailbox.close()


async def _keep_time(engine: Engine, safety_sweep: float, scope: CancelScope) -> None:
    with scope:
        await engine.keep_time(safety_sweep)


def _dialect_of(rules: Rules) -> Dialect:
    return Dialect(separator=rules.separator, origins_mix=not rules.heartbeats_within_origin)
