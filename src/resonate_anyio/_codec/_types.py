"""Reading type annotations: the types inside wrappers, and the forms of JSON that a type is recorded in."""

from __future__ import annotations

import types
import typing
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableSequence,
    MutableSet,
    Sequence,
    Set as AbstractSet,
)
from dataclasses import is_dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Annotated, Any, Final, Literal, NewType, TypeVar, Union, get_args, get_origin

import attrs

from ._scalars import TEXT_TYPES, by_value, descends, is_complex, is_enum, is_fraction, is_ip

ARRAYS: Final[Mapping[Any, Any]] = {
    list: list,
    Sequence: list,
    MutableSequence: list,
    Collection: list,
    Iterable: list,
    deque: deque,
    set: set,
    MutableSet: set,
    frozenset: frozenset,
    AbstractSet: frozenset,
}
"""Annotations of uniform arrays, each with the type that it is read as."""


class Shape(StrEnum):
    """The forms of JSON values."""

    NULL = "null"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "str"
    ARRAY = "array"
    OBJECT = "object"


_PLAIN: Final[Mapping[Any, Shape]] = {
    type(None): Shape.NULL,
    bool: Shape.BOOL,
    int: Shape.INT,
    float: Shape.FLOAT,
    str: Shape.STRING,
    list: Shape.ARRAY,
    tuple: Shape.ARRAY,
    dict: Shape.OBJECT,
}
ANY_SHAPE: Final = frozenset(Shape)


def shape_of(plain: object) -> Shape:
    """Return the form of a JSON value."""
    exact = _PLAIN.get(type(plain))
    if exact is not None:
        return exact
    return next((shape for type_, shape in _PLAIN.items() if isinstance(plain, type_)), Shape.OBJECT)


def unwrapped(type_: Any) -> Any:
    """Return the type inside `Annotated`, `Final`, `NewType` and type aliases."""
    while True:
        if isinstance(type_, NewType):
            type_ = type_.__supertype__
        elif get_origin(type_) in (Annotated, typing.Final, typing.Required, typing.NotRequired):
            type_ = get_args(type_)[0]
        elif type(type_).__name__ == "TypeAliasType":
            type_ = type_.__value__
        else:
            return type_


def is_open(type_: Any) -> bool:
    """Return whether an annotation allows any value, so that the type of the value decides."""
    return type_ in (Any, object, typing.NoReturn, typing.Never) or isinstance(type_, TypeVar)


def is_union(type_: Any) -> bool:
    """Return whether a type is `A | B` or `Optional[A]`."""
    return get_origin(type_) in (Union, types.UnionType)


def is_class(type_: Any) -> bool:
    """Return whether a type is an attrs class or a dataclass."""
    origin = get_origin(type_) or type_
    return isinstance(origin, type) and (attrs.has(origin) or is_dataclass(origin)) and not is_model(origin)


def is_model(type_: Any) -> bool:
    """Return whether a type is a Pydantic model or a Pydantic dataclass, without an import of Pydantic."""
    cls = get_origin(type_) or type_
    if not isinstance(cls, type):
        return False
    return "__is_pydantic_dataclass__" in cls.__dict__ or (
        descends(cls, "pydantic.main", "BaseModel") and hasattr(cls, "model_validate")
    )


def is_secret(type_: Any) -> bool:
    """Return whether a type is `SecretStr`, `SecretBytes` or `Secret` of Pydantic."""
    return descends(get_origin(type_) or type_, "pydantic.types", "_SecretBase")


def is_numpy_scalar(type_: Any) -> bool:
    """Return whether a type is a scalar of numpy: a number, a bool, text, an instant, a record."""
    return descends(get_origin(type_) or type_, "numpy", "generic")


def is_numpy_array(type_: Any) -> bool:
    """Return whether a type is numpy's ndarray, with or without the type of its items."""
    return descends(get_origin(type_) or type_, "numpy", "ndarray")


def is_mapping(type_: Any) -> bool:
    """Return whether a type is a dict or one of its relatives, but not a TypedDict."""
    origin = get_origin(type_) or type_
    return isinstance(origin, type) and issubclass(origin, Mapping) and not typing.is_typeddict(origin)


def is_array(type_: Any) -> bool:
    """Return whether a type is a uniform array: a list, a set, or one of their abstract classes."""
    return (get_origin(type_) or type_) in ARRAYS


def is_tuple(type_: Any) -> bool:
    """Return whether a type is a tuple without field names."""
    return (get_origin(type_) or type_) is tuple


def is_namedtuple(type_: Any) -> bool:
    """Return whether a type is a NamedTuple."""
    return isinstance(type_, type) and issubclass(type_, tuple) and hasattr(type_, "_fields")


def shapes(type_: Any) -> frozenset[Shape]:
    """Return the forms in which values of a type can be recorded; all forms if that is unknown."""
    type_ = unwrapped(type_)
    if type_ is None or type_ in _PLAIN:
        return frozenset({_PLAIN[type_ if type_ is not None else type(None)]})
    if is_union(type_):
        return frozenset().union(*(shapes(member) for member in get_args(type_)))
    if get_origin(type_) is Literal or is_enum(type_):
        return frozenset(_shape_of_literal(literal) for literal in get_args(type_) or type_)
    if is_array(type_) or is_tuple(type_) or is_namedtuple(type_):
        return frozenset({Shape.ARRAY})
    if is_class(type_) or is_mapping(type_) or typing.is_typeddict(type_):
        return frozenset({Shape.OBJECT})
    return _shapes_of_scalar(type_)


def _shapes_of_scalar(type_: Any) -> frozenset[Shape]:
    special = next((forms for applies, forms in _SPECIAL if applies(type_)), None)
    if special is not None:
        return special
    if not isinstance(type_, type):
        return ANY_SHAPE
    if issubclass(type_, TEXT_TYPES):
        return frozenset({Shape.STRING})
    if issubclass(type_, timedelta):
        return frozenset({Shape.FLOAT})
    return next((frozenset({shape}) for plain, shape in _PLAIN.items() if issubclass(type_, plain)), ANY_SHAPE)


def _is_numpy(*names: str) -> Callable[[Any], bool]:
    return lambda type_: any(descends(type_, "numpy", name) for name in names)


def _is_object_model(type_: Any) -> bool:
    # A RootModel can have any form.
    return is_model(type_) and not descends(type_, "pydantic.root_model", "RootModel")


_SPECIAL: Final[tuple[tuple[Callable[[Any], bool], frozenset[Shape]], ...]] = (
    (_is_object_model, frozenset({Shape.OBJECT})),
    (is_ip, frozenset({Shape.STRING})),
    (is_fraction, frozenset({Shape.STRING})),
    (is_complex, frozenset({Shape.ARRAY})),
    (is_numpy_array, frozenset({Shape.OBJECT, Shape.ARRAY})),
    (_is_numpy("bool", "bool_"), frozenset({Shape.BOOL})),
    (_is_numpy("integer"), frozenset({Shape.INT})),
    (_is_numpy("complexfloating"), frozenset({Shape.ARRAY})),
    (_is_numpy("floating"), frozenset({Shape.FLOAT})),
)
"""The forms of types that are recognized by name, since their modules may not be imported."""


def _shape_of_literal(literal: object) -> Shape:
    if isinstance(literal, Enum):
        return shape_of(literal.value) if by_value(type(literal)) else Shape.STRING
    return shape_of(literal)
