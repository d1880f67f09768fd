"""JSON text and payloads.

Encoders and decoders are made once. The encoder does not look for containers that contain themselves: these end it with
a `RecursionError`, as data does that is nested too deeply.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from json import encoder
from json.scanner import make_scanner
from math import isfinite
from typing import Any, Final, NoReturn, TypeAlias, cast

from .._errors import DecodeError, EncodeError
from .._protocol import Value
from ._guard import ends_program
from ._mismatch import Fault, child, described

JSON: TypeAlias = Any
"""The values that the `json` module reads and writes: None, bool, int, float, str, list, and dict with str keys."""

TOO_DEEP: Final = "the value contains itself or is nested too deeply for JSON"

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
        raise EncodeError(_located(plain, exc)) from None


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
        raise EncodeError(_located(plain, exc)) from None


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


def _located(plain: JSON, error: BaseException) -> str:
    try:
        path, fault = next(_faults(plain, "$"), ("$", Fault(f"{type(error).__name__}: {error}")))
    except RecursionError:
        return TOO_DEEP
    except BaseException as exc:
        if ends_program(exc):
            raise
        path, fault = "$", Fault(f"{described(plain)} cannot be read ({type(exc).__name__} is raised)")
    return fault.at(path)


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


def _faults(plain: object, path: str) -> Iterator[tuple[str, Fault]]:
    match plain:
        case dict():
            # A subclass may have methods of its own, which need not end.
            for key, item in dict.items(plain):
                yield from _faults(key, child(path, key))
                yield from _faults(item, child(path, key))
        case list() | tuple():
            for index, item in enumerate(_items(plain)):
                yield from _faults(item, child(path, index))
        case _:
            fault = _fault(plain)
            if fault is not None:
                yield path, fault


def _items(plain: list[object] | tuple[object, ...]) -> Iterator[object]:
    return list.__iter__(plain) if isinstance(plain, list) else tuple.__iter__(plain)


def _fault(scalar: object) -> Fault | None:
    match scalar:
        case None | bool():
            return None
        case str():
            fault = Fault("text with a lone surrogate is not UTF-8", ": decode the bytes it came from properly")
            return None if _is_utf8(scalar) else fault
        case int():
            fault = Fault("an integer has more digits than Python writes", " (sys.set_int_max_str_digits)")
            return None if _is_printable(scalar) else fault
        case float():
            return None if isfinite(scalar) else _no_number(scalar)
        case _:
            return foreign(scalar)


def _no_number(scalar: float) -> Fault:
    return Fault(
        f"JSON has no {scalar!r}",
        ": record None instead (annotated float | None) or a text such as 'nan'; arrays of numpy keep theirs",
    )


def foreign(value: object) -> Fault:
    """Return the fault of a value without a JSON form, with advice."""
    return Fault(
        f"{described(value)} cannot be turned into JSON",
        f": pass plain data, an attrs class, a dataclass or a Pydantic model, or register an unstructure hook for "
        f"{type(value).__qualname__} on make_converter()",
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_printable(number: int) -> bool:
    try:
        str(number)
    except ValueError:
        return False
    return True
