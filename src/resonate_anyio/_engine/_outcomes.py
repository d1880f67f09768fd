"""How the run of a function ended, and what a settled promise means to whoever waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from .._errors import DurableCancelledError, DurableError, DurableTimeoutError
from .._protocol import Promise, PromiseState

if TYPE_CHECKING:
    from types import TracebackType

    from .._codec import Codec


@frozen
class Returned:
    """The function gave a value."""

    value: object


@frozen
class Raised:
    """The function failed."""

    error: Exception


@frozen
class TimedOut:
    """The deadline of its promise stopped it."""


@frozen
class Stopped:
    """It was cancelled.

    Attributes:
        by: `parent` (the calling function ended) or `scope` (the await was cancelled).
        cancellation: the backend's exception, if an enclosing scope is cancelled and waits for it.
    """

    by: str
    cancellation: BaseException | None = None


Ending: TypeAlias = Returned | Raised | TimedOut | Stopped


def failure_of(
    record: Promise, codec: Codec, *, live: TracebackType | None = None
) -> Exception | None:
    """The exception that a settled promise stands for, or None if it was resolved. `live` is the traceback to show."""
    error: Exception
    match record.state:
        case PromiseState.RESOLVED:
            return None
        case PromiseState.REJECTED:
            error = codec.decode_error(record.value)
        case PromiseState.TIMEDOUT:
            error = DurableTimeoutError(record.id, record.timeout_at)
        case PromiseState.CANCELED:
            error = DurableCancelledError(record.id, cancelled_by(record, codec))
        case PromiseState.PENDING:  # pragma: no cover - callers wait first
            msg = f"{record.id!r} is pending"
            raise AssertionError(msg)
    if isinstance(error, DurableError) and error.id is None:
        error.id = record.id
    return error.with_traceback(live)


def value_of(record: Promise, type_: object, codec: Codec, *, live: TracebackType | None = None) -> object:
    """The value of a settled promise as `type_`.

    Raises:
        Exception: it was not resolved; see `failure_of`.
        DecodeError: the recorded value is not a `type_`.
    """
    error = failure_of(record, codec, live=live)
    if error is not None:
        raise error
    return codec.decode(record.value, type_)


def cancelled_by(record: Promise, codec: Codec) -> str | None:
    """Who cancelled it, as recorded by this SDK, or None for anyone else."""
    value = codec.decode(record.value)
    by = value.get("by") if isinstance(value, dict) else None
    return by if isinstance(by, str) else None
