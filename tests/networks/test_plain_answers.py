"""Answers of HTTP/1.1 that are read without h11: h11 is the judge of each."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, strategies as st

from resonate_anyio.networks._plain_answers import CommonHead, joined, read_common_head

LINES = (
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 404",
    b"HTTP/1.1 404 ",
    b"HTTP/1.1 418 I'm a \xe9",
    b"HTTP/1.1 99 X",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 700 X",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1  200 OK",
    b"http/1.1 200 OK",
)
HEADERS = (
    b"content-length: 3",
    b"Content-Length:\t3 ",
    b"content-length: 03",
    b"content-length: 3, 3",
    b"content-length: -3",
    b"content-length: +3",
    b"content-length: ",
    b"content-length : 3",
    b"transfer-encoding: chunked",
    b"connection: close",
    b"connection: Keep-Alive",
    b"connection: keep-alive, close",
    b"date: Mon, 30 Nov 2026 22:00:00 GMT",
    b"x-empty:",
    b"x-colons:a:b: c",
    b"x-latin: \xe9",
    b" folded",
    b"x y: 1",
    b": 1",
    b"",
)


def judged(data: bytes) -> tuple[h11.Response, bytes, bool] | None:
    """Return the head, the body and whether the connection is kept, as h11 has them, or None if it has none."""
    machine = h11.Connection(h11.CLIENT)
    machine.send(h11.Request(method="POST", target="/", headers=[("host", "h"), ("content-length", "0")]))
    machine.send(h11.EndOfMessage())
    machine.receive_data(data)
    body = b""
    try:
        head = machine.next_event()
        while isinstance(event := machine.next_event(), h11.Data):
            body += bytes(event.data)
    except h11.RemoteProtocolError:
        return None
    if not (isinstance(head, h11.Response) and isinstance(event, h11.EndOfMessage)):
        return None
    return head, body, machine.their_state is h11.DONE


def agree(data: bytes) -> CommonHead | None:
    """Check that h11 reads the same, if the answer is of the common form, and return its head."""
    head = read_common_head(data)
    if head is None:
        return None

    verdict = judged(data[: head.body_at + head.length].ljust(head.body_at + head.length, b"x"))
    assert verdict is not None
    judge, body, kept = verdict
    assert (judge.status_code, judge.reason) == (head.status, head.reason)
    assert dict(judge.headers.raw_items()) == {
        name: head.headers[name.lower()] for name, _ in judge.headers.raw_items()
    }
    assert len(list(judge.headers)) == len(head.headers)
    assert (head.length, True) == (len(body), kept)
    return head


def test_the_answer_of_a_server_is_common() -> None:
    """Hypercorn's answers, and those of the Resonate Server, need no h11."""
    lines = (b"HTTP/1.1 404 ", b"content-type: application/json", b"Content-Length: 3", b"date: today", b"", b"abcd")
    head = agree(b"\r\n".join(lines))

    assert head is not None
    assert (404, b"", 3) == (head.status, head.reason, head.length)
    assert {b"content-type": b"application/json", b"content-length": b"3", b"date": b"today"} == head.headers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 3\n\nabc",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nx: 1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nvia: a\r\nvia: b\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: a\r\n b\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: a\x00b\r\n\r\nabc",
    ],
)
def test_another_form_is_left_to_h11(data: bytes) -> None:
    """Nothing is guessed: incomplete, repeated, contradictory and malformed heads are not of the common form."""
    assert read_common_head(data) is None


@given(st.sampled_from(LINES), st.lists(st.sampled_from(HEADERS), max_size=5), st.binary(max_size=5))
def test_h11_reads_the_same(line: bytes, headers: list[bytes], body: bytes) -> None:
    """Any head that is of the common form means to h11 what it means here, and leaves the connection open."""
    agree(b"\r\n".join([line, *headers, b"", body]))


@given(st.data())
def test_h11_reads_the_same_if_a_byte_is_wrong(data: st.DataObject) -> None:
    """Also with one byte changed, in any place."""
    head = bytearray(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nconnection: keep-alive\r\nx: a b\r\n\r\nabc")
    head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    agree(bytes(head))


def test_values_of_one_name_are_joined() -> None:
    """The case of a name does not matter, and the order of values is kept."""
    assert {b"a": b"1, 3", b"b": b"2"} == joined([(b"A", b"1"), (b"b", b"2"), (b"a", b"3")])
