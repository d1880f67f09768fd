"""Rules for unions. JSON has no tags, so the form of a recorded value must show which member of the union it is.

A string is the member `str` if there is one, an int the member `int`, an object the class whose required fields it has.
A value whose member could not be determined when it is read is refused when it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, get_args

from cattrs import Converter
from cattrs.disambiguators import create_default_dis_func

from ._containers import Structure, Unstructure, structure_hook, unstructure_hook
from ._mismatch import Mismatch, type_name
from ._plain import copies_plain_data
from ._pydantic import models_hook
from ._types import ANY_SHAPE, Shape, is_class, is_model, is_open, is_union, shape_of, shapes, unwrapped

_Table: TypeAlias = Mapping[Shape, list[Structure]]

# The member that a form stands for if the union has it.
_EXACT: Final = {Shape.STRING: str, Shape.INT: int, Shape.FLOAT: float, Shape.BOOL: bool}


def configure_unions(converter: Converter) -> None:
    """Register the rules."""
    converter.register_structure_hook_factory(is_union, _structure_union)
    converter.register_unstructure_hook_factory(is_union, _unstructure_union)


def _members(type_: Any) -> tuple[list[Any], bool]:
    """Return the members other than None, and whether None is a member."""
    members = [member for member in get_args(type_) if member is not type(None)]
    return members, len(members) != len(get_args(type_))


def _structure_union(type_: Any, converter: Converter) -> Structure:
    members, optional = _members(type_)
    if len(members) == 1:
        return copies_plain_data(_optional(members[0], structure_hook(converter, members[0])), converter)
    table = _table(converter, members)
    every = [_bound(member, structure_hook(converter, member)) for member in members]

    def structure(raw: Any, _: Any) -> Any:
        if raw is None and optional:
            return None
        return _first(type_, raw, table[shape_of(raw)] or every)

    return copies_plain_data(structure, converter)


def _optional(member: Any, hook: Structure) -> Structure:
    return lambda raw, _: None if raw is None else hook(raw, member)


def _bound(member: Any, hook: Structure) -> Structure:
    return lambda raw, _: hook(raw, member)


def _first(type_: Any, raw: Any, candidates: list[Structure]) -> Any:
    if len(candidates) == 1:
        return candidates[0](raw, type_)
    for hook in candidates:
        try:
            return hook(raw, type_)
        except Exception:  # noqa: BLE001, S112 - it is not this member; if it is none, the error is raised below
            continue
    raise Mismatch(type_, raw)


def _table(converter: Converter, members: list[Any]) -> _Table:
    """Return the members to try for JSON of each form, the likeliest first."""
    classes = [member for member in members if is_class(unwrapped(member))]
    models = [member for member in members if is_model(unwrapped(member))]
    models = models if len(models) > 1 else []
    others = [member for member in members if member not in classes and member not in models]
    table: dict[Shape, list[Structure]] = {}
    for shape in Shape:
        fitting = [member for member in others if shape in shapes(member)]
        # An int is accepted as a float, and no other type as another.
        if shape is Shape.INT and not fitting:
            fitting = [member for member in others if Shape.FLOAT in shapes(member)]
        exact = _EXACT.get(shape)
        chosen = [exact] if exact in fitting else fitting
        table[shape] = [_bound(member, structure_hook(converter, member)) for member in chosen]
    if models:
        # Pydantic finds the best fit, by a discriminator or by the fields that are set.
        for shape in frozenset().union(*(shapes(model) for model in models)):
            table[shape].insert(0, models_hook(converter, models))
    if classes:
        table[Shape.OBJECT].insert(0, _class_hook(converter, classes))
    return table


def _class_hook(converter: Converter, classes: list[Any]) -> Structure:
    if len(classes) == 1:
        return _bound(classes[0], structure_hook(converter, classes[0]))
    choose = _chooser(converter, classes)

    def structure(raw: Any, type_: Any) -> Any:
        try:
            cls = choose(raw)
        except (KeyError, ValueError) as exc:
            raise Mismatch(type_, raw, "it has the required fields of none") from exc
        return converter.structure(raw, cls)

    return structure


def _chooser(converter: Converter, classes: list[Any]) -> Callable[[Any], Any]:
    try:
        return create_default_dis_func(converter, *(unwrapped(cls) for cls in classes))
    except TypeError as exc:
        names = " and ".join(type_name(cls) for cls in classes)
        msg = (
            f"{names} cannot be told apart in JSON: give each a required field that the others lack, "
            f"a `kind: Literal[...]` field, or use cattrs.strategies.configure_tagged_union on make_converter()"
        )
        raise TypeError(msg) from exc


def _unstructure_union(type_: Any, converter: Converter) -> Unstructure:
    members, _ = _members(type_)
    if len(members) == 1:
        hook = unstructure_hook(converter, members[0])
        return copies_plain_data(lambda value: None if value is None else hook(value), converter)
    classes = [member for member in members if is_class(unwrapped(member))]
    if len(classes) > 1:
        _chooser(converter, classes)
    doubtful = _doubtful(members)

    def unstructure(value: Any) -> Any:
        plain = converter.unstructure(value)
        if shape_of(plain) in doubtful:
            _check_way_back(converter, type_, value, plain)
        return plain

    return copies_plain_data(unstructure, converter)


def _doubtful(members: list[Any]) -> frozenset[Shape]:
    """Return the forms of JSON that several members share. Classes are distinguished by their fields."""
    if any(is_open(unwrapped(member)) for member in members):
        return ANY_SHAPE
    rest = [shapes(member) for member in members if not is_class(unwrapped(member))]
    classes = [shapes(member) for member in members if is_class(unwrapped(member))][:1]
    return frozenset(shape for shape in Shape if sum(shape in forms for forms in rest + classes) > 1)


def _check_way_back(converter: Converter, type_: Any, value: Any, plain: Any) -> None:
    back = converter.structure(plain, type_)
    if type(back) is not type(value) and not _equal(back, value):
        hint = (
            f"in JSON it would come back as {type_name(type(back))}; annotate one of them only, "
            f"or register hooks for the union on make_converter()"
        )
        raise Mismatch(type_, value, hint)


def _equal(back: Any, value: Any) -> bool:
    try:
        return bool(back == value)
    except Exception:  # noqa: BLE001 - arrays are compared item by item, and a user's class can raise any error
        return False
