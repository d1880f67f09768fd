"""Heartbeats: what keeps the leases of a worker alive where the network does not.

They are sent by a thread of their own if the network can be used from one, so that code which blocks the event loop
does not cost the leases. A lease is renewed when a third of it is over, together with all others of its root, or of
many roots where the server allows that. Once a minute each is looked at, since a heartbeat is answered with 200 whoever
holds the task. An execution that is over before that costs nothing (docs/distribution.md 1.6).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from threading import Event as ThreadEvent, Thread
from typing import Final, TypeAlias

from anyio import Event, move_on_after
from attrs import define, field

from .._concurrency._loop_monitor import LoopWatch
from .._errors import NotRunning, ResonateError
from .._execution._lease import Lease
from .._ids import origin_of
from .._protocol import Request, Response, TaskGet, TaskHeartbeat
from .._requests._queries import refusal
from .._requests._requester import unavailable
from .._requests._subscriptions import Subscriptions
from ..abc import Connection
from ._leases import Leases

logger = logging.getLogger("resonate_anyio")

_CONFIRM_EVERY: Final = 60.0
_LARGEST_BATCH: Final = 500
_BLOCKED_TTLS: Final = 5
"""After so many lengths of a lease the event loop is given up for dead, and its executions for whoever can run them."""

Round: TypeAlias = Generator[Request, Response | None, None]
"""Yields what is to be asked, and is sent the answers: None if there was none."""

Asking: TypeAlias = Generator[Request, Response | None, bool]
"""A part of a round. Gives whether there was an answer."""


@define(eq=False, kw_only=True)
class Schedule:
    """What has to be sent, and when. It does not send anything, and knows neither threads nor loops.

    Attributes:
        leases: what is to be kept alive.
        connection: tells how the server reads ids.
        holder: who holds the leases.
        ttl: how long one lasts, in seconds.
        in_loop: calls a function in the event loop, soon.
        failures: how many rounds in a row were broken off because there was no answer.
    """

    leases: Leases
    connection: Connection
    holder: str
    ttl: float
    in_loop: Callable[[Callable[[], object]], object] = lambda func: func()
    failures: int = field(default=0, init=False)

    def delay(self) -> float | None:
        """Seconds until the next round; None if there is no lease."""
        leases = self.leases.current()
        if not leases:
            return None
        beat = min(lease.renewed_at for lease in leases) + self.ttl / 3
        look = min(lease.confirmed_at for lease in leases) + _CONFIRM_EVERY
        # A server that does not answer is not asked at once again.
        return max(min(beat, look) - self.leases.elapsed(), self.ttl / (6 if self.failures else 120))

    def round(self) -> Round:
        """One round: heartbeats for all leases that need one soon, then a look at those that had none for a minute.

        It is broken off by the first request that is not answered: for the others it would be the same, each of them
        might take its time, and when the server is back all leases are to be renewed soon.
        """
        now = self.leases.elapsed()
        leases = self.leases.current()
        for batch in self._batches([lease for lease in leases if now - lease.renewed_at > self.ttl / 4]):
            # Once more if there is no answer: the next round may come too late.
            if not ((yield from self._beat(batch)) or (yield from self._beat(batch))):
                self.failures += 1
                return
        for lease in leases:
            if now - lease.confirmed_at < _CONFIRM_EVERY:
                continue
            if self._beat_due():
                # There are many, or they take long. The others come next time: a lease is not to lapse over looking.
                break
            if not (yield from self._look(lease)):
                self.failures += 1
                return
        self.failures = 0

    def _beat_due(self) -> bool:
        now = self.leases.elapsed()
        return any(now - lease.renewed_at > self.ttl / 3 for lease in self.leases.current())

    def _beat(self, batch: Sequence[Lease]) -> Asking:
        sent = self.leases.elapsed()
        answer = yield TaskHeartbeat(pid=self.holder, tasks=tuple(lease.ref for lease in batch))
        if answer is None or answer.status != 200:
            return False
        for lease in batch:
            lease.renew(sent)
        return True

    def _look(self, lease: Lease) -> Asking:
        asked, version = self.leases.elapsed(), lease.version
        answer = yield TaskGet(id=lease.id)
        if answer is None or answer.status not in {200, 404}:
            return False
        # Meanwhile it may have been given back, or be another one.
        if lease.version == version and not lease.confirm(answer.task, asked):
            self.in_loop(self.leases.doubted)
        return True

    def _batches(self, leases: Sequence[Lease]) -> Iterator[Sequence[Lease]]:
        dialect = self.connection.dialect
        origins: dict[str, list[Lease]] = {}
        for lease in leases:
            origin = "" if dialect.origins_mix else origin_of(lease.id, dialect.separator)
            origins.setdefault(origin, []).append(lease)
        for group in origins.values():
            for start in range(0, len(group), _LARGEST_BATCH):
                yield group[start : start + _LARGEST_BATCH]


class ThreadHeart:
    """Sends heartbeats from a thread, which begins with the first lease.

    Args:
        schedule: what is sent.
        send: sends a request and waits for the answer.
        ttl: the length of a lease, in seconds.
        name: of the thread.
    """

    def __init__(self, schedule: Schedule, send: Callable[[Request], Response], ttl: float, name: str) -> None:
        self._watch = LoopWatch()
        self._schedule = schedule
        schedule.in_loop = self._watch.call_soon
        self._send = send
        self._patience = _BLOCKED_TTLS * ttl
        self._nudged = ThreadEvent()
        self._idle = False
        self._stopped = False
        # It must not hold up the end of a program whose event loop has come to a bad one.
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def nudge(self) -> None:
        """There is a new lease."""
        if self._thread.ident is None and not self._stopped:
            self._thread.start()
        elif self._idle:
            self._nudged.set()

    def stop(self) -> None:
        """Send no more. A request that is under way is not waited for."""
        self._stopped = True
        self._nudged.set()

    def _run(self) -> None:
        while not self._stopped:
            self._rest()
            if not self._stopped and self._watch.silence() < self._patience:
                self._drive(self._schedule.round())

    def _rest(self) -> None:
        """Wait until a round is due."""
        # Idle before it is looked whether there are leases: one that comes after that look ends the wait.
        self._idle = True
        delay = self._schedule.delay()
        self._idle = delay is None
        if delay is not None and delay > self._watch.patience and not self._nudged.wait(self._watch.patience):
            self._watch.silence()
            delay = self._schedule.delay()
        self._nudged.wait(delay)
        if not self._stopped:
            self._nudged.clear()

    def _drive(self, asking: Round) -> None:
        with suppress(StopIteration):
            request = next(asking)
            while not self._stopped:
                request = asking.send(self._answer(request))

    def _answer(self, request: Request) -> Response | None:
        try:
            return _useful(request, self._send(request), self._schedule)
        except ResonateError as exc:
            if not self._stopped:
                _tell(request, exc, self._schedule)
            return None


class LoopHeart:
    """Sends heartbeats from the event loop.

    Args:
        schedule: what is sent.
        connection: where to.
        subscriptions: the waits of the worker.
    """

    def __init__(self, schedule: Schedule, connection: Connection, subscriptions: Subscriptions) -> None:
        self._schedule = schedule
        self._connection = connection
        self._subscriptions = subscriptions
        self._nudged = Event()
        self._idle = False

    def nudge(self) -> None:
        """There is a new lease."""
        if self._idle:
            self._nudged.set()

    async def run(self) -> None:
        """Send them until nothing is waited for any more."""
        with suppress(NotRunning):
            while True:
                await self._rest()
                await self._drive(self._schedule.round())

    async def _rest(self) -> None:
        delay = self._schedule.delay()
        self._idle = delay is None
        self._nudged = Event()
        with move_on_after(math.inf if delay is None else delay):
            await self._subscriptions.wait(self._nudged)

    async def _drive(self, asking: Round) -> None:
        with suppress(StopIteration):
            request = next(asking)
            while True:
                request = asking.send(await self._answer(request))

    async def _answer(self, request: Request) -> Response | None:
        try:
            return _useful(request, await self._connection.request(request), self._schedule)
        except ResonateError as exc:
            _tell(request, exc, self._schedule)
            return None


def _useful(request: Request, response: Response, schedule: Schedule) -> Response | None:
    if not unavailable(response):
        return response
    _tell(request, refusal(request, response), schedule)
    return None


def _tell(request: Request, reason: ResonateError, schedule: Schedule) -> None:
    level = logging.DEBUG if schedule.failures else logging.WARNING
    logger.log(level, "worker.heartbeat_unanswered kind=%s reason=%s", request.kind, reason)
