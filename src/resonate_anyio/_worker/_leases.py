"""`Leases`: the leases that this worker holds, and how tasks are released.

The holder of a lease may act on it until it lapses by the holder's own clock, and not until the server says that it has
lapsed: it counts from the instant before the request that granted or renewed it was sent. While a lease is not certain,
the worker begins nothing that only the holder may begin (docs/distribution.md 1.1 and 1.2).
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from attrs import define, field

from .._errors import ResonateError
from .._execution._lease import Lease
from .._protocol import TaskGet, TaskRecord, TaskRelease, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import Event

    from .._concurrency._backoff import Backoff
    from .._requests._requester import Requester
    from .._requests._subscriptions import Subscriptions
    from ..abc import Connection

logger = logging.getLogger("resonate_anyio")

_FINAL: Final = frozenset({200, 404, 409})


def _nothing() -> None:
    """Do nothing."""


@define(eq=False, repr=False)
class Leases:
    """The leases of one worker, and the delays of tasks that are released again and again.

    Attributes:
        held: the leases that have to be renewed, by the ids of their tasks.
        idle: tasks that are leased and not running, with their versions: they have not begun, or are to be released.
            If an interrupt of the program prevents that, they are released when the worker stops.
        _margin: seconds that a request may take.
    """

    _connection: Connection
    _holder: str
    _subscriptions: Subscriptions
    _requester: Requester
    _ttl: float
    _margin: float
    held: dict[str, Lease] = field(factory=dict, init=False)
    idle: dict[str, int] = field(factory=dict, init=False)
    _when_added: Callable[[], None] = field(default=_nothing, init=False)
    _when_doubted: Callable[[], None] = field(default=_nothing, init=False)
    _backoffs: dict[str, Backoff] = field(factory=dict, init=False)

    def observe(self, *, added: Callable[[], None] = _nothing, doubted: Callable[[], None] = _nothing) -> None:
        """Have functions called.

        Args:
            added: called when there is a new lease to renew.
            doubted: called, in the event loop, when the server says that a lease is not this worker's.
        """
        self._when_added, self._when_doubted = added, doubted

    # Time

    def elapsed(self) -> float:
        """Return the time in seconds by the clock of leases."""
        return self._connection.elapsed()

    def end_of(self, sent: float) -> float:
        """Return when a lease lapses that was granted with a request sent at `sent`."""
        return math.inf if self._connection.keeps_leases else sent + self._ttl

    def lasts(self, lease: Lease) -> bool:
        """Return whether `lease` lasts longer than a request that is sent now may take."""
        return lease.certain_until == math.inf or lease.certain_until - self.elapsed() > self._margin

    # What is held

    def current(self) -> list[Lease]:
        """Return the leases that can still be renewed. Other threads call this too."""
        now = self.elapsed()
        return [lease for lease in list(self.held.values()) if lease.certain_until > now]

    def enrol(self, lease: Lease) -> None:
        """Renew `lease` from now on, unless the network does that."""
        if not self._connection.keeps_leases:
            self.held[lease.id] = lease
            self._when_added()

    def forget(self, lease: Lease) -> None:
        """Renew `lease` no more."""
        if self.held.get(lease.id) is lease:
            del self.held[lease.id]

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        """Return whether this worker holds the task at that version."""
        if task is None or task.state is not TaskState.ACQUIRED:
            return False
        return task.pid == self._holder and task.version == version

    def doubted(self) -> None:
        """Report, in the event loop, that the server says that a lease is not this worker's."""
        self._when_doubted()

    # Releasing

    async def release(self, id: str, version: int) -> None:
        """Release a task with one request; a failure is logged."""
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
        """Release a task that could not run to its end here, after a delay that grows each time.

        The server may send it here again at once.

        Args:
            id: the task.
            version: the version at which it is held.
            reason: why it is released, for the log.
            unless: an event that ends the delay, because the reason does not hold any more.
        """
        backoff = self._backoffs.setdefault(id, self._subscriptions.backoff())
        logger.warning("task.handed_back id=%s in=%.1f reason=%s", id, backoff.delay, reason)
        delay = backoff.next()
        self.idle[id] = version
        # If the lease lapsed during the delay, the server would send the task here again.
        lease = Lease(self, id)
        lease.grant(version, self.elapsed())
        try:
            await self._subscriptions.pause(delay, unless)
        finally:
            lease.end()
        await self._requester.request_until_answered(TaskRelease(id=id, version=version))
        self.idle.pop(id, None)

    def ended(self, id: str) -> None:
        """Reset the delay of a task that has run to its end here, or can run now."""
        self._backoffs.pop(id, None)

    async def release_if_held(self, id: str, runs_here: Callable[[str], bool]) -> None:
        """Release a task that this worker holds without running it, because the answer to its request was lost."""
        response = await self._requester.request_until_answered(TaskGet(id=id))
        task = None if response is None else response.task
        if task is not None and task.pid == self._holder and not runs_here(id):
            await self.hand_back(id, task.version, "the answer that granted its lease was lost, or was of no use")
