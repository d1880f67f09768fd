"""`ExecutionLog`: the observer that writes the log: one line per event, on the logger `resonate_anyio.executions`.

The life of an execution is at INFO. An ERROR is an execution that failed or timed out while no code waits for it, one
that was halted, and one under which the worker failed. Calls are at DEBUG; a failed attempt that is followed by another
is a WARNING. The text of an error is in these lines; arguments and results are not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .._protocol import PromiseState
from .._workflow._host import Drop
from .._workflow._outcomes import text_of

if TYPE_CHECKING:
    from .._observe import (
        CallRecorded,
        CallRetried,
        CallSettled,
        CallStarted,
        Event,
        ExecutionDropped,
        ExecutionEnded,
        ExecutionEvent,
        ExecutionHalted,
        ExecutionParked,
        ExecutionReplaying,
        ExecutionResumed,
        ExecutionStarted,
    )

logger: Final = logging.getLogger("resonate_anyio.executions")

_LONGEST_ERROR: Final = 200


class ExecutionLog:
    """Writes what an event tells, if the logger writes lines of that level."""

    def on_event(self, event: Event) -> None:
        if (found := _WRITERS.get(type(event).__name__)) is not None:
            level, write = found
            if logger.isEnabledFor(level):
                write(event)


# Calls


def _call_recorded(event: CallRecorded) -> None:
    name = "call.replayed" if event.replayed else "call.recorded"
    logger.debug("%s id=%s execution=%s state=%s", name, _plain(event.id), _plain(event.execution), event.state)


def _call_started(event: CallStarted) -> None:
    logger.debug("call.started %s", _call(event))


def _call_retried(event: CallRetried) -> None:
    logger.warning(
        "call.retried %s attempt=%d retry_in=%.3f error=%s",
        _call(event), event.attempt, event.retry_in, _short(event.error),
    )  # fmt: skip


def _call_settled(event: CallSettled) -> None:
    logger.debug(
        "call.settled id=%s execution=%s state=%s%s",
        _plain(event.id), _plain(event.execution), event.state, _duration(event.duration),
    )  # fmt: skip


# Executions


def _started(event: ExecutionStarted) -> None:
    logger.info("execution.started %s", _life(event))


def _replaying(event: ExecutionReplaying) -> None:
    logger.info("execution.replaying %s records=%d", _life(event), event.records)


def _parked(event: ExecutionParked) -> None:
    logger.info("execution.parked %s awaited=%d", _life(event), event.awaited)


def _resumed(event: ExecutionResumed) -> None:
    logger.info("execution.resumed %s", _life(event))


def _halted(event: ExecutionHalted) -> None:
    logger.error("execution.halted %s: %s", _life(event), event.error)


def _dropped(event: ExecutionDropped) -> None:
    match event.reason:
        case Drop.CRASHED.value:
            logger.error("execution.crashed %s", _life(event), exc_info=event.error)
        case Drop.UNLOADED.value | Drop.LOST.value:
            logger.info("execution.%s %s", event.reason, _life(event))
        case _:
            # The program ends by an interrupt, and says so itself.
            pass


def _ended(event: ExecutionEnded) -> None:
    what = f"{_function(event)}{_duration(event.duration)}"
    # If code waits for it, that code sees the failure.
    level = logging.INFO if event.awaited else logging.ERROR
    match PromiseState(event.state):
        case PromiseState.CANCELED:
            logger.info("execution.cancelled %s by=%s", what, event.by)
        case PromiseState.TIMEDOUT:
            logger.log(level, "execution.timed_out %s", what)
        case state if event.by is not None:
            logger.info("execution.settled %s state=%s by=%s", what, state.value, event.by)
        case PromiseState.REJECTED if event.error is not None:
            # An error is asked for its text only if the line is written: its class may do anything then.
            if logger.isEnabledFor(level):
                trace = None if event.awaited else event.error
                logger.log(level, "execution.failed %s error=%s", what, _short(event.error), exc_info=trace)
        case _:
            logger.info("execution.completed %s", what)


_WRITERS: Final[Mapping[str, tuple[int, Callable[[Any], None]]]] = {
    "CallRecorded": (logging.DEBUG, _call_recorded),
    "CallStarted": (logging.DEBUG, _call_started),
    "CallRetried": (logging.WARNING, _call_retried),
    "CallSettled": (logging.DEBUG, _call_settled),
    "ExecutionStarted": (logging.INFO, _started),
    "ExecutionReplaying": (logging.INFO, _replaying),
    "ExecutionParked": (logging.INFO, _parked),
    "ExecutionResumed": (logging.INFO, _resumed),
    "ExecutionHalted": (logging.ERROR, _halted),
    "ExecutionDropped": (logging.ERROR, _dropped),
    "ExecutionEnded": (logging.ERROR, _ended),
}
"""How each event is written, by the name of its class, and the highest level that it may have."""


# Their parts


def _call(event: CallStarted | CallRetried) -> str:
    return (
        f"id={_plain(event.id)} execution={_plain(event.execution)} func={_plain(event.function)} "
        f"version={event.version}"
    )


def _life(event: ExecutionEvent) -> str:
    return f"{_function(event)} task_version={event.task_version}"


def _function(event: ExecutionEvent) -> str:
    return f"id={_plain(event.id)} func={_plain(event.function)} version={event.version}"


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f" duration={seconds:.3f}"


def _short(error: Exception) -> str:
    text = text_of(error).removesuffix(": ")
    return repr(text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}...")


def _plain(text: str) -> str:
    """Return a name as it is. One that could be taken for more than one word, or for a line of its own, is quoted."""
    return text if text.isprintable() and " " not in text else repr(text)
