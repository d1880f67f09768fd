"""Search for the part of a value that could not be turned into JSON. It runs only after the conversion has failed."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet, Sized
from itertools import islice
from typing import Any, get_args

from cattrs import Converter

from ._containers import MOST_ITEMS
from ._guard import ends_program, text_of
from ._mismatch import Fault, Refused, child, described, shortened, type_name, unresolved
from ._types import is_array, is_class, is_mapping, is_tuple, unwrapped
from ._unwritable import TOO_DEEP


def locate(converter: Converter, value: object, type_: Any, error: BaseException) -> str:
    """Return the fault and its place: the innermost part of the value that fails by itself."""
    try:
        path, part, part_type = "$", value, type_
        while True:
            found = next(_failing(converter, part, part_type), None)
            if found is None:
                break
            key, part, part_type, error = found
            path = child(path, key)
        return "; ".join(fault.at(place) for place, fault in _faults(error, part, part_type, path))
    except RecursionError:
        return TOO_DEEP
    except BaseException as exc:
        # The search fails as well: the value raises when it is iterated, or when a property is read.
        if ends_program(exc):
            raise
        return _fault(error, value, type_).at("$")


def _faults(error: BaseException, value: object, type_: Any, path: str) -> list[tuple[str, Fault]]:
    return error.faults(path) if isinstance(error, Refused) else [(path, _fault(error, value, type_))]


def _fault(error: BaseException, value: object, type_: Any) -> Fault:
    if isinstance(error, Refused):
        return error.fault
    if isinstance(error, NameError) and is_class(type(value)):
        return unresolved(error, type(value) if type_ is Any else type_)
    reason = f"({type(error).__name__}: {shortened(text_of(error))})"
    if type_ is Any:
        return Fault(f"{described(value)} cannot be turned into JSON {reason}")
    return Fault(f"{described(value)} does not fit {type_name(type_)} {reason}")


def _failing(converter: Converter, value: object, type_: Any) -> Iterator[tuple[object, object, Any, BaseException]]:
    # The parts of an object are its fields and not its items.
    most = len(value) if isinstance(value, Sized) and not is_class(type(value)) else MOST_ITEMS
    for key, part, part_type in islice(_parts(value, unwrapped(type_)), most):
        try:
            converter.unstructure(part, None if part_type is Any else part_type)
        except RecursionError:
            # A search for the innermost level, one level at a time, would take too long.
            raise
        except BaseException as exc:
            # A hook of a user can raise anything.
            if ends_program(exc):
                raise
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
    except Exception:  # noqa: BLE001 - the fault may be an annotation that cannot be resolved
        return {}
    return {field.name: hints.get(field.name, Any) for field in names}
