"""What web pages make a browser send is refused; what programs send is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from resonate_anyio import BadAnswer, InvalidArgument
from resonate_anyio._protocol import PromiseGet
from resonate_anyio.abc import Clock, Identity
from resonate_anyio.networks import HttpNetwork, LocalNetwork
from resonate_anyio.server import Metrics, make_app
from resonate_anyio.server._guard import is_loopback
from resonate_anyio.stores import MemoryStore

from ..asgi_transport import Application, Message, asgi_transport
from .conftest import Start
from .recordings import Answer, answer_to

BODY: Final = (
    b'{"kind":"promise.create","head":{"corrId":"c","version":"2026-04-01"},'
    b'"data":{"id":"p","timeoutAt":4000000000000,"tags":{"resonate:target":"poll://any@g"}}}'
)

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PATHS: Final = ("/", "/poll/g/w", "/poll/g", "/health", "/ready", "/promises", "/tasks/claim", "/nope", "/metrics", "*")
"""Every endpoint, and some that are none."""

OWN: Final = {"host": "127.0.0.1:8001"}

PAGES: Final[dict[str, dict[str, str]]] = {
    # A simple request: no preflight comes before it.
    "text/plain from another site": OWN
    | {
        "origin": "https://evil.example",
        "content-type": "text/plain",
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "no-cors",
        "sec-fetch-dest": "empty",
    },
    "a form of another site": OWN
    | {
        "origin": "https://evil.example",
        "content-type": "application/x-www-form-urlencoded",
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
        "sec-fetch-user": "?1",
    },
    "a preflight": OWN
    | {
        "origin": "https://evil.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
        "access-control-request-private-network": "true",
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "cors",
    },
    "an image": OWN | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    "a link": OWN | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    "an EventSource": OWN | {"origin": "https://evil.example", "accept": "text/event-stream"},
    "a sandboxed frame": OWN | {"origin": "null"},
    "a file": OWN | {"origin": "file://"},
    "another port": OWN | {"origin": "http://127.0.0.1:3000", "sec-fetch-site": "same-site"},
    "another port, without an origin": OWN | {"sec-fetch-site": "same-site"},
    "another scheme": OWN | {"origin": "https://127.0.0.1:8001"},
    "another name of this machine": OWN | {"origin": "http://localhost:8001"},
    "the default port": OWN | {"origin": "http://127.0.0.1"},
    "an origin that is none": OWN | {"origin": "127.0.0.1:8001"},
    "an empty origin": OWN | {"origin": ""},
    "an origin with a user": OWN | {"origin": "http://127.0.0.1:8001@evil.example"},
    "an origin with a path": OWN | {"origin": "http://127.0.0.1:8001/"},
    "a browser that says something new": OWN | {"sec-fetch-site": "neighbour"},
    "a site in capitals": OWN | {"sec-fetch-site": "SAME-ORIGIN"},
    "its origin and another site": OWN | {"origin": "http://127.0.0.1:8001", "sec-fetch-site": "cross-site"},
    # DNS rebinding: the name is one of the page's, and the page is of the same origin.
    "a name that was made to point here": {
        "host": "evil.example:8001",
        "origin": "http://evil.example:8001",
        "sec-fetch-site": "same-origin",
    },
    "the same, asking": {"host": "evil.example:8001"},
}

NAMES: Final = {
    # which of the names that a request may be sent to are this server's own
    "localhost": True,
    "localhost:8001": True,
    "LOCALHOST:8001": True,
    "localhost.": True,
    "localhost.:80": True,
    "127.0.0.1": True,
    "127.0.0.1:8001": True,
    "127.0.0.1.:8001": True,
    "127.8.8.8": True,
    "[::1]": True,
    "[::1]:8001": True,
    "[0:0:0:0:0:0:0:1]:8001": True,
    "[::FFFF:127.0.0.1]:8001": True,
    "localhost:": True,
    "": False,
    ":8001": False,
    ".": False,
    "localhost..": False,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example": False,
    "127.0.0.1.nip.io": False,
    "evil.example": False,
    "localhost:8001.evil.example": False,
    "localhost:evil": False,
    "localhost:123456": False,
    "evil@localhost": False,
    "localhost@evil.example": False,
    "localhost, evil.example": False,
    "localhost evil.example": False,
    "[::1": False,
    "::1": False,
    "[::2]": False,
    "[localhost]": False,
    "[::ffff:10.0.0.1]": False,
    "0.0.0.0:8001": False,
    "10.0.0.1:8001": False,
    "2130706433": False,
    "lоcalhost": False,  # noqa: RUF001 - the second letter is Cyrillic
    "127.0.0.1#evil": False,
}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def forbidden(answer: Answer) -> bool:
    """Whether it is a refusal that says what to do, and that no page may read."""
    if answer.status != 403:
        return False

    told = answer.body.decode("ascii")
    assert told.startswith("Forbidden: ")
    assert "--allow-" in told
    assert "allowed_" in told
    assert "text/plain; charset=utf-8" == answer.headers["content-type"]
    assert [] == [name for name in answer.headers if name.startswith("access-control-")]
    return True


def every_request() -> Iterator[tuple[str, str]]:
    return ((method, path) for path in PATHS for method in METHODS)


@pytest.mark.parametrize("name", PAGES)
async def test_pages_are_refused(start: Start, name: str) -> None:
    """What a page sends is refused at every path, with every method, and has no effect."""
    async with start() as app:
        for method, path in every_request():
            assert forbidden(await answer_to(app, method, path, PAGES[name], BODY)), (method, path)
        assert 404 == await status_of_p(app)


async def status_of_p(app: Application) -> int:
    body = b'{"kind":"promise.get","head":{"corrId":"c","version":"2026-04-01"},"data":{"id":"p"}}'
    return (await answer_to(app, "POST", "/", {}, body)).status


@pytest.mark.parametrize("name", PAGES)
async def test_pages_get_no_metrics(metrics: Metrics, name: str) -> None:
    """Neither are the metrics for pages."""
    async with asgi_transport(metrics):
        for method, path in every_request():
            assert forbidden(await answer_to(metrics, method, path, PAGES[name])), (method, path)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_pages_get_no_websockets(start: Start, metrics: Metrics, name: str, extensions: dict[str, Any]) -> None:
    """A WebSocket, which any page may open, is refused too."""
    async with start() as app, asgi_transport(metrics):
        for application in (app, metrics):
            for path in PATHS:
                assert 403 == await upgraded(application, path, PAGES[name], extensions)


async def upgraded(app: Application, path: str, headers: dict[str, str], extensions: dict[str, Any]) -> int:
    """Ask for a WebSocket, and give the status of the answer."""
    scope: Message = {
        "type": "websocket",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "extensions": extensions,
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not extensions:
        # A server answers this with 403.
        assert [{"type": "websocket.close"}] == sent
        return 403

    begin, end = sent
    assert ("websocket.http.response.start", "websocket.http.response.body") == (begin["type"], end["type"])
    assert end["body"]
    status: int = begin["status"]
    return status


async def test_there_are_no_websockets(start: Start, metrics: Metrics) -> None:
    """A program that asks for a WebSocket is told that there is none."""
    async with start() as app, asgi_transport(metrics):
        for application in (app, metrics):
            assert 400 == await upgraded(application, "/", OWN, {"websocket.http.response": {}})
            assert 403 == await upgraded(application, "/", OWN, {})


@pytest.mark.parametrize(("name", "own"), NAMES.items())
async def test_names(start: Start, metrics: Metrics, name: str, *, own: bool) -> None:
    """Requests are for the loopback, written in whatever way; in the line of the request, as for proxies, likewise."""
    async with start() as app, asgi_transport(metrics):
        assert (not own) == forbidden(await answer_to(app, "GET", "/health", {"host": name}))
        assert (not own) == forbidden(await answer_to(metrics, "GET", "/metrics", {"host": name}))
        assert (not own) == forbidden(await answer_to(app, "GET", f"http://{name}/health", OWN))
        assert forbidden(await answer_to(app, "GET", f"http://{name}/health", {"host": "evil.example"}))


async def test_the_path_after_a_name(start: Start) -> None:
    """A request that names the server in its line is answered as one that does not."""
    async with start() as app:
        for path, status in (("", 405), ("/", 405), ("/health", 200), ("/poll/g", 404), ("/tasks/x", 410)):
            for scheme in ("http", "HTTP", "https"):
                assert status == (await answer_to(app, "GET", f"{scheme}://localhost:8001{path}", OWN)).status


async def test_without_a_name(start: Start, metrics: Metrics) -> None:
    """A request that names no host, as HTTP/1.0 allows, is not a browser's."""
    async with start() as app, asgi_transport(metrics):
        assert 200 == (await answer_to(app, "GET", "/health", {})).status
        assert 200 == (await answer_to(app, "POST", "/", {}, BODY)).status
        assert 200 == (await answer_to(metrics, "GET", "/metrics", {})).status
        assert forbidden(await answer_to(app, "GET", "/health", {"origin": "http://127.0.0.1:8001"}))


async def test_several_headers(start: Start) -> None:
    """If a header is there twice, both have to be right."""
    async with start() as app:
        for name, right, wrong in (
            ("host", "localhost", "evil.example"),
            ("origin", "http://localhost", "http://evil.example"),
            ("sec-fetch-site", "same-origin", "cross-site"),
        ):
            for first, second in ((right, wrong), (wrong, right)):
                given = [("host", "localhost"), (name, first), (name, second)]
                assert forbidden(await answer_to(app, "POST", "/", given, BODY))


PROGRAMS: Final[dict[str, dict[str, str]]] = {
    "httpx": OWN | {"user-agent": "python-httpx/0.28.1", "accept": "*/*", "content-type": "application/json"},
    # The TypeScript SDK. Node's fetch sends one of the headers of browsers.
    "node": OWN
    | {
        "user-agent": "node",
        "accept": "*/*",
        "accept-language": "*",
        "sec-fetch-mode": "cors",
        "content-type": "application/json",
    },
    "go": OWN | {"user-agent": "Go-http-client/1.1", "content-type": "application/json"},
    "java": OWN | {"user-agent": "Java-http-client/17", "content-type": "application/json"},
    "reqwest": OWN | {"accept": "*/*", "content-type": "application/json"},
    "curl -d": OWN | {"user-agent": "curl/8.5.0", "content-type": "application/x-www-form-urlencoded"},
    "text": OWN | {"content-type": "text/plain"},
    "no type": OWN,
    "PowerShell": OWN | {"user-agent": "Mozilla/5.0 (Windows NT 10.0; en-US) PowerShell/7.4"},
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_programs_are_let_in(start: Start, name: str) -> None:
    """What the SDKs and tools send is answered, whatever they call its type."""
    async with start() as app:
        assert 200 == (await answer_to(app, "POST", "/", PROGRAMS[name], BODY)).status
        assert 200 == (await answer_to(app, "HEAD", "/poll/g/w", PROGRAMS[name])).status


@pytest.mark.parametrize(
    "headers",
    [
        OWN | {"origin": "http://127.0.0.1:8001", "sec-fetch-site": "same-origin"},
        OWN | {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"host": "LocalHost.:8001", "origin": "http://localhost.:8001"},
        {"host": "[::1]:80", "origin": "http://[::1]"},
        {"host": "localhost", "origin": "http://localhost:80"},
    ],
)
async def test_its_own_pages_are_let_in(start: Start, headers: dict[str, str]) -> None:
    """What the user opens, and what a page of this server asks for, is answered, without permission to share it."""
    async with start() as app:
        answer = await answer_to(app, "POST", "/", headers, BODY)
        assert 200 == answer.status
        assert [] == [name for name in answer.headers if name.startswith("access-control-")]


async def test_the_scheme_is_part_of_the_origin(start: Start) -> None:
    """Behind HTTPS the server's own pages are of an https origin."""
    async with start() as app:
        for scheme, statuses in (("http", [200, 403]), ("https", [403, 200])):
            origins = ("http://localhost", "https://localhost")
            answers = [
                await answer_to(app, "POST", "/", {"host": "localhost", "origin": origin}, BODY, scheme=scheme)
                for origin in origins
            ]
            assert statuses == [answer.status for answer in answers]


async def test_named_hosts(start: Start) -> None:
    """Further names are let in if they are given, with any port; also that of the server's URL."""
    hosts = ["Resonate.Internal.", "10.0.0.1", "fd00::1", "[fd00::2]"]
    async with start(allowed_hosts=hosts, server_url="http://workers:9000") as app:
        for host in ("resonate.internal:80", "RESONATE.internal.", "10.0.0.1:1", "[fd00::1]:8001", "[FD00:0::2]"):
            assert 200 == (await answer_to(app, "GET", "/health", {"host": host})).status
        assert 200 == (await answer_to(app, "GET", "/health", {"host": "workers"})).status
        for host in ("internal", "x.resonate.internal", "10.0.0.2", "[fd00::3]"):
            assert forbidden(await answer_to(app, "GET", "/health", {"host": host}))
        # The name of the host makes nobody's page one of the server's.
        page = {"host": "resonate.internal", "origin": "https://evil.example"}
        assert forbidden(await answer_to(app, "GET", "/health", page))


async def test_any_host(start: Start) -> None:
    """A star lets in any name, and still no page."""
    metrics = Metrics(allowed_hosts=["*"])
    async with start(allowed_hosts=["*"]) as app, asgi_transport(metrics):
        assert 200 == (await answer_to(app, "GET", "/health", {"host": "anything"})).status
        assert 200 == (await answer_to(metrics, "GET", "/metrics", {"host": "anything"})).status
        page = {"host": "anything", "origin": "https://evil.example"}
        assert forbidden(await answer_to(app, "GET", "/health", page))


async def test_the_address_it_was_reached_at(start: Start) -> None:
    """The address of this machine that a connection came to is a name of the server, and no other address is."""
    async with start() as app:
        for server, host, status in (
            (("10.0.0.1", 8001), "10.0.0.1:8001", 200),
            (("10.0.0.1", 8001), "10.0.0.2:8001", 403),
            (("::ffff:10.0.0.1", 8001), "10.0.0.1", 200),
            (("fd00::1", 8001), "[FD00::1]:8001", 200),
            (("fe80::1%eth0", 8001), "[fe80::1]", 200),
            (("evil.example", 8001), "evil.example", 403),
            (("/run/resonate.sock", None), "resonate", 403),
            (None, "10.0.0.1", 403),
        ):
            assert status == (await answer_to(app, "GET", "/health", {"host": host}, server=server)).status


async def test_streams_are_not_for_browsers_that_say_nothing(start: Start) -> None:
    """A stream is refused to a browser that tells no origin, which is how a page's image would be asked for."""
    browser = OWN | {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}
    async with start() as app:
        assert forbidden(await answer_to(app, "GET", "/poll/g/w", browser))
        assert 200 == (await answer_to(app, "GET", "/health", browser)).status


async def test_refusals_tell_the_option(start: Start) -> None:
    """A refusal names what was refused, and the option that would allow it, in ASCII and without repeating much."""
    async with start() as app:
        told = (await answer_to(app, "POST", "/", {"host": "resonate:8001"}, BODY)).body.decode("ascii")
        assert told.startswith("Forbidden: resonate:8001 is not a name of this server")
        assert "--allow-host resonate " in told
        told = (await answer_to(app, "POST", "/", OWN | {"origin": "https://my.example"}, BODY)).body.decode("ascii")
        assert "a page of the origin https://my.example may not" in told
        assert "--allow-origin" in told
        for header in ("host", "origin"):
            answer = await answer_to(app, "POST", "/", OWN | {header: "<b>é\x01" + "x" * 5000}, BODY)
            assert len(answer.body) < 700
            answer.body.decode("ascii")


async def test_a_client_is_told(clock: Clock) -> None:
    """A client that uses another name of the server reads in its error what to do."""
    app = make_app(LocalNetwork(MemoryStore(), clock=clock))
    async with asgi_transport(app) as transport:
        network = HttpNetwork("http://resonate:8001", transport=transport, clock=clock)
        async with network.connect(Identity(group="g", pid="p", holder="p")) as connection:
            with pytest.raises(BadAnswer, match=r"resonate:8001 is not a name .* --allow-host resonate "):
                await connection.request(PromiseGet(id="p"))


async def test_allowed_origins(start: Start) -> None:
    """A page of an allowed origin may ask beforehand, send requests, and read the answers; others still may not."""
    origin = {"origin": "https://my.example"}
    async with start(allowed_origins=["https://My.Example:443", "chrome-extension://abcdef"]) as app:
        page = OWN | origin | {"sec-fetch-site": "cross-site"}
        asking = page | {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        asked = await answer_to(app, "OPTIONS", "/", asking)
        assert (200, b"") == (asked.status, asked.body)
        assert "https://my.example" == asked.headers["access-control-allow-origin"]
        assert "GET, HEAD, POST" == asked.headers["access-control-allow-methods"]
        assert "authorization, content-type" == asked.headers["access-control-allow-headers"]

        for answer in (
            await answer_to(app, "POST", "/", page, BODY),
            await answer_to(app, "HEAD", "/poll/g/w", page),
            await answer_to(app, "GET", "/nope", page),
            await answer_to(app, "OPTIONS", "/", page),
        ):
            shared = answer.headers["access-control-allow-origin"], answer.headers["vary"]
            assert ("https://my.example", "Origin") == shared

        assert 200 == (await answer_to(app, "POST", "/", OWN | {"origin": "chrome-extension://abcdef"}, BODY)).status
        for other in ("http://my.example", "https://my.example:8443", "https://x.my.example", "null"):
            assert forbidden(await answer_to(app, "POST", "/", page | {"origin": other}, BODY))
        # The name of the host is another matter.
        assert forbidden(await answer_to(app, "POST", "/", page | {"host": "evil.example"}, BODY))
        # An image of that page names no origin.
        assert forbidden(await answer_to(app, "GET", "/health", OWN | {"sec-fetch-site": "cross-site"}))


@pytest.mark.parametrize("host", ["", ".", "http://h", "h:8001", "[::1]:8001", "a b", "h/", "*.example", "u@h"])
def test_hosts_that_are_none(clock: Clock, host: str) -> None:
    """What is no host name is refused at once, with what to give instead."""
    with pytest.raises(InvalidArgument, match="is not a host; give"):
        make_app(LocalNetwork(MemoryStore(), clock=clock), allowed_hosts=[host])
    with pytest.raises(InvalidArgument, match="is not a host; give"):
        Metrics(allowed_hosts=[host])


@pytest.mark.parametrize("origin", ["", "*", "null", "my.example", "https://", "https://my.example/", "https://a b"])
def test_origins_that_are_none(clock: Clock, origin: str) -> None:
    """What is no origin is refused at once; neither `*` nor `null` can be allowed."""
    with pytest.raises(InvalidArgument, match="is not an origin; give"):
        make_app(LocalNetwork(MemoryStore(), clock=clock), allowed_origins=[origin])


@pytest.mark.parametrize("url", ["nonsense", "http://[", "", "http://:80"])
async def test_a_url_without_a_host(start: Start, url: str) -> None:
    """A URL of the server that names no host allows none."""
    async with start(server_url=url) as app:
        assert forbidden(await answer_to(app, "GET", "/health", {"host": "nonsense"}))


def test_only_loopback_is_safe() -> None:
    """Addresses that only this machine reaches need no tokens."""
    hosts = {"127.0.0.1": True, "127.8.8.8": True, "::1": True, "localhost": True, "0.0.0.0": False, "h": False}  # noqa: S104
    assert hosts == {host: is_loopback(host) for host in hosts}
