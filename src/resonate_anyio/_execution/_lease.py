"""`Lease`: for how long a task is certainly held by this worker.

The holder of a lease may act on it until it lapses, by the clock and not by what a server says later: what counts is
the instant before the request was sent that granted or renewed it. While it is not certain, nothing begins that only
the holder may begin (docs/distribution.md 1.1 and 1.2).
"""

from __future__ import annotations

import math
from typing import Protocol

from attrs import define, field

from .._protocol import TaskRecord, TaskRef


class LeaseKeeper(Protocol):
    """The leases of one worker: what judges how long each lasts, and has it renewed."""

    def elapsed(self) -> float:
        """Return the seconds on the clock that leases are judged by."""
        ...

    def end_of(self, sent: float) -> float:
        """Return when a lease lapses that was granted with a request sent at `sent`."""
        ...

    def lasts(self, lease: Lease) -> bool:
        """Return whether `lease` lasts longer than any request that is sent now."""
        ...

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        """Return whether this worker holds the task at that version."""
        ...

    def enrol(self, lease: Lease) -> None:
        """Have `lease` renewed, if that is the worker's to do."""
        ...

    def forget(self, lease: Lease) -> None:
        """Renew it no more."""
        ...


@define(eq=False)
class Lease:
    """The lease of one task, by the clock of `Connection.elapsed`, in seconds.

    Attributes:
        id: the task.
        version: which acquisition of it this is.
        certain_until: until when nobody else can hold the task.
        renewed_at: when the last request was sent that granted or extended it.
        confirmed_at: when the server last said that it is this worker's.
    """

    _keeper: LeaseKeeper
    id: str
    version: int = field(default=-1, init=False)
    certain_until: float = field(default=-math.inf, init=False)
    renewed_at: float = field(default=-math.inf, init=False)
    confirmed_at: float = field(default=-math.inf, init=False)

    @property
    def certain(self) -> bool:
        """Whether a request that is sent now is over before anybody else can hold the task."""
        return self._keeper.lasts(self)

    @property
    def looked_after(self) -> bool:
        """Whether the server is asked about it from time to time."""
        return -math.inf < self.certain_until < math.inf

    @property
    def ref(self) -> TaskRef:
        """The task as heartbeats name it."""
        return TaskRef(self.id, self.version)

    def grant(self, version: int, sent: float) -> None:
        """It was acquired, or found to be held, with a request sent at `sent`."""
        self.version = version
        self.renewed_at = self.confirmed_at = sent
        self.certain_until = self._keeper.end_of(sent)
        self._keeper.enrol(self)

    def renew(self, sent: float) -> None:
        """A heartbeat that was sent at `sent` has been answered. One that comes too late extends nothing."""
        if self._keeper.elapsed() < self.certain_until:
            self.renewed_at = max(self.renewed_at, sent)
            self.certain_until = max(self.certain_until, self._keeper.end_of(sent))

    def confirm(self, task: TaskRecord | None, asked: float) -> bool:
        """The server was asked at `asked` who holds the task. Returns whether that is this worker; else it lapses."""
        mine = self._keeper.is_mine(task, self.version)
        if mine:
            self.confirmed_at = asked
        else:
            self.certain_until = -math.inf
        return mine

    def end(self) -> None:
        """It was given back, or is of no use any more."""
        self.certain_until = -math.inf
        self._keeper.forget(self)
