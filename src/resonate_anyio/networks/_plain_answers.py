"""Answers of HTTP/1.1 in their common form, read without h11. This module does no input or output.

h11 takes longer for one answer than everything else that a request needs. Nearly all answers of a server have one
form, and for this form a regular expression gives what h11 gives. Every other answer is left to h11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from .._values import ValueObject

# The characters of names and values as h11 has them, but for lines that are folded or end without a CR.
_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: ([^\0\r\n\f\v]*))?\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9a-zA-Z]+:[^\0\r\n\f\v]*\r\n)+)\r\n"
)
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
# Answers without a body, whatever their headers say.
_BODILESS: Final = frozenset({204, 304})


@frozen(kw_only=True, eq=False, repr=False)
class Answer(ValueObject):
    """A complete answer to a request.

    Attributes:
        headers: the headers by name, in lower case. Values of one name are joined by commas.
    """

    status: int
    reason: bytes
    headers: Mapping[bytes, bytes] = field(repr=False)
    body: bytes = field(repr=False)


@frozen(kw_only=True, eq=False, repr=False)
class CommonHead(ValueObject):
    """The head of an answer in the common form.

    Attributes:
        body_at: the place where the body begins.
        length: the number of bytes of the body.
    """

    status: int
    reason: bytes
    headers: Mapping[bytes, bytes]
    body_at: int
    length: int


def read_common_head(data: bytes) -> CommonHead | None:
    """Return the head that the data begins with, or None if it is incomplete or has another form than the common one.

    In the common form the length of the body is given once, the connection is kept, and no header is repeated. The
    request was neither HEAD nor CONNECT.
    """
    match = _HEAD.match(data)
    if match is None:
        return None

    status = int(match[1])
    headers: dict[bytes, bytes] = {}
    lines = match[3].split(b"\r\n")
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip(b" \t")
    # The part after the last line end is empty, and has become a header without a name.
    del headers[b""]
    length = headers.get(b"content-length", b"")
    if (
        len(headers) != len(lines) - 1
        or status in _BODILESS
        or _LENGTH.fullmatch(length) is None
        or b"transfer-encoding" in headers
        or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
    ):
        return None
    return CommonHead(status=status, reason=match[2] or b"", headers=headers, body_at=match.end(), length=int(length))


def joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by name. Values of one name are joined by commas."""
    by_name: dict[bytes, bytes] = {}
    for name, value in headers:
        key = name.lower()
        by_name[key] = by_name[key] + b", " + value if key in by_name else value
    return by_name
