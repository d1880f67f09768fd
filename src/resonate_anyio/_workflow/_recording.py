"""The records of a run whose outcome cannot be recorded as usual."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from anyio import Event, move_on_after

from .._concurrency._cancellation import Owed
from .._errors import ApplicationError, RequestError, TooLarge
from .._protocol import PromiseState
from ._host import Drop
from ._lanes import lane_of
from ._outcomes import Stopped, TimedOut
from ._reasons import SCOPE

if TYPE_CHECKING:
    from .._protocol import Promise, Value
    from ._frame import Frame
    from ._outcomes import Ending

logger = logging.getLogger("resonate_anyio")


async def record_refusal(frame: Frame, error: Exception, *, finished: bool) -> Promise:
    """Record as the outcome that the server refuses the function's value or error, and return the settled promise."""
    journal, backoff = frame.execution.journal, frame.execution.facilities.backoff()
    while True:
        state, value = frame.fail_with(error)
        try:
            if frame.parent is None:
                return await journal.fulfill(state, value, finished=finished)
            return await journal.settle(frame.id, state, value, finished=finished)
        except Exception as exc:
            # The server refused that record too. The function has ended, and does not run again for this.
            logger.exception("call.not_recorded id=%s retry_in=%.1f", frame.id, backoff.delay)
            error = exc
            with move_on_after(backoff.next()):
                await frame.execution.wait(Event())


def is_lost(frame: Frame, ending: Ending) -> bool:
    """Return whether a leaf has ended in an execution that crashed for another reason and will run again."""
    crashed = frame.execution.dropped is Drop.CRASHED and isinstance(frame.execution.error, Exception)
    return crashed and frame.pending and frame.parent is not None and frame.is_done(ending)


def warn_not_recorded(frame: Frame, ending: Ending) -> None:
    """Warn that a leaf has ended too late for its outcome to be recorded before the stop, so that it runs again."""
    if frame.execution.dropped is Drop.UNLOADED and frame.pending and frame.is_done(ending):
        logger.warning(
            "call.not_recorded id=%s the leaf ended too late to be recorded before the stop; it runs again", frame.id
        )


async def settle_late(frame: Frame, state: PromiseState, value: Value) -> None:
    """Record the outcome of a leaf, so that the next run of the crashed execution does not run the leaf again."""
    journal, unrecorded = frame.execution.journal, None if frame.short is None else frame.short.unsent
    try:
        try:
            await journal.settle_late(frame.id, state, value, unrecorded=unrecorded)
        except (TooLarge, RequestError) as exc:
            await journal.settle_late(frame.id, *frame.fail_with(exc), unrecorded=unrecorded)
    except Exception:
        logger.exception("call.not_recorded id=%s", frame.id)


def pass_on(frame: Frame, ending: Stopped | TimedOut, cancellation: BaseException) -> None:
    """Raise the cancellation that has ended the call, or keep it owed if another outcome is on record."""
    parent = frame.parent
    if parent is not None and frame.record.state not in {PromiseState.CANCELED, PromiseState.TIMEDOUT}:
        lane_of(parent).owe(Owed.of(cancellation))
        return
    if parent is not None and isinstance(ending, TimedOut):
        # A scope around the call had this deadline, and the scope shows it to the code.
        parent.children.mark_seen(frame)
    if parent is not None and isinstance(ending, Stopped) and ending.reason.by == SCOPE:
        parent.pin()
    raise cancellation


def stray(cancellation: BaseException) -> ApplicationError:
    """Return the failure of a function that raised a cancellation which no scope and no caller has asked for."""
    message = (
        "a cancellation escaped that no scope asked for, probably from an await of a task or future that was cancelled"
    )
    error = ApplicationError(type(cancellation).__name__, message)
    error.__cause__ = cancellation
    return error.with_traceback(cancellation.__traceback__)
