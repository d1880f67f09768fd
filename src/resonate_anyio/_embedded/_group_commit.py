"""Group commit: many requests share one transaction of a store that waits for the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from anyio import CancelScope, CapacityLimiter, Event, to_thread
from attrs import define, field

from .._protocol import Outcome, Step, View
from ..abc import Store

T = TypeVar("T")

Committed: TypeAlias = Callable[[Sequence[Outcome]], None]
"""Is called on the event loop right after a commit, in the order of the commits, with the outcomes of its steps."""


@define
class GroupCommit:
    """Commits on a worker thread. Steps that arrive during one commit go into the next commit together.

    There is no background task. The first caller leads a commit; then the first caller that arrived meanwhile leads the
    next commit.
    """

    _store: Store
    _queue: list[_Job] = field(init=False, factory=list)
    _led: bool = field(init=False, default=False)
    # A limiter of its own, because user functions may occupy all threads of the default limiter.
    _thread: CapacityLimiter = field(init=False, factory=lambda: CapacityLimiter(1))

    async def commit(self, steps: Sequence[Step], committed: Committed) -> Sequence[Outcome]:
        """Run the steps in one transaction, call `committed`, and return the outcomes.

        Once the commit has begun it is not cancelled: `committed` is called even if the caller is cancelled.
        """
        job = _Job(steps, committed)
        self._queue.append(job)
        with CancelScope(shield=True):
            if self._led:
                await job.turn.wait()

            if not job.done:
                await self._lead()

        return job.result()

    async def read(self, query: Callable[[View], T]) -> T:
        """Return the answer of `query` to the present state."""
        # A store is used by one thread at a time, and this limiter has one thread.
        return await to_thread.run_sync(self._store.read, query, limiter=self._thread)

    async def _lead(self) -> None:
        self._led = True
        batch, self._queue = self._queue, []
        try:
            await to_thread.run_sync(_commit, self._store, batch, limiter=self._thread)
        except Exception as error:  # noqa: BLE001 - without a thread, every waiting caller raises this error
            for job in batch:
                job.error = error

        for job in batch:
            job.finish()

        self._led = bool(self._queue)
        if self._queue:
            self._queue[0].turn.set()


@define
class _Job:
    """The steps of one `commit`, and their outcomes."""

    steps: Sequence[Step]
    committed: Committed
    turn: Event = field(init=False, factory=Event)
    done: bool = field(init=False, default=False)
    outcomes: Sequence[Outcome] = field(init=False, default=())
    error: Exception | None = field(init=False, default=None)

    def finish(self) -> None:
        """Wake the caller, and call `committed` if the steps were committed."""
        self.done = True
        self.turn.set()
        if self.error is None:
            self.committed(self.outcomes)

    def result(self) -> Sequence[Outcome]:
        """Return the outcomes, or raise the error."""
        if self.error is not None:
            raise self.error

        return self.outcomes


def _commit(store: Store, jobs: Sequence[_Job]) -> None:
    """Run the steps of all jobs in one transaction. If this fails, run the steps of each job in a transaction."""
    try:
        outcomes = iter(store.transact([step for job in jobs for step in job.steps]))
    except Exception as error:  # noqa: BLE001 - raised by `_Job.result`
        # One request that the store cannot keep must not make the others fail.
        if len(jobs) == 1:
            jobs[0].error = error
        else:
            for job in jobs:
                _commit(store, [job])
    else:
        for job in jobs:
            job.outcomes = [next(outcomes) for _ in job.steps]
