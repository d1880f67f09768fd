"""What real servers answered over HTTP, this one answers."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from resonate_anyio._protocol import Rules
from resonate_anyio.abc import Clock, Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.server import make_app
from resonate_anyio.testing import VirtualClock

from ..asgi_transport import asgi_transport
from .conftest import Start
from .recordings import RULES, Answer, ask, call, exchanges, files, is_of_a_page, without_texts


def rules_of(name: str) -> Rules:
    return RULES[name.partition("/")[0]]


def test_the_recordings_are_there() -> None:
    """None of them has been lost on the way."""
    counts = {
        family: len(files(f"{family}-")) for family in ("op", "scenario", "random", "raw", "http", "auth", "wall")
    }
    assert {"op": 40, "scenario": 32, "random": 3, "raw": 1, "http": 1, "auth": 2, "wall": 3} == counts


@pytest.mark.parametrize("name", files("op-", "scenario-", "random-"))
async def test_replay(start: Start, name: str) -> None:
    """Every request is answered with the recorded status, and every success with the recorded data."""
    async with start(rules_of(name), debug=True) as app:
        for line, exchange in enumerate(exchanges(name), 1):
            answer = await ask(app, exchange["request"])
            status = exchange["status"]
            expected, found = (without_texts(status, document) for document in (exchange["response"], answer.json()))
            assert (status, expected) == (answer.status, found), f"{name}, line {line}: {exchange['request']}"


def raw_body(text: str) -> bytes:
    """The body that was sent, which stands for itself unless it is too long."""
    if not text.endswith(" bytes>"):
        return text.encode()

    head = {"corrId": "c1", "version": "2026-04-01"}
    data = {"id": "large", "timeoutAt": 1_800_000_000_000, "param": {"data": ""}, "tags": {}}
    body = json.dumps({"kind": "promise.create", "head": head, "data": data})
    missing = int(text[1 : text.index(" ")]) - len(body)
    return body.replace('"data": ""', f'"data": "{"x" * missing}"').encode()


@pytest.mark.parametrize("name", files("raw-"))
async def test_raw_bodies(start: Start, name: str) -> None:
    """Bodies that are no requests, or barely, are answered with the recorded status, kind and correlation id."""
    async with start(rules_of(name), debug=True) as app:
        for exchange in exchanges(name):
            answer = await call(app, "POST", "/", exchange["requestHeaders"], raw_body(exchange["raw"]))
            assert exchange["status"] == answer.status, exchange["raw"][:200]
            assert exchange["contentType"] == answer.headers["content-type"]
            if exchange["status"] == 413:
                assert exchange["response"] == answer.body.decode()
            else:
                expected = without_texts(400, exchange["response"])
                assert expected == without_texts(400, answer.json()), exchange["raw"][:200]


def seen(answer: Answer, *names: str) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name in names}


@pytest.mark.parametrize("name", files("http-"))
async def test_endpoints(start: Start, name: str) -> None:
    """Every other path and method is answered with the recorded status, body and headers, unless a page asks."""
    async with start(rules_of(name)) as app:
        for exchange in exchanges(name):
            answer = await call(app, exchange["method"], exchange["path"], exchange["headers"])
            if is_of_a_page(exchange):
                assert 403 == answer.status
                continue
            expected: dict[str, Any] = exchange["responseHeaders"] | {"body": exchange["body"]}
            del expected["connection"]
            found = seen(answer, "allow", "content-type", "content-length") | {"body": answer.body.decode()}
            assert (exchange["status"], expected) == (answer.status, found), exchange["path"]


async def until(clock: Clock, at: int) -> None:
    await anyio.sleep(max(0, at - clock()) / 1000)


@pytest.mark.parametrize("name", files("wall-"))
async def test_by_the_wall_clock(store: Store, name: str) -> None:
    """Requests that were recorded by the wall clock have the same statuses at the same instants."""
    recorded = [exchange for exchange in exchanges(name) if "request" in exchange]
    clock = VirtualClock(recorded[0]["at"] if recorded else 0)
    app = make_app(LocalNetwork(store, rules=rules_of(name), clock=clock, keep_leases=True))
    async with asgi_transport(app):
        for exchange in recorded:
            await until(clock, exchange["at"])
            answer = await ask(app, exchange["request"])
            statuses = (exchange["status"], exchange["response"]["head"]["status"])
            assert statuses == (answer.status, answer.json()["head"]["status"]), exchange["request"]
