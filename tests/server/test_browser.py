"""Pages in a real browser, Chromium, try to use the server."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import pytest
from attrs import define, field

from .served import Served, served

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.wall(limit=180),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]

FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    # Newer versions ask the user before a page may reach this machine. Here the user has said yes.
    "--disable-features=LocalNetworkAccessChecks",
    # Names that belong to the page's owner, who has them point where he likes.
    "--host-resolver-rules=MAP evil.test 127.0.0.1, MAP rebound.test 127.0.0.2",
    # It does not end by itself.
    "--remote-debugging-port=0",
)

PAGE: Final = Path(__file__).with_name("attack.html")


@define(eq=False)
class Foreign:
    """The server of the page's owner.

    Attributes:
        port: where it listens.
        reports: what the page has reported.
        forwards_to: where all else goes, as when the name of the page has come to mean another address.
    """

    port: int
    reports: Queue[list[str]] = field(factory=Queue)
    forwards_to: str | None = None


@contextmanager
def foreign_site(host: str = "127.0.0.1", port: int = 0, forwards_to: str | None = None) -> Iterator[Foreign]:
    """Serve the page."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.path.startswith("/attack.html"):
                self.answer(200, {"content-type": "text/html"}, PAGE.read_bytes())
            elif self.path == "/report":
                site.reports.put(json.loads(body))
                self.answer(200, {}, b"")
            elif site.forwards_to is None:
                self.answer(404, {}, b"")
            else:
                self.forward(site.forwards_to, body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do  # noqa: N815 - so they have to be called

        def forward(self, url: str, body: bytes) -> None:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name in {"content-type", "content-length"}}
            # A stream has no end, and has told enough by beginning.
            self.answer(answer.status, headers, answer.read() if "content-length" in headers else b"")
            connection.close()

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            pass

    with ThreadingHTTPServer((host, port), Handler) as server:
        site = Foreign(server.server_address[1], forwards_to=forwards_to)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browser(folder: Path, url: str) -> Iterator[None]:
    """Open a page in a browser that knows nothing else."""
    assert CHROMIUM is not None
    profile = f"--user-data-dir={folder / 'profile'}"
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen([CHROMIUM, *FLAGS, profile, url], stdout=log, stderr=log)
        with process:
            try:
                yield
            finally:
                # It tells its own children.
                process.terminate()


def ask(server: Served, kind: str, **data: Any) -> dict[str, Any]:
    """Ask the server as a program does."""
    head = {"corrId": "c", "version": "2026-04-01"}
    answer = httpx.post(server.url, json={"kind": kind, "head": head, "data": data}, timeout=30)
    assert 200 == answer.status_code, answer.text
    found: dict[str, Any] = answer.json()["data"]
    return found


def visit(server: Served, site: Foreign, page_host: str, folder: Path) -> list[str]:
    """Have the browser open the page; give what it has achieved."""
    assert server.metrics_url is not None
    port = urlsplit(server.url).port
    bases = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost", "rebound.test")]
    query = "&".join([f"metrics={quote(server.metrics_url)}", *(f"base={quote(base)}" for base in bases)])
    with browser(folder, f"http://{page_host}:{site.port}/attack.html?{query}"):
        return site.reports.get(timeout=150)


def bait(server: Served) -> None:
    """Have something there that pages could read, take or change."""
    tags = {"resonate:target": "poll://any@workers"}
    ask(server, "promise.create", id="bait", timeoutAt=4_000_000_000_000, tags=tags)


def assert_untouched(server: Served) -> None:
    """Nothing was made, changed or taken."""
    [promise] = ask(server, "promise.search")["promises"]
    assert ("bait", "pending") == (promise["id"], promise["state"])
    assert ["pending"] == [task["state"] for task in ask(server, "task.search")["tasks"]]
    # The message for the worker is still there.
    with httpx.stream("GET", f"{server.url}/poll/workers/w", timeout=30) as stream:
        assert '"bait"' in next(stream.iter_lines())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("page_host", ["127.0.0.1", "localhost", "evil.test"])
def test_pages_achieve_nothing(tmp_path: Path, backend: str, page_host: str) -> None:
    """A page of another port or another name reads nothing, has no effect, and takes no messages, in whatever way."""
    with served("--backend", backend, "--metrics-port", 0) as server, foreign_site() as site:
        bait(server)
        assert [] == visit(server, site, page_host, tmp_path)
        assert_untouched(server)
        assert (0, "") == server.stop()


def test_rebinding_achieves_nothing(tmp_path: Path) -> None:
    """A page whose own name has come to mean this server, so that both are of one origin, achieves nothing either."""
    with served("--metrics-port", 0) as server:
        port = urlsplit(server.url).port or 0
        with foreign_site("127.0.0.2", port, forwards_to=server.url) as site:
            bait(server)
            assert [] == visit(server, site, "rebound.test", tmp_path)
            assert_untouched(server)
            assert (0, "") == server.stop()


def test_an_allowed_page(tmp_path: Path) -> None:
    """A page whose origin the server was told to allow reads and creates: so the page does send what it seems to."""
    with foreign_site() as site:
        origin = f"http://evil.test:{site.port}"
        with served("--metrics-port", 0, "--allow-origin", origin, "--allow-host", "rebound.test") as server:
            achieved = visit(server, site, "evil.test", tmp_path)
            for expected in (
                "POST / of application/json, cors was answered 200",
                "GET /health, cors was answered 200",
                "a stream was opened",
            ):
                # at 127.0.0.1 and at localhost; nobody listens at the address of the third name
                assert 2 == achieved.count(expected), achieved
            assert [] == [what for what in achieved if "metrics" in what or "WebSocket" in what]
            made = {promise["id"] for promise in ask(server, "promise.search")["promises"]}
            # two bases; six requests each of which three are by CORS, one without credentials, a form, a beacon
            assert 18 == len(made), made
