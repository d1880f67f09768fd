"""The application around the engine: its life, its failures, debug operations, metrics, traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from resonate_anyio import Context, Resonate, StoreError, UsageError
from resonate_anyio._protocol import EMBEDDED
from resonate_anyio.abc import Clock, Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.server import Metrics, Trace, make_app
from resonate_anyio.stores import MemoryStore, SQLiteStore

from ..asgi_transport import Application, StartupFailed, asgi_transport
from ..networks.helpers import Watched
from ..protocol.server import Server
from .conftest import Start
from .recordings import ask, call

FAR = 2_000_000_000_000
GROUP = {"resonate:target": "poll://any@g"}


def envelope(kind: str, at: int | None = None, **data: Any) -> dict[str, Any]:
    head: dict[str, Any] = {"corrId": "c", "version": "2026-04-01"}
    return {"kind": kind, "head": head if at is None else head | {"resonate:debug_time": at}, "data": data}


async def data_of(app: Application, kind: str, at: int | None = None, **data: Any) -> Any:
    answer = await ask(app, envelope(kind, at, **data))
    assert 200 == answer.status, answer.body
    return answer.json()["data"]


async def test_a_failing_store(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A store that fails is answered with 500 and no details, seen by who asks for readiness, and got over."""
    full = False

    def fail_if_full(_: object) -> None:
        if full:
            msg = "/secret/path: disk full"
            raise StoreError(msg)

    store = Watched(MemoryStore(), before=fail_if_full)
    app = make_app(LocalNetwork(store, clock=clock))
    async with asgi_transport(app):
        full = True
        answer = await ask(app, envelope("promise.get", id="p"))
        head = {"corrId": "c", "status": 500, "version": "2026-04-01"}
        expected = {"kind": "promise.get", "head": head, "data": "Internal error: the store failed"}
        assert (500, expected) == (answer.status, answer.json())
        assert "disk full" in caplog.text
        assert [503, 200] == [(await call(app, "GET", path)).status for path in ("/ready", "/health")]

        full = False
        assert 404 == (await ask(app, envelope("promise.get", id="p"))).status
        assert 200 == (await call(app, "GET", "/ready")).status


async def test_a_store_that_cannot_be_opened(tmp_path: Path, clock: Clock) -> None:
    """The application does not start, and says why."""
    path = tmp_path / "engine.db"
    path.write_text("something else entirely, and long enough to be looked at " * 20)
    with pytest.raises(StartupFailed, match="file is not a database"):
        async with asgi_transport(make_app(LocalNetwork(SQLiteStore(path), clock=clock))):
            pytest.fail("it started")


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_before_it_has_started(store: Store, kind: str) -> None:
    """Whoever forgets the lifespan, or speaks something else, is told."""

    async def nothing(*_: object) -> Any:
        pytest.fail("it went on")

    with pytest.raises(UsageError, match="lifespan"):
        await make_app(LocalNetwork(store))({"type": kind}, nothing, nothing)


async def test_beside_a_program(store: Store, clock: Clock) -> None:
    """A program takes part in the engine that its own application serves."""

    async def greet(ctx: Context, name: str) -> str:
        await ctx.sleep(60)
        return f"hello {name}"

    network = LocalNetwork(store, clock=clock)
    app = make_app(network)
    resonate = Resonate(network=network)
    resonate.register(greet)
    async with asgi_transport(app), resonate:
        assert "hello you" == await resonate.run("greet-1", greet, "you")
        assert "resolved" == (await data_of(app, "promise.get", id="greet-1"))["promise"]["state"]

    # The engine lives as long as one of them does.
    async with asgi_transport(app):
        assert "resolved" == (await data_of(app, "promise.get", id="greet-1"))["promise"]["state"]


async def test_leases_are_kept(store: Store, clock: Clock) -> None:
    """Leases that a server finds in its store are of other processes, and run out when they would have."""
    app = make_app(LocalNetwork(store, clock=clock, keep_leases=True))
    action = {"kind": "promise.create", "head": {}, "data": {"id": "t", "timeoutAt": FAR, "tags": GROUP}}
    async with asgi_transport(app):
        await data_of(app, "task.create", pid="w", ttl=60_000, action=action)

    async with asgi_transport(app):
        assert "acquired" == (await data_of(app, "task.get", id="t"))["task"]["state"]
        await anyio.sleep(60.001)
        assert "pending" == (await data_of(app, "task.get", id="t"))["task"]["state"]


async def test_who_hangs_up_while_sending(start: Start) -> None:
    """A request whose client goes before its end is dropped."""
    async with start() as app:

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pytest.fail("somebody is answered")

        await app({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)


async def test_bodies_in_pieces(start: Start) -> None:
    """A body is whole when its last piece has come; one that is too long is read to its end, then refused."""
    body = json.dumps(envelope("promise.get", id="p")).encode()

    async def answer(app: Application, pieces: list[bytes]) -> int:
        left = list(pieces)
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message: Any) -> None:
            sent.append(message)

        await app({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
        assert [] == left
        status: int = sent[0]["status"]
        return status

    async with start() as app:
        assert 404 == await answer(app, [body[:5], b"", body[5:], b""])
        assert 413 == await answer(app, [b" " * 2**20] * 3)
        assert 404 == await answer(app, [body, b" " * (2**21 - len(body))])
        assert 413 == await answer(app, [body, b" " * (2**21 - len(body) + 1)])


async def test_debug_is_off(start: Start) -> None:
    """Unless it is asked for there are no debug operations, and nobody tells the server the time."""
    async with start() as app:
        for kind in ("debug.start", "debug.stop", "debug.reset", "debug.snap", "debug.tick"):
            assert 403 == (await ask(app, envelope(kind, time=5))).status
        created = await data_of(app, "promise.create", at=5, id="p", timeoutAt=FAR)
        assert 5 != created["promise"]["createdAt"]


async def test_virtual_time(start: Start) -> None:
    """While paused nothing happens by itself; resumed, all that is due by the clock does."""
    async with start(debug=True) as app:
        await data_of(app, "debug.start")
        await data_of(app, "promise.create", at=1_000, id="p", timeoutAt=5_000, tags=GROUP)
        await anyio.sleep(3600)
        snapshot = await data_of(app, "debug.snap")
        assert ["pending"] == [promise["state"] for promise in snapshot["promises"]]
        assert ["poll://any@g"] == [message["address"] for message in snapshot["messages"]]

        assert [] == await data_of(app, "debug.tick", time=4_999)
        assert "pending" == (await data_of(app, "promise.get", at=4_999, id="p"))["promise"]["state"]
        await data_of(app, "debug.start")
        await data_of(app, "debug.stop")
        await data_of(app, "debug.stop")
        await anyio.sleep(0.001)
        [promise] = (await data_of(app, "debug.snap"))["promises"]
        assert ("rejected_timedout", 5_000) == (promise["state"], promise["settledAt"])


async def test_reset(start: Start) -> None:
    """A reset leaves nothing: records, relations, schedules, timers, messages."""
    async with start(debug=True) as app:
        empty = await data_of(app, "debug.snap")
        await data_of(app, "promise.create", id="p", timeoutAt=FAR, tags=GROUP)
        await data_of(app, "promise.create", id="q", timeoutAt=FAR)
        await data_of(app, "promise.register_listener", awaited="q", address="poll://any@g")
        await data_of(app, "promise.register_callback", awaited="q", awaiter="p")
        timing: dict[str, Any] = {"cron": "* * * * *", "promiseTimeout": 5}
        await data_of(app, "schedule.create", id="s", promiseId="x", promiseTags={}, **timing)
        assert empty != await data_of(app, "debug.snap")

        await data_of(app, "debug.reset")
        await anyio.sleep(3600)
        assert empty == await data_of(app, "debug.snap")
        assert {"schedules": []} == await data_of(app, "schedule.search")


async def test_metrics(start: Start) -> None:
    """Requests are counted by kind and status, messages and what schedules made likewise."""
    metrics = Metrics()
    async with start(metrics=metrics) as app:
        await data_of(app, "promise.create", id="p", timeoutAt=FAR, tags=GROUP)
        await data_of(app, "promise.register_listener", awaited="p", address="poll://any@g")
        await data_of(app, "promise.settle", id="p", state="resolved")
        await ask(app, envelope("made.up"))
        timing: dict[str, Any] = {"cron": "* * * * *", "promiseTimeout": 10**9}
        await data_of(app, "schedule.create", id="s", promiseId="{{.timestamp}}", promiseTags={}, **timing)
        await anyio.sleep(120)

    async with asgi_transport(metrics):
        shown = (await call(metrics, "GET", "/metrics")).body.decode().splitlines()
        assert 404 == (await call(metrics, "GET", "/")).status

    for line in (
        'resonate_request_total{kind="promise.create",status="200"} 1.0',
        'resonate_request_total{kind="unknown",status="400"} 1.0',
        'resonate_request_duration_seconds_count{kind="promise.settle"} 1.0',
        'resonate_messages_total{kind="execute"} 1.0',
        'resonate_messages_total{kind="unblock"} 1.0',
        "resonate_schedule_promises_total 2.0",
    ):
        assert line in shown


async def test_trace(clock: Clock, tmp_path: Path) -> None:
    """Exchanges are recorded as they took effect, without what the checkers do not know."""
    store = Watched(MemoryStore(), blocking=True)
    path = tmp_path / "trace.jsonl"
    path.write_text("of yesterday\n")
    with Trace(path) as trace:
        app = make_app(LocalNetwork(store, clock=clock), trace=trace, debug=True)
        async with asgi_transport(app):
            await ask(app, envelope("promise.get", id="none"))
            assert 1 == len(path.read_text().splitlines())
            for kind in ("promise.search", "task.search", "schedule.search", "debug.snap", "made.up"):
                await ask(app, envelope(kind))
            await ask(app, envelope("promise.get", id=""))

            await data_of(app, "promise.create", id="p", timeoutAt=FAR)
            store.commits.clear()
            async with anyio.create_task_group() as group:
                for number in range(30):
                    value = {"data": str(number)}
                    settle = envelope("promise.settle", id="p", state="resolved", value=value)
                    group.start_soon(ask, app, settle)
                    group.start_soon(ask, app, envelope("promise.get", id="p"))
            assert len(store.commits) < 10

    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert 62 == len(events)
    again = Server(MemoryStore, EMBEDDED)
    for event in events:
        assert ["kind", "now", "req", "res"] == list(event)
        assert event["res"] == again.answer(envelope(event["kind"], event["now"], **event["req"]), 0)
    assert sorted(event["now"] for event in events) == [event["now"] for event in events]
