"""Running a leaf: attempts, back-off, worker threads for synchronous functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from anyio import Event, move_on_after

from .._concurrency._protection import exposed
from .._functions._info import Info
from .._functions._signatures import Kind
from .._history import PARENT_TAG
from .._time import from_ms
from . import _events

if TYPE_CHECKING:
    from .._functions._function import Function
    from .._functions._retry import RetryPolicy
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

    def attempt(self, number: int) -> Info:
        """Return the info for the `number`-th attempt."""
        ...


async def run_leaf(frame: LeafFrame) -> object:
    """Call the function until it returns, or until its retry policy gives up; then raise its last exception.

    Attempts are counted for this run: after a crash the count begins anew.
    """
    function, execution = frame.function, frame.execution
    number = 1
    while True:
        first = (frame.attempt(number),) if function.kind is Kind.INFO_LEAF else ()
        call = partial(function.func, *first, *frame.args, **frame.kwargs)
        try:
            if not function.is_async:
                return await _run_in_thread(frame, number, call)
            await execution.gate()
            with execution.presence.leaf_running:
                if execution.facilities.observers.given:
                    return await _events.observed_attempt(frame, number, exposed(call))
                return await exposed(call)
        except Exception as exc:
            delay = None if frame.retry is None else frame.retry.delay(number, exc, execution.facilities.random())
            if delay is None:
                raise
            if execution.facilities.observers.failures:
                _events.call_retried(frame, number, delay, exc)
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
