"""How the run of a function ended, and the outcome that a settled promise stands for."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from anyio import get_cancelled_exc_class
from attrs import frozen

from .._concurrency._package import FOLDER
from .._errors import DurableCancelledError, DurableError, DurableTimeoutError, add_id
from .._protocol import Promise, PromiseState
from .._values import ValueObject
from ._reasons import Reason, reason_of

if TYPE_CHECKING:
    from types import TracebackType

    from .._codec import Codec


@frozen(eq=False, repr=False)
class Returned(ValueObject):
    """The function returned a value."""

    value: object


@frozen(eq=False, repr=False)
class Raised(ValueObject):
    """The function raised an exception."""

    error: Exception


@frozen(eq=False, repr=False)
class TimedOut(ValueObject):
    """The deadline of its promise ended it.

    Attributes:
        cancellation: the backend's exception, if a scope around the call was cancelled and expects it; or None.
    """

    cancellation: BaseException | None = None


@frozen(eq=False, repr=False)
class Stopped(ValueObject):
    """The function was cancelled.

    Attributes:
        reason: the reason.
        cancellation: as for `TimedOut`.
    """

    reason: Reason
    cancellation: BaseException | None = None


Ending: TypeAlias = Returned | Raised | TimedOut | Stopped


def raised(error: Exception) -> Raised:
    """Return the failure of a function, with a traceback that begins with the function's own code."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(FOLDER):
        traceback = traceback.tb_next
    # An exception that this package raises at a durable call has no frames of the user's code above it.
    return Raised(Exception.with_traceback(error, traceback or error.__traceback__))


def text_of(error: Exception) -> str:
    """Return the type and message of an exception of the user's code, even if its `__str__` fails."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - only its type is known
        return type(error).__name__


def add_note(error: Exception, note: str) -> None:
    """Add a note to an exception of the user's code, even if its class refuses to set attributes."""
    notes = getattr(error, "__notes__", None)
    with suppress(Exception):
        object.__setattr__(error, "__notes__", [*(notes if isinstance(notes, (list, tuple)) else ()), note])


def without_cancellations(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failures of an exception group, without the cancellations that came with them.

    A cancellation belongs to the scope that asked for it, and needs no report. A group of nothing but cancellations
    becomes one cancellation.
    """
    cancelled, failures = group.split(get_cancelled_exc_class())
    if failures is not None:
        return failures
    assert cancelled is not None
    return _first_leaf(cancelled)


def _first_leaf(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def failure_of(
    record: Promise, codec: Codec, *, live: TracebackType | None = None, elsewhere: bool = False
) -> Exception | None:
    """Return the exception that a settled promise stands for, or None if it was resolved.

    Args:
        record: the promise.
        codec: the codec of the recorded error.
        live: the traceback to show.
        elsewhere: whether it was raised elsewhere, so that the recorded traceback is added to it as a note.
    """
    error: Exception
    match record.state:
        case PromiseState.RESOLVED:
            return None
        case PromiseState.REJECTED:
            error = codec.decode_error(record.value, elsewhere=elsewhere)
        case PromiseState.TIMEDOUT:
            error = DurableTimeoutError(record.id, record.timeout_at)
        case PromiseState.CANCELED:
            reason = reason_of(record, codec)
            error = DurableCancelledError(record.id, None if reason is None else reason.by)
        case PromiseState.PENDING:  # pragma: no cover - callers wait first
            msg = f"{record.id!r} is pending"
            raise AssertionError(msg)
    if isinstance(error, DurableError):
        add_id(error, record.id)
    return Exception.with_traceback(error, live)


def value_of(record: Promise, type_: object, codec: Codec, *, live: TracebackType | None = None) -> object:
    """Return the value of a settled promise as `type_`.

    Args:
        record: the promise.
        type_: the type of the value.
        codec: the codec of recorded values.
        live: the traceback of its failure, if that was raised here.

    Raises:
        Exception: the promise was not resolved; see `failure_of`.
        DecodeError: the recorded value is not a `type_`.
    """
    error = failure_of(record, codec, live=live, elsewhere=live is None)
    if error is not None:
        raise error
    return codec.decode(record.value, type_)
