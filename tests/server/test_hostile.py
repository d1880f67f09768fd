"""Whatever an outsider sends is answered or refused: no failure, no traceback, and the server goes on."""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, Final

import h2.config
import h2.connection
import httpx
import pytest
from hypothesis import given, settings, strategies as st

from resonate_anyio.abc import Clock, Store
from resonate_anyio.server import Auth, Metrics
from resonate_anyio.stores import MemoryStore

from ..asgi_transport import asgi_transport
from .conftest import Start
from .recordings import answer_to, ask, call
from .served import Served, served
from .tokens import Mint, encoded, jws, part, write_public_key

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def store() -> Store:
    return MemoryStore()


# --- tokens


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
HEADERS: Final = st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "cty"]), JSON)
CLAIMS: Final = st.dictionaries(st.sampled_from(["exp", "aud", "iss", "role", "prefix", "nbf"]), JSON)
SEGMENTS: Final = (
    st.text(max_size=20)
    | st.binary(max_size=20).map(encoded)
    | HEADERS.map(part)
    | CLAIMS.map(part)
    | st.sampled_from(["", "=", "e30", "bnVsbA", "[" * 5000, encoded(b"[" * 200_000), encoded(b'{"exp":1e999}')])
)
TOKENS: Final = (
    st.lists(SEGMENTS, max_size=5).map(".".join)
    | st.tuples(HEADERS, CLAIMS).map(lambda both: f"{part(both[0])}.{part(both[1])}.")
    | CLAIMS.map(lambda claims: jws(json.dumps(claims).encode()))
    | st.binary(max_size=40).map(jws)
)


def request(token: object) -> dict[str, Any]:
    return {
        "kind": "promise.get",
        "head": {"corrId": "c", "version": "2026-04-01", "auth": token},
        "data": {"id": "app1.x"},
    }


@pytest.mark.parametrize("key", ["rsa", "none"])
@settings(max_examples=100)
@given(token=TOKENS)
async def test_any_token(start: Start, clock: Clock, tmp_path_factory: Any, key: str, token: str) -> None:
    """A token is right, or it is refused, in requests and in headers, whatever it is made of."""
    folder = tmp_path_factory.mktemp("keys")
    auth = Auth("none" if key == "none" else write_public_key(folder, key), clock=clock)
    async with start(auth=auth) as app:
        assert (await ask(app, request(token))).status in {400, 401, 403, 404}
        for header in (token, f"Bearer {token}"):
            assert (await call(app, "HEAD", "/poll/g/w", {"authorization": header})).status in {200, 401}


@pytest.mark.parametrize("name", ["alg", "typ", "kid", "crit", "b64"])
@pytest.mark.parametrize("value", [[], ["HS256"], {}, {"alg": "HS256"}, None, True, 5, 1.5, "", "nope"])
@pytest.mark.parametrize("key", ["rsa", "none"])
async def test_members_of_the_wrong_type(
    start: Start, clock: Clock, tmp_path: Any, key: str, name: str, value: object
) -> None:
    """A member of the token's header that is of another type than it should be makes the token a wrong one at most."""
    auth = Auth("none" if key == "none" else write_public_key(tmp_path, key), clock=clock)
    mint = Mint(clock() // 1000)
    token = f"{part({'alg': 'HS256', name: value})}.{part(mint.claims(role='admin'))}."
    async with start(auth=auth) as app:
        status = (await ask(app, request(token))).status
        assert 401 == status or (name != "alg" and key == "none" and 404 == status)


@pytest.mark.parametrize("exp", ["1e999", "-1e999", "1" + "0" * 400, "1" + "0" * 5000, "[]", '"x"', "null", "NaN"])
async def test_an_end_that_is_none(start: Start, clock: Clock, exp: str) -> None:
    """A token that does not say when it ends is refused; one that ends in a far future is not."""
    claims = encoded(f'{{"role":"admin","exp":{exp}}}'.encode())
    async with start(auth=Auth("none", clock=clock)) as app:
        status = (await ask(app, request(f"{part({'alg': 'HS256'})}.{claims}."))).status
        assert (404 if len(exp) == 401 else 401) == status


# --- requests, without a socket


TEXT: Final = st.text(st.characters(codec="latin-1"), max_size=15)


@settings(max_examples=100)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "BREW", ""]) | st.text(max_size=8),
    path=st.sampled_from(["/", "*", "", "//", "/poll/a/%ff", "/poll/%00/%2f", "http://[/", "a:1"])
    | st.text(max_size=30),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["host", "origin", "sec-fetch-site", "authorization", "user-agent", "content-type"]),
            st.sampled_from(["localhost", "http://localhost", "null", "[::1]", "Bearer x"]) | TEXT,
        ),
        max_size=5,
    ),
    body=st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()),
)
async def test_any_request(start: Start, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> None:
    """Every request is answered, with no status that says that the server has failed."""
    metrics = Metrics()
    async with start() as app, asgi_transport(metrics):
        for application in (app, metrics):
            if (method, path[:6]) == ("GET", "/poll/"):
                # A stream has no end.
                method = "HEAD"
            assert (await answer_to(application, method, path, headers, body)).status < 500


# --- bytes, on a socket


HEAD: Final = b"Host: localhost\r\n"
UPGRADE: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
KEY: Final = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
H2C: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"

FIELDS: Final = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", b"/health")]


def http2(*fields: tuple[bytes, bytes], body: bytes | None = None) -> bytes:
    """A request as HTTP/2 has it, with these fields instead of the usual ones of the same name."""
    given_names = {name for name, _ in fields}
    config = h2.config.H2Configuration(
        client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    usual = [field for field in FIELDS if field[0] not in given_names]
    connection.send_headers(1, [*usual, *fields], end_stream=body is None)
    if body is not None:
        connection.send_data(1, body, end_stream=True)
    return connection.data_to_send()


RAW: Final[dict[str, bytes]] = {
    "a WebSocket": UPGRADE + KEY + b"\r\n",
    "a WebSocket with a body": UPGRADE + KEY + b"\r\nabc",
    "a WebSocket with a body that has a length": UPGRADE + KEY + b"Content-Length: 3\r\n\r\nabc",
    "a WebSocket without a key": UPGRADE + b"\r\n",
    "a WebSocket whose headers are not ASCII": UPGRADE + KEY + b"Sec-WebSocket-Protocol: \xff\r\n\r\n",
    "a WebSocket with an extension": UPGRADE + KEY + b"Sec-WebSocket-Extensions: x; y=z\r\n\r\n",
    "a WebSocket on a stream": UPGRADE.replace(b" / ", b" /poll/g/w ") + KEY + b"\r\n",
    "HTTP/2": http2(),
    "HTTP/2, a path that is not ASCII": http2((b":path", b"/h\xc3\xa9")),
    "HTTP/2, a method that is not ASCII": http2((b":method", b"G\xff")),
    "HTTP/2, CONNECT": http2((b":method", b"CONNECT")),
    "HTTP/2, a WebSocket": http2((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":path", b"/")),
    "HTTP/2, another host": http2((b"host", b"evil.example")),
    "HTTP/2, garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 50,
    "HTTP/2, begun": b"PRI * HTTP/2.0\r\n\r\n",
    "h2c": H2C + b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    "h2c, settings that are none": H2C + b"HTTP2-Settings: AAMAA\r\n\r\n",
    "h2c, no settings": H2C + b"\r\n",
    "h2c, CONNECT": H2C.replace(b"GET /health", b"CONNECT x:1") + b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    "a path that is not ASCII": b"GET /h\xc3\xa9 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a path with escapes": b"GET /poll/%ff/%00%zz HTTP/1.1\r\nOrigin: null\r\n" + HEAD + b"\r\n",
    "a method of signs": b"!#$% / HTTP/1.1\r\n" + HEAD + b"\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\n" + HEAD + HEAD + b"\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "HTTP/1.1": b"GET /health HTTP/1.1\r\n" + HEAD + b"\r\n",
    "HTTP/1.0": b"GET /health HTTP/1.0\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "a proxy's request": b"GET http://evil.example/ HTTP/1.1\r\n" + HEAD + b"\r\n",
    "half a body": b"POST / HTTP/1.1\r\nContent-Length: 200\r\n" + HEAD + b"\r\n{",
    "a body that is not wanted": b"POST / HTTP/1.1\r\nOrigin: null\r\nContent-Length: 200\r\n" + HEAD + b"\r\n{",
    "a chunk that is none": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\nzz\r\n",
    "a body that is announced": b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + HEAD + b"\r\n",
    "more after a stream": b"GET /poll/g/w HTTP/1.1\r\n" + HEAD + b"\r\n\0junk\r\n\r\n",
    "a head without an end": b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
    "nothing": b"",
}


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """The same with some bytes changed, taken out, or from another one."""
    choice = random.Random(seed)  # noqa: S311
    seeds = list(RAW.values())
    for _ in range(count):
        text = bytearray(choice.choice(seeds)[:4000])
        for _ in range(choice.choice([1, 1, 2, 4, 10])):
            at = choice.randrange(len(text) + 1)
            match choice.randrange(4):
                case 0:
                    text[at : at + 1] = choice.randbytes(1)
                case 1:
                    del text[at : at + choice.choice([1, 2, 8])]
                case 2:
                    text[at:at] = choice.randbytes(choice.choice([1, 3]))
                case _:
                    other = choice.choice(seeds)[:4000]
                    begin = choice.randrange(len(other) + 1)
                    text[at:at] = other[begin : begin + choice.choice([5, 20, 60])]
        yield bytes(text)


def address(url: str) -> tuple[str, int]:
    parsed = httpx.URL(url)
    return parsed.host, parsed.port or 0


def tell(url: str, text: bytes) -> socket.socket:
    """Send it on a connection of its own, and give that."""
    raw = socket.create_connection(address(url), timeout=30)
    # The server may have heard enough.
    with suppress(BrokenPipeError, ConnectionResetError):
        raw.sendall(text)
    return raw


def assert_well(server: Served) -> None:
    """It goes on, at both ports."""
    assert server.metrics_url is not None
    assert 200 == httpx.get(f"{server.url}/health", timeout=30).status_code
    assert 200 == httpx.get(server.metrics_url, timeout=30).status_code


@pytest.mark.wall
@BACKENDS
def test_bytes(backend: str) -> None:
    """Bytes of all kinds end no more than their own connection, and nothing is printed about them."""
    with served("--backend", backend, "--metrics-port", 0) as server:
        assert server.metrics_url is not None
        for url in (server.url, server.metrics_url):
            for name, text in RAW.items():
                tell(url, text).close()
                with tell(url, text) as raw:
                    # The end of what is sent, so that the server ends the connection too; but not of its streams.
                    raw.shutdown(socket.SHUT_WR)
                    raw.recv(100)
                assert server.process.poll() is None, name
        for text in mutants(1, 400):
            tell(server.url, text).close()
        assert_well(server)
        assert (0, "") == server.stop()


@pytest.mark.wall
@BACKENDS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_amid_half_sent_requests(backend: str, number: int) -> None:
    """Whoever has sent a half of something when the server stops is cut off after its grace, without a traceback."""
    with served("--backend", backend, "--metrics-port", 0) as server, ExitStack() as stack:
        for name in ("half a body", "HTTP/2, begun", "HTTP/2", "a head without an end", "nothing"):
            stack.enter_context(tell(server.url, RAW[name]))
        whole = http2((b":method", b"POST"), (b":path", b"/"), (b"content-length", b"2"), body=b"{}")
        stack.enter_context(tell(server.url, whole[:-2]))
        assert_well(server)
        began = time.monotonic()
        assert (0, "") == server.stop(number)
        # It is not that they have been answered at once.
        assert time.monotonic() - began > 5


@pytest.mark.wall
@BACKENDS
def test_a_stop_amid_answers_that_are_not_read(backend: str) -> None:
    """Whoever does not read what it has asked for does not keep the server from stopping."""
    with served("--backend", backend, "--metrics-port", 0) as server:
        tags = {"resonate:target": "poll://any@g"}
        head = {"corrId": "c", "version": "2026-04-01"}
        with tell(server.url, b"GET /poll/g/w HTTP/1.1\r\n" + HEAD + b"\r\n") as raw, httpx.Client() as client:
            assert raw.recv(12) == b"HTTP/1.1 200"
            for number in range(60):
                # Together they are more than what two sockets hold.
                data = {"id": f"{number}{'x' * 200_000}", "timeoutAt": 4_000_000_000_000, "tags": tags}
                document = {"kind": "promise.create", "head": head, "data": data}
                assert 200 == client.post(server.url, json=document, timeout=30).status_code
            assert (0, "") == server.stop()


@pytest.mark.wall
@BACKENDS
def test_connections_that_were_closed(backend: str) -> None:
    """Nothing is left of a connection that its client has closed, before, in, or after a request."""

    def with_few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    with served("--backend", backend, "--metrics-port", 0, preexec_fn=with_few_files) as server:
        for text in (b"", b"GET /heal", RAW["half a body"], RAW["HTTP/1.1"], http2()):
            for _ in range(12):
                for _ in range(10):
                    tell(server.url, text).close()
                with tell(server.url, RAW["HTTP/1.1"]) as raw:
                    assert raw.recv(12) == b"HTTP/1.1 200"
        assert (0, "") == server.stop()


@pytest.mark.wall
@BACKENDS
def test_upgrades_are_answered(backend: str) -> None:
    """A WebSocket is refused with a text that says so, to pages with 403; any other upgrade is not made."""
    with served("--backend", backend, "--metrics-port", 0) as server:
        assert server.metrics_url is not None
        for url in (server.url, server.metrics_url):
            for more, status in ((b"", 400), (b"Origin: https://evil.example\r\n", 403)):
                with tell(url, UPGRADE + KEY + more + b"\r\n") as raw:
                    answer = b"".join(iter(lambda raw=raw: raw.recv(4096), b""))  # type: ignore[misc]
                assert re.match(rb"HTTP/1.1 %d " % status, answer), answer
                assert (b"WebSockets" if status == 400 else b"may not use this server") in answer
        assert (0, "") == server.stop()
