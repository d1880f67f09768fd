"""How steps reach the store: at once on the event loop, or many in one commit on a thread.

Either way the effects of a commit in this process (messages, timers) are set off by `then`, on the event loop, right
after the commit and in its order, whatever becomes of those who asked for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from anyio import CancelScope, CapacityLimiter, Event, to_thread
from attrs import define, field

from .._protocol import Outcome, Step, View
from ..abc import Store

T = TypeVar("T")

Then: TypeAlias = Callable[[Sequence[Outcome]], None]


class Writer(ABC):
    """Carries steps to a store."""

    @abstractmethod
    async def write(self, steps: Sequence[Step], then: Then) -> Sequence[Outcome]:
        """Take the steps in one transaction, then call `then` with what came of it. Once begun, it is not cancelled."""

    @abstractmethod
    async def read(self, query: Callable[[View], T]) -> T:
        """Give the answer of `query` to the present state. It waits for no lock."""


@define
class DirectWriter(Writer):
    """For a store that does not wait for the disk: a small commit is cheaper than a hop to a thread."""

    _store: Store

    async def write(self, steps: Sequence[Step], then: Then) -> Sequence[Outcome]:
        outcomes = self._store.transact(steps)
        then(outcomes)
        return outcomes

    async def read(self, query: Callable[[View], T]) -> T:
        return self._store.read(query)


@define
class GroupWriter(Writer):
    """For a store that waits for the disk: what arrives during one commit goes into the next one, all together.

    There is no task of its own: the first who comes leads a commit, and hands the lead to the first who came meanwhile.
    """

    _store: Store
    _queue: list[_Job] = field(init=False, factory=list)
    _led: bool = field(init=False, default=False)
    # A limiter of its own: user functions may hold all of the default one's threads.
    _thread: CapacityLimiter = field(init=False, factory=lambda: CapacityLimiter(1))

    async def write(self, steps: Sequence[Step], then: Then) -> Sequence[Outcome]:
        job = _Job(steps, then)
        self._queue.append(job)
        with CancelScope(shield=True):
            if self._led:
                await job.turn.wait()

            if not job.done:
                await self._lead()

        return job.result()

    async def read(self, query: Callable[[View], T]) -> T:
        # A store is used by one thread at a time, and this limiter has one.
        return await to_thread.run_sync(self._store.read, query, limiter=self._thread)

    async def _lead(self) -> None:
        self._led = True
        batch, self._queue = self._queue, []
        try:
            await to_thread.run_sync(_commit, self._store, batch, limiter=self._thread)
        except Exception as error:  # noqa: BLE001 - there is no thread; everybody who waits must hear of it
            for job in batch:
                job.error = error

        for job in batch:
            job.settle()

        self._led = bool(self._queue)
        if self._queue:
            self._queue[0].turn.set()


@define
class _Job:
    """The steps of one `write`, and what came of them."""

    steps: Sequence[Step]
    then: Then
    turn: Event = field(init=False, factory=Event)
    done: bool = field(init=False, default=False)
    outcomes: Sequence[Outcome] = field(init=False, default=())
    error: Exception | None = field(init=False, default=None)

    def settle(self) -> None:
        """Set off the effects and wake who waits."""
        self.done = True
        self.turn.set()
        if self.error is None:
            self.then(self.outcomes)

    def result(self) -> Sequence[Outcome]:
        if self.error is not None:
            raise self.error

        return self.outcomes


def _commit(store: Store, jobs: Sequence[_Job]) -> None:
    """Take the steps of all jobs in one transaction; if that fails, those of each in one of its own."""
    try:
        outcomes = iter(store.transact([step for job in jobs for step in job.steps]))
    except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
        _commit_apart(store, jobs, error)
    else:
        for job in jobs:
            job.outcomes = [next(outcomes) for _ in job.steps]


def _commit_apart(store: Store, jobs: Sequence[_Job], error: Exception) -> None:
    # One request that the store cannot keep must not take the others down with it.
    if len(jobs) == 1:
        jobs[0].error = error
    else:
        for job in jobs:
            _commit(store, [job])
