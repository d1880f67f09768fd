"""The transport for plain connections: forms of answers, idle connections, errors, and its choice."""

from __future__ import annotations

import gzip
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias

import anyio
import httpx
import pytest
from anyio import Event, create_task_group
from anyio.abc import SocketAttribute, SocketStream

from resonate_anyio import NetworkError, TooLarge
from resonate_anyio._protocol import PromiseCreate, PromiseGet, Value
from resonate_anyio.abc import Connection
from resonate_anyio.networks import HttpNetwork, _http, _plain
from resonate_anyio.networks._http_options import is_plain
from resonate_anyio.networks._plain import PlainTransport
from resonate_anyio.networks._plain_connection import PlainConnection, Prepared

from .helpers import worker
from .raw_server import Peer, RawServer, answers, serving

ME = worker("me")
GET = PromiseGet(id="p")
ENVELOPE = {"kind": "promise.get", "head": {"corrId": "1"}}
FOUND = b"HTTP/1.1 404 Not Found\r\n"

pytestmark = pytest.mark.wall
over_both = pytest.mark.usefixtures("each_transport")

Form: TypeAlias = Callable[[bytes], list[bytes]]


@asynccontextmanager
async def connected(server: RawServer, **options: Any) -> AsyncGenerator[Connection, None]:
    async with HttpNetwork(server.url, **options).connect(ME) as connection:
        yield connection


@asynccontextmanager
async def client(server: RawServer) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client of httpx with the transport below it."""
    async with httpx.AsyncClient(base_url=server.url, transport=PlainTransport(httpx.URL(server.url))) as own:
        yield own


def askers(server: RawServer) -> list[Peer]:
    """The connections over which requests came."""
    return [peer for peer in server.peers if peer.envelope]


async def gone(peer: Peer) -> None:
    """Wait until the client has closed this connection."""
    with anyio.fail_after(5):
        await peer.gone.wait()


# --- forms of answers -----------------------------------------------------------------------------------------------


def length(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)


def chunks(body: bytes, trailer: bytes = b"") -> bytes:
    return b"7\r\n%b\r\n%x\r\n%b\r\n0\r\n%b\r\n" % (body[:7], len(body) - 7, body[7:], trailer)


KEPT: Final[Mapping[str, Form]] = {
    "usual": lambda body: [FOUND, length(body), b"\r\n", body],
    "at once": lambda body: [FOUND + length(body) + b"\r\n" + body],
    "byte by byte": lambda body: [bytes([byte]) for byte in FOUND + length(body) + b"\r\n" + body],
    "without a reason": lambda body: [b"HTTP/1.1 404\r\n" + length(body) + b"\r\n" + body],
    "chunked": lambda body: [FOUND + b"transfer-encoding: chunked\r\n\r\n" + chunks(body)],
    "with a trailer": lambda body: [FOUND + b"transfer-encoding: chunked\r\n\r\n", chunks(body, b"x: y\r\n")],
    "announced": lambda body: [b"HTTP/1.1 103 Wait\r\n\r\n", FOUND + length(body) + b"\r\n" + body],
    "repeated header": lambda body: [FOUND + b"via: a\r\nvia: b\r\n" + length(body) + b"\r\n" + body],
    "folded header": lambda body: [FOUND + b"via: a\r\n b\r\n" + length(body) + b"\r\n" + body],
    "compressed": lambda body: [
        FOUND + b"content-encoding: gzip\r\n" + length(gzip.compress(body)) + b"\r\n" + gzip.compress(body)
    ],
}
LAST: Final[Mapping[str, Form]] = {
    "announced end": lambda body: [FOUND + b"connection: close\r\n" + length(body) + b"\r\n" + body],
    "until the end": lambda body: [FOUND + b"\r\n" + body],
    "old": lambda body: [b"HTTP/1.0 404 Not Found\r\n" + length(body) + b"\r\n" + body],
}


def answering(form: Form, *, ends: bool) -> Callable[[Peer], Awaitable[None]]:
    """Return the behaviour of a server that answers in this form, and closes the connection after it."""

    async def answer(peer: Peer) -> None:
        body = peer.answer_bytes(404, "not found").partition(b"\r\n\r\n")[2]
        for piece in form(body):
            await peer.send(piece)
        if ends:
            await peer.stream.aclose()

    return answer


@over_both
@pytest.mark.parametrize("name", KEPT)
async def test_a_connection_is_kept_after_answers_of_each_form(name: str) -> None:
    """The form of a complete answer does not matter: it is read, and the next request uses the same connection."""
    async with serving() as server, connected(server) as connection:
        server.on_post = answering(KEPT[name], ends=False)
        for _ in range(3):
            response = await connection.request(GET)
            assert (404, "not found") == (response.status, response.error)

        assert 1 == len(askers(server))


@over_both
@pytest.mark.parametrize("name", LAST)
async def test_a_connection_ends_with_an_answer_that_says_so(name: str) -> None:
    """The answer is read, and the next request has a connection of its own."""
    async with serving() as server, connected(server) as connection:
        server.on_post = answering(LAST[name], ends=True)
        for _ in range(3):
            assert 404 == (await connection.request(GET)).status

        # The first connection is that of the two requests that find out about the server.
        assert 3 == len(askers(server))


async def test_a_connection_with_more_than_the_answer_is_not_used_again() -> None:
    """Bytes after an answer would be taken for the answer to the next request."""
    async with serving() as server, connected(server) as connection:
        server.on_post = answering(lambda body: [FOUND + length(body) + b"\r\n" + body + b"HTTP"], ends=False)
        for _ in range(3):
            assert 404 == (await connection.request(GET)).status

        assert 3 == len(askers(server))


@over_both
@pytest.mark.parametrize("size", [60_000, 70_000, 3_000_000])
async def test_large_requests_and_answers(size: int) -> None:
    """Both are complete, although they take many packets."""
    text = "x" * size

    async def answer(peer: Peer) -> None:
        assert text == peer.envelope["data"]["param"]["data"]
        await peer.answer(500, text)

    async with serving() as server, connected(server, max_body=10 * size) as connection:
        server.on_post = answer
        response = await connection.request(PromiseCreate(id="p", timeout_at=1, param=Value(data=text)))

        assert text == response.error
        assert 1 == len(askers(server))


@over_both
async def test_an_answer_that_comes_before_the_request_is_sent_spoils_no_other() -> None:
    """A server may refuse a request by its head, and hang up. The next request has another connection."""

    async def refuse(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await peer.stream.aclose()

    async with serving() as server, connected(server, max_body=100_000_000) as connection:
        server.on_head = refuse
        with pytest.raises((TooLarge, NetworkError)):
            await connection.request(PromiseCreate(id="p", timeout_at=1, param=Value(data="x" * 20_000_000)))
        server.on_head = None

        assert 404 == (await connection.request(GET)).status


class Half(SocketStream):
    """A connection that breaks when half of the data is sent, and can still be read."""

    def __init__(self, inner: SocketStream) -> None:
        self._inner = inner

    @property
    def _raw_socket(self) -> socket.socket:
        return self._inner._raw_socket

    async def send(self, item: bytes) -> None:
        """Fail halfway."""
        await self._inner.send(item[: len(item) // 2])
        raise anyio.BrokenResourceError

    async def send_eof(self) -> None:
        """Do nothing."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive as usual."""
        return await self._inner.receive(max_bytes)

    async def aclose(self) -> None:
        """Close as usual."""
        await self._inner.aclose()


@pytest.mark.parametrize("extra", [b"", b"via: a\r\nvia: b\r\n"], ids=["common", "by h11"])
async def test_an_answer_to_half_a_request_is_read(extra: bytes) -> None:
    """A server may answer early and hang up. The answer counts, and the connection is not used again."""

    async def refuse(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n" + extra + b"\r\n")

    async with serving() as server, await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        server.on_head = refuse
        prepared = Prepared(httpx.Request("POST", server.url))
        answer, reusable = await PlainConnection(Half(stream)).exchange(prepared, b"x" * 1000)

        assert (413, False) == (answer.status, reusable)


@over_both
async def test_each_transport_sends_the_same_head() -> None:
    """A server sees no difference: the same headers, with the token and the options."""
    async with serving() as server, connected(server, token="secret", headers={"X-Mine": "1"}) as connection:
        await connection.request(GET)
        [head] = [peer.head for peer in askers(server)]

    line, *headers = head.lower().removesuffix("\r\n\r\n").split("\r\n")
    given = dict(header.split(": ", 1) for header in headers)
    assert ("post / http/1.1", len(headers)) == (line, len(given))
    assert given.pop("user-agent").startswith("python-httpx/")
    assert "gzip" in given.pop("accept-encoding")
    assert given.pop("content-length").isdecimal()
    assert {
        "host": server.url.removeprefix("http://"),
        "accept": "application/json",
        "connection": "keep-alive",
        "content-type": "application/json",
        "authorization": "bearer secret",
        "x-mine": "1",
    } == given


async def test_cookies_of_a_gateway_are_sent_back() -> None:
    """A gateway that sets a cookie gets it with later requests, as from any client of httpx."""

    async def answer(peer: Peer) -> None:
        await peer.answer(404, "not found", extra=b"set-cookie: to=this-server\r\n")

    async with serving() as server, connected(server) as connection:
        server.on_post = answer
        for _ in range(3):
            await connection.request(GET)

        assert "cookie: to=this-server" in askers(server)[-1].head.lower()


# --- idle connections -----------------------------------------------------------------------------------------------


@over_both
async def test_an_idle_connection_on_which_something_arrives_is_not_used() -> None:
    """A server may say that it has waited too long. The next request is sent once, over another connection."""
    async with serving() as server, connected(server) as connection:
        await connection.request(GET)
        before = len(server.lines)
        # The server has to be done with the answer.
        await anyio.wait_all_tasks_blocked()
        for peer in askers(server):
            await peer.send(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        await anyio.wait_all_tasks_blocked()

        assert 404 == (await connection.request(GET)).status
        assert before + 1 == len(server.lines)
        assert 2 == len(askers(server))


async def test_a_connection_that_was_idle_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may be about to close it, so it is not used again."""
    async with serving() as server, connected(server) as connection:
        await connection.request(GET)
        [old] = askers(server)
        # A negative time makes each idle connection an old one.
        monkeypatch.setattr(_plain, "_IDLE", -1.0)
        await connection.request(GET)
        await gone(old)

        assert 2 == len(askers(server))


async def test_old_connections_are_closed_when_others_become_idle() -> None:
    """After a burst of requests, its connections do not stay open as long as single requests follow."""
    together, waiting = Event(), []

    async def wait(peer: Peer) -> None:
        waiting.append(peer)
        if len(waiting) == 5:
            together.set()
        await together.wait()
        await answers(peer)

    async with serving() as server:
        transport = PlainTransport(httpx.URL(server.url))
        async with httpx.AsyncClient(base_url=server.url, transport=transport) as own:
            server.on_post = wait
            async with create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(partial(own.post, "/", json=ENVELOPE))
            server.on_post = answers
            for connection in transport._idle[:-1]:
                connection.idle_since -= 2 * _plain._IDLE
            for _ in range(5):
                await own.post("/", json=ENVELOPE)

            assert 1 == len(transport._open)
            assert 5 == len(server.peers)


async def test_a_request_that_is_given_up_closes_its_connection() -> None:
    """Its answer may come later, and must not be taken for that of another request."""

    async def nothing(peer: Peer) -> None:
        await peer.stream.receive()

    async with serving() as server, connected(server, request_timeout=0.2) as connection:
        server.on_post = nothing
        with pytest.raises(NetworkError, match=r"no answer within 0\.2 s"):
            await connection.request(GET)
        [peer] = askers(server)
        await gone(peer)
        server.on_post = answers

        assert 404 == (await connection.request(GET)).status


# --- errors ---------------------------------------------------------------------------------------------------------


@over_both
@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse a connection when the queue is full")
async def test_a_server_that_does_not_accept_is_given_up() -> None:
    """Connecting has a limit of its own, and the error says that it is about connecting."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        network = HttpNetwork(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.1)
        async with network.connect(ME) as connection:
            with pytest.raises(NetworkError, match="ConnectTimeout"):
                await connection.request(GET)


async def test_a_stream_may_have_a_limit_for_silence() -> None:
    """A client of httpx has its limits for reading over this transport too, and the connection is closed."""

    async def nothing(peer: Peer) -> None:
        await peer.stream.receive()

    async with serving() as server, client(server) as own:
        server.on_poll = nothing
        with pytest.raises(httpx.ReadTimeout, match=r"nothing has arrived for 0\.1 s"):
            await own.get("/poll/g/p", timeout=httpx.Timeout(None, read=0.1))
        await gone(server.polls[0])


async def test_sending_may_have_a_limit() -> None:
    """A peer that does not read holds nothing up."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = httpx.URL(f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}")  # noqa: S610 - of anyio
    async with listener, httpx.AsyncClient(transport=PlainTransport(url)) as own:
        request = own.build_request("POST", url, timeout=httpx.Timeout(None, write=0.1))
        request.stream = _http._Body(b"x" * 50_000_000)
        request.headers["content-length"] = "50000000"
        with pytest.raises(httpx.WriteTimeout, match=r"not taken within 0\.1 s"):
            await own.send(request)


async def test_a_client_of_httpx_may_use_it() -> None:
    """Requests with a body, with the hooks and the extensions of httpx, over one connection."""
    async with serving() as server, client(server) as own:
        for _ in range(3):
            response = await own.post("/", json=ENVELOPE)
            assert (404, "X", "HTTP/1.1") == (response.status_code, response.reason_phrase, response.http_version)
            assert "not found" == response.json()["data"]

        assert 1 == len(server.peers)


async def test_a_request_that_cannot_be_sent_is_the_fault_of_the_program() -> None:
    """As with httpx, a header that is not allowed is a local error, and no connection is lost by it."""
    async with serving() as server, client(server) as own:
        with pytest.raises(httpx.LocalProtocolError):
            await own.post("/", content=b"", headers={"x": "a\nb"})


async def test_it_leads_to_one_server() -> None:
    """Requests to other servers, and those that need TLS, are refused."""
    async with serving() as server, client(server) as own:
        with pytest.raises(httpx.UnsupportedProtocol, match=r"leads to 127\.0\.0\.1:\d+ only, not to other:80"):
            await own.get("http://other")
        for url in ("https://other", server.url.replace("http", "https")):
            with pytest.raises(httpx.UnsupportedProtocol, match="https"):
                await own.get(url)
        with pytest.raises(httpx.UnsupportedProtocol, match="https"):
            PlainTransport(httpx.URL("https://other"))


async def test_closing_it_ends_what_is_in_progress() -> None:
    """A stream that is open and a request that begins fail; nothing stays open."""
    async with serving() as server:
        transport = PlainTransport(httpx.URL(server.url))
        own = httpx.AsyncClient(base_url=server.url, transport=transport)
        async with own.stream("GET", "/poll/g/p") as response:
            await transport.aclose()
            with pytest.raises(httpx.ReadError):
                await anext(response.aiter_raw())
        with pytest.raises(httpx.ConnectError, match="closed"):
            await own.post("/", json=ENVELOPE)
        for peer in server.peers:
            await gone(peer)
        await own.aclose()


# --- its choice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "headers", "proxies", "expected"),
    [
        ("http://h", {}, {}, True),
        ("http://h:8001", {"X-Mine": "1"}, {"https": "http://p"}, True),
        ("https://h", {}, {}, False),
        ("http://h", {"Connection": "close"}, {}, False),
        ("http://h", {}, {"http": "http://p"}, False),
        ("http://h", {}, {"all": "http://p"}, False),
        ("http://h", {}, {"http": "http://p", "no": "other"}, False),
        ("http://h", {}, {"http": "http://p", "no": "other, H"}, True),
        ("http://h", {}, {"all": "http://p", "no": "*"}, True),
        # httpx would use no proxy either, but this is not certain here.
        ("http://a.h", {}, {"http": "http://p", "no": "h"}, False),
    ],
)
def test_connections_are_plain_if_nothing_is_unusual(
    url: str, headers: dict[str, str], proxies: dict[str, str], expected: bool
) -> None:
    """TLS, a proxy or a header about connections asks for httpx's own transport."""
    assert expected == is_plain(url, headers, proxies)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"token": "t", "connect_timeout": 1, "request_timeout": 1, "max_body": 9, "headers": {"a": "b"}}, True),
        ({"sync_client": httpx.Client()}, True),
        ({"client": httpx.AsyncClient()}, False),
        ({"transport": httpx.AsyncHTTPTransport()}, False),
        ({"proxy": "http://p"}, False),
    ],
)
def test_a_client_or_a_transport_or_a_proxy_is_used(options: dict[str, Any], expected: bool) -> None:
    """What the user gives is used, and the other options are no reason for another transport."""
    assert expected == HttpNetwork("http://h", **options)._is_plain()
