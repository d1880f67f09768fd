"""The events of calls and of attempts of leaves, for observers (see `_observe`).

These functions are called only while there is an observer that wants such an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from anyio import current_time

from .. import _observe

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .._functions._function import Function
    from .._protocol import Promise
    from ._host import Host
    from ._operations import Operation

T = TypeVar("T")


class Planned(Protocol):
    """A call that is about to be made."""

    @property
    def id(self) -> str: ...
    @property
    def execution(self) -> Host: ...

    operation: ClassVar[Operation]

    @property
    def recorded(self) -> Promise | None: ...


class Settled(Protocol):
    """A call that has an outcome."""

    @property
    def id(self) -> str: ...
    @property
    def execution(self) -> Host: ...
    @property
    def record(self) -> Promise: ...


class Begun(Protocol):
    """The frame of a call that runs here."""

    @property
    def id(self) -> str: ...
    @property
    def execution(self) -> Host: ...
    @property
    def function(self) -> Function: ...


def call_planned(invocation: Planned) -> None:
    """Tell that a call has its id and its place."""
    execution = invocation.execution
    execution.facilities.observers.tell(
        _observe.CallPlanned(id=invocation.id, execution=execution.id, operation=invocation.operation.name)
    )


def call_recorded(invocation: Planned, record: Promise) -> None:
    """Tell that a call was put on record, or that it is there from an earlier run."""
    execution = invocation.execution
    execution.facilities.observers.tell(
        _observe.CallRecorded(
            id=record.id,
            execution=execution.id,
            operation=invocation.operation.name,
            state=record.state.value,
            replayed=invocation.recorded is not None,
        )
    )


def call_started(frame: Begun) -> None:
    """Tell that the function of a local call begins, or is replayed."""
    execution, function = frame.execution, frame.function
    execution.facilities.observers.tell(
        _observe.CallStarted(id=frame.id, execution=execution.id, function=function.name, version=function.version)
    )


def call_retried(frame: Begun, attempt: int, delay: float, error: Exception) -> None:
    """Tell that an attempt of a leaf has failed, and that there will be another one."""
    execution, function = frame.execution, frame.function
    execution.facilities.observers.tell(
        _observe.CallRetried(
            id=frame.id,
            execution=execution.id,
            function=function.name,
            version=function.version,
            attempt=attempt,
            retry_in=delay,
            error=error,
        )
    )


def call_settled(node: Settled) -> None:
    """Tell that a call of a running function has an outcome. The root is no call of this execution."""
    execution, record = node.execution, node.record
    if node.id != execution.id:
        execution.facilities.observers.tell(
            _observe.CallSettled(
                id=record.id, execution=execution.id, state=record.state.value, duration=duration(record)
            )
        )


async def observed_attempt(frame: Begun, attempt: int, call: Awaitable[T]) -> T:
    """Await one attempt of a leaf, and tell of its begin and its end."""
    tell, execution, function = frame.execution.facilities.observers.tell, frame.execution.id, frame.function
    name, version, began = function.name, function.version, current_time()
    tell(_observe.LeafAttemptBegun(id=frame.id, execution=execution, function=name, version=version, attempt=attempt))
    outcome, error = "cancelled", None
    try:
        value = await call
    except Exception as exc:
        outcome, error = "raised", exc
        raise
    else:
        outcome = "returned"
        return value
    finally:
        tell(
            _observe.LeafAttemptEnded(
                id=frame.id,
                execution=execution,
                function=name,
                version=version,
                attempt=attempt,
                outcome=outcome,
                error=error,
                duration=current_time() - began,
            )
        )


def duration(record: Promise) -> float | None:
    """Return the seconds from the creation of a promise to its settlement, or None if it is pending."""
    return None if record.settled_at is None else (record.settled_at - record.created_at) / 1000
