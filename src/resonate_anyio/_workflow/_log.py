"""What the log says about executions and their calls: one line per event, on the logger `resonate_anyio.executions`.

The life of an execution is at INFO, its calls are at DEBUG, a failed attempt that is followed by another is a WARNING.
An ERROR is an execution that failed or timed out while no code of this process waits for it, one that was halted, and
one under which the engine failed. The text of an error is in these lines; arguments and results are not.

All of these lines are made here. An event costs one question to its logger unless the line is wanted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .._history import DETACHED_TAG
from .._protocol import PromiseState
from ._outcomes import text_of
from ._reasons import OUTSIDE, PARENT, reason_of

if TYPE_CHECKING:
    from .._execution._execution import Execution
    from .._protocol import Promise
    from ._frame import Frame
    from ._invocation import Invocation
    from ._node import Node

logger: Final = logging.getLogger("resonate_anyio.executions")

_LONGEST_ERROR: Final = 200


# Executions


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
                error = execution.raised or execution.root.failure()
                assert error is not None
                trace = error if level == logging.ERROR else None
                _end(execution, record, "execution.failed %s error=%s", _short(error), level=level, trace=trace)
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
        logger.log(level, line, f"{_function(execution)}{_duration(record)}", *rest, exc_info=trace)


# Calls


def call_opened(invocation: Invocation, record: Promise) -> None:
    """A call was put on record, or it is there from an earlier run."""
    if logger.isEnabledFor(logging.DEBUG):
        event = "call.recorded" if invocation.recorded is None else "call.replayed"
        id, execution = _plain(record.id), _plain(invocation.execution.id)
        logger.debug("%s id=%s execution=%s state=%s", event, id, execution, record.state.value)


def call_started(frame: Frame) -> None:
    """The function of a local call begins, or is replayed."""
    if logger.isEnabledFor(logging.DEBUG) and frame.parent is not None:
        logger.debug("call.started %s", _call(frame))


def call_retried(frame: Frame, attempt: int, delay: float, error: Exception) -> None:
    """An attempt of a leaf has failed, and there will be another one."""
    if logger.isEnabledFor(logging.WARNING):
        logger.warning("call.retried %s attempt=%d retry_in=%.3f error=%s", _call(frame), attempt, delay, _short(error))


def call_settled(node: Node) -> None:
    """A call of a running function has an outcome."""
    if logger.isEnabledFor(logging.DEBUG) and node.id != node.execution.id:
        record, execution = node.record, node.execution
        logger.debug(
            "call.settled id=%s execution=%s state=%s%s",
            _plain(record.id), _plain(execution.id), record.state.value, _duration(record),
        )  # fmt: skip


# Their parts


def _life(execution: Execution) -> str:
    return f"{_function(execution)} task_version={execution.version}"


def _function(execution: Execution) -> str:
    function = execution.root.function
    return f"id={_plain(execution.id)} func={_plain(function.name)} version={function.version}"


def _call(frame: Frame) -> str:
    function = frame.function
    return (
        f"id={_plain(frame.id)} execution={_plain(frame.execution.id)} func={_plain(function.name)} "
        f"version={function.version}"
    )


def _duration(record: Promise) -> str:
    return "" if record.settled_at is None else f" duration={(record.settled_at - record.created_at) / 1000:.3f}"


def _short(error: Exception) -> str:
    text = text_of(error).removesuffix(": ")
    return repr(text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}...")


def _plain(text: str) -> str:
    """A name as it is. One that could be taken for more than one word, or for a line of its own, is quoted."""
    return text if text.isprintable() and " " not in text else repr(text)
