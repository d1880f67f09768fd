"""Group commit: the requests that arrive together share one transaction of the store.

Requests that arrive in one turn of the event loop share a transaction. If the store waits for the disk, transactions
run on a worker thread, and the requests that arrive during one transaction share the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeAlias, TypeVar

from anyio import CancelScope, CapacityLimiter, Event, get_cancelled_exc_class, lowlevel, to_thread
from attrs import define, field

from .._concurrency._cancellation import deliver_later
from .._errors import StoreLost, StoreUnavailable
from .._protocol import Outcome, Step, View
from ..abc import Store

T = TypeVar("T")

Committed: TypeAlias = Callable[[Sequence[Outcome]], None]
"""Is called on the event loop right after a commit, in the order of the commits, with the outcomes of its steps."""

MakeSteps: TypeAlias = Callable[[], Sequence[Step]]
"""Makes steps at the instant at which their transaction begins. An error that it raises is raised by the commit."""


@define(eq=False, repr=False)
class GroupCommit:
    """Collects steps, and commits them together.

    There is no background task. Each caller joins the queue and lets the event loop turn once. The first caller that
    runs again commits the whole queue, and the others find their outcomes.

    If the store waits for the disk, this first caller leads a commit on a worker thread. One of the callers that
    arrived meanwhile leads the next commit.
    """

    _store: Store
    _queue: list[_Job] = field(init=False, factory=list)
    _led: bool = field(init=False, default=False)
    # A limiter of its own, because user functions may occupy all threads of the default limiter.
    _thread: CapacityLimiter = field(init=False, factory=lambda: CapacityLimiter(1))
    # A cancellation by asyncio itself ends the wait for a thread, which then works on without the limiter.
    _use: Lock = field(init=False, factory=Lock)

    async def commit(self, make: MakeSteps, committed: Committed) -> Sequence[Outcome]:
        """Run steps in one transaction with the others of this turn, call `committed`, and return the outcomes.

        A cancellation is raised before the steps have had any effect, or not by this method.
        """
        # Another caller may commit these steps before this one runs again, so a cancellation must be raised first.
        await lowlevel.checkpoint_if_cancelled()
        job, missed = self._add(make, committed), None
        try:
            await lowlevel.checkpoint()
        except get_cancelled_exc_class() as cancelled:
            if self._withdraw(job):
                raise

            missed = cancelled
        except BaseException:
            self._withdraw(job)
            raise

        return await self._finish(job, missed)

    async def commit_now(self, make: MakeSteps, committed: Committed) -> Sequence[Outcome]:
        """Do the same as `commit`, but begin at once."""
        return await self._finish(self._add(make, committed))

    async def read(self, query: Callable[[View], T]) -> T:
        """Return the answer of `query` to the present state."""
        if not self._store.blocking:
            return self._store.read(query)

        def read() -> T:
            with self._use:
                return self._store.read(query)

        return await to_thread.run_sync(read, limiter=self._thread)

    def _add(self, make: MakeSteps, committed: Committed) -> _Job:
        job = _Job(make, committed)
        self._queue.append(job)
        return job

    def _withdraw(self, job: _Job) -> bool:
        """Remove a job from the queue, and return True; return False if its transaction has begun."""
        if job.begun:
            return False

        self._queue.remove(job)
        if job.turn is not None and job.turn.is_set():
            self._pass_lead_on()

        return True

    async def _finish(self, job: _Job, missed: BaseException | None = None) -> Sequence[Outcome]:
        """Return the outcomes of a job. `missed` is a cancellation that came too late for it."""
        if not job.done:
            if self._store.blocking:
                with CancelScope(shield=True):
                    missed = await self._finish_on_thread(job) or missed
            else:
                self._commit_here(job)

        if missed is not None:
            deliver_later(missed)

        return job.result()

    def _commit_here(self, job: _Job) -> None:
        """Commit the queue on the event loop. `job` is that of the caller."""
        batch = self._take()
        try:
            _commit(self._store, batch)
        except BaseException:
            # An interrupt. The other callers commit their steps themselves. If the transaction was committed all the
            # same, they repeat requests that were not answered, which the protocol allows.
            for each in batch:
                each.begun = False

            self._queue[:0] = [each for each in batch if each is not job]
            raise

        for each in batch:
            each.finish()

    async def _finish_on_thread(self, job: _Job) -> BaseException | None:
        """Wait until a job is done, and lead a commit if it is the turn of this caller.

        Return a cancellation by asyncio itself, which passes the shield, if it came after the job had begun.
        """
        missed = await self._wait(job) if self._led else None
        return missed if job.done else await self._lead()

    async def _wait(self, job: _Job) -> BaseException | None:
        """Wait until a job is done, or until its caller is to lead the next commit."""
        job.turn, missed = Event(), None
        while not job.turn.is_set():
            try:
                await job.turn.wait()
            except get_cancelled_exc_class() as cancelled:
                if self._withdraw(job):
                    raise

                missed = cancelled
            except BaseException:
                self._withdraw(job)
                raise

        return missed

    async def _lead(self) -> BaseException | None:
        """Commit the queue on the worker thread, and pass the lead on."""
        self._led = True
        batch, missed = self._take(), None
        left = [batch]

        def work() -> None:
            # The second call waits for the end of the first one.
            with self._use:
                if left:
                    _commit(self._store, left.pop())

        try:
            while True:
                try:
                    await to_thread.run_sync(work, limiter=self._thread)
                except get_cancelled_exc_class() as cancelled:
                    # By asyncio itself. The thread works on.
                    missed = cancelled
                else:
                    break
        except Exception as error:  # noqa: BLE001 - without a thread, every waiting caller raises this error
            for job in batch:
                job.error = error

        for job in batch:
            job.finish()

        self._pass_lead_on()
        return missed

    def _pass_lead_on(self) -> None:
        """Let the first caller that waits lead the next commit."""
        # A caller without an event has not run again since it joined the queue, and may be cancelled when it does.
        waiting = next((job.turn for job in self._queue if job.turn is not None), None)
        self._led = waiting is not None
        if waiting is not None:
            waiting.set()

    def _take(self) -> list[_Job]:
        """Empty the queue, and return the jobs whose steps could be made."""
        queue, self._queue = self._queue, []
        return [job for job in queue if job.begin()]


@define(eq=False, repr=False)
class _Job:
    """The steps of one caller, and their outcomes.

    Attributes:
        make: makes the steps.
        committed: called with their outcomes.
        steps: the steps.
        turn: an event that the caller waits for, if it waits: it is set when the job is done, or when the caller is to
            lead the next commit.
        begun: whether the transaction has begun.
        done: whether there are outcomes or an error.
        outcomes: the outcomes of the steps.
        error: why the steps were not committed, or what `committed` has raised.
    """

    make: MakeSteps
    committed: Committed
    steps: Sequence[Step] = field(init=False, default=())
    turn: Event | None = field(init=False, default=None)
    begun: bool = field(init=False, default=False)
    done: bool = field(init=False, default=False)
    outcomes: Sequence[Outcome] = field(init=False, default=())
    error: Exception | None = field(init=False, default=None)

    def begin(self) -> bool:
        """Make the steps. Return False if this fails; the job is done then."""
        self.begun = True
        try:
            self.steps = self.make()
        except Exception as error:  # noqa: BLE001 - raised by `result`
            self.error = error
            self.finish()
            return False

        return True

    def finish(self) -> None:
        """Wake the caller, and call `committed` if the steps were committed."""
        self.done = True
        if self.turn is not None:
            self.turn.set()

        if self.error is None:
            try:
                self.committed(self.outcomes)
            except Exception as error:  # noqa: BLE001 - raised by `result`, to the caller that it concerns
                self.error = error

    def result(self) -> Sequence[Outcome]:
        """Return the outcomes, or raise the error."""
        if self.error is not None:
            raise self.error

        return self.outcomes


def _commit(store: Store, jobs: Sequence[_Job]) -> None:
    """Run the steps of all jobs in one transaction. If one job makes it fail, each job gets a transaction of its own.

    Nothing is kept of a transaction that fails, so no step takes effect twice.
    """
    if not jobs:
        return

    try:
        outcomes = iter(store.transact([step for job in jobs for step in job.steps]))
    except (StoreUnavailable, StoreLost) as error:
        # The reason is not one of the jobs.
        for job in jobs:
            job.error = error
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
