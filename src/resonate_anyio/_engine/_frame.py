"""`Frame`: one run of a durable function, with its cancel scope, its children and its deadline.

A frame is where structured concurrency and durability meet:

* it runs under a cancel scope whose deadline is the deadline of its promise;
* what it spawns runs in a task group of its own, and it ends after all of its children have ended, remote ones, sleeps
  and external promises included;
* when it fails or is cancelled, its unfinished children are cancelled first, durably, and waited for;
* then its own outcome is recorded, and what is recorded is the outcome, whatever is in memory.

A call that is awaited at once runs in the caller's task (`run`); only a spawned one gets a task (`start`). Nothing that
a child does raises into the task group: outcomes travel by record, cancellation by scope.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, Event, create_task_group, current_time, get_cancelled_exc_class, move_on_after
from attrs import define, evolve, field

from .._errors import ApplicationError, EncodeError, NonDeterminismError, UsageError, WrongWorld
from .._graph import Namer
from .._protocol import Promise, PromiseState, Value
from ._backend import is_requested, raise_cancelled
from ._execution import Drop
from ._functions import Kind
from ._leaf import run_leaf
from ._nodes import External, Node
from ._outcomes import Ending, Raised, Returned, Stopped, TimedOut, cancelled_by, raised, text_of, without_cancellations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping
    from typing import NoReturn

    from anyio.abc import TaskGroup

    from ._context import Context
    from ._functions import Function
    from ._info import Info
    from ._retry import RetryPolicy

current_frame: ContextVar[Frame | None] = ContextVar("resonate_anyio.current_frame", default=None)
"""The frame whose code is running, or None in the ephemeral world."""


_SCOPE_PATIENCE: Final = 30.0
"""Seconds that a scope which had cancelled an await may take longer to do so again."""

_STACK_SLICE: Final = 20
"""How many calls run in one task below each other: each takes a dozen frames of the interpreter's thousand."""

_DEEPEST: Final = 200
"""How many calls may be nested at all. More is taken for a recursion without end."""

_MOST_NOTES: Final = 10
"""A thousand children may fail for one reason; their errors are on record each."""


@define(eq=False, kw_only=True)
class Frame(Node):
    """One run of a durable function (see the module's docstring)."""

    parent: Frame | None
    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    info: Info
    retry: RetryPolicy | None = None

    depth: int = field(default=0, init=False)
    children: dict[str, Node] = field(factory=dict, init=False)
    ended: bool = field(default=False, init=False)
    namer: Namer = field(init=False)
    _openings: int = field(default=0, init=False)
    _opened: Event = field(factory=Event, init=False)
    _scope: CancelScope = field(factory=CancelScope, init=False)
    _spawned: bool = field(default=False, init=False)
    _stopped_by: str | None = field(default=None, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.namer = Namer(self.id)

    # Running

    async def run_in_place(self, child: Frame) -> None:
        """Run `child` in the current task, below the scopes of whoever calls.

        Once in a while it gets a task all the same: the interpreter's stack must not end in the engine's own code.
        """
        child.depth = self.depth + 1
        if child.depth % _STACK_SLICE or not child.pending:
            await child.run()
        else:
            self.start(child)
            await self.outcome(child)

    def check_depth(self, call: str) -> None:
        """Refuse a recursion that does not seem to end.

        Raises:
            UsageError: too many calls are nested already.
        """
        if self.depth >= _DEEPEST:
            msg = (
                f"{call} is nested {_DEEPEST} calls deep, which looks like a recursion without end; if it is meant, "
                f"spawn it: await (await {call}.spawn()), or give it an execution of its own: await ctx.rpc(...)"
            )
            raise UsageError(msg)

    async def run(self) -> None:
        """Run the function in the current task and record what came of it, unless there is an outcome already.

        Returns once the record is settled. Raises the backend's cancellation, and nothing of the user's.
        """
        if self.pending and self._stopped_by is None and self.record.timeout_at <= self.execution.now():
            await self._settle(TimedOut())
        if self.pending:
            await self._settle(await self._end())

    def start(self, child: Frame) -> None:
        """Run `child` in a task of its own."""
        assert self._tasks is not None
        self._tasks.start_soon(child._run_spawned, name=child.id)

    async def _run_spawned(self) -> None:
        self._spawned = True
        # Its outcome is on record: a cancellation that ended it has nothing to say to the task group.
        try:
            await self.run()
        except get_cancelled_exc_class():
            if self.pending and self.execution.dropped is None:  # pragma: no cover - would be a bug of the engine's
                raise

    async def _end(self) -> Ending:
        """Call the function under its scope and tell how it ended."""
        if self._stopped_by is not None:
            return Stopped(self._stopped_by)

        try:
            with self.execution.deadline(self), self._scope:
                return await self._call()
        except get_cancelled_exc_class() as exc:
            return Stopped(self._enclosing_reason(), cancellation=exc)
        finally:
            self.ended = True
        return TimedOut() if self._stopped_by is None else Stopped(self._stopped_by)

    def expire(self) -> None:
        """Its deadline has passed at the server, whatever the loop's clock says."""
        self._scope.cancel()

    @property
    def instant(self) -> int:
        """The deadline of the promise, an instant of the server's in milliseconds."""
        return self.record.timeout_at

    def map_deadline(self) -> None:
        """Map the deadline of the promise to the loop's clock."""
        self._scope.deadline = current_time() + (self.instant - self.execution.now()) / 1000

    async def _call(self) -> Ending:
        token = current_frame.set(self)
        try:
            if self.function.kind is Kind.WORKFLOW:
                return await self._call_workflow()
            return await self._call_leaf()
        finally:
            current_frame.reset(token)

    async def _call_leaf(self) -> Ending:
        return await self._outcome_of(run_leaf(self))

    async def _outcome_of(self, call: Awaitable[object]) -> Ending:
        """Await the function's own code. Whatever it returns or raises is its outcome, but for two things."""
        try:
            return Returned(await call)
        except Exception as exc:  # noqa: BLE001 - whatever a function raises is its outcome
            return raised(exc)
        except get_cancelled_exc_class() as exc:
            # The first: a cancellation belongs to the scope that asked for it, if there is one.
            if self.execution.worker.torn_down:
                self.execution.drop(Drop.UNLOADED)
            if self.execution.dropped is not None or is_requested():
                raise
            return Raised(_stray(exc))
        except BaseException as exc:
            rest = without_cancellations(exc) if isinstance(exc, BaseExceptionGroup) else exc
            if isinstance(rest, Exception):
                return raised(rest)
            if isinstance(rest, get_cancelled_exc_class()):
                raise rest from None
            # The second: KeyboardInterrupt, SystemExit and the like. The program is ending, as in a crash.
            self.execution.drop(Drop.CRASHED, exc)
            raise

    async def _call_workflow(self) -> Ending:
        context = self.execution.context_for(self)
        ending: Ending | None = None
        interrupted: BaseException | None = None
        async with create_task_group() as self._tasks:
            try:
                ending = await self._call_and_join(context)
            except get_cancelled_exc_class() as exc:
                interrupted = exc
            if not isinstance(ending, Returned):
                self.ended = True
                await self._cancel_children()
        # Raised outside of the task group, which would wrap it.
        if interrupted is not None:
            raise interrupted
        assert ending is not None
        return self._with_unseen_failures(ending)

    async def _call_and_join(self, context: Context) -> Ending:
        ending = await self._outcome_of(self.function.func(context, *self.args, **self.kwargs))
        if isinstance(ending, Returned):
            await self._join()
        # From here on such a call would come too late to be waited for.
        self.ended = True
        return ending

    async def time_out(self, instant: int) -> NoReturn:
        """A deadline of this frame or of some above has passed at the server: end them, through any shield."""
        frame: Frame | None = self
        while frame is not None and frame.record.timeout_at <= instant:
            frame._scope.cancel()
            frame = frame.parent
        await raise_cancelled()

    # Children

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Keep this frame from ending while a call is being put on record: it is no child yet."""
        self._openings += 1
        try:
            yield
        finally:
            self._openings -= 1
            self._opened.set()

    async def _all_opened(self) -> None:
        while self._openings:
            self._opened = Event()
            await self.execution.wait(self._opened)

    async def _join(self) -> None:
        """Wait for all children. A task of the user's that outlives the function may call on meanwhile."""
        await self._all_opened()
        while pending := [child for child in self.children.values() if child.pending]:
            for child in pending:
                await child.wait()
            await self._all_opened()

    def check_current(self, call: str) -> None:
        """Refuse a durable call that is not made by this frame's own running code: a replay would skip it.

        Raises:
            WrongWorld: it is made from elsewhere, or too late.
        """
        if self.ended:
            msg = f"{call} was called after {self.function.name!r} ({self.id!r}) had ended; await it inside of it"
            raise WrongWorld(msg)
        running = current_frame.get()
        if running is not self:
            where = "code outside of it" if running is None else f"{running.function.name!r} ({running.id!r})"
            msg = (
                f"{call}: this ctx belongs to {self.function.name!r} ({self.id!r}) and was used by {where}; a durable "
                f"function uses its own first parameter, annotated with Context"
            )
            raise WrongWorld(msg)

    def adopt(self, child: Node) -> None:
        """Make `child` end before this frame does."""
        self.children[child.id] = child

    async def outcome(self, child: Node) -> None:
        """Wait for a child that was spawned. To cancel this wait is to cancel the child."""
        if child.pending or isinstance(child, External):
            try:
                await child.wait()
            except get_cancelled_exc_class():
                if self.execution.dropped is None and child.pending:
                    await child.cancel(self.reason_for_children())
                raise

    async def deliver(self, child: Node) -> object:
        """Hand the outcome of a settled child to the code of this frame: its value is returned, its failure raised."""
        if child.replayed and self._was_cancelled_by_scope(child):
            await self._wait_for_scope(child)
        self.mark_seen(child)
        return child.value()

    def _was_cancelled_by_scope(self, child: Node) -> bool:
        record = child.record
        return record.state is PromiseState.CANCELED and cancelled_by(record, self.execution.codec) == "scope"

    async def _wait_for_scope(self, child: Node) -> None:
        """Live, a plain scope around this await was cancelled. It has begun anew, and is to be cancelled again."""
        record = child.record
        lived_ms = (record.settled_at or record.created_at) - record.created_at
        try:
            with move_on_after(lived_ms / 1000 + _SCOPE_PATIENCE):
                await self.execution.wait(child.recancelled)
                return
        except get_cancelled_exc_class():
            # Others who wait for it, whom nothing had cancelled, get the outcome as they did then.
            child.replayed = False
            child.recancelled.set()
            raise
        recorded, requested = "an await that a scope around it had cancelled", "one that none cancels"
        await self.execution.halt(NonDeterminismError(child.id, recorded, requested, self.execution.id))

    def mark_seen(self, child: Node) -> None:
        child.seen = True
        self.children.pop(child.id, None)

    def reason_for_children(self) -> str:
        """Why a cancellation that arrives in this frame's code came: `parent` if a frame ended, else `scope`."""
        frame: Frame | None = self
        while frame is not None:
            if frame._scope.cancel_called:
                return "parent"
            frame = frame.parent
        return "scope"

    def _enclosing_reason(self) -> str:
        """Why a scope around this frame was cancelled. What was spawned has only its caller's frame around it."""
        if self._spawned:
            return "parent"
        return "scope" if self.parent is None else self.parent.reason_for_children()

    async def cancel(self, by: str) -> None:
        self.request_cancel(by)
        with CancelScope(shield=True):
            await self.wait()

    def request_cancel(self, by: str) -> None:
        """Cancel the running function; its outcome is recorded by the task that runs it."""
        if self.pending and self._stopped_by is None:
            self._stopped_by = by
            self._scope.cancel()

    async def _cancel_children(self) -> None:
        """Cancel what is unfinished, depth first: local functions record their own end before this one's is."""
        if self.execution.dropped is not None:
            return
        with CancelScope(shield=True):
            await self._all_opened()
        unfinished = [child for child in self.children.values() if child.pending]
        for child in unfinished:
            if isinstance(child, Frame):
                child.request_cancel("parent")
        for child in unfinished:
            if child.pending:
                await child.cancel("parent")

    def _with_unseen_failures(self, ending: Ending) -> Ending:
        """Errors are never dropped: what no one awaited is noted on the error, or is the error."""
        unseen = [(child.id, error) for child in self.children.values() if (error := self._unseen(child)) is not None]
        if not unseen:
            return ending
        if isinstance(ending, Raised):
            for id, error in unseen[:_MOST_NOTES]:
                ending.error.add_note(f"its child {id!r} failed as well: {text_of(error)}")
            if len(unseen) > _MOST_NOTES:
                ending.error.add_note(f"... and {len(unseen) - _MOST_NOTES} more of its children failed")
            return ending
        msg = f"{len(unseen)} of the children of {self.id!r} failed, and nobody awaited them"
        return Raised(ExceptionGroup(msg, [error for _, error in unseen]))

    def _unseen(self, child: Node) -> Exception | None:
        return None if child.pending or child.seen or self._cancelled_here(child) else child.failure()

    def _cancelled_here(self, child: Node) -> bool:
        if child.record.state is not PromiseState.CANCELED:
            return False
        error = child.failure()
        return getattr(error, "by", None) is not None

    # Settling

    async def _settle(self, ending: Ending) -> None:
        """Record how the function ended. From then on the record is the outcome."""
        execution = self.execution
        if execution.dropped is None:
            with CancelScope(shield=True):
                self.settle(await self._record(ending))
        if execution.dropped is not None:
            await raise_cancelled()
        if isinstance(ending, Raised) and self.record.state is PromiseState.REJECTED:
            self.live = ending.error.__traceback__
        if isinstance(ending, Stopped) and ending.cancellation is not None:
            raise ending.cancellation

    async def _record(self, ending: Ending) -> Promise:
        codec = self.execution.codec
        match ending:
            case TimedOut():
                return await self.execution.confirm_timeout(self.record)
            case Returned(value):
                try:
                    encoded = codec.encode_result(value, self.function.returns, function=self.function.name)
                except EncodeError as exc:
                    return await self._save(PromiseState.REJECTED, codec.encode_error(exc))
                return await self._save(PromiseState.RESOLVED, encoded)
            case Raised(error):
                return await self._save(PromiseState.REJECTED, codec.encode_error(error))
            case Stopped(by):
                return await self._save(PromiseState.CANCELED, codec.encode({"by": by}))

    async def _save(self, state: PromiseState, value: Value) -> Promise:
        if self.parent is None:
            return await self.execution.fulfill(state, value)
        return await self.execution.settle(self.id, state, value)

    def attempt(self, number: int) -> Info:
        """The info that a leaf is given for its `number`-th attempt."""
        return self.info if number == 1 else evolve(self.info, attempt=number)


def own_deadline() -> float:
    """The earliest deadline that the engine itself has set for the code that is running, by the loop's clock.

    If the effective deadline is earlier, a scope of the user's is the reason.
    """
    earliest, frame = math.inf, current_frame.get()
    while frame is not None:
        earliest = min(earliest, frame._scope.deadline)
        frame = frame.parent
    return earliest


def _stray(cancellation: BaseException) -> ApplicationError:
    message = (
        "a cancellation that nobody asked for escaped, probably from an await of a task or future that was cancelled"
    )
    error = ApplicationError(type(cancellation).__name__, message)
    error.__cause__ = cancellation
    return error.with_traceback(cancellation.__traceback__)
