"""Streams of messages to workers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from attrs import define, field

from resonate_anyio._protocol import EMBEDDED, Rules
from resonate_anyio.abc import Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.server import App, make_app
from resonate_anyio.stores import MemoryStore

from ..asgi_transport import asgi_transport
from .recordings import ask, call, exchanges

URL = "http://127.0.0.1:8001"
FAR = 2_000_000_000_000


@pytest.fixture
def store() -> Store:
    return MemoryStore()


@pytest.fixture
async def app(network: Callable[[Rules], LocalNetwork]) -> App:
    return make_app(network(EMBEDDED), server_url=URL)


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        asgi_transport(app) as transport,
        httpx.AsyncClient(transport=transport, base_url=URL, timeout=httpx.Timeout(None)) as client,
    ):
        yield client


@define
class Stream:
    """A worker's side of a stream."""

    response: httpx.Response
    _messages: list[dict[str, Any]] = field(init=False, factory=list)
    ended: bool = field(init=False, default=False)

    async def read(self) -> None:
        """Read to the end: each message is one line and an empty one."""
        lines = self.response.aiter_lines()
        async for line in lines:
            assert ("data: ", "") == (line[:6], await anext(lines))
            self._messages.append(json.loads(line[6:]))
        self.ended = True

    async def messages(self) -> list[dict[str, Any]]:
        """What has come since the last call."""
        # In virtual time nothing happens in so short a while but what is there already.
        await anyio.sleep(0.001)
        found, self._messages = self._messages, []
        return found

    async def tasks(self) -> list[str]:
        return [message["data"]["task"]["id"] for message in await self.messages()]


@asynccontextmanager
async def poll(client: httpx.AsyncClient, path: str) -> AsyncIterator[Stream]:
    """Open a stream and read it."""
    async with client.stream("GET", f"/poll/{path}") as response, anyio.create_task_group() as tasks:
        assert 200 == response.status_code
        stream = Stream(response)
        tasks.start_soon(stream.read)
        yield stream
        tasks.cancel_scope.cancel()


async def request(app: App, kind: str, **data: Any) -> dict[str, Any]:
    head = {"corrId": "c", "version": "2026-04-01"}
    answer = await ask(app, {"kind": kind, "head": head, "data": data})
    assert 200 == answer.status, answer.body
    document: dict[str, Any] = answer.json()["data"]
    return document


async def send(app: App, address: str, *ids: str) -> None:
    """Have tasks sent for at an address."""
    for id in ids:
        await request(app, "promise.create", id=id, timeoutAt=FAR, tags={"resonate:target": address})


async def test_the_head_comes_at_once(client: httpx.AsyncClient) -> None:
    """A worker learns that it is connected before there is any message."""
    async with poll(client, "g/w") as stream:
        assert "text/event-stream" == stream.response.headers["content-type"]
        assert "no-cache" == stream.response.headers["cache-control"]
        assert [] == await stream.tasks()


async def test_messages(app: App, client: httpx.AsyncClient) -> None:
    """An execute tells where the server is, an unblock brings the promise; nothing else is ever sent."""
    async with poll(client, "g/w") as stream:
        await send(app, "poll://any@g", "t")
        expected = {"kind": "execute", "head": {"serverUrl": URL}, "data": {"task": {"id": "t", "version": 0}}}
        assert [expected] == await stream.messages()

        await request(app, "promise.register_listener", awaited="t", address="poll://uni@g/w")
        settled = await request(app, "promise.settle", id="t", state="resolved", value={"data": "eA=="})
        assert [{"kind": "unblock", "head": {}, "data": settled}] == await stream.messages()

        await anyio.sleep(3600)
        assert [] == await stream.tasks()


@pytest.mark.parametrize(
    ("path", "id"), [("g/a%20b", "a b"), ("g/a%2Fb", "a/b"), ("g/%C3%A9", "\u00e9"), ("g/a+b", "a+b")]
)
async def test_ids_are_decoded(app: App, client: httpx.AsyncClient, path: str, id: str) -> None:
    """What is escaped in the path is meant as it is, a slash too."""
    async with poll(client, path) as stream:
        await send(app, f"poll://uni@g/{id}", "t")
        assert ["t"] == await stream.tasks()


@pytest.mark.parametrize("path", ["/poll/g/", "/poll//w", "/poll/g/w/x", "/poll/g"])
async def test_paths_that_name_nobody(client: httpx.AsyncClient, app: App, path: str) -> None:
    """A stream has a group and an id."""
    assert 404 == (await call(app, "GET", path)).status


async def test_the_oldest_of_one_name_has_it(app: App, client: httpx.AsyncClient) -> None:
    """Of several streams of one name the oldest receives, and when it goes, the next."""
    async with AsyncExitStack() as older:
        await older.enter_async_context(client.stream("GET", "/poll/g/w"))
        async with poll(client, "g/w") as second:
            await send(app, "poll://uni@g/w", "1")
            assert [] == await second.tasks()

            await older.aclose()
            await send(app, "poll://uni@g/w", "2")
            assert ["2"] == await second.tasks()


async def test_nobody_there(app: App, client: httpx.AsyncClient) -> None:
    """An execute waits for a worker that can have it; an unblock for nobody is dropped."""
    await send(app, "poll://any@g", "t")
    await request(app, "promise.register_listener", awaited="t", address="poll://any@g")
    await request(app, "promise.register_listener", awaited="t", address="poll://uni@other/w")
    async with poll(client, "other/w") as other:
        await request(app, "promise.settle", id="t", state="resolved")
        assert ["unblock"] == [message["kind"] for message in await other.messages()]

    async with poll(client, "g/w") as stream:
        assert ["t"] == await stream.tasks()


async def test_what_was_not_read_is_for_others(app: App, client: httpx.AsyncClient) -> None:
    """When a worker goes, the tasks that were queued for it are sent to another."""
    async with client.stream("GET", "/poll/g/a"):
        await send(app, "poll://any@g", "1", "2", "3")

    async with poll(client, "g/b") as b:
        # The first was on its way already; it is sent for again after the retry timeout.
        assert ["2", "3"] == await b.tasks()
        await anyio.sleep(30)
        assert ["1", "2", "3"] == await b.tasks()


async def test_what_was_not_sent_whole_is_for_others(app: App, client: httpx.AsyncClient) -> None:
    """When a worker goes while it is sent a message, that message is sent to another at once, before the later ones."""
    gone, sending = anyio.Event(), anyio.Event()
    sent: list[bytes] = []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def to_client(message: Mapping[str, Any]) -> None:
        if b"data" in message.get("body", b""):
            sent.append(message["body"])
            sending.set()
            await anyio.sleep_forever()

    scope = {"type": "http", "method": "GET", "path": "/poll/g/a", "query_string": b"", "headers": []}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app, scope, receive, to_client)
        await anyio.wait_all_tasks_blocked()
        await send(app, "poll://any@g", "1", "2", "3")
        await sending.wait()
        gone.set()

    assert 1 == len(sent)
    async with poll(client, "g/b") as b:
        assert ["1", "2", "3"] == await b.tasks()


async def test_a_slow_reader(app: App, client: httpx.AsyncClient) -> None:
    """A hundred messages wait for a worker that does not read; more tasks wait for it or another, unblocks do not."""
    ids = [f"{number:03}" for number in range(250)]
    async with client.stream("GET", "/poll/g/w") as response:
        await send(app, "poll://any@g", *ids)
        await request(app, "promise.register_listener", awaited="000", address="poll://uni@g/w")
        await request(app, "promise.settle", id="000", state="resolved")
        stream = Stream(response)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.read)
            assert ids == await stream.tasks()

            async with poll(client, "g/other") as other:
                await send(app, "poll://uni@g/other", "t")
                assert ["t"] == await other.tasks()
            tasks.cancel_scope.cancel()


async def test_how_many(app: App, client: httpx.AsyncClient) -> None:
    """A thousand streams are open at most; one more finds a place when another goes."""
    async with AsyncExitStack() as others, AsyncExitStack() as one:
        await one.enter_async_context(client.stream("GET", "/poll/g/0"))
        for number in range(999):
            await others.enter_async_context(client.stream("GET", f"/poll/g/{number}"))

        [recorded] = [line for line in exchanges("snapshot/wall-sse-limits.jsonl.xz") if line.get("status") == 503]
        refused = await client.get(recorded["path"])
        assert (503, recorded["body"]) == (refused.status_code, refused.text)

        await one.aclose()
        await anyio.wait_all_tasks_blocked()
        async with poll(client, "g/more") as stream:
            await send(app, "poll://uni@g/more", "t")
            assert ["t"] == await stream.tasks()


async def test_the_end(app: App, client: httpx.AsyncClient) -> None:
    """A server that stops ends its streams whole, and takes no new ones."""
    async with poll(client, "g/w") as stream:
        await send(app, "poll://any@g", "t")
        assert ["t"] == await stream.tasks()
        assert not stream.ended
        await app.end_streams()
        assert [] == await stream.tasks()
        assert stream.ended

    assert 503 == (await client.get("/poll/g/w")).status_code
    # Requests go on to the last.
    await request(app, "promise.get", id="t")


async def test_a_head_only(app: App, client: httpx.AsyncClient) -> None:
    """Asking for the head of a stream opens none."""
    assert 200 == (await client.head("/poll/g/w")).status_code
    await send(app, "poll://any@g", "t")
    async with poll(client, "g/other") as stream:
        assert ["t"] == await stream.tasks()
