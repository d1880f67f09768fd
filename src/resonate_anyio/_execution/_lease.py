"""`Lease`: the time for which this worker certainly holds a task.

The holder of a lease may act on it until it lapses by the clock, even if the server answers late. The time is counted
from the instant before the request was sent that granted or renewed the lease. While the lease is not certain, nothing
begins that only the holder may begin (docs/distribution.md 1.1 and 1.2).
"""

from __future__ import annotations

import math
from typing import Protocol

from attrs import define, field

from .._protocol import TaskRecord, TaskRef


class LeaseKeeper(Protocol):
    """The leases of one worker: it judges how long each lasts, and renews them."""

    def elapsed(self) -> float:
        """Return the seconds on the clock of the leases."""
        ...

    def end_of(self, sent: float) -> float:
        """Return the instant at which a lease lapses that was granted by a request sent at `sent`."""
        ...

    def lasts(self, lease: Lease) -> bool:
        """Return whether `lease` lasts longer than any request that is sent now."""
        ...

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        """Return whether this worker holds the task at that version."""
        ...

    def enrol(self, lease: Lease) -> None:
        """Renew `lease` from now on, unless the connection itself keeps the leases."""
        ...

    def forget(self, lease: Lease) -> None:
        """Stop renewing `lease`."""
        ...


@define(eq=False, repr=False)
class Lease:
    """The lease of one task. Its instants are seconds on the clock of `Connection.elapsed`.

    Attributes:
        id: the id of the task.
        version: the version of the task, a number that grows with every acquisition.
        certain_until: the instant until which another worker cannot hold the task.
        renewed_at: the instant at which the last request was sent that granted or renewed it.
        confirmed_at: the instant of the last answer of the server that this worker holds the task.
    """

    _keeper: LeaseKeeper
    id: str
    version: int = field(default=-1, init=False)
    certain_until: float = field(default=-math.inf, init=False)
    renewed_at: float = field(default=-math.inf, init=False)
    confirmed_at: float = field(default=-math.inf, init=False)

    @property
    def certain(self) -> bool:
        """Whether a request that is sent now is over before another worker can hold the task."""
        return self._keeper.lasts(self)

    @property
    def looked_after(self) -> bool:
        """Whether the worker asks the server about the lease from time to time."""
        return -math.inf < self.certain_until < math.inf

    @property
    def ref(self) -> TaskRef:
        """The task as heartbeats name it."""
        return TaskRef(self.id, self.version)

    def grant(self, version: int, sent: float) -> None:
        """Begin the lease: the task was acquired, or found to be held, by a request sent at `sent`."""
        self.version = version
        self.renewed_at = self.confirmed_at = sent
        self.certain_until = self._keeper.end_of(sent)
        self._keeper.enrol(self)

    def renew(self, sent: float) -> None:
        """Extend the lease: a heartbeat that was sent at `sent` was answered. After the lapse this has no effect."""
        if self._keeper.elapsed() < self.certain_until:
            self.renewed_at = max(self.renewed_at, sent)
            self.certain_until = max(self.certain_until, self._keeper.end_of(sent))

    def confirm(self, task: TaskRecord | None, asked: float) -> bool:
        """Take over the server's answer to a question sent at `asked`, and return whether this worker holds the task.

        If it does not, the lease lapses.
        """
        mine = self._keeper.is_mine(task, self.version)
        if mine:
            self.confirmed_at = asked
        else:
            self.certain_until = -math.inf
        return mine

    def end(self) -> None:
        """End the lease: the task was released, or is not needed any more."""
        self.certain_until = -math.inf
        self._keeper.forget(self)
