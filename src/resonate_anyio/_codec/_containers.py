"""Rules for arrays, mappings, tuples and classes. They refuse JSON of the wrong form before cattrs reads its parts.

Without these rules, cattrs would read a str as a list of its characters, and a dict as a list of its keys.
"""

from __future__ import annotations

import json
import typing
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Sized
from functools import partial
from types import GenericAlias
from typing import Any, Final, TypeAlias, get_args, get_origin

from cattrs import Converter
from cattrs.cols import iterable_unstructure_factory, list_structure_factory
from cattrs.errors import IterableValidationError, IterableValidationNote

from .._errors import EncodeError
from ._json import canonical
from ._mismatch import Mismatch, Refused, described
from ._plain import copies_plain_data
from ._types import ARRAYS, is_array, is_class, is_mapping, is_namedtuple, is_open, is_tuple

Structure: TypeAlias = Callable[[Any, Any], Any]
Unstructure: TypeAlias = Callable[[Any], Any]

_EMPTY_TUPLE: Final = tuple[()]
_WITH_AN_END: Final = frozenset({list, tuple, set, frozenset, deque, type({}.items())})
MOST_ITEMS: Final = 1_000_000
"""The maximum number of items of an iterator, which has no length. A list may have more."""


def configure_containers(converter: Converter) -> None:
    """Register the rules.

    * list, set, frozenset, deque and their abstract kinds: arrays; sets sorted, so that equal sets look alike.
    * tuple, NamedTuple: arrays of the right length.
    * dict and its relatives: objects; keys that are not strings are written as JSON writes them.
    * TypedDict, attrs classes, dataclasses: objects with one member for each field; unknown members are ignored.
    """
    rules: list[tuple[Callable[[Any], bool], Any, Any]] = [
        (is_class, _structure_class, _unstructure_class),
        (is_mapping, _structure_mapping, _unstructure_mapping),
        (typing.is_typeddict, _structure_typeddict, _unstructure_typeddict),
        (is_array, _structure_array, _unstructure_array),
        (is_tuple, _structure_tuple, _unstructure_tuple),
        (is_namedtuple, _structure_namedtuple, _unstructure_namedtuple),
    ]
    for predicate, structure, unstructure in rules:
        converter.register_structure_hook_factory(predicate, structure)
        converter.register_unstructure_hook_factory(predicate, unstructure)


def structure_hook(converter: Converter, type_: Any) -> Structure:
    """Return the rule for a type. The rule for a type that contains itself is looked up when it is used."""
    try:
        return converter.get_structure_hook(type_)
    except RecursionError:
        return converter.structure


def unstructure_hook(converter: Converter, type_: Any) -> Unstructure:
    """Return the rule for a type. The rule for a type that contains itself is looked up when it is used."""
    try:
        return converter.get_unstructure_hook(type_)
    except RecursionError:
        return partial(converter.unstructure, unstructure_as=type_)


def _structure_class(type_: Any, converter: Converter) -> Structure:
    hook = converter.gen_structure_attrs_fromdict(type_)
    structure: Any = _only(dict, type_, hook)
    # cattrs reads this attribute to find renamed members when it distinguishes the classes of a union.
    structure.overrides = getattr(hook, "overrides", {})
    return structure  # type: ignore[no-any-return]


def _unstructure_class(type_: Any, converter: Converter) -> Unstructure:
    hook = converter.gen_unstructure_attrs_fromdict(type_)
    origin = get_origin(type_) or type_

    def unstructure(value: Any) -> Any:
        if not isinstance(value, origin):
            raise Mismatch(type_, value)
        return hook(value)

    return unstructure


def _structure_typeddict(type_: Any, converter: Converter) -> Structure:
    return copies_plain_data(_only(dict, type_, converter.gen_structure_typeddict(type_)), converter)


def _unstructure_typeddict(type_: Any, converter: Converter) -> Unstructure:
    hook = converter.gen_unstructure_typeddict(type_)
    # cattrs may return one function for several types.
    return copies_plain_data(partial(hook), converter)


def _only(form: type, type_: Any, hook: Structure) -> Structure:
    def structure(raw: Any, _: Any) -> Any:
        if type(raw) is not form:
            raise Mismatch(type_, raw)
        return hook(raw, type_)

    return structure


def _arguments(type_: Any) -> list[Any]:
    return [type(None) if argument is None else argument for argument in get_args(type_)]


def _argument(type_: Any, index: int = 0) -> Any:
    arguments = _arguments(type_)
    return arguments[index] if index < len(arguments) else Any


def _structure_array(type_: Any, converter: Converter) -> Structure:
    build = ARRAYS[get_origin(type_) or type_]
    items: Any = GenericAlias(list, _argument(type_))
    each = list_structure_factory(items, converter)
    if build is list:
        return copies_plain_data(_only(list, type_, each), converter)
    return _only(list, type_, lambda raw, _: build(each(raw, items)))


def _unstructure_array(type_: Any, converter: Converter) -> Unstructure:
    build = ARRAYS[get_origin(type_) or type_]
    each = iterable_unstructure_factory(GenericAlias(list, _argument(type_)), converter, unstructure_to=list)

    def unstructure(value: Any) -> list[Any]:
        if isinstance(value, (str, bytes, bytearray, Mapping)) or not isinstance(value, Iterable):
            raise Mismatch(type_, value)
        items: list[Any] = each(bounded(value, type_))
        return _sorted(items) if build in (set, frozenset) else items

    return copies_plain_data(unstructure, converter)


def bounded(items: Iterable[Any], type_: Any) -> Iterable[Any]:
    """Return items that are known to end. An iterator without an end is stopped by an error."""
    return items if type(items) in _WITH_AN_END else _until_the_end(items, type_)


def _until_the_end(items: Iterable[Any], type_: Any) -> Iterator[Any]:
    most = len(items) if isinstance(items, Sized) else MOST_ITEMS
    for index, item in enumerate(items):
        if index >= most:
            reason = (
                f"gives more than {most} items" if most == MOST_ITEMS else f"gives more items than its length {most}"
            )
            raise Mismatch(type_, items, f"it {reason}: pass a list")
        yield item


def _sorted(items: list[Any]) -> list[Any]:
    try:
        return sorted(items, key=canonical)
    except EncodeError:
        # The error is raised with its place when the whole value is written.
        return items


def _structure_tuple(type_: Any, converter: Converter) -> Structure:
    arguments = _arguments(type_)
    if type_ != _EMPTY_TUPLE and (not arguments or arguments[-1] is ...):
        items: Any = GenericAlias(list, _argument(type_))
        each = list_structure_factory(items, converter)
        return _only(list, type_, lambda raw, _: tuple(each(raw, items)))
    hooks = [structure_hook(converter, argument) for argument in arguments]

    def structure(raw: Any, _: Any) -> Any:
        if len(raw) != len(hooks):
            raise Mismatch(type_, raw, f"{len(hooks)} items are expected, {len(raw)} found")
        each = (partial(hook, item, argument) for hook, item, argument in zip(hooks, raw, arguments, strict=True))
        return tuple(_collected(type_, enumerate(each), arguments.__getitem__))

    return _only(list, type_, structure)


def _unstructure_tuple(type_: Any, converter: Converter) -> Unstructure:
    arguments = _arguments(type_)
    if type_ != _EMPTY_TUPLE and (not arguments or arguments[-1] is ...):
        return _unstructure_array(GenericAlias(list, _argument(type_)), converter)
    hooks = [unstructure_hook(converter, argument) for argument in arguments]

    def unstructure(value: Any) -> list[Any]:
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(hooks):
            raise Mismatch(type_, value)
        return [hook(item) for hook, item in zip(hooks, value, strict=True)]

    return unstructure


def _as_tuple(type_: Any) -> Any:
    hints = typing.get_type_hints(type_, include_extras=True)
    return GenericAlias(tuple, tuple(hints.get(name, Any) for name in type_._fields))


def _structure_namedtuple(type_: Any, converter: Converter) -> Structure:
    plain = _as_tuple(type_)
    hook = structure_hook(converter, plain)
    return lambda raw, _: type_(*hook(raw, plain))


def _unstructure_namedtuple(type_: Any, converter: Converter) -> Unstructure:
    return unstructure_hook(converter, _as_tuple(type_))


def _structure_mapping(type_: Any, converter: Converter) -> Structure:
    origin = get_origin(type_) or type_
    key_type = _argument(type_)
    value_type = int if origin is Counter else _argument(type_, 1)
    key_hook = _key_hook(converter, key_type)
    value_hook = structure_hook(converter, value_type)

    def pair(key: str, raw: Any) -> tuple[Any, Any]:
        return key_hook(key), value_hook(raw, value_type)

    build = _mapping_builder(origin, value_type)

    def structure(raw: Any, _: Any) -> Any:
        each = ((key, partial(pair, key, item)) for key, item in raw.items())
        return build(_collected(type_, each, lambda _: value_type))

    return copies_plain_data(_only(dict, type_, structure), converter)


def _mapping_builder(origin: Any, value_type: Any) -> Callable[[Iterable[tuple[Any, Any]]], Any]:
    if origin in (dict, Mapping, MutableMapping):
        return dict
    if origin is Counter:
        return lambda pairs: Counter(dict(pairs))
    if issubclass(origin, defaultdict):
        # The annotation does not contain the factory. The type of the values is the likeliest one.
        return partial(origin, value_type if callable(value_type) else None)
    return origin  # type: ignore[no-any-return]


def _collected(
    type_: Any, thunks: Iterable[tuple[Any, Callable[[], Any]]], item_type: Callable[[Any], Any]
) -> list[Any]:
    """Call all thunks and return their results. One error names all items that fail, each with its index or key."""
    results, errors = [], []
    for index, thunk in thunks:
        try:
            results.append(thunk())
        except Exception as exc:  # noqa: BLE001 - hooks of users may raise anything
            note = IterableValidationNote(f"at {index!r}", index, item_type(index))
            exc.__notes__ = [*getattr(exc, "__notes__", ()), note]
            errors.append(exc)
    if errors:
        msg = f"while reading {type_!r}"
        raise IterableValidationError(msg, errors, type_)  # pyright: ignore[reportCallIssue]
    return results


def _key_hook(converter: Converter, type_: Any) -> Callable[[str], Any]:
    if type_ is str or is_open(type_):
        return lambda key: key
    hook = structure_hook(converter, type_)

    def structure(key: str) -> Any:
        try:
            return hook(key, type_)
        except Exception:
            # Keys in JSON are strings: 1 was written as "1".
            scalar = _scalar(key)
            if scalar is key:
                raise
            return hook(scalar, type_)

    return structure


def _scalar(key: str) -> Any:
    try:
        value = json.loads(key)
    except ValueError:
        return key
    return value if not isinstance(value, (str, list, dict)) and _key_text(value) == key else key


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, (list, dict)):
        raise TypeError
    return json.dumps(key, allow_nan=False)


def _unstructure_mapping(type_: Any, converter: Converter) -> Unstructure:
    origin = get_origin(type_) or type_
    key_hook = _written_key(converter, _argument(type_))
    value_hook = unstructure_hook(converter, int if origin is Counter else _argument(type_, 1))

    def unstructure(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Mismatch(type_, value)
        result = {key_hook(key): value_hook(item) for key, item in bounded(value.items(), type_)}
        if len(result) != len(value):
            msg = "two of its keys become the same text in JSON"
            raise Refused(msg)
        return result

    return copies_plain_data(unstructure, converter)


def _written_key(converter: Converter, type_: Any) -> Callable[[Any], str]:
    hook = unstructure_hook(converter, type_)
    way_back = None if is_open(type_) else _key_hook(converter, type_)

    def unstructure(key: Any) -> str:
        if type(key) is str:
            return key
        try:
            text = _key_text(hook(key))
        except (TypeError, ValueError):
            msg = f"a key of a JSON object is text, and {described(key)} has no such form"
            raise Refused(msg) from None
        if way_back is not None and way_back(text) != key:
            raise Mismatch(type_, key, f"as a key in JSON it would come back as {described(way_back(text))}")
        return text

    return unstructure
