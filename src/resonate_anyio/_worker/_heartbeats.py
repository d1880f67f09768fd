"""Heartbeats: the requests that keep the leases of a worker, on networks that do not keep them by themselves.

A thread of their own sends them if the network can be used from a thread, so that code which blocks the event loop does
not cost the leases. A lease is renewed when a third of it is over, together with all others of its root, or of many
roots where the server allows that. Once a minute the server is also asked for each task, since it answers a heartbeat
with 200 even if another worker holds the task. An execution that ends within a third of a lease needs none of them
(docs/distribution.md 1.6).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Event as ThreadEvent, Thread
from typing import TYPE_CHECKING, Final, TypeAlias

from anyio import Event, move_on_after
from attrs import define, evolve, field

from .. import _observe
from .._concurrency._loop_monitor import LoopMonitor
from .._errors import NotRunning, ResonateError
from .._ids import origin_of
from .._observe import Observers
from .._protocol import Request, Response, TaskGet, TaskHeartbeat
from .._requests._queries import refusal
from .._requests._requester import unavailable

if TYPE_CHECKING:
    from .._concurrency._supervisor import Supervisor
    from .._execution._lease import Lease
    from .._requests._subscriptions import Subscriptions
    from ..abc import Connection
    from ._leases import Leases

logger = logging.getLogger("resonate_anyio")

_CONFIRM_EVERY: Final = 60.0
"""Seconds between two questions about the same lease."""
_LARGEST_BATCH: Final = 500
_BLOCKED_TTLS: Final = 5
"""Lengths of a lease after which a blocked event loop is considered dead: its leases lapse, and others may run them."""

Round: TypeAlias = Generator[Request, Response | None, None]
"""Yields requests, and is sent their answers: None if there was no answer."""

PartOfRound: TypeAlias = Generator[Request, Response | None, bool]
"""A part of a round. Returns whether there was an answer."""


@define(eq=False, kw_only=True, repr=False)
class HeartbeatPlan:
    """Which requests are due, and when. It sends nothing, and depends neither on threads nor on event loops.

    Attributes:
        leases: the leases to be renewed.
        connection: tells how the server reads ids.
        holder: the name that the leases are held under.
        ttl: the length of a lease in seconds.
        in_loop: calls a function in the event loop soon.
        observers: get an event for each round that has renewed leases.
        failures: the number of rounds in a row that ended early because an answer was missing.
    """

    leases: Leases
    connection: Connection
    holder: str
    ttl: float
    in_loop: Callable[[Callable[[], object]], object] = lambda func: func()
    observers: Observers = field(factory=Observers)
    failures: int = field(default=0, init=False)

    def delay(self) -> float | None:
        """Return the seconds until the next round; None if there is no lease."""
        leases = self.leases.current()
        if not leases:
            return None
        beat = min(lease.renewed_at for lease in leases) + self.ttl / 3
        look = min(lease.confirmed_at for lease in leases) + _CONFIRM_EVERY
        # A server that does not answer is not asked again at once.
        return max(min(beat, look) - self.leases.elapsed(), self.ttl / (6 if self.failures else 120))

    def round(self) -> Round:
        """Plan one round: heartbeats for the leases that need one soon, then questions about unconfirmed leases.

        The first request without an answer ends the round. The others would have the same fate, each might take long,
        and all leases have to be renewed soon once the server is back.
        """
        now = self.leases.elapsed()
        leases = self.leases.current()
        renewed = 0
        for batch in self._batches([lease for lease in leases if now - lease.renewed_at > self.ttl / 4]):
            # A second try, because the next round may come too late.
            if not ((yield from self._beat(batch)) or (yield from self._beat(batch))):
                self.failures += 1
                self._tell_renewed(renewed)
                return
            renewed += len(batch)
        self._tell_renewed(renewed)
        for lease in leases:
            if now - lease.confirmed_at < _CONFIRM_EVERY:
                continue
            if self._beat_due():
                # Heartbeats come first. The remaining questions follow in the next round.
                break
            if not (yield from self._confirm(lease)):
                self.failures += 1
                return
        self.failures = 0

    def _tell_renewed(self, renewed: int) -> None:
        if renewed and self.observers.given:
            self.in_loop(partial(self.observers.tell, _observe.LeaseRenewed(leases=renewed)))

    def _beat_due(self) -> bool:
        now = self.leases.elapsed()
        return any(now - lease.renewed_at > self.ttl / 3 for lease in self.leases.current())

    def _beat(self, batch: Sequence[Lease]) -> PartOfRound:
        sent = self.leases.elapsed()
        answer = yield TaskHeartbeat(pid=self.holder, tasks=tuple(lease.ref for lease in batch))
        if answer is None or answer.status != 200:
            return False
        for lease in batch:
            lease.renew(sent)
        return True

    def _confirm(self, lease: Lease) -> PartOfRound:
        asked, version = self.leases.elapsed(), lease.version
        answer = yield TaskGet(id=lease.id)
        if answer is None or answer.status not in {200, 404}:
            return False
        # The task may have been released meanwhile, and acquired at another version.
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


class ThreadHeartbeats:
    """Sends heartbeats from a thread, which starts with the first lease.

    Args:
        plan: the requests.
        monitor: tells whether the event loop is blocked.
        send: sends a request and waits for the answer.
        name: the name of the thread.
    """

    def __init__(
        self, plan: HeartbeatPlan, monitor: LoopMonitor, send: Callable[[Request], Response], name: str
    ) -> None:
        self._plan = plan
        self._monitor = monitor
        self._send = send
        self._patience = _BLOCKED_TTLS * plan.ttl
        self._woken = ThreadEvent()
        self._idle = False
        self._stopped = False
        # A daemon, so that it does not prevent the end of a program whose event loop has failed.
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def wake(self) -> None:
        """Plan again, because there is a new lease."""
        if self._thread.ident is None and not self._stopped:
            self._thread.start()
        elif self._idle:
            self._woken.set()

    def stop(self) -> None:
        """Send no more requests, and do not wait for the answer to the last one."""
        self._stopped = True
        self._woken.set()

    def _run(self) -> None:
        while not self._stopped:
            self._rest()
            if not self._stopped and self._monitor.silence() < self._patience:
                self._do_round(self._plan.round())

    def _rest(self) -> None:
        """Wait until a round is due."""
        # Idle before the leases are counted, so that a lease that is added after the count ends the wait.
        self._idle = True
        delay = self._plan.delay()
        self._idle = delay is None
        if delay is not None and delay > self._monitor.patience and not self._woken.wait(self._monitor.patience):
            self._monitor.silence()
            delay = self._plan.delay()
        self._woken.wait(delay)
        if not self._stopped:
            self._woken.clear()

    def _do_round(self, requests: Round) -> None:
        with suppress(StopIteration):
            request = next(requests)
            while not self._stopped:
                request = requests.send(self._answer(request))

    def _answer(self, request: Request) -> Response | None:
        try:
            return _useful(request, self._send(request), self._plan)
        except ResonateError as exc:
            if not self._stopped:
                _log_unanswered(request, exc, self._plan)
            return None


class LoopHeartbeats:
    """Sends heartbeats from the event loop.

    Args:
        plan: the requests.
        connection: sends them.
        subscriptions: the waits of the worker.
    """

    def __init__(self, plan: HeartbeatPlan, connection: Connection, subscriptions: Subscriptions) -> None:
        self._plan = plan
        self._connection = connection
        self._subscriptions = subscriptions
        self._woken = Event()
        self._idle = False

    def wake(self) -> None:
        """Plan again, because there is a new lease."""
        if self._idle:
            self._woken.set()

    async def run(self) -> None:
        """Send heartbeats until the worker has stopped."""
        with suppress(NotRunning):
            while True:
                await self._rest()
                await self._do_round(self._plan.round())

    async def _rest(self) -> None:
        delay = self._plan.delay()
        self._idle = delay is None
        self._woken = Event()
        with move_on_after(math.inf if delay is None else delay):
            await self._subscriptions.wait(self._woken)

    async def _do_round(self, requests: Round) -> None:
        with suppress(StopIteration):
            request = next(requests)
            while True:
                request = requests.send(await self._answer(request))

    async def _answer(self, request: Request) -> Response | None:
        try:
            return _useful(request, await self._connection.request(request), self._plan)
        except ResonateError as exc:
            _log_unanswered(request, exc, self._plan)
            return None


def start_heartbeats(
    plan: HeartbeatPlan,
    supervisor: Supervisor,
    subscriptions: Subscriptions,
    doubted: Callable[[], None],
    *,
    name: str,
) -> Callable[[], None]:
    """Send heartbeats from now on, from a thread if the network allows that. Return a function that ends it.

    Args:
        plan: the requests.
        supervisor: runs the task, if there is no thread.
        subscriptions: the waits of the worker.
        doubted: called in the event loop when the server says that a lease is not this worker's.
        name: the name of the thread or task.
    """
    connection = plan.connection
    if (send := connection.blocking_request) is None:
        in_loop = LoopHeartbeats(plan, connection, subscriptions)
        plan.leases.observe(added=in_loop.wake, doubted=doubted)
        supervisor.start_background(in_loop.run, name=name)
        # The end of all waits ends this one.
        return lambda: None
    monitor = LoopMonitor()
    in_thread = ThreadHeartbeats(evolve(plan, in_loop=monitor.call_soon), monitor, send, name)
    plan.leases.observe(added=in_thread.wake, doubted=doubted)
    return in_thread.stop


def _useful(request: Request, response: Response, plan: HeartbeatPlan) -> Response | None:
    if not unavailable(response):
        return response
    _log_unanswered(request, refusal(request, response), plan)
    return None


def _log_unanswered(request: Request, reason: ResonateError, plan: HeartbeatPlan) -> None:
    level = logging.DEBUG if plan.failures else logging.WARNING
    logger.log(level, "worker.heartbeat_unanswered kind=%s reason=%s", request.kind, reason)
