"""What the log says about executions: one line per event, on the logger `resonate_anyio.executions`.

The life of an execution is at INFO. An ERROR is an execution that failed or timed out while no code of this process
waits for it, one that was halted, and one under which the worker failed. The text of an error is in these lines;
arguments and results are not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .._history import DETACHED_TAG
from .._protocol import PromiseState
from .._workflow._log import duration, logger, plain, short
from .._workflow._reasons import OUTSIDE, PARENT, reason_of

if TYPE_CHECKING:
    from .._protocol import Promise
    from ._execution import Execution


def started(execution: Execution) -> None:
    """Its code begins, or is replayed: then some of what it did is on record."""
    if not logger.isEnabledFor(logging.INFO):
        return
    if records := len(execution.history):
        logger.info("execution.replaying %s records=%d", _life(execution), records)
    else:
        logger.info("execution.started %s", _life(execution))


def parked(execution: Execution) -> None:
    """Its task is suspended, and its coroutines stay in memory."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("execution.parked %s awaited=%d", _life(execution), len(execution.awaited))


def resumed(execution: Execution) -> None:
    """Its task was taken back, and its code goes on where it was."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("execution.resumed %s", _life(execution))


def halted(execution: Execution) -> None:
    """It was stopped until somebody resumes it. The error says what to do."""
    if logger.isEnabledFor(logging.ERROR):
        logger.error("execution.halted %s: %s", _life(execution), execution.error)


def crashed(execution: Execution) -> None:
    """The engine or the program failed under it, which is no outcome: it is tried again."""
    if logger.isEnabledFor(logging.ERROR):
        logger.error("execution.crashed %s", _life(execution), exc_info=execution.error)


def unloaded(execution: Execution) -> None:
    """It was put out of memory, with nothing written."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("execution.unloaded %s", _life(execution))


def lost(execution: Execution) -> None:
    """Another worker has its task, or may have it: its code was ended here, with nothing written."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("execution.lost %s", _life(execution))


def ended(execution: Execution, *, awaited: bool) -> None:
    """It has an outcome, which its own code came to.

    Args:
        execution: which.
        awaited: whether code of this process waits for it, and so gets to see a failure.
    """
    record = execution.root.record
    match record.state:
        case PromiseState.RESOLVED:
            _end(execution, record, "execution.completed %s")
        case PromiseState.CANCELED:
            _cancelled(execution, record)
        case PromiseState.TIMEDOUT:
            _end(execution, record, "execution.timed_out %s", level=_level(execution, awaited=awaited))
        case PromiseState.REJECTED:
            level = _level(execution, awaited=awaited)
            if logger.isEnabledFor(level):
                error = execution.root.failed_with or execution.root.failure()
                assert error is not None
                trace = error if level == logging.ERROR else None
                _end(execution, record, "execution.failed %s error=%s", short(error), level=level, trace=trace)
        case PromiseState.PENDING:  # pragma: no cover - it has ended
            pass


def settled_outside(execution: Execution, *, awaited: bool) -> None:
    """Its promise was settled, and not by its own code, which was ended. `awaited` is as for `ended`."""
    record = execution.settlement
    if record is None:
        # Whoever called it has cancelled it.
        _end(execution, execution.root.record, "execution.cancelled %s by=%s", PARENT)
    elif record.state is PromiseState.CANCELED:
        _cancelled(execution, record)
    elif record.state is PromiseState.TIMEDOUT:
        _end(execution, record, "execution.timed_out %s", level=_level(execution, awaited=awaited))
    else:
        _end(execution, record, "execution.settled %s state=%s by=%s", record.state.value, OUTSIDE)


def _cancelled(execution: Execution, record: Promise) -> None:
    if logger.isEnabledFor(logging.INFO):
        reason = reason_of(record, execution.codec)
        _end(execution, record, "execution.cancelled %s by=%s", OUTSIDE if reason is None else reason.by)


def _level(execution: Execution, *, awaited: bool) -> int:
    """The level of a failure. If a durable function has called it, that function sees it, in whatever process."""
    root = execution.root
    has_caller = root.info.parent_id is not None and DETACHED_TAG not in root.record.tags
    return logging.INFO if awaited or has_caller else logging.ERROR


def _end(
    execution: Execution,
    record: Promise,
    line: str,
    *rest: str,
    level: int = logging.INFO,
    trace: BaseException | None = None,
) -> None:
    if logger.isEnabledFor(level):
        logger.log(level, line, f"{_function(execution)}{duration(record)}", *rest, exc_info=trace)


# Their parts


def _life(execution: Execution) -> str:
    return f"{_function(execution)} task_version={execution.version}"


def _function(execution: Execution) -> str:
    function = execution.root.function
    return f"id={plain(execution.id)} func={plain(function.name)} version={function.version}"
