"""The decoder of the event stream that carries messages (docs/protocol.md 11.3). It does no input or output.

httpx-sse is not used. Like the decoder of httpx on which it is based, it holds back a line that ends with a lone CR
until the next chunk shows whether an LF follows. A stream may be silent for hours, and would delay the message as long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from attrs import define, field

_END_OF_LINE: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MESSAGE: Final = frozenset({b"", b"message"})


@define(eq=False, repr=False)
class EventDecoder:
    """Decodes the data of each message from chunks, which may be cut anywhere.

    Only LF, CR LF and CR end a line. Comments, ids and events of other types are ignored. The data is returned as
    bytes, and not interpreted.
    """

    _line: bytearray = field(factory=bytearray, init=False)
    _after_cr: bool = field(default=False, init=False)
    _first: bool = field(default=True, init=False)
    _type: bytes = field(default=b"", init=False)
    _data: list[bytes] = field(factory=list, init=False)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decode the next bytes and return the data of each message that ends in them."""
        for line in self._lines(chunk):
            data = self._take(line)
            if data is not None:
                yield data

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return

        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")

        # A CR ends its line at once. An LF at the beginning of the next chunk belongs to it.
        self._after_cr = chunk.endswith(b"\r")
        *ends, rest = _END_OF_LINE.split(chunk)
        for end in ends:
            yield bytes(self._line + end)
            self._line.clear()

        self._line += rest

    def _take(self, line: bytes) -> bytes | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BYTE_ORDER_MARK)

        if not line:
            return self._dispatch()

        # A comment is a field without a name.
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value
        return None

    def _dispatch(self) -> bytes | None:
        data, kind = self._data, self._type
        self._data, self._type = [], b""
        return (b"\n".join(data) or None) if kind in _MESSAGE else None
