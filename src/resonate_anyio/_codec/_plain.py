"""Plain data: values that are JSON already, so that the rules of the converter would only copy them.

None, bools, numbers, text, and lists, tuples and dicts of them are plain, and most recorded values are such. The rules
copy these values part by part, with about ten calls for each part. `PlainData` recognizes them with loops that the
interpreter runs in C, so that they are written and read without the rules. The recorded bytes and the values are the
same.

An annotation has a `Layout` if plain data that fits it is written and read unchanged: `int`, `list[int]`,
`dict[str, list[int | None]]`. Users can register hooks for these types as well. An annotation that such a hook concerns
has no layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from itertools import chain, islice
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_origin
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from attrs import define, field, frozen
from cattrs import Converter
from cattrs.fns import identity

from .._protocol import Value
from ._guard import ends_program
from ._scalars import READERS, READS_BYTES, WRITES_BYTES
from ._types import ARRAYS, is_array, is_open, is_union

Rule = TypeVar("Rule", bound=Callable[..., Any])

_DEEPEST: Final = 20
"""The number of levels that plain data may have. Deeper values are left to the rules, which have their own limit."""

_FEW: Final = 64
"""The number of parts that are looked at one after the other."""

_WIDEST: Final = 250_000
"""The number of parts of one level above which a list that is there several times is looked at only once."""

_MOST_TYPES: Final = 1_000
"""The number of annotations whose layouts are kept."""

_LARGE: Final = 50_000
"""The length of a payload from which on it is noted that its value fits a layout."""

_SCALARS: Final = (str, int, bool, NoneType, float)
_CONTAINERS: Final = (list, tuple, dict)
_OBJECTS: Final = (dict, Mapping, MutableMapping)
_MOST_PARTS: Final = 1_000
_MOST_TEXT: Final = 16_000
"""The number of parts, and of characters and bytes in them, above which arguments are large."""

_END: Final = object()
_LISTS: Final = frozenset({list})
_ARRAYS: Final = frozenset({list, tuple})
_KEYS: Final = frozenset({str})

_copying: Final[WeakKeyDictionary[Callable[..., Any], ref[Converter]]] = WeakKeyDictionary()

_STATE: Final = object()
"""Stands for a type. A converter makes a new hook for it after each registration, since that clears all caches."""


@frozen(eq=False)
class Layout:
    """The plain data that fits an annotation.

    Attributes:
        scalars: the types of scalars that fit.
        items: the layout of the items of an array; None if no array fits.
        members: the layout of the members of an object; None if no object fits.
        bytes: whether the annotation is `bytes`, which is written as base64.
    """

    scalars: frozenset[type] = frozenset()
    items: Layout | None = None
    members: Layout | None = None
    bytes: bool = False
    _written: WeakValueDictionary[int, Value] = field(factory=WeakValueDictionary, init=False, repr=False)

    @property
    def open(self) -> bool:
        """Whether all plain data fits."""
        return self is OPEN

    def remember(self, payload: Value) -> None:
        """Note that a payload is of a value that fits, so that this is not examined again when the payload is read."""
        if payload.data is not None and len(payload.data) > _LARGE:
            self._written[id(payload)] = payload

    def remembers(self, payload: Value) -> bool:
        """Return whether a payload was noted."""
        return self._written.get(id(payload)) is payload


OPEN: Final = Layout(frozenset(_SCALARS))
"""The layout of `Any`."""
object.__setattr__(OPEN, "items", OPEN)
object.__setattr__(OPEN, "members", OPEN)

_BYTES: Final = Layout(bytes=True)


def configure_plain(converter: Converter) -> None:
    """Register the hooks by which `PlainData` notices a registration."""
    converter.register_unstructure_hook_factory(lambda type_: type_ is _STATE, lambda _: partial(identity))
    converter.register_structure_hook_factory(lambda type_: type_ is _STATE, lambda _: partial(_unused))


def _unused(raw: Any, _: Any) -> Any:
    return raw


def copies_plain_data(rule: Rule, converter: Converter) -> Rule:
    """Mark a rule that this package has made for a converter as one that changes nothing in plain data, and return it.

    A rule asks the hooks of its own converter for the parts of a value, so the mark holds for that converter only.
    """
    _copying[rule] = ref(converter)
    return rule


@define(eq=False)
class PlainData:
    """The plain data that one converter writes and reads unchanged.

    The converter's hooks are examined once for each annotation, and again after each registration of a hook.
    """

    _converter: Converter
    _writing: object = field(default=None, init=False)
    _reading: object = field(default=None, init=False)
    _unchanged: bool = field(default=False, init=False)
    # By id, since a hash or a comparison of a type can run code of its metaclass. The type is kept, and so its id.
    _layouts: dict[int, tuple[Any, Layout | None]] = field(factory=dict, init=False)

    def layout(self, type_: Any) -> Layout | None:
        """Return the layout of an annotation, or None if its values need the rules."""
        converter = self._converter
        try:
            writing, reading = converter.get_unstructure_hook(_STATE), converter.get_structure_hook(_STATE)
        except BaseException as exc:
            # It was not made by this package.
            if ends_program(exc):
                raise
            return None
        if writing is not self._writing or reading is not self._reading:
            self._layouts.clear()
            self._unchanged = _asked_safely(partial(_leaves_plain_data, converter)) is True
            self._writing, self._reading = writing, reading
        known = self._layouts.get(id(type_))
        if known is not None:
            return known[1]
        layout = _asked_safely(partial(self._find, type_)) if self._unchanged else None
        if len(self._layouts) >= _MOST_TYPES:
            self._layouts.clear()
        self._layouts[id(type_)] = type_, layout
        return layout

    def _find(self, type_: Any) -> Layout | None:
        if type_ is Any:
            return OPEN
        if type_ is None:
            type_ = NoneType
        converter = self._converter
        write, read = converter.get_unstructure_hook(type_), converter.get_structure_hook(type_)
        if any(type_ is scalar for scalar in _SCALARS):
            return Layout(frozenset({type_})) if write is identity and read is READERS[type_] else None
        if type_ is bytes:
            return _BYTES if write is WRITES_BYTES and read is READS_BYTES else None
        if not (_is_own_rule(write, converter) and _is_own_rule(read, converter)):
            return None
        return OPEN if is_open(type_) else self._find_container(type_)

    def _find_container(self, type_: Any) -> Layout | None:
        arguments = get_args(type_)
        if is_union(type_):
            return _merged([self._find(member) for member in arguments])
        origin = get_origin(type_) or type_
        if is_array(type_) and ARRAYS[origin] is list:
            items = self._find(arguments[0] if arguments else Any)
            return None if items is None else Layout(items=items)
        if origin in _OBJECTS and (not arguments or arguments[0] is str or is_open(arguments[0])):
            members = self._find(arguments[1] if arguments else Any)
            return None if members is None else Layout(members=members)
        return None


def _merged(layouts: list[Layout | None]) -> Layout | None:
    """Return the layout of a union. It has none if the form of JSON does not show the member that a value is of."""
    scalars: frozenset[type] = frozenset()
    items = members = None
    for layout in layouts:
        if layout is None or layout.open or layout.bytes:
            return None
        if (items and layout.items) or (members and layout.members):
            return None
        scalars |= layout.scalars
        items, members = items or layout.items, members or layout.members
    return Layout(scalars, items, members)


def fits(value: Any, layout: Layout | None) -> bool:
    """Return whether a value is plain data of a layout: of the exact types of JSON, or tuples, and not nested deeply.

    The answer may be False for such a value too. With None for a layout, no value fits.
    """
    try:
        return layout is not None and (type(value) in layout.scalars or _fits(value, layout, _ARRAYS, _KEYS))
    except BaseException as exc:
        # A metaclass whose classes cannot be compared, or another thread that changes a dict.
        if ends_program(exc):
            raise
        return False


def fits_read(raw: Any, layout: Layout) -> bool:
    """Return whether data that was read from JSON fits a layout."""
    return type(raw) in layout.scalars or _fits(raw, layout, _LISTS, None)


def _fits(value: Any, layout: Layout, arrays: frozenset[type], keys: frozenset[type] | None) -> bool:
    """Look at a few parts one after the other, and at many parts together.

    Args:
        value: the value.
        layout: the layout.
        arrays: the types that are written as arrays.
        keys: the types of the keys of objects, or None if the value was read from JSON, so that keys are text.
    """
    parts: Iterator[Any] = iter((value,))
    around, left = layout, _FEW
    outer: list[tuple[Iterator[Any], Layout]] = []
    while True:
        for part in parts:
            kind = type(part)
            if kind in around.scalars:
                continue
            inner = around.members if kind is dict else around.items if kind in arrays else None
            if inner is None or len(outer) >= _DEEPEST:
                return False
            left -= len(part)
            if left < 0:
                return _fits_together(value, layout, arrays, keys)
            outer.append((parts, around))
            if kind is dict:
                if keys is not None and not keys.issuperset(map(type, part)):
                    return False
                part = part.values()  # noqa: PLW2901 - what is inside of it
            parts, around = iter(part), inner
            break
        else:
            if not outer:
                return True
            parts, around = outer.pop()


def _fits_together(value: Any, layout: Layout, arrays: frozenset[type], keys: frozenset[type] | None) -> bool:
    # The containers of one type and one layout that are on one level.
    groups: list[tuple[type, list[Any], Layout, int]] = [(type(value), [value], layout, 0)]
    for kind, found, around, depth in groups:
        inner = around.members if kind is dict else around.items if kind in arrays else None
        if inner is None or depth >= _DEEPEST:
            return False
        if keys is None and inner is OPEN:
            # All data that was read from JSON is plain.
            continue
        if kind is dict:
            if keys is not None and not keys.issuperset(map(type, chain.from_iterable(found))):
                return False
            found = [*map(dict.values, found)]  # noqa: PLW2901 - what is inside of them
        parts = chain.from_iterable(found)
        every = {*map(type, islice(parts, _WIDEST))}
        if next(parts, _END) is not _END:
            # A list that contains itself many times has more parts on each level.
            found = [*{id(part): part for part in found}.values()]  # noqa: PLW2901 - the same, each once
            every = {*map(type, chain.from_iterable(found))}
        for below in every - inner.scalars:
            parts = chain.from_iterable(found)
            chosen = [*parts] if len(every) == 1 else [part for part in parts if type(part) is below]
            groups.append((below, chosen, inner, depth + 1))
    return True


def is_small(parts: Iterable[object]) -> bool:
    """Return whether the arguments of a call, or the data that they are written as, are not large.

    This looks at few of many parts. An object of a class counts as one part, since the rules for it are unknown.
    """
    level, left, text = list(parts), _MOST_PARTS, _MOST_TEXT
    while level:
        left -= len(level)
        below: list[object] = []
        for part in level:
            kind = type(part)
            if kind is str or kind is bytes:
                text -= len(part)  # type: ignore[arg-type]
            elif kind is dict or kind is list or kind is tuple or kind is set or kind is frozenset:
                if left < len(part):  # type: ignore[arg-type]
                    return False
                below.extend(part)  # type: ignore[arg-type]
                if kind is dict:
                    below.extend(part.values())  # type: ignore[attr-defined]
        if left < 0 or text < 0:
            return False
        level = below
    return True


def _leaves_plain_data(converter: Converter) -> bool:
    """Return whether no hook of a user is asked when plain data is written."""
    scalars = all(converter.get_unstructure_hook(type_) is identity for type_ in _SCALARS)
    containers = all(_is_own_rule(converter.get_unstructure_hook(type_), converter) for type_ in (*_CONTAINERS, Any))
    # A subclass may have its own methods.
    return scalars and containers and _has_methods_of_cattrs(converter)


def _has_methods_of_cattrs(converter: Converter) -> bool:
    own = (Converter.unstructure, Converter.structure)
    return own == tuple(getattr(getattr(converter, method.__name__), "__func__", None) for method in own)


def _is_own_rule(hook: Callable[..., Any], converter: Converter) -> bool:
    owner = _copying.get(hook)
    return owner is not None and owner() is converter


def _asked_safely(question: Callable[[], Any]) -> Any:
    """Return the answer of a question that asks hook factories of users, or None if one of them fails."""
    try:
        return question()
    except BaseException as exc:
        if ends_program(exc):
            raise
        return None
