"""JSON text, payloads, and the plain data that is written and read as it is.

None, bools, numbers, text, and lists, tuples and dicts of them are plain: they are JSON already, and most recorded
values are such. The rules of the converter only copy these values part by part, with about ten calls for each part.
`fits` recognizes them with loops that the interpreter runs in C, so that they are written and read without the rules.
The recorded bytes and the values are the same. `_plain.py` finds the annotations for which that holds.

Encoders and decoders are made once. The encoder does not look for containers that contain themselves: these end it with
a `RecursionError`, as data does that is nested too deeply.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from json import encoder
from json.scanner import make_scanner
from operator import itemgetter
from types import NoneType
from typing import Any, Final, NoReturn, TypeAlias, cast
from weakref import WeakValueDictionary

from attrs import define, field, frozen
from cattrs import Converter
from cattrs.fns import identity

from .._errors import DecodeError, EncodeError
from .._hashes import blake2b
from .._protocol import Value
from ._guard import ends_program
from ._unwritable import located

JSON: TypeAlias = Any
"""The values that the `json` module reads and writes: None, bool, int, float, str, list, and dict with str keys."""

SCALARS: Final = (str, int, bool, NoneType, float)
"""The types of plain scalars."""

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

_MOST_PARTS: Final = 1_000
_MOST_TEXT: Final = 16_000
"""The number of parts, and of characters and bytes in them, above which arguments are large."""

_END: Final = object()
_LISTS: Final = frozenset({list})
_ARRAYS: Final = frozenset({list, tuple})
_KEYS: Final = frozenset({str})

_STATE: Final = object()
"""Stands for a type. A converter makes a new hook for it after each registration, since that clears all caches."""

_Write: TypeAlias = Callable[[JSON, int], Iterable[str]]
"""A function that returns compact JSON in parts. Its second argument is 0, the level of indentation."""


def _refuse_foreign(value: object) -> NoReturn:
    raise TypeError(value)


def _writer(*, sort_keys: bool) -> _Write:
    # `JSONEncoder.encode` makes this object for each value, which takes longer than writing a small one.
    make = getattr(encoder, "c_make_encoder", None)
    if make is not None:
        options = {"indent": None, "sort_keys": sort_keys, "skipkeys": False, "allow_nan": False}
        text = {"encoder": encoder.encode_basestring, "key_separator": ":", "item_separator": ","}
        return make(markers=None, default=_refuse_foreign, **options, **text)  # type: ignore[no-any-return]
    slow = json.JSONEncoder(  # pragma: no cover - an interpreter without the encoder in C
        ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False, sort_keys=sort_keys
    )
    return lambda plain, _: (slow.encode(plain),)  # pragma: no cover


_write: Final = _writer(sort_keys=False)
_write_sorted: Final = _writer(sort_keys=True)


def dumps(plain: JSON, write: _Write = _write) -> bytes:
    """Return compact JSON in UTF-8.

    Raises:
        EncodeError: a part of it is not JSON; the message names the place and the value.
    """
    try:
        return "".join(write(plain, 0)).encode()
    except BaseException as exc:
        # A dict or list of a user's class runs the user's code while it is written.
        if ends_program(exc):
            raise
        # The encoder does not say where the fault is, so the data is walked once more.
        raise EncodeError(located(plain, exc)) from None


def canonical(plain: JSON) -> bytes:
    """Return the text that equal values share: `dumps` with sorted keys."""
    return dumps(plain, _write_sorted)


_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")


def digest_of(plain: JSON) -> str | None:
    """Return a hash of `canonical(plain)`, 22 characters. None if a part of the data is not JSON."""
    try:
        text = "".join(_write_sorted(plain, 0)).encode()
    except BaseException as exc:
        if ends_program(exc):
            raise
        return None
    return urlsafe(blake2b(text, digest_size=16).digest())


def urlsafe(data: bytes) -> str:
    """Return base64 that file names and addresses may contain, without padding."""
    return str(b2a_base64(data, newline=False).translate(_URLSAFE, b"="), "ascii")


def packed(plain: JSON) -> Value:
    """Return plain data as a payload: `pack(dumps(plain))` in one call.

    Raises:
        EncodeError: as `dumps`.
    """
    try:
        return Value(str(b2a_base64("".join(_write(plain, 0)).encode(), newline=False), "ascii"))
    except BaseException as exc:
        if ends_program(exc):
            raise
        raise EncodeError(located(plain, exc)) from None


def packed_bytes(data: bytes) -> Value:
    """Return bytes as a payload: `packed` of their base64, which contains nothing that JSON would escape."""
    return Value(str(b2a_base64(b'"%b"' % b2a_base64(data, newline=False), newline=False), "ascii"))


def packed_identity(func: str, version: int, digest: str) -> Value:
    """Return the payload of a call in this process: `packed` of these members. The digest has nothing to escape.

    Raises:
        EncodeError: the name is not text in UTF-8.
    """
    try:
        text = f'{{"func":{encoder.encode_basestring(func)},"version":{version},"digest":"{digest}"}}'
        return Value(str(b2a_base64(text.encode(), newline=False), "ascii"))
    except UnicodeEncodeError:
        return packed({"func": func, "version": version, "digest": digest})


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


_decoder: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_scan: Final[Any] = cast("Any", make_scanner)(_decoder)
"""Reads the value that begins at an index. `JSONDecoder.decode` also looks for white space around it."""


def loads(text: bytes) -> JSON:
    """Return the value of strict JSON.

    Raises:
        DecodeError: it is not JSON in UTF-8.
    """
    try:
        plain = text.decode()
        try:
            value, end = _scan(plain, 0)
        except StopIteration:
            value, end = None, -1
        # There is white space around it, or it is not JSON.
        return value if end == len(plain) else _decoder.decode(plain)
    except (ValueError, RecursionError, MemoryError) as exc:
        msg = f"the recorded payload is not JSON: {exc}"
        raise DecodeError(msg) from exc


def pack(text: bytes) -> Value:
    """Return JSON as a payload."""
    return Value(str(b2a_base64(text, newline=False), "ascii"))


def unpack(value: Value) -> JSON:
    """Return the value in a payload: None if the payload is missing or empty.

    Raises:
        DecodeError: it is not base64 of JSON in UTF-8.
    """
    return loads(_bytes_of(value.data)) if value.data else None


def unpack_bytes(value: Value) -> bytes | None:
    """Return the bytes in a payload, or None if they are not there in the form in which `packed_bytes` writes them."""
    if not value.data:
        return None
    text = _bytes_of(value.data)
    if len(text) < 2 or text[:1] != b'"' or text[-1:] != b'"':
        return None
    try:
        return a2b_base64(memoryview(text)[1:-1], strict_mode=True)
    except ValueError:
        return None


def _bytes_of(data: str) -> bytes:
    try:
        return a2b_base64(data, strict_mode=True)
    except ValueError as exc:
        msg = f"the recorded payload is not base64: {exc}"
        raise DecodeError(msg) from exc


@frozen(eq=False, repr=False)
class Layout:
    """The plain data that fits an annotation.

    Attributes:
        scalars: the types of scalars that fit.
        items: the layout of the items of an array; None if no array fits.
        members: the layout of the members of an object; None if no object fits.
        fields: the layout of each member of an object that has only these members; then `members` is not None either.
        required: the names of the members that such an object has.
        bytes: whether the annotation is `bytes`, which is written as base64.
    """

    scalars: frozenset[type] = frozenset()
    items: Layout | None = None
    members: Layout | None = None
    fields: Mapping[str, Layout] | None = None
    required: frozenset[str] = frozenset()
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


OPEN: Final = Layout(frozenset(SCALARS))
"""The layout of `Any`."""
object.__setattr__(OPEN, "items", OPEN)
object.__setattr__(OPEN, "members", OPEN)


def configure_plain(converter: Converter) -> None:
    """Register the hooks by which `PlainData` notices a registration."""
    converter.register_unstructure_hook_factory(lambda type_: type_ is _STATE, lambda _: partial(identity))
    converter.register_structure_hook_factory(lambda type_: type_ is _STATE, lambda _: partial(_unused))


def _unused(raw: Any, _: Any) -> Any:
    return raw


@define(eq=False, repr=False)
class PlainData:
    """The plain data that one converter writes and reads unchanged.

    The converter's hooks are examined once for each annotation, and again after each registration of a hook.
    """

    _converter: Converter
    _find: Callable[[Converter, Any], Layout | None]
    _writing: object = field(default=None, init=False)
    _reading: object = field(default=None, init=False)
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
            self._writing, self._reading = writing, reading
        known = self._layouts.get(id(type_))
        if known is not None:
            return known[1]
        layout = self._find(converter, type_)
        if len(self._layouts) >= _MOST_TYPES:
            self._layouts.clear()
        self._layouts[id(type_)] = type_, layout
        return layout


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
            if left < 0 or (kind is dict and around.fields is not None):
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
            if around.fields is not None:
                columns = _columns(found, around.fields, around.required)
                if columns is None:
                    return False
                groups.extend(group for each in columns for group in _groups(*each, depth + 1))
                continue
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


def _columns(
    found: list[Any], fields: Mapping[str, Layout], required: frozenset[str]
) -> list[tuple[list[Any], Layout]] | None:
    """Return the values of each member in all of the objects. None if one of these has wrong members."""
    shapes = {*map(tuple, found)}
    if not all(required <= {*shape} <= fields.keys() for shape in shapes):
        return None
    everywhere = frozenset(fields).intersection(*shapes)
    return [
        (
            [*map(itemgetter(name), found)] if name in everywhere else [each[name] for each in found if name in each],
            inner,
        )
        for name, inner in fields.items()
    ]


def _groups(parts: list[Any], layout: Layout, depth: int) -> Iterator[tuple[type, list[Any], Layout, int]]:
    every = {*map(type, parts)}
    for below in every - layout.scalars:
        yield below, parts if len(every) == 1 else [part for part in parts if type(part) is below], layout, depth


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
