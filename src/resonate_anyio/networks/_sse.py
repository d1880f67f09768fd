"""The event stream that messages come in (docs/protocol.md 11.3), taken apart without any input or output.

httpx-sse is not used for it: like the decoder of httpx that it was made from, it holds back a line that ends with a
lone CR until the next chunk tells whether an LF follows. A stream may be silent for hours, and the message with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from attrs import define, field

_END_OF_LINE: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MESSAGE: Final = frozenset({b"", b"message"})


@define
class EventDecoder:
    """Gives the data of each message, from chunks that may be cut anywhere.

    Lines end with LF, CR LF or CR and with nothing else; comments, ids and events of other types are passed over. Data
    stays bytes: what they mean is for others to decide.
    """

    _line: bytearray = field(factory=bytearray, init=False)
    _after_cr: bool = field(default=False, init=False)
    _first: bool = field(default=True, init=False)
    _type: bytes = field(default=b"", init=False)
    _data: list[bytes] = field(factory=list, init=False)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next bytes and give the data of the messages that end in them."""
        for line in self._lines(chunk):
            data = self._take(line)
            if data is not None:
                yield data

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return

        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")

        # A CR ends its line at once, and an LF that comes with the next chunk belongs to it.
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
