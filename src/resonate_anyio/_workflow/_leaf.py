"""Running a leaf: attempts, back-off, worker threads for synchronous functions, and short steps.

A leaf is usually recorded once, when it has returned (docs/semantics.md 7.5): until then it is a `ShortStep`. A leaf
that runs longer, fails or is cancelled is recorded as pending first, and settled when it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from anyio import Event, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, evolve, field

from .._concurrency._protection import exposed
from .._concurrency._tasks import loop_time
from .._errors import RequestError, TooLarge
from .._finished import Finished, create_finished
from .._functions._info import Info
from .._functions._signatures import Kind
from .._history import PARENT_TAG
from .._protocol import Promise, PromiseCreate, PromiseState, Value
from .._time import from_ms
from . import _events
from ._lanes import insist
from ._reasons import OUTSIDE, Reason
from ._recording import record_refusal

if TYPE_CHECKING:
    from .._functions._function import Function
    from .._functions._retry import RetryPolicy
    from ._frame import Frame
    from ._host import Host
    from ._run import Run


class LeafFrame(Protocol):
    """The frame of a leaf."""

    @property
    def id(self) -> str: ...
    @property
    def execution(self) -> Host: ...
    @property
    def function(self) -> Function: ...
    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def kwargs(self) -> Mapping[str, Any]: ...
    @property
    def retry(self) -> RetryPolicy | None: ...
    @property
    def short(self) -> ShortStep | None: ...
    @property
    def first_attempt(self) -> int: ...

    def attempt(self, number: int) -> Info:
        """Return the info for the `number`-th attempt."""
        ...


async def run_leaf(frame: LeafFrame) -> object:
    """Call the function until it returns, or until its retry policy gives up; then raise its last exception.

    The policy counts the attempts of this run. `Info.attempt` also counts the runs that a crash has ended
    (docs/semantics.md 7.6).
    """
    function, execution = frame.function, frame.execution
    earlier = frame.first_attempt - 1
    number = 1
    while True:
        first = (frame.attempt(earlier + number),) if function.kind is Kind.INFO_LEAF else ()
        call = partial(function.func, *first, *frame.args, **frame.kwargs)
        try:
            if not function.is_async:
                return await _run_in_thread(frame, earlier + number, call)
            await execution.gate()
            with execution.presence.leaf_running:
                if execution.facilities.observers.given:
                    return await _events.observed_attempt(frame, earlier + number, exposed(call))
                return await exposed(call)
        except Exception as exc:
            delay = None if frame.retry is None else frame.retry.delay(number, exc, execution.facilities.random())
            if delay is None:
                raise
            if execution.facilities.observers.failures:
                _events.call_retried(frame, earlier + number, delay, exc)
        if frame.short is not None:
            await frame.short.record_begun()
        with move_on_after(delay):
            await execution.wait(Event())
        number += 1


async def _run_in_thread(frame: LeafFrame, number: int, call: Callable[[], Any]) -> object:
    execution, threads = frame.execution, frame.execution.facilities.threads
    permit = await threads.permit(frame)
    try:
        # After the permit: the worker may have begun to stop, and then nothing starts.
        await execution.gate()
    except BaseException:
        permit.release()
        raise
    with execution.presence.leaf_running:
        if execution.facilities.observers.given:
            return await _events.observed_attempt(frame, number, threads.run(call, permit))
        return await threads.run(call, permit)


# Short steps

SHORT: Final = 0.05
"""Seconds for which a leaf may run without being on record."""


class Unrecorded(Protocol):
    """A call that is planned, and not on record."""

    @property
    def execution(self) -> Host: ...

    async def confirm(self, record: Promise, request: PromiseCreate) -> None:
        """Compare the record of the call with the request for it. If it is another call's, halt the execution."""
        ...


F = TypeVar("F", bound="ShortFrame")


class ShortFrame(Protocol):
    """The frame of a leaf, as its short step sees it."""

    @property
    def pending(self) -> bool: ...
    def end_code(self) -> None: ...
    def request_cancel(self, reason: Reason) -> None: ...


async def begin_short(call: Unrecorded, request: PromiseCreate, now: int) -> ShortStep | None:
    """Begin a call of a leaf that is recorded after it has run; return None if it has to be recorded before.

    Args:
        call: the call.
        request: the request that records it before it runs.
        now: the instant, in milliseconds of the server's time.
    """
    execution, param = call.execution, request.param
    if not execution.facilities.one_request or execution.wary or request.timeout_at <= now:
        return None
    if param.data is None or param.headers is not None:
        return None
    await checkpoint_if_cancelled()
    return ShortStep(call, request, now)


@define(eq=False, repr=False)
class ShortStep:
    """A leaf that is not on record yet (see the module's docstring).

    It is recorded once: as finished if it returns within `SHORT` seconds, else as begun. A request may record it as
    begun while it ends; its end is recorded after that.

    Attributes:
        frame: its frame; None before that is made.
    """

    _call: Unrecorded
    _request: PromiseCreate
    _started_at: int
    _began: float = field(factory=loop_time, init=False)
    frame: ShortFrame | None = field(default=None, init=False)
    _recorded: bool = field(default=False, init=False)
    _asked: Event | None = field(default=None, init=False)

    def begin(self, frame: F) -> F:
        """Note the frame of the leaf, and return it. If it runs for longer than `SHORT`, it is recorded as begun."""
        self.frame = frame
        self._call.execution.facilities.short_steps.add(self)
        return frame

    def provisional(self) -> Promise:
        """Return the record of the leaf, as it would be if the leaf were recorded when it begins."""
        request = self._request
        return Promise(
            id=request.id,
            param=request.param,
            tags=request.tags,
            timeout_at=request.timeout_at,
            created_at=self._started_at,
        )

    @property
    def unrecorded(self) -> bool:
        """Whether nothing has begun to record the leaf."""
        return not self._recorded and self._asked is None

    @property
    def unsent(self) -> PromiseCreate | None:
        """The request that records the leaf as begun, unless that is known to be on record."""
        return None if self._recorded else self._request

    @property
    def is_short(self) -> bool:
        """Whether the leaf may be recorded as finished, if it has returned just now."""
        return self.unrecorded and loop_time() - self._began <= SHORT

    async def _record_finished(self, value: Value, parent: Promise, now: int) -> Promise:
        """Record that the leaf has returned, and return its record.

        Args:
            value: what it has returned.
            parent: the record of its caller.
            now: the instant at which it has returned.

        Raises:
            RequestError: the server refuses the value.
            TooLarge: the value is larger than the server accepts.
        """
        execution, request = self._call.execution, self._request
        assert request.param.data is not None
        finished = Finished(
            started_at=self._started_at,
            ended_at=max(now, self._started_at),
            timeout_at=request.timeout_at,
            attempts=1,
            param=request.param.data,
            pid=execution.facilities.pid,
        )
        create = create_finished(request, value, finished, parent.created_at)
        record = await execution.journal.create_local(create, begun=True)
        self._recorded = True
        await self._call.confirm(record, request)
        if record.pending:
            # An earlier holder of the task has recorded it as begun.
            return await execution.journal.settle(request.id, PromiseState.RESOLVED, value, finished=True)
        return record

    async def record_begun(self) -> Promise | None:
        """Record the leaf as pending, unless that was done. Return its record, or None if another task did it."""
        execution = self._call.execution
        while not self._recorded:
            if self._asked is not None:
                await execution.hold(self._asked)
                continue
            self._asked = Event()
            try:
                record = await insist(partial(execution.journal.create_local, self._request, begun=True))
                self._recorded = True
            finally:
                self._asked.set()
                self._asked = None
            await self._call.confirm(record, self._request)
            return record
        return None

    async def record_ended(self, frame: Frame, state: PromiseState, value: Value) -> Promise | None:
        """Record the end of the leaf if that takes one request, and return its record. If not, record it as begun."""
        assert frame.parent is not None
        refused: Exception | None = None
        try:
            now = frame.execution.now()
            if state is PromiseState.RESOLVED and self.is_short and now < self._request.timeout_at:
                try:
                    return await self._record_finished(value, frame.parent.record, now)
                except (RequestError, TooLarge) as exc:
                    # The server refuses the value, or the call.
                    refused = exc
            record = await self.record_begun()
        except (RequestError, TooLarge) as exc:
            # The server refuses the call, now and on a replay. So the call has failed, and is not on record.
            state, value = frame.fail_with(exc)
            return evolve(self.provisional(), state=state, value=value, settled_at=frame.execution.now())
        if record is not None and not record.pending:
            return record
        return None if refused is None else await record_refusal(frame, refused, finished=True)

    @property
    def overdue(self) -> bool:
        """Whether the leaf is still running and is not on record."""
        return self.unrecorded and self.frame is not None and self.frame.pending and not self._call.execution.dropped

    async def record_overdue(self) -> None:
        """Record the leaf as pending, since it takes long. If it has an outcome on record already, end its code."""
        frame = self.frame
        if not self.overdue or frame is None:
            return
        try:
            record = await self.record_begun()
        except (RequestError, TooLarge):
            # The end of the leaf will be refused as well, and the failure is the outcome then.
            return
        except get_cancelled_exc_class():
            if self._call.execution.dropped is None:
                raise
            return
        if record is None or record.pending or not frame.pending:
            return
        if record.state is PromiseState.TIMEDOUT:
            frame.end_code()
        else:
            frame.request_cancel(Reason(OUTSIDE))


def info_of(frame: Run) -> Info:
    """Return what a durable function may know about its own run."""
    tags, execution = frame.record.tags, frame.execution
    above = tags.get(PARENT_TAG) or tags.get("resonate:parent") if frame.parent is None else frame.parent.id
    return Info(
        id=frame.id,
        parent_id=None if above == frame.id else above,
        origin_id=execution.naming.origin,
        branch_id=execution.id,
        func_name=frame.function.name,
        timeout_at=from_ms(frame.record.timeout_at),
        tags=dict(tags),
        dependencies=execution.facilities.dependencies,
    )
