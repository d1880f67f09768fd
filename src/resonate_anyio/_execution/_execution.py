"""`Execution`: a root promise whose task this worker has taken, with everything that runs locally below it.

An execution is hot (its coroutines are in memory and its task is leased), parked (in memory only, see `_parking`) or
not here at all. It is put away by *dropping* it: the reason is written down, its scope is cancelled, every durable wait
is woken and every durable call from then on raises the backend's own cancellation. Nothing is sent for it any more and
what its code still returns or raises is ignored, so that dropping looks like a crash to everybody else: whoever
acquires the task next replays it.
"""

from __future__ import annotations

import logging
import math
import sys
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, Event, create_task_group, current_effective_deadline, current_time, move_on_after
from attrs import define, field

from .._concurrency._cancellation import is_requested, raise_cancelled
from .._concurrency._interrupts import interrupt_among, interrupt_here, interrupt_in
from .._concurrency._tasks import Task, after_this_round, current_task, is_timed, joins
from .._errors import NetworkError, ResonateError, StoreLost, TooLarge
from .._history import History
from .._ids import Naming, origin_of
from .._protocol import Promise, PromiseState, Request, Response
from .._requests._queries import refusal
from .._requests._requester import unavailable
from .._workflow._frame import Frame
from .._workflow._host import Drop, crash
from .._workflow._lanes import current_frame
from .._workflow._presence import Presence, RunningFrame, Wait
from .._workflow._reasons import OUTSIDE, SCOPE, Reason
from .._workflow._regions import own_deadline, reason_for
from ._journal import Journal
from ._lease import Lease
from ._services import Event as Report
from ._suspension import Phase, Suspension

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, KeysView, Mapping, Sequence, ValuesView
    from typing import NoReturn

    from .._codec import Codec
    from .._concurrency._backoff import Backoff
    from .._concurrency._tasks import TaskSnapshot
    from .._functions._function import Function
    from .._requests._subscriptions import Listener
    from .._workflow._frame import Frame
    from .._workflow._host import Awaited, Facilities
    from ._services import Services

_ANSWERS = frozenset({200, 300, 404, 409})
_FIRST_RETRY = 0.25
_RECHECKED_AT_ONCE = 12
_REFUSALS = frozenset({400, 422})  # these speak of the request; all others, of a platform that cannot take it now

logger = logging.getLogger("resonate_anyio")


@define(eq=False, kw_only=True, repr=False)
class Execution:
    """One root promise and the local part of the call graph below it (see the module's docstring).

    Attributes:
        id: the id of the root; also of its task, and the branch of everything local.
        lease: for how long this worker certainly holds the task.
        version: the version that the task was acquired at.
        history: what was recorded before this run.
        local_records: how many promises share the branch.
        dropped: why it was put away, or None.
        error: what went wrong, if that is why.
        settlement: what its promise was settled with, if that was not by its own code and is known.
        ended_by: the interrupt that has come to its code, or None.
        ended: set once no code of it runs any more and, if it was halted, that is on record.
        suspension: how its task is suspended, and taken back.
        task: the task that it begins with.
        stirred_at: when, by the loop's clock, it last began to wait.
        journal: what is put on record for it goes through this.
        fulfilling: whether the end of the root is being recorded from here.
        changed_at: when something of it was last made or settled, as far as is known, in the server's milliseconds.
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

    @classmethod
    def of(
        cls,
        services: Services,
        lease: Lease,
        promise: Promise,
        call: tuple[Function, tuple[Any, ...], Mapping[str, Any]],
        history: History,
        wakes: Sequence[str] = (),
    ) -> Execution:
        """Return the execution of a task that was acquired.

        Args:
            services: the worker.
            lease: of the task.
            promise: the root.
            call: the function of the root, and its arguments.
            history: what is on record below the root.
            wakes: the pending wake promises of earlier executions of the task.
        """
        execution = cls(
            services=services,
            id=lease.id,
            lease=lease,
            version=lease.version,
            origin=lineage(promise, services.separator),
            history=history,
            local_records=history.local,
            changed_at=max(promise.created_at, history.last_change),
        )
        execution.suspension = Suspension(execution)
        execution.suspension.wakes.extend(wakes)
        function, args, kwargs = call
        execution.root = Frame(
            execution=execution,
            record=promise,
            type=function.returns,
            parent=None,
            function=function,
            args=args,
            kwargs=kwargs,
            retry=function.retry,
        )
        return execution

    def count_record(self) -> None:
        """Count a promise that was put on record in the branch of the execution."""
        self.local_records += 1

    def note_change(self, at: int) -> None:
        """Note when something of the execution was made or settled, in the server's milliseconds."""
        self.changed_at = max(self.changed_at, at)

    def begin_to_fulfill(self) -> None:
        """The end of the root is about to be recorded from here."""
        self.fulfilling = True

    def settled_by_cascade(self, record: Promise) -> None:
        """Note what the root was settled with from this process: the log tells it."""
        self.settlement = record

    async def run(self) -> None:
        """Run the root function to its end, or until the execution is dropped."""
        self.task = current_task()
        try:
            with self._scope:
                await self.root.run()
            # Code in tasks of the user's own, which no scope of ours is around, has been cancelled one by one.
            await self.presence.empty()
        finally:
            self.services.subscriptions.unsubscribe(self.id, self.root_settled)
            for node in self._subscriptions.values():
                self.services.subscriptions.unsubscribe(node.id, node.settle)

    # What frames need from around them

    @property
    def busy(self) -> bool:
        """Whether a leaf of it is running."""
        return self.presence.leaf_running.count > 0

    @property
    def pinned(self) -> bool:
        """Whether a replay could not give back at once what the code has been given: see `Presence.pins`."""
        return self.presence.pins > 0

    @property
    def draining(self) -> bool:
        """Whether the worker is stopping: no durable call starts."""
        return self.services.subscriptions.stopping

    # Frames

    def _unlisten_to_call(self, frame: RunningFrame, listener: Listener) -> None:
        self.services.subscriptions.unsubscribe(frame.id, listener)

    def runs(self, frame: Frame) -> bool:
        """Whether code of `frame` runs here, and is wanted."""
        return self.dropped is None and frame in self.presence.frames

    def listen_to_call(self, frame: Frame) -> None:
        """End the local call if somebody else settles its promise."""

        def settled(record: Promise) -> None:
            if record.state is PromiseState.TIMEDOUT:
                frame.expire()
            else:
                self.end_call(record.id)

        self.presence.listen(frame, settled)
        self.services.subscriptions.subscribe(frame.id, settled)

    def interrupted(self) -> bool:
        """Whether a cancellation that was just caught means nothing: the execution is being put away.

        Looks for an interrupt that may be the reason. Nothing that was cancelled is recorded without asking this.
        """
        if self.services.torn_down:
            self.drop(Drop.UNLOADED)
        elif self.dropped is None and (interrupt := interrupt_here() or self._interrupt_of_others()) is not None:
            self.interrupt(interrupt)
        return self.dropped is not None

    def _interrupt_of_others(self) -> BaseException | None:
        # A thousand tasks may be cancelled at once. What cancels them was there before the first of them ran.
        if self._looked or not self._may_be_interrupted():
            return None
        found = interrupt_among(self.services.task_snapshot().tasks_of(self, self.task))
        if found is None:
            self._looked = True
            after_this_round(self._look_again)
        return found

    @staticmethod
    def _may_be_interrupted() -> bool:
        """Whether a scope of the user's has cancelled the running code. Why one of the engine's did is known."""
        frame = current_frame()
        return is_requested() and (frame is None or reason_for(frame).by == SCOPE)

    def _look_again(self) -> None:
        self._looked = False

    def interrupt(self, exc: BaseException | None) -> None:
        """If `exc` is an interrupt, or has one in it, the program ends, and nothing that it causes is recorded."""
        if (found := interrupt_in(exc)) is not None:
            self.ended_by = self.ended_by or found
            self.drop(Drop.INTERRUPTED, found)

    def end_call(self, id: str) -> None:
        """Cancel the local call `id` if it is running here: its promise was settled from outside."""
        for frame in self.presence.frames:
            if frame.id == id and frame is not self.root:
                frame.request_cancel(Reason(OUTSIDE))

    # What is waited for

    @property
    def awaited(self) -> KeysView[str]:
        """The ids of what is waited for and settles elsewhere."""
        return self._subscriptions.keys()

    @property
    def externals(self) -> ValuesView[Awaited]:
        """What is waited for and settles elsewhere."""
        return self._subscriptions.values()

    def blocked(self, snapshot: TaskSnapshot) -> bool:
        """Whether no code of it can go on before something happens outside of it. In doubt it can."""
        if self.busy or not self._subscriptions or self.dropped is not None:
            return False
        if any(frame.unwinding for frame in self.presence.frames):
            # A wait that was cancelled may be over, though its task has not run yet.
            return False
        patient = {wait.task for wait in self.presence.waits if wait.patient and not wait.event.is_set()}
        tasks = snapshot.tasks_of(self, self.task)
        return all((task in patient or joins(task)) and not is_timed(task) for task in tasks)

    async def recheck(self) -> None:
        """Ask for what is waited for, because a message that told of it may be lost."""
        ids = iter(list(self._subscriptions))

        async def some() -> None:
            for id in ids:
                await self.services.recheck(id)

        # Of many, each a while after the other, the last might come too late.
        async with create_task_group() as tasks:
            for _ in range(min(_RECHECKED_AT_ONCE, len(self._subscriptions))):
                tasks.start_soon(some)

    def root_settled(self, record: Promise) -> None:
        """Somebody else has settled the root. What runs below it ends, and nothing is written under it any more."""
        if self.fulfilling or self.dropped is not None or not self.root.pending:
            return
        if record.state is PromiseState.TIMEDOUT and self.suspension.hot:
            self.root.expire()
            return
        self.root.settle(record)
        self.settlement = record
        self.drop(Drop.SETTLED)
        self.services.cancel_below_later(self.id)

    # Putting away

    def drop(self, reason: Drop, error: BaseException | None = None) -> None:
        """Put the execution away. The first reason stands."""
        if self.dropped is not None or self.ended.is_set():
            return
        self.dropped = reason
        self.error = error
        self.suspension.dropped()
        self._scope.cancel()
        for frame in self.presence.frames:
            frame.put_away()
        for wait in self.presence.waits:
            wait.event.set()

    async def check(self) -> None:
        """Raise the backend's cancellation if the execution was dropped.

        Code that is unwinding for an interrupt makes no durable call. It gets the interrupt again.
        """
        if (interrupt := interrupt_here()) is not None:
            self.interrupt(interrupt)
            raise interrupt
        if self.dropped is not None:
            await raise_cancelled()

    async def gate(self) -> None:
        """Let a durable call start when the execution is hot, unless it is being dropped: then it never does."""
        lease = self.lease
        if (
            self.dropped is None
            and self.suspension.phase is Phase.HOT
            and not self.services.subscriptions.stopping
            and (lease.certain_until == math.inf or lease.certain)
            and sys.exception() is None
        ):
            # As at nearly every call.
            return
        await self.until_hot()
        if self.services.subscriptions.stopping:
            await self._wait(Event(), patient=False)

    async def until_hot(self) -> None:
        """Wait until what happens here may be recorded; ask for that to be soon."""
        await self.check()
        while not (self.lease.certain and self.suspension.hot):
            self.suspension.doubt()
            self.suspension.want()
            await self._wait(self.suspension.next_move(), patient=False)

    async def wait(self, event: Event) -> None:
        """Wait for `event`; a shield of the user's does not hold this when the execution is dropped."""
        await self.check()
        self.stirred_at = current_time()
        self.services.report(Report.STIRRED, self)
        await self._wait(event, patient=current_effective_deadline() >= own_deadline())
        await self.until_hot()

    async def hold(self, event: Event) -> None:
        """Wait for `event`, which another task of this execution sets. Meanwhile it stays hot."""
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
        """Send one request on behalf of this execution, again and again while the server cannot be reached.

        A failure of the platform is no outcome of anything. One that does not pass by itself drops the execution.

        Args:
            request: what is asked; it may be sent twice.
            settling: it records what has happened already, and is not held up when the worker stops.
            leased: only the holder of the task may ask for it.
            finished: it records what a leaf has done. No failure of it drops the execution, which would run the leaf
                again: a refusal is raised, and after any other failure the request is sent again. Only the loss of the
                store drops it: nothing is recorded any more.
            taken: more statuses that the caller understands.

        Raises:
            RequestError: the request was refused as it is, and would be on a replay.
            TooLarge: it is larger than the server takes, and would be on a replay.
        """
        backoff: Backoff | None = None
        while True:
            if leased or (self.suspension.phase is not Phase.HOT and self.suspension.in_memory_only):
                await (self.until_hot() if settling else self.gate())
            try:
                response = await self.services.connection.request(request)
            except Exception as exc:  # noqa: BLE001 - whatever a network raises, it is not an outcome of a call
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
        """Raise what a request has failed with, or drop the execution, unless the request is to be sent again."""
        if isinstance(failure, TooLarge):
            await self.check()
            raise failure
        if not isinstance(failure, NetworkError) and (not finished or isinstance(failure, StoreLost)):
            await crash(self, failure)

    async def _refused(self, refused: ResonateError, response: Response, *, final: bool) -> NoReturn:
        """Raise a refusal of this very request. Of another one, the execution is dropped."""
        if response.status in _REFUSALS and final:
            raise refused
        await crash(self, refused)

    async def regain(self, version: int) -> None:
        """The server says that the task is not held at `version`: go on when it is held again, if ever.

        Raises the backend's cancellation if somebody else has it.
        """
        if self.version == version:
            self.suspension.doubt()
        await self.until_hot()
        if self.version == version:
            # It is held at that version after all, and yet refused.
            await self.lose()

    async def listen(self, node: Awaited) -> None:
        """Hear of the settling of a promise that is not run here."""
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
        """Hear of it no more."""
        if self._subscriptions.pop(node.id, None) is not None:
            self.services.subscriptions.unsubscribe(node.id, node.settle)
        if not node.pending:
            self.changed_at = self.now()

    async def lose(self) -> NoReturn:
        """Another worker holds the task: put the execution away."""
        self.drop(Drop.LOST)
        await raise_cancelled()


def lineage(record: Promise, separator: str) -> str:
    """The origin of a root that was handed to this worker: from its tag; else, from the shape of its id."""
    origin = record.tags.get("resonate:origin") or ""
    return origin if origin and separator not in origin else origin_of(record.id, separator)
