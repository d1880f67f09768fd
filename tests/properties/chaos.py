"""A network that fails as asked: requests and answers are lost, messages too, and processes die over what they say.

What fails is named by what is said (the kind of request and the id that it is about, and the how many-th of these), not
by when it is said: the order in which tasks happen to run does not matter, and examples shrink.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar

import anyio
from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    Event,
    create_memory_object_stream,
    create_task_group,
    current_time,
)
from anyio.abc import ObjectReceiveStream, TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, evolve, field, frozen

from resonate_anyio import NetworkError, ResonateError
from resonate_anyio._protocol import EMPTY, Execute, Message, PromiseState, Request, Response, Unblock
from resonate_anyio.abc import Connection, Gap, Identity, Network

from ..engine.harness import Unreachable
from .graphs import UNIT

Point: TypeAlias = tuple[str, str]
"""What a request or message is: its kind, and the id that it is about."""


_RECHECK: Final = UNIT / 24
"""Each message that is lost delays what waits for it by one and a half times as much, at most."""


class Effect(Enum):
    """What happens to a request."""

    DIES_BEFORE = "the process dies, and the request has no effect"
    DIES_AFTER = "the process dies after the request has had its effect"
    REQUEST_LOST = "no effect and no answer"
    ANSWER_LOST = "an effect and no answer"
    CUT_BEFORE = "no effect, and a line that may be mended"
    CUT_AFTER = "an effect, and a line that may be mended"

    @property
    def deadly(self) -> bool:
        """Whether the process dies of it."""
        return self in {Effect.DIES_BEFORE, Effect.DIES_AFTER}

    @property
    def early(self) -> bool:
        """Whether the request has no effect."""
        return self in {Effect.DIES_BEFORE, Effect.REQUEST_LOST, Effect.CUT_BEFORE}

    @property
    def passing(self) -> bool:
        """Whether it is told as what passes by itself, so that the request is sent again."""
        return self in {Effect.CUT_BEFORE, Effect.CUT_AFTER}


@frozen(kw_only=True)
class Failure:
    """One thing that goes wrong.

    Attributes:
        at: which point, of all that are known of the plan, in order (modulo their number).
        nth: which request of that point, counted from 0.
        downtime: how long no process lives then, in seconds.
        again: each process after that dies over so many-th of its requests.
    """

    at: int
    nth: int = 0
    effect: Effect = Effect.DIES_BEFORE
    downtime: int = 0
    again: tuple[int, ...] = ()


class Trick(Enum):
    """What happens to a message."""

    LOST = "never arrives"
    LATE = "arrives late"
    TWICE = "arrives a second time, some time later"
    FORGED = "arrives after others like it that are not true"


@frozen(kw_only=True)
class Mishap:
    """One thing that goes wrong with a message.

    Attributes:
        at: which point, of all messages of the plan that are known, in order (modulo their number).
        nth: which message of that point, counted from 0.
        delay: by how much it, or its second copy, is late, in seconds. A copy may reach a later process.
    """

    at: int
    nth: int = 0
    trick: Trick = Trick.TWICE
    delay: int = 0


@frozen
class Script:
    """What goes wrong, and at which points it may: requests and messages that a run in which nothing does has had.

    Attributes:
        order: decides how tasks take turns, where the backend leaves that to chance; if it is odd, leases lapse unless
            the process sends heartbeats.
        settings: of `Resonate`: how long executions that wait are kept in memory, and how many.
    """

    failures: Sequence[Failure] = ()
    mishaps: Sequence[Mishap] = ()
    requests: Sequence[Point] = ()
    messages: Sequence[Point] = ()
    order: int = 0
    settings: Mapping[str, Any] = field(factory=dict)


_T = TypeVar("_T", Failure, Mishap)


def _placed(troubles: Sequence[_T], points: Sequence[Point]) -> dict[tuple[Point, int], _T]:
    return {(points[trouble.at % len(points)], trouble.nth): trouble for trouble in troubles if points}


@define(eq=False)
class Chaos:
    """Decides what goes wrong, over all lives of a program.

    Attributes:
        requests: how often each request was sent.
        messages: how often each message was.
        happened: what has gone wrong, for whoever reads about an example that fails.
        under_way: messages that arrive later, each with its instant.
    """

    _failures: dict[tuple[Point, int], Failure]
    _mishaps: dict[tuple[Point, int], Mishap]
    settings: Mapping[str, Any]
    lapsing: bool
    requests: Counter[Point] = field(factory=Counter, init=False)
    messages: Counter[Point] = field(factory=Counter, init=False)
    happened: list[str] = field(factory=list, init=False)
    under_way: list[tuple[float, Message]] = field(factory=list, init=False)
    _deaths: list[int] = field(factory=list, init=False)

    @classmethod
    def of(cls, script: Script) -> Chaos:
        """Everything that the script asks for."""
        failures, mishaps = _placed(script.failures, script.requests), _placed(script.mishaps, script.messages)
        return cls(failures, mishaps, script.settings, script.order % 2 == 1)

    @property
    def recheck(self) -> float:
        """How often, in seconds, the engine has to ask again for what it waits for."""
        lost = any(mishap.trick is Trick.LOST for mishap in self._mishaps.values())
        return _RECHECK if lost else math.inf

    def arrivals(self, message: Message) -> Sequence[tuple[float, Message]]:
        """What arrives instead of a message, each with its delay."""
        point = point_of_message(message)
        mishap = self._mishaps.get((point, self.messages[point]))
        self.messages[point] += 1
        if mishap is None:
            return [(0, message)]
        self.happened.append(f"{point[0]} {point[1]}: {mishap.trick.value} ({mishap.delay} s)")
        match mishap.trick:
            case Trick.LOST:
                return []
            case Trick.LATE:
                return [(mishap.delay, message)]
            case Trick.TWICE:
                return [(0, message), (mishap.delay, message)]
            case Trick.FORGED:
                return [(0, forged) for forged in _forged(message)] + [(0, message)]

    def next(self, point: Point) -> Failure | None:
        """What goes wrong with the next request of this point, if anything does."""
        failure = self._failures.get((point, self.requests[point]))
        self.requests[point] += 1
        if failure is not None:
            self.happened.append(f"{point[0]} {point[1]}: {failure.effect.value}")
            self._deaths = list(failure.again)
        return failure

    def lifetime(self) -> int | None:
        """Over which of its requests the next process dies, if it is to."""
        return self._deaths.pop(0) if self._deaths else None


@define(eq=False)
class ChaoticNetwork(Network):
    """The network of one life of a program.

    Attributes:
        died: set once the process is dead; no request has an effect any more.
        downtime: how long no process lives then, in seconds.
    """

    _inner: Network
    _chaos: Chaos
    _lifetime: int | None = None
    died: Event = field(factory=Event, init=False)
    downtime: float = field(default=0, init=False)
    _sent: int = field(default=0, init=False)

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        send, receive = create_memory_object_stream[Message](math.inf)
        # The engine renews what is held in the name that it knows.
        known = evolve(identity, holder="somebody else") if self._chaos.lapsing else identity
        async with self._inner.connect(known) as connection, send, receive, create_task_group() as tasks:
            for instant, message in self._chaos.under_way:
                tasks.start_soon(self._arrive, instant, message, send)
            tasks.start_soon(self._deliver, connection.messages, send, tasks)
            messages = _Messages(receive, connection.messages)
            chaotic = _ChaoticConnection(self, connection, messages, connection.clock_check, self._chaos.recheck)
            chaotic.keeps_leases = connection.keeps_leases and not self._chaos.lapsing
            yield chaotic
            tasks.cancel_scope.cancel()

    async def _deliver(
        self, messages: ObjectReceiveStream[Message | Gap], send: MemoryObjectSendStream[Message], tasks: TaskGroup
    ) -> None:
        with suppress(EndOfStream, ClosedResourceError):
            while True:
                received = await messages.receive()
                # The network below is in this process, and loses nothing.
                assert not isinstance(received, Gap)
                for delay, message in self._chaos.arrivals(received):
                    if delay:
                        instant = current_time() + delay
                        self._chaos.under_way.append((instant, message))
                        tasks.start_soon(self._arrive, instant, message, send)
                    else:
                        send.send_nowait(message)

    async def _arrive(self, instant: float, message: Message, send: MemoryObjectSendStream[Message]) -> None:
        await anyio.sleep_until(instant)
        self._chaos.under_way.remove((instant, message))
        with suppress(BrokenResourceError, ClosedResourceError):
            send.send_nowait(message)

    async def request(self, connection: Connection, request: Request) -> Response:
        self._check()
        failure = self._fail(request)
        if failure is not None and failure.effect.early:
            raise self._broken(failure, request)
        response = await connection.request(request)
        if failure is not None:
            raise self._broken(failure, request)
        self._check()
        return response

    def _fail(self, request: Request) -> Failure | None:
        self._sent += 1
        if self._sent - 1 == self._lifetime:
            return Failure(at=0, effect=Effect.DIES_AFTER)
        return self._chaos.next(point_of(request))

    def _broken(self, failure: Failure, request: Request) -> ResonateError:
        if failure.effect.passing:
            return NetworkError(request.kind, "", failure.effect.value)
        if failure.effect.deadly:
            self.downtime = failure.downtime
            self.died.set()
        return Unreachable(failure.effect.value)

    def _check(self) -> None:
        if self.died.is_set():
            msg = "the process that asks is dead"
            raise Unreachable(msg)


@define(eq=False)
class _ChaoticConnection(Connection):
    _network: ChaoticNetwork
    _inner: Connection
    messages: ObjectReceiveStream[Message | Gap]
    clock_check: float
    recheck: float

    def now(self) -> int:
        return self._inner.now()

    async def request(self, request: Request) -> Response:
        return await self._network.request(self._inner, request)


@define(eq=False)
class _Messages(ObjectReceiveStream[Message]):
    """What arrives. Closing it closes what it comes from."""

    _arriving: MemoryObjectReceiveStream[Message]
    _source: ObjectReceiveStream[Message | Gap]

    async def receive(self) -> Message:
        return await self._arriving.receive()

    async def aclose(self) -> None:
        await self._source.aclose()
        await self._arriving.aclose()


_NAMED: Final = ("id", "awaited", "cursor", "pid")


def point_of(request: Request) -> Point:
    """What a request is about."""
    action = getattr(request, "action", None)
    subject = request if action is None else action
    named = (value for name in _NAMED if (value := getattr(subject, name, None)) is not None)
    return request.kind, next(named, "")


def point_of_message(message: Message) -> Point:
    """What a message is about."""
    match message:
        case Execute(task_id):
            return "execute", task_id
        case Unblock(promise):
            return "unblock", promise.id


def _forged(message: Message) -> list[Message]:
    """Messages that a server might send that has forgotten something, or speaks to somebody else."""
    match message:
        case Execute(task_id, version):
            others = [Execute(task_id, version + step) for step in (-1, 1)]
            return [*others, Execute("nobody", 1), Execute(f"{task_id}.nothing", version)]
        case Unblock(promise):
            pending = evolve(promise, state=PromiseState.PENDING, value=EMPTY, settled_at=None)
            return [Unblock(pending), Unblock(evolve(promise, id="nobody"))]
