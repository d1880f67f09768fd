"""The application on a real socket: each family of recordings once, and the end."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from resonate_anyio._embedded._router import Mailbox, Router
from resonate_anyio._protocol import SNAPSHOT
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.server import App, Auth, listen, make_app, serve, url_of
from resonate_anyio.stores import MemoryStore

from ..networks.helpers import Watched
from .recordings import exchanges, is_of_a_page, without_texts
from .test_auth import signed_token
from .test_transcripts import raw_body
from .tokens import Mint, write_public_key

pytestmark = pytest.mark.wall


@asynccontextmanager
async def client_of(app: App, backend: Any, stop: anyio.Event | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the application, and give a client of it; stop it at the end at the latest."""
    stop = stop or anyio.Event()
    listening = listen("127.0.0.1", 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, app, listening, backend[0], stop.wait)
        async with httpx.AsyncClient(base_url=url_of(listening), timeout=100) as client:
            yield client
        stop.set()


@pytest.mark.parametrize("name", ["op-task-suspend", "scenario-workflow", "random-spec-1"])
async def test_requests(anyio_backend: Any, name: str) -> None:
    """Recorded requests are answered over a socket as they are without one."""
    app = make_app(LocalNetwork(MemoryStore(), rules=SNAPSHOT), debug=True)
    async with client_of(app, anyio_backend) as client:
        for exchange in exchanges(f"snapshot/{name}.jsonl.xz"):
            answer = await client.post("/", json=exchange["request"])
            status = exchange["status"]
            expected, found = (without_texts(status, document) for document in (exchange["response"], answer.json()))
            assert (status, expected) == (answer.status_code, found)


async def test_raw_bodies(anyio_backend: Any) -> None:
    """So are bodies that are no requests, and one that is too large."""
    async with client_of(make_app(LocalNetwork(MemoryStore(), rules=SNAPSHOT)), anyio_backend) as client:
        for exchange in exchanges("snapshot/raw-envelope.jsonl.xz"):
            body = raw_body(exchange["raw"])
            answer = await client.post("/", content=body, headers=exchange["requestHeaders"])
            assert exchange["status"] == answer.status_code, exchange["raw"][:200]
            assert exchange["contentType"] == answer.headers["content-type"]


async def test_endpoints(anyio_backend: Any) -> None:
    """So are other paths and methods, HEAD without a body."""
    async with client_of(make_app(LocalNetwork(MemoryStore(), rules=SNAPSHOT)), anyio_backend) as client:
        for exchange in exchanges("snapshot/http-endpoints.jsonl.xz"):
            answer = await client.request(exchange["method"], exchange["path"], headers=exchange["headers"])
            if is_of_a_page(exchange):
                assert 403 == answer.status_code
                continue
            assert (exchange["status"], exchange["body"]) == (answer.status_code, answer.text), exchange["path"]
            assert exchange["responseHeaders"].get("allow") == answer.headers.get("allow")


async def test_tokens(anyio_backend: Any, clock: Callable[[], int], tmp_path: Path) -> None:
    """So are requests with tokens."""
    auth = Auth(write_public_key(tmp_path, "rsa"))
    mint = Mint(clock() // 1000)
    async with client_of(
        make_app(LocalNetwork(MemoryStore(), rules=SNAPSHOT), auth=auth, debug=True), anyio_backend
    ) as client:
        for exchange in exchanges("snapshot/auth-signed.jsonl.xz"):
            if "request" in exchange:
                document = exchange["request"]
                if document["head"].get("auth") == "<token>":
                    document["head"]["auth"] = signed_token(mint, exchange["label"])
                answer = await client.post("/", json=document)
                assert exchange["status"] == answer.status_code, exchange["label"]


async def test_http2(anyio_backend: Any) -> None:
    """HTTP/2 without encryption is spoken with who begins with it."""
    app = make_app(LocalNetwork(MemoryStore()))
    async with client_of(app, anyio_backend) as client:
        url = client.base_url
        async with await anyio.connect_tcp(url.host, url.port or 0) as stream:
            await stream.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            frame = await stream.receive()
            # the server's own settings: a length of three bytes, then the type of the frame
            assert 4 == frame[3]


async def test_a_request_under_way_is_finished(anyio_backend: Any) -> None:
    """A server that is told to stop ends its streams at once, and answers what it was asked before."""
    entered, free = threading.Event(), threading.Event()
    free.set()

    def hold(_: object) -> None:
        entered.set()
        free.wait()

    store = Watched(MemoryStore(), blocking=True, before=hold)
    stop = anyio.Event()
    answers: list[int] = []

    async def ask(client: httpx.AsyncClient) -> None:
        head = {"corrId": "c", "version": "2026-04-01"}
        data = {"id": "p", "timeoutAt": 2**50}
        answer = await client.post("/", json={"kind": "promise.create", "head": head, "data": data})
        answers.append(answer.status_code)

    async with (
        client_of(make_app(LocalNetwork(store)), anyio_backend, stop) as client,
        client.stream("GET", "/poll/g/w") as stream,
        anyio.create_task_group() as tasks,
    ):
        free.clear()
        entered.clear()
        tasks.start_soon(ask, client)
        await anyio.to_thread.run_sync(entered.wait)
        stop.set()
        assert b"" == await stream.aread()
        assert [] == answers
        free.set()

    assert [200] == answers


async def test_who_goes_leaves(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server notices that a worker has closed its connection."""
    left = anyio.Event()
    leave = Router.leave

    def seen(router: Router, mailbox: Mailbox) -> None:
        leave(router, mailbox)
        left.set()

    monkeypatch.setattr(Router, "leave", seen)
    async with client_of(make_app(LocalNetwork(MemoryStore())), anyio_backend) as client:
        async with client.stream("GET", "/poll/g/w"):
            assert not left.is_set()
        await left.wait()
