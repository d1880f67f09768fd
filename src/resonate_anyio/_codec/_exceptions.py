"""The conversion of errors to JSON and back.

Every SDK reads `message`, and some read `name` and `stack`. TypeScript makes an `AggregateError` of a group. From two
members of its own, this SDK rebuilds the type: `type` is its name, `args` are the arguments of the constructor. No
module is imported and no data is unpickled. A type is rebuilt only if its module is imported already, and only if the
new error equals the recorded one. Any other error is read as an `ApplicationError`.

Every error can be written, and every payload can be read. The types of errors are defined by users, so properties,
`__str__` and constructors can raise, and a payload can come from any program.

The recorded traceback (`stack`) is that of the place where the error was raised first. If an error is read in another
process or a later run, a note shows this traceback: a `RemoteTraceback`. If that error is recorded again, because it
passes through another execution, the note is recorded as `stack` and not among the notes. So an error has at most one
such note. The error of a local call has none, live or on a replay: if a replay records it again, `stack` begins where
the call was awaited, and only the record of the call itself shows where it was raised.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from .._errors import ApplicationError, EncodeError
from ._guard import UNPRINTABLE, clean, ends_program, text_of
from ._json import JSON, canonical, loads

_DEPTH: Final = 16
_STACK: Final = 16_000
_MOST_NOTES: Final = 100

# Raised inside a coroutine they would become a RuntimeError.
_UNRAISABLE: Final = (StopIteration, StopAsyncIteration)

_cause: Final[Any] = BaseException.__dict__["__cause__"]


class RemoteTraceback(str):
    """A note with the traceback of an error that was raised in another process or an earlier run.

    Attributes:
        stack: the recorded traceback.
    """

    __slots__ = ("stack",)

    stack: str

    @classmethod
    def of(cls, stack: str) -> RemoteTraceback:
        """Return the note for a recorded traceback."""
        note = cls(f"Raised in another process, or by an earlier run of this one:\n\n{stack.rstrip()}")
        note.stack = stack
        return note


def error_to_json(exc: Exception, to_json: Callable[[Any], JSON]) -> dict[str, JSON]:
    """Return the record of an error.

    Raises:
        TypeError: it is not an `Exception`, so it ends the program and is not the outcome of a function.
    """
    if not issubclass(type(exc), Exception):
        msg = f"{type(exc).__name__} is not an Exception: it ends a program and is never recorded"
        raise TypeError(msg)
    try:
        record = _record(exc, to_json, frozenset())
        remote = _remote_stack(exc)
        record["stack"] = _shortened(_stack(exc) if remote is None else remote)
        if remote is not None:
            record["remote"] = True
    except BaseException as broken:
        if ends_program(broken):
            raise
        return bare_error(exc)
    return record


def bare_error(exc: Exception) -> dict[str, JSON]:
    """Return the record of an error whose attributes and methods raise."""
    # Not `type(exc).__name__`, which a metaclass can override.
    return {"__type": "error", "name": clean(type.__dict__["__name__"].__get__(type(exc))), "message": UNPRINTABLE}


def error_from_json(raw: JSON, to_json: Callable[[Any], JSON], *, elsewhere: bool) -> Exception:
    """Return an error from its record by any SDK. For `elsewhere` see `Codec.decode_error`."""
    exc = _error(raw, to_json, 0)
    if isinstance(raw, dict) and (elsewhere or raw.get("remote") is True):
        stack = raw.get("stack")
        if isinstance(stack, str) and stack:
            _set_notes(exc, [*_notes(exc), RemoteTraceback.of(_shortened(clean(stack)))])
    return exc


def _record(exc: Exception, to_json: Callable[[Any], JSON], seen: frozenset[int]) -> dict[str, JSON]:
    seen |= {id(exc)}
    # For an ApplicationError, other SDKs should see the original error.
    record: dict[str, JSON] = {
        "__type": "aggregate_error" if isinstance(exc, ExceptionGroup) else "error",
        "name": text_of(exc.name if isinstance(exc, ApplicationError) else type(exc).__name__),
        "message": text_of(exc.message if isinstance(exc, ApplicationError) else exc),
        "type": clean(f"{type(exc).__module__}:{type(exc).__qualname__}"),
    }
    arguments = _arguments(exc, to_json)
    if arguments is not None:
        record["args"] = arguments
    notes = [clean(note) for note in _notes(exc) if isinstance(note, str) and not isinstance(note, RemoteTraceback)]
    if notes:
        record["notes"] = notes[:_MOST_NOTES]
    if exc.__cause__ is not None:
        record["cause"] = _inner(exc.__cause__, to_json, seen)
    if isinstance(exc, ExceptionGroup):
        record["errors"] = [_inner(member, to_json, seen) for member in exc.exceptions]
    return record


def _inner(exc: BaseException, to_json: Callable[[Any], JSON], seen: frozenset[int]) -> JSON:
    if not isinstance(exc, Exception) or id(exc) in seen or len(seen) >= _DEPTH:
        return clean(f"{type(exc).__name__}: {text_of(exc)}")
    return _record(exc, to_json, seen)


def _arguments(exc: Exception, to_json: Callable[[Any], JSON]) -> list[JSON] | None:
    """Return the arguments of the error's constructor after a way through JSON, or None if they cannot be recorded."""
    try:
        arguments: Any = (exc.message,) if isinstance(exc, ExceptionGroup) else exc.args
        # `__reduce__` is more complete than `args`: only it has the file name of an OSError.
        reduced = exc.__reduce__()
        if not isinstance(exc, ExceptionGroup) and reduced[0] is type(exc) and isinstance(reduced[1], tuple):
            arguments = reduced[1]
        plain: list[JSON] = loads(canonical(list(to_json(arguments))))
    except BaseException as broken:
        # The arguments are users' objects. Without them the type is not rebuilt.
        if ends_program(broken):
            raise
        return None
    return plain


def _remote_stack(exc: Exception) -> str | None:
    """Return the recorded traceback of an error that was read from a record, or None."""
    remote = next((note.stack for note in _notes(exc) if isinstance(note, RemoteTraceback)), None)
    if remote is None and isinstance(exc, ApplicationError) and exc.traceback:
        return text_of(exc.traceback)
    return remote


def _stack(exc: Exception) -> str:
    return clean("".join(traceback.format_exception(exc)))


def _shortened(stack: str) -> str:
    # The end is the most useful part: it contains the error itself.
    return stack if len(stack) <= _STACK else f"...{stack[3 - _STACK :]}"


def _notes(exc: BaseException) -> list[Any]:
    notes = getattr(exc, "__notes__", None)
    return list(notes) if isinstance(notes, (list, tuple)) else []


def _set_notes(exc: Exception, notes: list[str]) -> None:
    # Like `add_note`, but it works for frozen classes and for classes with their own `add_note`.
    with suppress(Exception):
        object.__setattr__(exc, "__notes__", notes)


def _error(raw: JSON, to_json: Callable[[Any], JSON], depth: int) -> Exception:
    if not isinstance(raw, dict):
        return ApplicationError("Error", _message_of(raw), None, raw)
    exc = _rebuilt(raw, to_json, depth)
    if exc is None:
        exc = _foreign(raw)
    notes = [note for note in _list_of(raw, "notes") if isinstance(note, str)]
    if notes:
        # They replace the notes of the constructor, which would be added again each time.
        _set_notes(exc, notes)
    if raw.get("cause") is not None and depth < _DEPTH:
        _cause.__set__(exc, _error(raw["cause"], to_json, depth + 1))
    return exc


def _foreign(raw: Mapping[str, JSON]) -> ApplicationError:
    name, message, stack = raw.get("name"), raw.get("message"), raw.get("stack")
    return ApplicationError(
        name if isinstance(name, str) and name else "Error",
        message if isinstance(message, str) else _message_of(raw),
        stack if isinstance(stack, str) else None,
        raw,
    )


def _message_of(raw: JSON) -> str:
    if isinstance(raw, str):
        return raw
    if raw is None:
        return ""
    # The JSON of other programs can contain values that a strict writer refuses: lone surrogates, or 1e999.
    try:
        return clean(json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    except (ValueError, RecursionError):
        return UNPRINTABLE


def _list_of(raw: Mapping[str, JSON], key: str) -> list[JSON]:
    value = raw.get(key)
    return value if isinstance(value, list) else []


def _rebuilt(raw: Mapping[str, JSON], to_json: Callable[[Any], JSON], depth: int) -> Exception | None:
    arguments = raw.get("args")
    if not isinstance(arguments, list):
        return None
    try:
        cls = _known_type(raw.get("type"))
        if cls is None:
            return None
        exc = cls(*arguments, *_members(cls, raw, to_json, depth))
        # A constructor that builds its message from other arguments would build it a second time.
        faithful = type(exc) is cls and _arguments(exc, to_json) == arguments and _is_sound(exc, raw)
    except BaseException as broken:
        # A user's constructor can raise any error. Then the type is not rebuilt.
        if ends_program(broken):
            raise
        return None
    return exc if faithful else None


def _is_sound(exc: Exception, raw: Mapping[str, JSON]) -> bool:
    """Return whether an error can have been made from its arguments, since few constructors check them."""
    if isinstance(exc, ApplicationError):
        return isinstance(exc.name, str) and isinstance(exc.message, str) and isinstance(exc.traceback, str | None)
    return text_of(exc) != UNPRINTABLE or raw.get("message") == UNPRINTABLE


def _members(
    cls: type[Exception], raw: Mapping[str, JSON], to_json: Callable[[Any], JSON], depth: int
) -> list[list[Exception]]:
    if not issubclass(cls, ExceptionGroup):
        return []
    if depth >= _DEPTH:
        msg = "nested too deeply"
        raise EncodeError(msg)
    return [[_error(member, to_json, depth + 1) for member in _list_of(raw, "errors")]]


def _known_type(name: JSON) -> type[Exception] | None:
    if not isinstance(name, str):
        return None
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        # Not `getattr`: access to an attribute of a module can import another one.
        found = getattr(found, "__dict__", {}).get(part)
    if not isinstance(found, type) or not issubclass(found, Exception) or issubclass(found, _UNRAISABLE):
        return None
    return found
