"""A network that fails as asked: requests and answers are lost, messages too, and processes die over what they say.

What fails is named by what is said (the kind of request and the id that it is about, and the how many-th of these), not
by when it is said: the order in which tasks happen to run does not matter, and examples shrink.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final, TypeAlias

import anyio
from anyio import Event
from anyio.abc import ObjectReceiveStream
from attrs import define, field, frozen

from resonate_anyio._protocol import Message, Request, Response
from resonate_anyio.abc import Connection, Identity, Network

from ..engine.harness import Unreachable

Point: TypeAlias = tuple[str, str]
"""What a request or message is: its kind, and the id that it is about."""


class Effect(Enum):
    """What happens to a request."""

    DIES_BEFORE = "the process dies, and the request has no effect"
    DIES_AFTER = "the process dies after the request has had its effect"
    REQUEST_LOST = "no effect and no answer"
    ANSWER_LOST = "an effect and no answer"

    @property
    def deadly(self) -> bool:
        """Whether the process dies of it."""
        return self in {Effect.DIES_BEFORE, Effect.DIES_AFTER}

    @property
    def early(self) -> bool:
        """Whether the request has no effect."""
        return self in {Effect.DIES_BEFORE, Effect.REQUEST_LOST}


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


@define(eq=False)
class Chaos:
    """Decides what fails, over all lives of a program.

    Attributes:
        requests: how often each request was sent.
        happened: the failures that have come true, for whoever reads about an example that fails.
    """

    _failures: dict[tuple[Point, int], Failure]
    requests: Counter[Point] = field(factory=Counter, init=False)
    happened: list[str] = field(factory=list, init=False)
    _deaths: list[int] = field(factory=list, init=False)

    @classmethod
    def of(cls, failures: Sequence[Failure], points: Sequence[Point]) -> Chaos:
        """These failures, at some of these points."""
        return cls({(points[failure.at % len(points)], failure.nth): failure for failure in failures if points})

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
        async with self._inner.connect(identity) as connection:
            yield _ChaoticConnection(self, connection, connection.messages, connection.clock_check)

    async def request(self, connection: Connection, request: Request) -> Response:
        self._check()
        failure = self._fail(request)
        if failure is not None and failure.effect.early:
            raise self._broken(failure)
        response = await connection.request(request)
        if failure is not None:
            raise self._broken(failure)
        self._check()
        return response

    def _fail(self, request: Request) -> Failure | None:
        self._sent += 1
        if self._sent - 1 == self._lifetime:
            return Failure(at=0, effect=Effect.DIES_AFTER)
        return self._chaos.next(point_of(request))

    def _broken(self, failure: Failure) -> Unreachable:
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
    messages: ObjectReceiveStream[Message]
    clock_check: float

    def now(self) -> int:
        return self._inner.now()

    async def request(self, request: Request) -> Response:
        return await self._network.request(self._inner, request)


_NAMED: Final = ("id", "awaited", "cursor", "pid")


def point_of(request: Request) -> Point:
    """What a request is about."""
    action = getattr(request, "action", None)
    subject = request if action is None else action
    named = (value for name in _NAMED if (value := getattr(subject, name, None)) is not None)
    return request.kind, next(named, "")
