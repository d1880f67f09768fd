"""How an `Execution` is made from an acquired task: with its suspension, and with its root frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .._workflow._frame import Frame
from ._execution import Execution, lineage
from ._suspension import Suspension

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._functions._function import Function
    from .._history import History
    from .._protocol import Promise
    from ._lease import Lease
    from ._services import Services


class RootCall(NamedTuple):
    """The call of a root function, decoded from its record.

    Attributes:
        function: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    function: Function
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def build_execution(
    services: Services, lease: Lease, promise: Promise, call: RootCall, history: History, wakes: Sequence[str]
) -> Execution:
    """Return the execution of an acquired task.

    Args:
        services: what the execution needs of its worker.
        lease: the lease of the task.
        promise: the record of the root function.
        call: the root function and its arguments.
        history: what is on record below the root.
        wakes: the pending wake promises of earlier holders of the task.
    """
    execution = Execution(
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
    execution.suspension.wakes = list(wakes)
    execution.root = Frame(
        execution=execution,
        record=promise,
        type=call.function.returns,
        parent=None,
        function=call.function,
        args=tuple(call.args),
        kwargs=call.kwargs,
        retry=call.function.retry,
    )
    return execution
