"""What the engine's tests stand on: a network that is seen through, and processes that can be killed.

A `World` is what outlives a process: the store and the clock. A `Process` is one life of a program on it. `kill` ends
that life as `kill -9` would, as far as anybody else can tell: from that instant no request has an effect, and leases
stay as they are until the next process opens the store. (The code of a killed process is cancelled, so its `finally`
blocks do run here; nothing that they do can be recorded.)
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import anyio
from anyio import CancelScope, Event
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint
from attrs import define, evolve, field, frozen

from resonate_anyio import Resonate, ResonateError
from resonate_anyio._finished import FINISHED_TAG, as_call
from resonate_anyio._protocol import (
    Message,
    Promise,
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    PromiseState,
    Request,
    Response,
    Rules,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskRecord,
)
from resonate_anyio.abc import Clock, Connection, Dialect, Gap, Identity, Network, Store

from ..chosen import network_on
from ..inside import worker_of

Before: TypeAlias = Callable[[Request], Awaitable[None]]
After: TypeAlias = Callable[[Request, Response], Awaitable[None]]
Wanted: TypeAlias = Callable[[Request], bool]

_PATIENCE: Final = 24 * 3600
"""Seconds after which what a test waits for will not come any more."""


class Oops(Exception):
    """What durable functions of the tests fail with."""


class Unreachable(ResonateError):
    """There is no answer: the network is down, or the process that asks is dead."""


@frozen
class Exchange:
    """A request and its answer."""

    request: Request
    response: Response


async def nothing(*_: object) -> None:
    """A hook that lets everything pass."""


@define(eq=False)
class Wire(Network):
    """Another network, seen through: it records what passes, and lets a test hold, fail or cut it off.

    Attributes:
        exchanges: every request that was answered, in the order of the answers.
        before: is awaited with each request before it takes effect; what it raises is raised instead of an answer.
        answer: what it returns for a request is the answer, unless it is None; the request has no effect then.
        after: is awaited with each answer before it is handed on; what it raises loses the answer.
        closed: how many requests had been answered when the message stream was closed, or None.
        lapsing: leases lapse unless heartbeats are sent, as on a server that is another process.
    """

    _inner: Network
    exchanges: list[Exchange] = field(factory=list)
    before: Before = nothing
    answer: Callable[[Request], Response | None] = lambda _: None
    after: After = nothing
    closed: int | None = None
    lapsing: bool = False
    _down: bool = False
    _messages: list[_Messages] = field(factory=list)

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        # The engine renews what is held in the name that it knows.
        known = evolve(identity, holder="somebody else") if self.lapsing else identity
        async with self._inner.connect(known) as connection:
            messages = _Messages(self, connection.messages)
            self._messages.append(messages)
            wired = _WiredConnection(self, connection, messages)
            wired.clock_check, wired.recheck = connection.clock_check, connection.recheck
            wired.keeps_leases = connection.keeps_leases and not self.lapsing
            yield wired

    @property
    def request_timeout(self) -> float:  # type: ignore[override]
        return 10.0 if self.lapsing else self._inner.request_timeout

    def cut(self) -> None:
        """From now on no request has an effect, and none is answered."""
        self._down = True

    def mend(self) -> None:
        """Undo `cut`."""
        self._down = False

    def inject(self, message: Message | Gap) -> None:
        """Hand a message to the (last) connection, as a server that repeats itself would."""
        self._messages[-1].inject(message)

    async def request(self, connection: Connection, request: Request) -> Response:
        self._check()
        await self.before(request)
        self._check()
        response = self.answer(request) or await connection.request(request)
        self.exchanges.append(Exchange(request, response))
        await self.after(request, response)
        self._check()
        return response

    def _check(self) -> None:
        if self._down:
            msg = "the network does not answer"
            raise Unreachable(msg)

    # What was said

    @property
    def kinds(self) -> list[str]:
        """The operations that were asked for, in order."""
        return [exchange.request.kind for exchange in self.exchanges]

    def counts(self) -> dict[str, int]:
        """How often each operation was asked for."""
        return dict(Counter(self.kinds))

    def forget(self) -> None:
        """Begin to record anew."""
        self.exchanges.clear()

    def created(self) -> list[str]:
        """The ids that creates were sent for, in order."""
        return [request.id for request in map(_create_in, self._requests()) if request is not None]

    def settled(self) -> list[tuple[str, str]]:
        """The (id, state) that settles were sent for, in order."""
        settles = [request for request in map(_settled_by, self._requests()) if request is not None]
        return [(id, state.value) for id, state in settles]

    def _requests(self) -> Iterable[Request]:
        return (exchange.request for exchange in self.exchanges)


def _create_in(request: Request) -> PromiseCreate | None:
    match request:
        case PromiseCreate() | TaskFence(action=PromiseCreate()) | TaskCreate():
            return request if isinstance(request, PromiseCreate) else request.action  # type: ignore[return-value]
        case _:
            return None


def _settled_by(request: Request) -> tuple[str, PromiseState] | None:
    match request:
        case PromiseSettle(id=id, state=state):
            return id, state
        case (
            TaskFence(action=PromiseSettle(id=id, state=state)) | TaskFulfill(action=PromiseSettle(id=id, state=state))
        ):
            return id, state
        case PromiseCreate(id=id) if FINISHED_TAG in request.tags:
            return id, PromiseState.RESOLVED
        case _:
            return None


def is_mark(id: str) -> bool:
    """Whether a promise tells how a life began or ended."""
    return "~life-" in id or "~stopped-" in id


def creates(id: str) -> Wanted:
    """Whether a request creates the promise `id`."""
    return lambda request: (create := _create_in(request)) is not None and create.id == id


def settles(id: str) -> Wanted:
    """Whether a request settles the promise `id`, or records it as finished."""
    return lambda request: (settled := _settled_by(request)) is not None and settled[0] == id


@define(eq=False)
class _WiredConnection(Connection):
    _wire: Wire
    _inner: Connection
    messages: ObjectReceiveStream[Message | Gap]

    @property
    def dialect(self) -> Dialect:
        return self._inner.dialect

    def now(self) -> int:
        return self._inner.now()

    async def request(self, request: Request) -> Response:
        return await self._wire.request(self._inner, request)


@define(eq=False)
class _Messages(ObjectReceiveStream[Message | Gap]):
    _wire: Wire
    _inner: ObjectReceiveStream[Message | Gap]
    _injected: deque[Message | Gap] = field(factory=deque)
    _waiting: CancelScope = field(factory=CancelScope)

    async def receive(self) -> Message | Gap:
        while True:
            if self._injected:
                return self._injected.popleft()
            with CancelScope() as self._waiting:
                return await self._inner.receive()

    def inject(self, message: Message | Gap) -> None:
        self._injected.append(message)
        self._waiting.cancel()

    async def aclose(self) -> None:
        if self._wire.closed is None:
            self._wire.closed = len(self._wire.exchanges)
        await self._inner.aclose()


@define(eq=False)
class Process:
    """One life of a program, on the store of a world. Leaving the block stops it in order, unless it was killed.

    Attributes:
        resonate: what the program works with.
        wire: what it says.
        killed: set once it is dead.
    """

    resonate: Resonate
    wire: Wire
    killed: Event = field(factory=Event)

    def kill(self) -> None:
        """Nothing that the process does from now on is seen by anybody."""
        self.wire.cut()
        self.killed.set()

    def kill_at(self, wanted: Wanted, *, answered: bool) -> None:
        """Die over the first request that is `wanted`: before it has had its effect, or (`answered`) just after it."""

        async def before(request: Request) -> None:
            if not answered and wanted(request):
                self.kill()

        async def after(request: Request, _: Response) -> None:
            if answered and wanted(request):
                self.kill()

        self.wire.before, self.wire.after = before, after

    async def __aenter__(self) -> Self:
        await self.resonate.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.resonate.__aexit__(exc_type, exc, traceback)


@define(eq=False)
class World:
    """What outlives a process: the store and the clock, and the rules of the engine if they are not the chosen ones."""

    store: Store
    clock: Clock
    rules: Rules | None = None

    def process(self, *functions: Callable[..., Any], **settings: Any) -> Process:
        """Start the program anew, with these functions registered. One process uses the store at a time."""
        wire = Wire(network_on(self.store, self.clock, rules=self.rules))
        # No grace: a killed process has none.
        settings = {"pid": "p", "grace": 0, **settings}
        resonate = Resonate(network=wire, **settings)
        for function in functions:
            resonate.register(function)
        return Process(resonate, wire)

    async def run_until_killed(self, process: Process, id: str, func: Callable[..., Any], *args: Any) -> None:
        """Start `func` in the process and wait until that is dead."""
        async with process:
            try:
                await process.resonate.run(id, func, *args).spawn()
            except Unreachable:
                assert process.killed.is_set()
            with anyio.fail_after(_PATIENCE):
                await process.killed.wait()


class Look:
    """Looks at the records themselves, past the client."""

    def __init__(self, resonate: Resonate) -> None:
        self._connection = worker_of(resonate).connection

    async def promise(self, id: str) -> Promise:
        """The record of `id`, a finished step as a call."""
        response = await self._connection.request(PromiseGet(id=id))
        assert response.promise is not None
        return as_call(response.promise)

    async def task(self, id: str) -> TaskRecord:
        """The task of `id`."""
        response = await self._connection.request(TaskGet(id=id))
        assert response.task is not None
        return response.task

    async def states(self) -> dict[str, str]:
        """Every promise and its state, but for the marks of lives."""
        response = await self._connection.request(PromiseSearch(limit=1000))
        return {promise.id: promise.state.value for promise in response.promises if not is_mark(promise.id)}

    async def request(self, request: Request) -> Response:
        """Send any request, as another program would."""
        return await self._connection.request(request)

    async def settle(self, id: str, value: object, resonate: Resonate, state: str = "resolved") -> None:
        """Settle a promise as somebody outside would, past the client."""
        request = PromiseSettle(id=id, state=PromiseState(state), value=resonate._codec.encode(value))
        await self._connection.request(request)


async def first_state(resonate: Resonate, id: str) -> str:
    """Wait until the promise `id` exists, and return its state."""
    look = Look(resonate)
    while (state := (await look.states()).get(id)) is None:
        await checkpoint()
    return state
