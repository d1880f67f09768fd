"""`Execution`: one leased task: a root function, and all functions that it runs locally.

An execution is hot (its coroutines are in memory and its task is leased), parked (in memory only, see `_suspension`) or
not in memory. It is ended without an outcome by *dropping* it: the reason is noted, its scope is cancelled, every
durable wait is woken, and every later durable call raises the backend's own cancellation. After that this worker sends
nothing for it, and ignores what its code returns or raises. So dropping looks like a crash to other processes: the next
worker that acquires the task replays it.
"""

from __future__ import annotations

import logging
import math
import sys
from typing import TYPE_CHECKING

from anyio import CancelScope, Event, create_task_group, current_effective_deadline, current_time, move_on_after
from attrs import define, field

from .._concurrency._cancellation import is_requested, raise_cancelled
from .._concurrency._interrupts import interrupt_among, interrupt_here, interrupt_in
from .._concurrency._tasks import Task, after_this_round, current_task, is_timed, joins
from .._errors import NetworkError, ResonateError, StoreLost, TooLarge
from .._history import History
from .._ids import Naming
from .._protocol import Promise, PromiseState, Request, Response
from .._requests._queries import refusal
from .._requests._requester import unavailable
from .._workflow._frame import Frame
from .._workflow._host import Drop, crash
from .._workflow._lanes import current_frame
from .._workflow._presence import Presence, RunningFrame, Wait
from .._workflow._reasons import OUTSIDE, SCOPE, Reason
from .._workflow._regions import own_deadline, reason_for
from . import _events
from ._journal import Journal
from ._lease import Lease
from ._phases import Phase
from ._services import Event as Report
from ._suspension import Suspension

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, KeysView, ValuesView
    from typing import NoReturn

    from .._codec import Codec
    from .._concurrency._backoff import Backoff
    from .._concurrency._tasks import TaskSnapshot
    from .._requests._subscriptions import Listener
    from .._workflow._host import Awaited, Facilities
    from ._services import Services

_ANSWERS = frozenset({200, 300, 404, 409})
_FIRST_RETRY = 0.25
_RECHECKED_AT_ONCE = 12
_REFUSALS = frozenset({400, 422})  # the request is refused as it is; other statuses may pass

logger = logging.getLogger("resonate_anyio")


@define(eq=False, kw_only=True, repr=False)
class Execution:
    """One leased task and the local part of the call graph below its root function (see the module's docstring).

    Attributes:
        services: the worker, as the execution sees it.
        id: the id of the root function's promise, of the task, and of the branch.
        lease: the lease of the task.
        version: the version of the task, as it was acquired.
        origin: the id of the root of the lineage.
        history: the records that existed before this run.
        local_records: the number of promises in the branch: the local calls of the root function itself.
        dropped: the reason why it was dropped, or None.
        error: the error that caused the drop, or None.
        settlement: the record of its promise, if another program has settled it and the outcome is known.
        ended_by: the interrupt that has reached its code, or None.
        ended: an event that is set once its code has ended and, if it was halted, that is on record.
        suspension: the suspension of its task, and the way back.
        task: the anyio task that it runs in.
        stirred_at: the instant, by the loop's clock, at which one of its tasks last began to wait.
        journal: the writer of its records.
        fulfilling: whether the end of the root is being recorded by this worker.
        wary: whether a leaf is recorded before it begins, because a leaf may have ended the process in the last life.
        changed_at: the instant of the last known creation or settlement in it, in milliseconds of the server's time.
    """

    services: Services
    id: str
    lease: Lease
    version: int
    origin: str
    history: History
    now: Callable[[], int] = field(init=False)
    codec: Codec = field(init=False)
    facilities: Facilities = field(init=False)
    naming: Naming = field(init=False)
    presence: Presence = field(init=False)
    root: Frame = field(init=False)
    journal: Journal = field(init=False)
    dropped: Drop | None = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)
    settlement: Promise | None = field(default=None, init=False)
    ended_by: BaseException | None = field(default=None, init=False)
    ended: Event = field(factory=Event, init=False)
    local_records: int = 0
    wary: bool = False
    changed_at: int = 0
    suspension: Suspension = field(init=False)
    task: Task = field(default=None, init=False)
    stirred_at: float = field(factory=current_time, init=False)
    _scope: CancelScope = field(factory=lambda: CancelScope(shield=True), init=False)
    _subscriptions: dict[str, Awaited] = field(factory=dict, init=False)
    _looked: bool = field(default=False, init=False)
    fulfilling: bool = field(default=False, init=False)

    def __repr__(self) -> str:
        state = self.suspension.phase.value if self.dropped is None else self.dropped.value
        return f"<Execution {self.id} at version {self.version}: {state}>"

    def __attrs_post_init__(self) -> None:
        self.now = self.services.connection.now
        self.codec = self.services.facilities.codec
        self.facilities = self.services.facilities
        self.naming = Naming(self.id, self.origin, self.services.separator)
        self.presence = Presence(self.now, self.services.young, self._unlisten_to_call)
        self.journal = Journal(self)

    def complete(self, root: Frame, suspension: Suspension) -> None:
        """Take the parts that are made for this execution: see `make_execution`."""
        self.root = root
        self.suspension = suspension

    def count_record(self) -> None:
        """Count a promise that was put on record in the branch of the execution."""
        self.local_records += 1

    def leaf_ended(self) -> None:
        """Note that the end of a leaf is on record: leaves that begin from now on did not end the last process."""
        self.wary = False

    def note_change(self, at: int) -> None:
        """Note when something of the execution was made or settled, in the server's milliseconds."""
        self.changed_at = max(self.changed_at, at)

    def begin_to_fulfill(self) -> None:
        """Note that this worker is about to record the end of the root."""
        self.fulfilling = True

    def settled_by_cascade(self, record: Promise) -> None:
        """Note the outcome that a cancel cascade of this process has given to the root, for the log."""
        self.settlement = record

    async def run(self) -> None:
        """Run the root function to its end, or until the execution is dropped."""
        self.task = current_task()
        try:
            with self._scope:
                await self.root.run()
            # Code in anyio tasks of the user's own is not inside of this scope; `drop` has cancelled each of them.
            await self.presence.empty()
        finally:
            self.services.subscriptions.unsubscribe(self.id, self.root_settled)
            for node in self._subscriptions.values():
                self.services.subscriptions.unsubscribe(node.id, node.settle)

    # The parts that frames need

    @property
    def busy(self) -> bool:
        """Whether one of its leaves is running."""
        return self.presence.leaf_running.count > 0

    @property
    def pinned(self) -> bool:
        """Whether a replay could not deliver all outcomes at once: see `Presence.pins`."""
        return self.presence.pins > 0

    @property
    def draining(self) -> bool:
        """Whether the worker is stopping, so that durable calls do not start."""
        return self.services.subscriptions.stopping

    # Frames

    def _unlisten_to_call(self, frame: RunningFrame, listener: Listener) -> None:
        self.services.subscriptions.unsubscribe(frame.id, listener)

    def runs(self, frame: Frame) -> bool:
        """Return whether code of `frame` runs here and the execution is not dropped."""
        return self.dropped is None and frame in self.presence.frames

    def listen_to_call(self, frame: Frame) -> None:
        """End the local call if another program settles its promise."""

        def settled(record: Promise) -> None:
            if record.state is PromiseState.TIMEDOUT:
                frame.end_code()
            else:
                self.end_call(record.id)

        self.presence.listen(frame, settled)
        self.services.subscriptions.subscribe(frame.id, settled)

    def interrupted(self) -> bool:
        """Return whether to ignore a cancellation that was just caught, because the execution is being dropped.

        This looks for an interrupt that may have caused the cancellation. Call it before any effect of a cancellation
        is recorded.
        """
        if self.services.torn_down:
            self.drop(Drop.UNLOADED)
        elif self.dropped is None and (interrupt := interrupt_here() or self._interrupt_of_others()) is not None:
            self.interrupt(interrupt)
        return self.dropped is not None

    def _interrupt_of_others(self) -> BaseException | None:
        # A thousand tasks may be cancelled at once: they are searched once per round of the event loop.
        if self._looked or not self._may_be_interrupted():
            return None
        found = interrupt_among(self.services.task_snapshot().tasks_of(self, self.task))
        if found is None:
            self._looked = True
            after_this_round(self._look_again)
        return found

    @staticmethod
    def _may_be_interrupted() -> bool:
        """Return whether a plain scope has cancelled the running code. The reasons of other scopes are known."""
        frame = current_frame()
        return is_requested() and (frame is None or reason_for(frame).by == SCOPE)

    def _look_again(self) -> None:
        self._looked = False

    def interrupt(self, exc: BaseException | None) -> None:
        """Drop the execution if `exc` is an interrupt, or contains one: effects of an interrupt are not recorded."""
        if (found := interrupt_in(exc)) is not None:
            self.ended_by = self.ended_by or found
            self.drop(Drop.INTERRUPTED, found)

    def end_call(self, id: str) -> None:
        """Cancel the local call `id`, if it runs here: its promise was settled from outside."""
        self._end_calls({id})

    def end_calls(self, records: Iterable[Promise]) -> None:
        """Cancel the local calls that run here although their promises were settled, from outside."""
        self._end_calls({record.id for record in records if not record.pending})

    def _end_calls(self, ids: Collection[str]) -> None:
        for frame in self.presence.frames:
            if frame.id in ids and frame is not self.root:
                frame.request_cancel(Reason(OUTSIDE))

    # Waits

    @property
    def awaited(self) -> KeysView[str]:
        """The ids of promises that are waited for and settled elsewhere."""
        return self._subscriptions.keys()

    @property
    def externals(self) -> ValuesView[Awaited]:
        """The promises that are waited for and settled elsewhere."""
        return self._subscriptions.values()

    def blocked(self, snapshot: TaskSnapshot) -> bool:
        """Return whether the execution's code waits for something outside of the execution only; False in doubt."""
        if self.busy or not self._subscriptions or self.dropped is not None:
            return False
        if any(frame.unwinding for frame in self.presence.frames):
            # A wait that was cancelled may be over, although its task has not run yet.
            return False
        patient = {wait.task for wait in self.presence.waits if wait.patient and not wait.event.is_set()}
        tasks = snapshot.tasks_of(self, self.task)
        return all((task in patient or joins(task)) and not is_timed(task) for task in tasks)

    async def recheck(self) -> None:
        """Ask the server for the promises that are waited for, because a message about them may be lost."""
        ids = iter(list(self._subscriptions))

        async def some() -> None:
            for id in ids:
                await self.services.recheck(id)

        # Several at once: if each request waited for the one before, the last of many might come too late.
        async with create_task_group() as tasks:
            for _ in range(min(_RECHECKED_AT_ONCE, len(self._subscriptions))):
                tasks.start_soon(some)

    def root_settled(self, record: Promise) -> None:
        """Take over the record of the root, which another program has settled, and end all of the execution's code."""
        if self.fulfilling or self.dropped is not None or not self.root.pending:
            return
        if record.state is PromiseState.TIMEDOUT and self.suspension.hot:
            self.root.end_code()
            return
        self.root.settle(record)
        self.settlement = record
        self.drop(Drop.SETTLED)
        self.services.cancel_below_later(self.id)

    # Drop

    def drop(self, reason: Drop, error: BaseException | None = None) -> None:
        """Drop the execution: end its code without a write. The first reason stands."""
        if self.dropped is not None or self.ended.is_set():
            return
        self.dropped = reason
        self.error = error
        self.suspension.execution_dropped()
        self._scope.cancel()
        for frame in self.presence.frames:
            frame.end_code()
        for wait in self.presence.waits:
            wait.event.set()
        if reason is Drop.LOST and self.facilities.observers.given:
            _events.lease_lost(self)

    async def check(self) -> None:
        """Raise the backend's cancellation if the execution was dropped.

        Code that unwinds because of an interrupt makes no durable call: the interrupt is raised again. No code makes
        one while the event loop is taken down.
        """
        if self.services.torn_down:
            self.drop(Drop.UNLOADED)
        if (interrupt := interrupt_here()) is not None:
            self.interrupt(interrupt)
            raise interrupt
        if self.dropped is not None:
            await raise_cancelled()

    @property
    def _may_write(self) -> bool:
        """Whether the lease is certain and nothing ends the code: the usual case. If not, `until_hot` says more."""
        lease = self.lease
        return (
            self.dropped is None
            and self.suspension.phase is Phase.HOT
            and (lease.certain_until == math.inf or lease.certain)
            and sys.exception() is None
        )

    async def gate(self) -> None:
        """Wait until a durable call may start. If the execution is dropped, raise the backend's cancellation."""
        if self._may_write and not self.services.subscriptions.stopping:
            return
        await self.until_hot()
        if self.services.subscriptions.stopping:
            await self._wait(Event(), patient=False)

    async def until_hot(self) -> None:
        """Wait until the lease is certain, so that records may be written; resume the execution if necessary."""
        if self._may_write:
            return
        await self.check()
        while not (self.lease.certain and self.suspension.hot):
            self.suspension.verify_lease()
            self.suspension.request_resume()
            await self._wait(self.suspension.next_change(), patient=False)

    async def wait(self, event: Event) -> None:
        """Wait for `event`, or until the execution is dropped. A shield in the user's code does not delay a drop."""
        await self.check()
        self.stirred_at = current_time()
        self.services.report(Report.STIRRED, self)
        await self._wait(event, patient=current_effective_deadline() >= own_deadline())
        await self.until_hot()

    async def hold(self, event: Event) -> None:
        """Wait for `event`, which another task of this execution sets. The execution stays hot meanwhile."""
        await self.check()
        await self._wait(event, patient=False, held=True)
        await self.until_hot()

    async def _wait(self, event: Event, *, patient: bool, held: bool = False) -> None:
        wait = Wait(current_task(), event, patient, held)
        self.presence.waits.add(wait)
        try:
            await event.wait()
        finally:
            self.presence.waits.discard(wait)
        await self.check()

    # Requests

    async def request(
        self,
        request: Request,
        *,
        settling: bool = False,
        leased: bool = True,
        finished: bool = False,
        taken: Collection[int] = (),
    ) -> Response:
        """Send one request for this execution, repeatedly while the server cannot be reached, and return the response.

        A failure of the platform is not an outcome of a call. One that does not pass by itself drops the execution.

        Args:
            request: the request; it may be sent twice.
            settling: whether it records something that has happened already; then it is sent even while the worker
                stops.
            leased: whether only the holder of the task may send it.
            finished: whether it records the outcome of a leaf. Its failure does not drop the execution, which would run
                the leaf again: a refusal is raised, and after any other failure the request is sent again. Only the
                loss of the store drops the execution, since nothing can be recorded any more.
            taken: further statuses that the caller handles.

        Raises:
            RequestError: the server refused the request as it is, and would refuse it on a replay.
            TooLarge: the request is larger than the server accepts, and would be on a replay.
        """
        backoff: Backoff | None = None
        while True:
            if leased or (self.suspension.phase is not Phase.HOT and self.suspension.unleased):
                await (self.until_hot() if settling else self.gate())
            try:
                response = await self.services.connection.request(request)
            except Exception as exc:  # noqa: BLE001 - an exception of a network is not an outcome of a call
                await self._check_failure(exc, finished=finished)
                failure = exc
            else:
                if self.dropped is not None or sys.exception() is not None:
                    await self.check()
                if response.status in _ANSWERS or response.status in taken:
                    return response
                failure = refusal(request, response)
                if response.status in _REFUSALS or not (finished or unavailable(response)):
                    await self._refused(failure, response, final=finished or not settling)
            await self.check()
            backoff = backoff or self.services.subscriptions.backoff(_FIRST_RETRY)
            logger.warning("execution.unanswered id=%s retry_in=%.2f reason=%s", self.id, backoff.delay, failure)
            with move_on_after(backoff.next()):
                await self._wait(Event(), patient=False)

    async def _check_failure(self, failure: Exception, *, finished: bool) -> None:
        """Raise the failure of a request, or drop the execution, unless the request is to be sent again."""
        if isinstance(failure, TooLarge):
            await self.check()
            raise failure
        if not isinstance(failure, NetworkError) and (not finished or isinstance(failure, StoreLost)):
            await crash(self, failure)

    async def _refused(self, refused: ResonateError, response: Response, *, final: bool) -> NoReturn:
        """Raise a refusal of the request as it is; for any other refusal, drop the execution."""
        if response.status in _REFUSALS and final:
            raise refused
        await crash(self, refused)

    async def regain(self, version: int) -> None:
        """Wait until the task is held again, after the server has said that it is not held at `version`.

        Raise the backend's cancellation if another worker holds it.
        """
        if self.version == version:
            self.suspension.verify_lease()
        await self.until_hot()
        if self.version == version:
            # The task is held at that version after all, and yet the request was refused.
            await self.lose()

    async def listen(self, node: Awaited) -> None:
        """Subscribe to the settlement of a promise that is settled elsewhere."""
        self.services.subscriptions.subscribe(node.id, node.settle)
        self._subscriptions[node.id] = node
        try:
            record = await self.services.register_listener(node.id, self)
        except BaseException:
            self.unlisten(node)
            raise
        if not record.pending:
            node.settle(record)
            return
        self.services.ask_at_deadline(record)
        if node.due is not None:
            self.services.falls_asleep(self, record.timeout_at)

    def unlisten(self, node: Awaited) -> None:
        """End the subscription."""
        if self._subscriptions.pop(node.id, None) is not None:
            self.services.subscriptions.unsubscribe(node.id, node.settle)
        if not node.pending:
            self.changed_at = self.now()

    async def lose(self) -> NoReturn:
        """Drop the execution: another worker holds the task."""
        self.drop(Drop.LOST)
        await raise_cancelled()
