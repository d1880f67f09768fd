"""Digests of arguments: short hashes that are recorded with the calls of a function in this process.

There are two algorithms. A digest names its own, and digests of different algorithms are not compared.

* Whole: a hash of all arguments as canonical JSON. It has 22 characters and no prefix. Equal arguments have the same
  digest, and different ones do not.
* Sampled: `2:` and a hash of a sample, 24 characters. It is for arguments that are too large to be written for each
  call. Equal arguments have the same digest, but so may arguments that differ where the sample has nothing.

A sample has the length of each container on the way, some of its parts, and the text in it: whole up to a million
characters in all, and beyond that 64 slices of each text. A character of text that is not ASCII counts as eight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import define

from .._errors import EncodeError
from ._guard import ends_program
from ._json import JSON, canonical, urlsafe
from ._unwritable import TOO_DEEP

_ROOM: Final = 256
"""The number of parts in a sample."""

_HASHED: Final = 1_000_000
"""The number of characters and bytes that are hashed whole."""

_SLICES: Final = 64
"""The number of slices of a text that is not hashed whole."""

_WIDE: Final = 8
"""What a character counts for in text that is not ASCII, which has to be encoded first."""

_SHORT: Final = 64
"""The length up to which a text is in the sample itself."""

_MOST_KEYS: Final = 10_000
"""The number of keys above which an object is represented by its length alone."""

_DEEPEST: Final = 20
"""The number of levels that arguments may have."""

_PREFIX: Final = "2:"


def sampled(args: Sequence[object], kwargs: Mapping[str, object], to_json: Callable[[object], JSON]) -> str | None:
    """Return the sampled digest of arguments, or None if a part of the sample cannot be recorded.

    Args:
        args: the positional arguments.
        kwargs: the keyword arguments.
        to_json: a function that returns a value of another type as JSON.
    """
    try:
        text = canonical(_Sample(to_json).of([list(args), dict(kwargs)], _ROOM, 0))
    except BaseException as exc:
        # Another thread may change a container meanwhile.
        if ends_program(exc):
            raise
        return None
    return _PREFIX + urlsafe(_sha256(text).digest()[:16])


@define(eq=False, repr=False)
class _Sample:
    """A sample that is being taken: data whose canonical JSON represents the arguments."""

    _to_json: Callable[[object], JSON]
    _left: int = _HASHED

    def of(self, value: Any, room: int, depth: int) -> JSON:
        """Return the sample of a value: at most about `room` parts."""
        if depth > _DEEPEST:
            raise EncodeError(TOO_DEEP)
        kind = type(value)
        if kind is int or kind is float or kind is bool or value is None:
            return value
        if kind is str or kind is bytes:
            return self._text(value)
        if kind is list or kind is tuple:
            return self._array(value, room, depth)
        if kind is dict:
            return self._object(value, room, depth)
        if kind is set or kind is frozenset:
            return ["s", len(value), *_chosen(value, room)]
        return self.of(self._to_json(value), room, depth + 1)

    def _text(self, value: str | bytes) -> JSON:
        if isinstance(value, str) and len(value) <= _SHORT:
            return value
        weight = 1 if isinstance(value, bytes) or value.isascii() else _WIDE
        most = max(self._left // weight, 2 * _SLICES)
        self._left -= min(len(value), most) * weight
        parts = [value] if len(value) <= most else _slices(value, most // _SLICES)
        hasher = _sha256()
        for part in parts:
            hasher.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
        return ["t" if isinstance(value, str) else "b", len(value), hasher.hexdigest()]

    def _array(self, value: Sequence[Any], room: int, depth: int) -> JSON:
        count, last = min(len(value), room), max(len(value) - 1, 0)
        chosen = value if count == len(value) else [value[last * index // max(count - 1, 1)] for index in range(count)]
        return ["a", len(value), *self._parts(chosen, room, depth)]

    def _object(self, value: Mapping[Any, Any], room: int, depth: int) -> JSON:
        keys = _chosen(value, room)
        return ["o", len(value), [str(key) for key in keys], *self._parts([value[key] for key in keys], room, depth)]

    def _parts(self, parts: Sequence[Any], room: int, depth: int) -> list[JSON]:
        # Each container among the parts gets the same share of the room.
        containers = sum((kind := type(part)) is dict or kind is list or kind is tuple for part in parts)
        share = max(room // max(containers, 1), 1)
        return [self.of(part, share, depth + 1) for part in parts]


def _slices(text: str | bytes, size: int) -> list[str | bytes]:
    """Return slices of one size with about equal distances, the first and the last at the ends."""
    last = len(text) - size
    starts = [last * index // (_SLICES - 1) for index in range(_SLICES)]
    return [text[start : start + size] for start in starts]


def _chosen(keys: Any, room: int) -> list[Any]:
    """Return some keys of an object, or members of a set, in an order that does not depend on how it was made.

    They are all, or the first and the last, or none if there are too many or they have no such order.
    """
    if len(keys) > _MOST_KEYS or {*map(type, keys)} not in ({str}, {int}):
        return []
    return sorted(keys) if len(keys) <= room else [min(keys), max(keys)]


def _sha256(data: bytes = b"") -> Any:
    # It loads OpenSSL, which takes longer than any module of this package. Few programs have large arguments.
    from hashlib import sha256  # noqa: PLC0415

    return sha256(data)
