"""Errors as they are recorded, and back.

Every SDK reads `message`; some read `name` and `stack`; TypeScript makes an `AggregateError` of a group. Members of our
own let this SDK rebuild the type: `type` says which it was, `args` what it was made from. Reading an error imports
nothing and unpickles nothing: a type counts only if its module is imported already, and only if it makes an equal error
again; else it is an `ApplicationError`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

from .._errors import ApplicationError, EncodeError
from ._json import JSON, canonical, loads

_DEPTH: Final = 16
_STACK: Final = 16_000

# Raised inside a coroutine they would become a RuntimeError.
_UNRAISABLE: Final = (StopIteration, StopAsyncIteration)


def error_to_json(exc: Exception, to_json: Callable[[Any], JSON]) -> dict[str, JSON]:
    """Return what is recorded of an error.

    Raises:
        TypeError: it is not an `Exception`; those end a program and are no outcome of a function.
    """
    if not isinstance(exc, Exception):
        msg = f"{type(exc).__name__} is not an Exception: it ends a program and is never recorded"
        raise TypeError(msg)
    record = _record(exc, to_json, frozenset())
    record["stack"] = _clean(exc.traceback) if isinstance(exc, ApplicationError) and exc.traceback else _stack(exc)
    return record


def error_from_json(raw: JSON, to_json: Callable[[Any], JSON]) -> Exception:
    """Return the error that was recorded, whatever SDK did it."""
    return _error(raw, to_json, 0)


def _record(exc: Exception, to_json: Callable[[Any], JSON], seen: frozenset[int]) -> dict[str, JSON]:
    seen |= {id(exc)}
    # Of an ApplicationError other SDKs should see what happened, not that it once passed through here.
    record: dict[str, JSON] = {
        "__type": "aggregate_error" if isinstance(exc, ExceptionGroup) else "error",
        "name": _clean(exc.name if isinstance(exc, ApplicationError) else type(exc).__name__),
        "message": _clean(exc.message if isinstance(exc, ApplicationError) else _text(exc)),
        "type": _clean(f"{type(exc).__module__}:{type(exc).__qualname__}"),
    }
    arguments = _arguments(exc, to_json)
    if arguments is not None:
        record["args"] = arguments
    notes = getattr(exc, "__notes__", ())
    notes = [_clean(note) for note in notes if isinstance(note, str)] if isinstance(notes, (list, tuple)) else []
    if notes:
        record["notes"] = notes
    if exc.__cause__ is not None:
        record["cause"] = _cause(exc.__cause__, to_json, seen)
    if isinstance(exc, ExceptionGroup):
        record["errors"] = [_cause(member, to_json, seen) for member in exc.exceptions]
    return record


def _cause(exc: BaseException, to_json: Callable[[Any], JSON], seen: frozenset[int]) -> JSON:
    if not isinstance(exc, Exception) or id(exc) in seen or len(seen) >= _DEPTH:
        return _clean(f"{type(exc).__name__}: {_text(exc)}")
    return _record(exc, to_json, seen)


def _arguments(exc: Exception, to_json: Callable[[Any], JSON]) -> list[JSON] | None:
    """Return what the error is made from, as JSON gives it back, or None if that cannot be recorded."""
    arguments: Any = (exc.message,) if isinstance(exc, ExceptionGroup) else exc.args
    try:
        # What copies the error says it better: an OSError keeps its file name there only.
        reduced = exc.__reduce__()
        if not isinstance(exc, ExceptionGroup) and reduced[0] is type(exc) and isinstance(reduced[1], tuple):
            arguments = reduced[1]
        plain: list[JSON] = loads(canonical(list(to_json(arguments))))
    except Exception:  # noqa: BLE001 - arguments are objects of users; without them the type is not rebuilt
        return None
    return plain


def _stack(exc: Exception) -> str:
    text = _clean("".join(traceback.format_exception(exc)))
    # The end tells most: it has the error itself.
    return text if len(text) <= _STACK else f"...{text[-_STACK:]}"


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the error that is being told
        return "<its text cannot be made>"


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _error(raw: JSON, to_json: Callable[[Any], JSON], depth: int) -> Exception:
    if not isinstance(raw, dict):
        return ApplicationError("Error", _message_of(raw), None, raw)
    exc = _rebuilt(raw, to_json, depth) or _foreign(raw)
    for note in _list_of(raw, "notes"):
        if isinstance(note, str):
            exc.add_note(note)
    if raw.get("cause") is not None and depth < _DEPTH:
        exc.__cause__ = _error(raw["cause"], to_json, depth + 1)
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
    return "" if raw is None else canonical(raw).decode()


def _list_of(raw: Mapping[str, JSON], key: str) -> list[JSON]:
    value = raw.get(key)
    return value if isinstance(value, list) else []


def _rebuilt(raw: Mapping[str, JSON], to_json: Callable[[Any], JSON], depth: int) -> Exception | None:
    cls = _known_type(raw.get("type"))
    arguments = raw.get("args")
    if cls is None or not isinstance(arguments, list):
        return None
    try:
        exc = cls(*arguments, *_members(cls, raw, to_json, depth))
    except Exception:  # noqa: BLE001 - constructors of users may raise anything; then the type is not rebuilt
        return None
    # A constructor that makes its message from other arguments would make it twice.
    faithful = type(exc) is cls and _arguments(exc, to_json) == arguments
    return exc if faithful else None


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
        # Not getattr: a module may import on attribute access.
        found = getattr(found, "__dict__", {}).get(part)
    if not isinstance(found, type) or not issubclass(found, Exception) or issubclass(found, _UNRAISABLE):
        return None
    return found
