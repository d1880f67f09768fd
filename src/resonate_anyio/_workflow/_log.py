"""What the log says about durable calls: one line per event, on the logger `resonate_anyio.executions`.

Calls are at DEBUG; a failed attempt that is followed by another is a WARNING. Lines about executions are in
`_execution._log`. An event costs one question to its logger unless the line is wanted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ._outcomes import text_of

if TYPE_CHECKING:
    from .._protocol import Promise
    from ._frame import Frame
    from ._invocation import Invocation
    from ._leaf import LeafFrame
    from ._node import Node

logger: Final = logging.getLogger("resonate_anyio.executions")

_LONGEST_ERROR: Final = 200


def call_opened(invocation: Invocation, record: Promise) -> None:
    """A call was put on record, or it is there from an earlier run."""
    if logger.isEnabledFor(logging.DEBUG):
        event = "call.recorded" if invocation.recorded is None else "call.replayed"
        id, execution = plain(record.id), plain(invocation.execution.id)
        logger.debug("%s id=%s execution=%s state=%s", event, id, execution, record.state.value)


def call_started(frame: Frame) -> None:
    """The function of a local call begins, or is replayed."""
    if logger.isEnabledFor(logging.DEBUG) and frame.parent is not None:
        logger.debug("call.started %s", _call(frame))


def call_retried(frame: LeafFrame, attempt: int, delay: float, error: Exception) -> None:
    """An attempt of a leaf has failed, and there will be another one."""
    if logger.isEnabledFor(logging.WARNING):
        logger.warning("call.retried %s attempt=%d retry_in=%.3f error=%s", _call(frame), attempt, delay, short(error))


def call_settled(node: Node) -> None:
    """A call of a running function has an outcome."""
    if logger.isEnabledFor(logging.DEBUG) and node.id != node.execution.id:
        record, execution = node.record, node.execution
        logger.debug(
            "call.settled id=%s execution=%s state=%s%s",
            plain(record.id), plain(execution.id), record.state.value, duration(record),
        )  # fmt: skip


# Their parts


def _call(frame: LeafFrame) -> str:
    function = frame.function
    return (
        f"id={plain(frame.id)} execution={plain(frame.execution.id)} func={plain(function.name)} "
        f"version={function.version}"
    )


def duration(record: Promise) -> str:
    return "" if record.settled_at is None else f" duration={(record.settled_at - record.created_at) / 1000:.3f}"


def short(error: Exception) -> str:
    text = text_of(error).removesuffix(": ")
    return repr(text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}...")


def plain(text: str) -> str:
    """A name as it is. One that could be taken for more than one word, or for a line of its own, is quoted."""
    return text if text.isprintable() and " " not in text else repr(text)
