"""Finding the place in a value that could not be turned into JSON. Runs only once that has failed."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from typing import Any, get_args

from cattrs import Converter

from ._mismatch import Mismatch, child, described, type_name
from ._types import is_array, is_class, is_mapping, is_tuple, unwrapped


def locate(converter: Converter, value: object, type_: Any, error: Exception) -> str:
    """Return what is wrong and where: the innermost part of the value that fails by itself."""
    path, part, part_type = "$", value, type_
    while True:
        found = next(_failing(converter, part, part_type), None)
        if found is None:
            break
        key, part, part_type, error = found
        path = child(path, key)
    return f"{_reason(error, part, part_type)} at {path}"


def _reason(error: Exception, value: object, type_: Any) -> str:
    if isinstance(error, Mismatch) or type_ is Any:
        return str(error)
    if isinstance(error, NameError):
        return f"an annotation of {type_name(type_)} cannot be resolved at run time ({error})"
    return f"{described(value)} does not fit {type_name(type_)} ({type(error).__name__}: {error})"


def _failing(converter: Converter, value: object, type_: Any) -> Iterator[tuple[object, object, Any, Exception]]:
    for key, part, part_type in _parts(value, unwrapped(type_)):
        try:
            converter.unstructure(part, None if part_type is Any else part_type)
        except Exception as exc:  # noqa: BLE001 - hooks of users may raise anything
            yield key, part, part_type, exc


def _parts(value: object, type_: Any) -> Iterator[tuple[object, object, Any]]:
    if type_ is Any and is_class(type(value)):
        type_ = type(value)
    arguments = get_args(type_)
    origin: Any = typing.get_origin(type_) or type_
    if is_class(type_) and isinstance(value, origin):
        hints = _field_types(type_)
        yield from ((name, getattr(value, name, None), hint) for name, hint in hints.items())
    elif isinstance(value, Mapping):
        item_type = arguments[-1] if is_mapping(type_) and arguments else Any
        yield from ((key, item, item_type) for key, item in value.items())
    elif isinstance(value, Sequence | AbstractSet) and not isinstance(value, str | bytes):
        yield from ((index, item, _item_type(type_, arguments, index)) for index, item in enumerate(value))


def _item_type(type_: Any, arguments: tuple[Any, ...], index: int) -> Any:
    if is_array(type_) and arguments:
        return arguments[0]
    if is_tuple(type_) and arguments:
        return arguments[0] if arguments[-1] is ... else arguments[index] if index < len(arguments) else Any
    return Any


def _field_types(type_: Any) -> dict[str, Any]:
    cls = typing.get_origin(type_) or type_
    names = getattr(cls, "__attrs_attrs__", None) or cls.__dataclass_fields__.values()
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception:  # noqa: BLE001 - unresolvable annotations are what may be wrong
        return {}
    return {field.name: hints.get(field.name, Any) for field in names}
