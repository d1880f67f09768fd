"""Leases: how long a task is certainly held by this worker, and how it is given back.

Whoever holds a lease may act on it until it lapses, by the clock and not by what a server says later: what counts is
the instant before the request was sent that granted or renewed it. While it is not certain nothing is begun that only
the holder may begin (docs/distribution.md 1.1 and 1.2).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from anyio import Event
from attrs import define, field

from .._concurrency._backoff import Backoff
from .._errors import ResonateError
from .._execution._lease import Lease
from .._protocol import TaskGet, TaskRecord, TaskRelease, TaskState
from .._requests._requester import Requester
from .._requests._subscriptions import Subscriptions
from ..abc import Connection

logger = logging.getLogger("resonate_anyio")

_FINAL: Final = frozenset({200, 404, 409})


@define(eq=False)
class Leases:
    """The leases of one worker, and how often each task was given back in a row.

    Attributes:
        held: the leases that have to be renewed.
        enrolled: is called when there is a new one.
        idle: tasks that are held and not run, with the versions: not yet, or they are to be given back. What is left of
            them when the worker stops, because the program was interrupted, is released then.
        doubted: is called, in the event loop, when one was found not to be this worker's.
    """

    _connection: Connection
    _holder: str
    _subscriptions: Subscriptions
    _requester: Requester
    _ttl: float
    _margin: float
    held: dict[str, Lease] = field(factory=dict, init=False)
    idle: dict[str, int] = field(factory=dict, init=False)
    enrolled: Callable[[], None] = field(default=lambda: None, init=False)
    doubted: Callable[[], None] = field(default=lambda: None, init=False)
    _backoffs: dict[str, Backoff] = field(factory=dict, init=False)

    # Time

    def elapsed(self) -> float:
        """Seconds on the clock that leases are judged by."""
        return self._connection.elapsed()

    def end_of(self, sent: float) -> float:
        """When a lease lapses that was granted with a request sent at `sent`."""
        return math.inf if self._connection.keeps_leases else sent + self._ttl

    def lasts(self, lease: Lease) -> bool:
        """Whether `lease` lasts longer than any request that is sent now."""
        return lease.certain_until == math.inf or lease.certain_until - self.elapsed() > self._margin

    def current(self) -> list[Lease]:
        """The leases that can be renewed still. Other threads ask for them."""
        now = self.elapsed()
        return [lease for lease in list(self.held.values()) if lease.certain_until > now]

    def enrol(self, lease: Lease) -> None:
        """See to it that `lease` is renewed, if that is this worker's to do."""
        if not self._connection.keeps_leases:
            self.held[lease.id] = lease
            self.enrolled()

    def forget(self, lease: Lease) -> None:
        """Renew it no more."""
        if self.held.get(lease.id) is lease:
            del self.held[lease.id]

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        """Whether this worker holds the task at that version."""
        if task is None or task.state is not TaskState.ACQUIRED:
            return False
        return task.pid == self._holder and task.version == version

    # Giving back

    async def release(self, id: str, version: int) -> None:
        """Give a task back now, if that can be done."""
        failure: object = None
        try:
            response = await self._connection.request(TaskRelease(id=id, version=version))
            if response.status not in _FINAL:
                failure = response.error
        except ResonateError as exc:
            failure = exc
        if failure is not None:
            logger.warning("task.release_failed id=%s reason=%r", id, failure)

    async def hand_back(self, id: str, version: int, reason: object, *, unless: Event | None = None) -> None:
        """Give back a task that could not be run to its end here, after a while that grows from one time to the next.

        It may be sent here again at once.

        Args:
            id: the task.
            version: at which it is held.
            reason: why, for the log.
            unless: ends the while when it is set: there is no reason any more.
        """
        backoff = self._backoffs.setdefault(id, self._subscriptions.backoff())
        logger.warning("task.handed_back id=%s in=%.1f reason=%s", id, backoff.delay, reason)
        delay = backoff.next()
        self.idle[id] = version
        # It is not to lapse meanwhile, and be sent here again.
        lease = Lease(self, id)
        lease.grant(version, self.elapsed())
        try:
            await self._subscriptions.pause(delay, unless)
        finally:
            lease.end()
        await self._requester.insist(TaskRelease(id=id, version=version))
        self.idle.pop(id, None)

    def ended(self, id: str) -> None:
        """A task was run to its end here: the next time that it has to be given back is the first."""
        self._backoffs.pop(id, None)

    async def look_for(self, id: str, runs_here: Callable[[str], bool]) -> None:
        """The answer to a request for a lease was lost: if the lease was granted, nobody runs what it is for."""
        response = await self._requester.insist(TaskGet(id=id))
        task = None if response is None else response.task
        if task is not None and task.pid == self._holder and not runs_here(id):
            await self.hand_back(id, task.version, "the answer that granted its lease was lost, or was of no use")
