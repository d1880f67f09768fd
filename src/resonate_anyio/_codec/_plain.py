"""Layouts: which annotations let plain data through unchanged.

An annotation has a `Layout` if plain data that fits it is written and read unchanged: `int`, `list[int]`,
`dict[str, list[int | None]]`, a TypedDict of such members. Users can register hooks for these types as well. An
annotation that such a hook concerns has no layout.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, MutableMapping
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_origin
from weakref import WeakKeyDictionary, ref

from cattrs import Converter
from cattrs.fns import identity

from ._guard import ends_program
from ._json import OPEN, SCALARS, Layout
from ._scalars import READERS, READS_BYTES, WRITES_BYTES
from ._types import ARRAYS, is_array, is_open, is_union

Rule = TypeVar("Rule", bound=Callable[..., Any])

_CONTAINERS: Final = (list, tuple, dict)
_OBJECTS: Final = (dict, Mapping, MutableMapping)
_copying: Final[WeakKeyDictionary[Callable[..., Any], ref[Converter]]] = WeakKeyDictionary()

_BYTES: Final = Layout(bytes=True)


def copies_plain_data(rule: Rule, converter: Converter) -> Rule:
    """Mark a rule that this package has made for a converter as one that changes nothing in plain data, and return it.

    A rule asks the hooks of its own converter for the parts of a value, so the mark holds for that converter only.
    """
    _copying[rule] = ref(converter)
    return rule


def layout_of(converter: Converter, type_: Any) -> Layout | None:
    """Return the layout of an annotation, or None if its values need the rules."""
    try:
        return _find(converter, type_) if _leaves_plain_data(converter) else None
    except BaseException as exc:
        # Hook factories of users are asked.
        if ends_program(exc):
            raise
        return None


def _find(converter: Converter, type_: Any) -> Layout | None:
    if type_ is Any:
        return OPEN
    if type_ is None:
        type_ = NoneType
    write, read = converter.get_unstructure_hook(type_), converter.get_structure_hook(type_)
    if any(type_ is scalar for scalar in SCALARS):
        return Layout(frozenset({type_})) if write is identity and read is READERS[type_] else None
    if type_ is bytes:
        return _BYTES if write is WRITES_BYTES and read is READS_BYTES else None
    if not (_is_own_rule(write, converter) and _is_own_rule(read, converter)):
        return None
    return OPEN if is_open(type_) else _find_container(converter, type_)


def _find_container(converter: Converter, type_: Any) -> Layout | None:
    arguments = get_args(type_)
    if is_union(type_):
        return _merged([_find(converter, member) for member in arguments])
    if typing.is_typeddict(type_):
        return _find_typeddict(converter, type_)
    origin = get_origin(type_) or type_
    if is_array(type_) and ARRAYS[origin] is list:
        items = _find(converter, arguments[0] if arguments else Any)
        return None if items is None else Layout(items=items)
    if origin in _OBJECTS and (not arguments or arguments[0] is str or is_open(arguments[0])):
        members = _find(converter, arguments[1] if arguments else Any)
        return None if members is None else Layout(members=members)
    return None


def _find_typeddict(converter: Converter, type_: Any) -> Layout | None:
    fields: dict[str, Layout] = {}
    # Those of which one annotation says and the other does not count as required: objects without them need the rules.
    required = {*type_.__annotations__} - type_.__optional_keys__
    for name, hint in typing.get_type_hints(type_, include_extras=True).items():
        wrapped = get_origin(hint) in (typing.Required, typing.NotRequired)
        if get_origin(hint) is typing.Required:
            required.add(name)
        layout = _find(converter, get_args(hint)[0] if wrapped else hint)
        if layout is None:
            return None
        fields[name] = layout
    return Layout(members=Layout(), fields=fields, required=frozenset(required)) if fields else None


def _merged(layouts: list[Layout | None]) -> Layout | None:
    """Return the layout of a union. It has none if the form of JSON does not show the member that a value is of."""
    scalars: frozenset[type] = frozenset()
    items = objects = None
    for layout in layouts:
        if layout is None or layout.open or layout.bytes:
            return None
        if (items and layout.items) or (objects and layout.members):
            return None
        scalars |= layout.scalars
        items, objects = items or layout.items, objects or (layout if layout.members else None)
    if objects is None:
        return Layout(scalars, items)
    return Layout(scalars, items, objects.members, objects.fields, objects.required)


def _leaves_plain_data(converter: Converter) -> bool:
    """Return whether no hook of a user is asked when plain data is written."""
    scalars = all(converter.get_unstructure_hook(type_) is identity for type_ in SCALARS)
    containers = all(_is_own_rule(converter.get_unstructure_hook(type_), converter) for type_ in (*_CONTAINERS, Any))
    # A subclass may have its own methods.
    return scalars and containers and _has_methods_of_cattrs(converter)


def _has_methods_of_cattrs(converter: Converter) -> bool:
    own = (Converter.unstructure, Converter.structure)
    return own == tuple(getattr(getattr(converter, method.__name__), "__func__", None) for method in own)


def _is_own_rule(hook: Callable[..., Any], converter: Converter) -> bool:
    owner = _copying.get(hook)
    return owner is not None and owner() is converter
