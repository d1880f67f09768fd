"""Rules for scalars of numpy and for arrays of numbers.

A scalar is recorded as the number that it is. An array is an object: the type of its items, its shape, and its bytes in
base64, in C order and little-endian. So each number is restored bit by bit, including NaN and infinities, which JSON
cannot hold. This module does not import numpy: a program with such a value has imported it already.
"""

from __future__ import annotations

import binascii
import math
import sys
from base64 import b64decode, b64encode
from typing import Any, Final, get_args, get_origin

from cattrs import Converter

from ._containers import Structure, Unstructure
from ._mismatch import Mismatch, Refused, described
from ._scalars import descends, structure_complex, unstructure_complex
from ._types import is_numpy_array, is_numpy_scalar, is_open

_DTYPES: Final = frozenset({
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
})  # fmt: skip
"""The allowed types of items. These names have the same meaning on every machine."""

_ABSTRACT: Final = {
    "integer": "int64",
    "signedinteger": "int64",
    "unsignedinteger": "uint64",
    "inexact": "float64",
    "floating": "float64",
    "complexfloating": "complex128",
}
"""The types that are made for annotations that name only a kind of number."""

_ADVICE: Final = ": arrays of bools, integers, floats and complex numbers are recorded, so convert it first"


def configure_numpy(converter: Converter) -> None:
    """Register the rules for types of numpy that are not subclasses of Python's types, as `np.float64` is of float."""
    converter.register_structure_hook_factory(is_numpy_scalar, lambda type_, _: _structure_scalar(type_))
    converter.register_unstructure_hook_func(is_numpy_scalar, _unstructure_scalar)
    converter.register_structure_hook_factory(is_numpy_array, lambda type_, _: _structure_array(type_))
    converter.register_unstructure_hook_factory(is_numpy_array, lambda type_, _: _unstructure_array(type_))
    # Since numpy 2.5, `NDArray` is an alias with a parameter, for which cattrs has no rule.
    converter.register_structure_hook_factory(_is_alias, lambda type_, own: own.get_structure_hook(_meant(type_)))
    converter.register_unstructure_hook_factory(_is_alias, lambda type_, own: own.get_unstructure_hook(_meant(type_)))


def _is_alias(type_: Any) -> bool:
    """Return whether a type is an alias of a `type` statement (Python 3.12) with arguments."""
    return type(get_origin(type_)).__name__ == "TypeAliasType"


def _meant(type_: Any) -> Any:
    """Return the type that such an alias stands for."""
    return get_origin(type_).__value__[get_args(type_)]


def _numpy() -> Any:
    return sys.modules["numpy"]


# Scalars


def _is(type_: Any, *kinds: str) -> bool:
    return any(descends(type_, "numpy", kind) for kind in kinds)


def _unstructure_scalar(value: Any) -> Any:
    type_ = type(value)
    if _is(type_, "bool", "bool_"):
        return bool(value)
    if _is(type_, "integer"):
        return int(value)
    if _is(type_, "complexfloating"):
        return _exact(value, complex(value), unstructure_complex)
    if _is(type_, "floating"):
        return _exact(value, float(value), float)
    if isinstance(value, str):
        return str(value)
    if not _is(type_, "generic"):
        # It is annotated as a scalar of numpy. Whether it fits is found when it is read.
        return value
    msg = f"{described(value)} cannot be turned into JSON"
    raise Refused(msg, ": convert it to a type of Python's own, with .item() for instance")


def _exact(value: Any, converted: Any, write: Any) -> Any:
    if value == converted or value != value:  # noqa: PLR0124 - a NaN is refused when the whole value is written
        return write(converted)
    msg = f"{described(value)} has more digits than a float of JSON keeps"
    raise Refused(msg, ": convert it first")


def _structure_scalar(type_: Any) -> Structure:
    cls = get_origin(type_) or type_
    exact = getattr(_numpy(), _ABSTRACT[cls.__name__]) if cls.__name__ in _ABSTRACT else cls
    if _is(exact, "bool", "bool_"):
        accepted: tuple[type, ...] = (bool,)
    elif _is(exact, "integer"):
        accepted = (int,)
    elif _is(exact, "complexfloating"):
        return lambda raw, _: exact(structure_complex(raw, complex))
    elif _is(exact, "floating"):
        accepted = (int, float)
    else:
        return _unknown

    def structure(raw: Any, _: Any) -> Any:
        if type(raw) not in accepted:
            raise Mismatch(type_, raw)
        try:
            with _numpy().errstate(over="ignore"):
                number = exact(raw)
        except (OverflowError, ValueError) as exc:
            raise Mismatch(type_, raw, str(exc)) from exc
        if isinstance(raw, (int, float)) and math.isfinite(raw) and not _numpy().isfinite(number):
            raise Mismatch(type_, raw, "it is too large")
        return number

    return structure


def _unknown(raw: Any, type_: Any) -> Any:
    raise Mismatch(type_, raw, "annotate a number, such as np.int64 or np.float64")


# Arrays


def _wanted(type_: Any) -> str | None:
    """Return the type of items that an annotation demands: `NDArray[np.float64]` is `ndarray[..., dtype[float64]]`."""
    arguments = get_args(type_)
    item = get_args(arguments[1]) if len(arguments) > 1 else ()
    if not item or is_open(item[0]) or not isinstance(item[0], type):
        return None
    if item[0].__name__ in {*_ABSTRACT, "number", "generic"}:
        return None
    name: str = _numpy().dtype(item[0]).name
    return name if name in _DTYPES else None


def _unstructure_array(type_: Any) -> Unstructure:
    wanted = _wanted(type_)

    def unstructure(value: Any) -> Any:
        if type(value) is not _numpy().ndarray:
            reason = "a subclass has more than its numbers" if is_numpy_array(type(value)) else ""
            raise Mismatch(type_, value, reason)
        name = value.dtype.name
        if name not in _DTYPES:
            msg = f"an array of {name} cannot be turned into JSON"
            raise Refused(msg, _ADVICE)
        if wanted is not None and name != wanted:
            raise Mismatch(type_, value, f"its items are {name}, not {wanted}")
        data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes(order="C")
        return {"dtype": name, "shape": list(value.shape), "data": b64encode(data).decode("ascii")}

    return unstructure


def _structure_array(type_: Any) -> Structure:
    wanted = _wanted(type_)

    def structure(raw: Any, _: Any) -> Any:
        if isinstance(raw, list):
            return _from_numbers(raw, type_, wanted)
        if not isinstance(raw, dict):
            raise Mismatch(type_, raw)
        name, shape, data = raw.get("dtype"), raw.get("shape"), raw.get("data")
        if not (isinstance(name, str) and name in _DTYPES and _is_shape(shape) and isinstance(data, str)):
            raise Mismatch(type_, raw, "an array is an object with its dtype, shape and data in base64")
        if wanted is not None and name != wanted:
            raise Mismatch(type_, raw, f"its items are {name}, not {wanted}")
        return _from_bytes(raw, type_)

    return structure


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(length) is int and length >= 0 for length in shape)


def _from_bytes(raw: dict[str, Any], type_: Any) -> Any:
    numpy = _numpy()
    dtype = numpy.dtype(raw["dtype"])
    try:
        data = b64decode(raw["data"], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Mismatch(type_, raw, f"not base64: {exc}") from exc
    if len(data) != math.prod(raw["shape"]) * dtype.itemsize:
        raise Mismatch(type_, raw, f"{len(data)} bytes are not an array of that shape")
    items = numpy.frombuffer(data, dtype=dtype.newbyteorder("<"))
    try:
        # A copy, since an array on top of bytes is read-only.
        return items.reshape(raw["shape"]).astype(dtype, copy=True)
    except ValueError as exc:
        raise Mismatch(type_, raw, str(exc)) from exc


def _from_numbers(raw: list[Any], type_: Any, wanted: str | None) -> Any:
    """Return the array for a nested list of numbers, the form that other SDKs record."""
    try:
        array = _numpy().array(raw)
    except (ValueError, TypeError, OverflowError) as exc:
        raise Mismatch(type_, raw, str(exc)) from exc
    if array.dtype.name not in _DTYPES:
        raise Mismatch(type_, raw, "an array is a nested list of numbers")
    if wanted is None or wanted == array.dtype.name:
        return array
    # An int is accepted as a float, as in other rules. A number that is too large for the items is refused.
    kind = _numpy().dtype(wanted).kind
    with _numpy().errstate(over="ignore"):
        converted = array.astype(wanted) if array.size == 0 or array.dtype.kind in _PASSES_FOR[kind] else None
    if converted is None or (kind in "iu" and not (converted == array).all()):
        raise Mismatch(type_, raw, f"its items are not {wanted}")
    if not (_numpy().isfinite(converted) == _numpy().isfinite(array)).all():
        raise Mismatch(type_, raw, f"an item is too large for {wanted}")
    return converted


_PASSES_FOR: Final = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "c": "iufc"}
"""For each kind of items, the kinds of numbers that a nested list can hold."""
