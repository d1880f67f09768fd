"""Making the execution of a task that was acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._history import History, origin_of_root
from .._workflow._frame import Frame
from ._execution import Execution
from ._suspension import Suspension

if TYPE_CHECKING:
    from .._functions._function import Function
    from .._protocol import Promise
    from ._lease import Lease
    from ._services import Services


def make_execution(
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
        lease: the lease of the task.
        promise: the promise of the root function.
        call: the root function, its arguments and its keyword arguments.
        history: the records below the root.
        wakes: the pending wake promises of earlier executions of the task.
    """
    execution = Execution(
        services=services,
        id=lease.id,
        lease=lease,
        version=lease.version,
        origin=origin_of_root(promise, services.separator),
        history=history,
        local_records=history.local,
        wary=history.follows_crash,
        changed_at=max(promise.created_at, history.last_change),
    )
    suspension = Suspension(execution)
    suspension.wakes.extend(wakes)
    function, args, kwargs = call
    root = Frame(
        execution=execution,
        record=promise,
        type=function.returns,
        parent=None,
        function=function,
        args=args,
        kwargs=kwargs,
        retry=function.retry,
        first_attempt=1 + history.lives_since(promise),
    )
    execution.complete(root, suspension)
    return execution
