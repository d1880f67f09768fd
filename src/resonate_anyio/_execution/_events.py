"""The events of executions and of their leases, for observers (see `_observe`).

These functions are called only while there is an observer that wants such an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypedDict

from .. import _observe
from .._history import DETACHED_TAG
from .._protocol import PromiseState
from .._workflow._events import duration
from .._workflow._host import Drop
from .._workflow._reasons import OUTSIDE, PARENT, reason_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from .._codec import Codec
    from .._history import History
    from .._observe import Observers
    from .._protocol import Promise
    from .._workflow._frame import Frame
    from .._workflow._host import Facilities


class Observed(Protocol):
    """An execution, as the events tell of it."""

    @property
    def id(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def root(self) -> Frame: ...
    @property
    def history(self) -> History: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def facilities(self) -> Facilities: ...
    @property
    def awaited(self) -> Collection[str]: ...
    @property
    def dropped(self) -> Drop | None: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def settlement(self) -> Promise | None: ...


class _Life(TypedDict):
    id: str
    function: str
    version: int
    task_version: int


def execution_started(execution: Observed) -> None:
    """Tell that the code of an execution begins, or is replayed: then some of what it did is on record."""
    tell, life = execution.facilities.observers.tell, _life(execution)
    if records := len(execution.history):
        tell(_observe.ExecutionReplaying(**life, records=records))
    else:
        tell(_observe.ExecutionStarted(**life))


def execution_parked(execution: Observed) -> None:
    """Tell that the task of an execution is suspended, and that its coroutines stay in memory."""
    event = _observe.ExecutionParked(**_life(execution), awaited=len(execution.awaited))
    execution.facilities.observers.tell(event)


def execution_resumed(execution: Observed) -> None:
    """Tell that the task of an execution was acquired again, and that its code goes on where it was."""
    execution.facilities.observers.tell(_observe.ExecutionResumed(**_life(execution)))


def execution_halted(execution: Observed) -> None:
    """Tell that an execution stops until it is resumed."""
    execution.facilities.observers.tell(_observe.ExecutionHalted(**_life(execution), error=execution.error))


def execution_dropped(execution: Observed) -> None:
    """Tell that an execution has left memory without an outcome."""
    assert execution.dropped is not None
    event = _observe.ExecutionDropped(**_life(execution), reason=execution.dropped.value, error=execution.error)
    execution.facilities.observers.tell(event)


def execution_ended(execution: Observed, *, awaited: bool) -> None:
    """Tell that an execution has an outcome.

    Args:
        execution: which.
        awaited: whether code of this process waits for it.
    """
    root = execution.root
    record: Promise | None = root.record
    if execution.dropped is Drop.SETTLED:
        record = execution.settlement
    # Without a record its caller has cancelled it.
    state = PromiseState.CANCELED if record is None else record.state
    own = execution.dropped is not Drop.SETTLED and state is PromiseState.REJECTED
    # If a durable function has called it, that function sees how it ended, in whatever process.
    has_caller = root.info.parent_id is not None and DETACHED_TAG not in root.record.tags
    execution.facilities.observers.tell(
        _observe.ExecutionEnded(
            **_life(execution),
            state=state.value,
            duration=duration(root.record if record is None else record),
            error=(root.failed_with or root.failure()) if own else None,
            by=_ended_by(execution, record),
            awaited=awaited or has_caller,
        )
    )


def _ended_by(execution: Observed, record: Promise | None) -> str | None:
    """Return what has ended an execution, if that was not its own code, and not its deadline."""
    if record is None:
        return PARENT
    if record.state is PromiseState.CANCELED:
        reason = reason_of(record, execution.codec)
        return OUTSIDE if reason is None else reason.by
    settled_outside = execution.dropped is Drop.SETTLED and record.state is not PromiseState.TIMEDOUT
    return OUTSIDE if settled_outside else None


def lease_taken(observers: Observers, id: str, version: int) -> None:
    """Tell that the task `id` was acquired at `version`."""
    observers.tell(_observe.LeaseTaken(id=id, version=version))


def lease_lost(execution: Observed) -> None:
    """Tell that another worker holds the task of an execution, or may."""
    execution.facilities.observers.tell(_observe.LeaseLost(id=execution.id, version=execution.version))


def _life(execution: Observed) -> _Life:
    function = execution.root.function
    return {
        "id": execution.id,
        "function": function.name,
        "version": function.version,
        "task_version": execution.version,
    }
