"""The decoder of event streams: what ends a line, what ends a message, and chunks that are cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from resonate_anyio.networks._sse import EventDecoder


def decoded(*chunks: bytes) -> list[bytes]:
    decoder = EventDecoder()
    return [data for chunk in chunks for data in decoder.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_end_of_line_ends_a_line(end: bytes) -> None:
    """LF, CR LF and CR all do, and a blank line ends a message."""
    assert [b"a", b"b"] == decoded(end.join([b"data: a", b"", b"data: b", b"", b""]))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_message_is_given_as_soon_as_it_is_complete(end: bytes) -> None:
    """The stream may be silent for hours after the blank line, so nothing is held back for what may follow."""
    decoder = EventDecoder()

    assert [b"a"] == list(decoder.feed(b"data: a" + end + end))


def test_a_line_feed_that_comes_later_belongs_to_its_carriage_return() -> None:
    """CR LF cut in two is one end of line, and the LF after it another one."""
    assert [] == decoded(b"data: a\r", b"\n")
    assert [b"a\nb"] == decoded(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n")
    assert [b"a"] == decoded(b"data: a\r", b"\n", b"\n")
    assert [b"a"] == decoded(b"data: a\r", b"", b"\n", b"\n")


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_nothing_else_ends_a_line(character: str) -> None:
    """What Python calls a line boundary besides may stand in JSON."""
    text = f'{{"x":"{character}"}}'.encode()

    assert [text] == decoded(b"data: " + text + b"\n\n")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\ndata:b\ndata\n\n", [b"a\nb\n"]),
        (b"data: a:b: c\n\n", [b"a:b: c"]),
        (b": a comment\n\n:\n\ndata: a\n:another\n\n", [b"a"]),
        (b"id: 7\nretry: 10\nunknown: x\n\ndata: a\n\n\n\n", [b"a"]),
        (b"event: message\ndata: a\n\n", [b"a"]),
        (b"event: ping\ndata: a\n\ndata: b\n\n", [b"b"]),
        (b"event: ping\n\ndata: b\n\n", [b"b"]),
        (b"data:\n\ndata\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"", []),
    ],
)
def test_fields_mean_what_the_standard_says(stream: bytes, expected: list[bytes]) -> None:
    """One blank after the colon is dropped, lines of data are joined, and comments and other events are passed over."""
    assert expected == decoded(stream)


pieces = st.sampled_from(
    [
        b"data: a",
        b"data: \xe2\x82\xac",
        b"data",
        b":c",
        b"event: ping",
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b"\r\n\r\n",
        b"\r\r",
    ]
)


@given(st.lists(pieces, max_size=12), st.data())
def test_chunks_may_be_cut_anywhere(parts: list[bytes], data: st.DataObject) -> None:
    """Whatever the chunks, inside a character or between CR and LF, the messages are the same."""
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))

    chunks = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]

    assert decoded(stream) == decoded(*chunks)
