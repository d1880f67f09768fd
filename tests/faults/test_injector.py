"""The faults themselves: each does what it says, so that what withstands them has withstood something."""

from __future__ import annotations

import json

import anyio
import httpx
import pytest
from anyio import create_task_group, current_time
from attrs import define, field

from .bodies import Pieces
from .meter import Meter
from .transport import FaultyTransport
from .weather import STREAM, Call, Effect, Trick, Trouble, Weather

MESSAGES = [{"kind": "execute", "head": {}, "data": {"task": {"id": id, "version": 1}}} for id in ("a", "b")]
FRAMES = [f"data: {json.dumps(message)}\n\n".encode() for message in MESSAGES]

EARLY = {Effect.REFUSED, Effect.CUT_BEFORE, Effect.PAGE_BEFORE, Effect.REDIRECTED, Effect.ERROR_BEFORE}
RAISED = {
    Effect.REFUSED: httpx.ConnectError,
    Effect.CUT_BEFORE: httpx.WriteError,
    Effect.CUT_AFTER: httpx.RemoteProtocolError,
    Effect.SLOW: httpx.ReadTimeout,
    Effect.LATE: httpx.ReadTimeout,
    Effect.TORN: httpx.RemoteProtocolError,
}
STATUSES = {
    Effect.PAGE_BEFORE: 502,
    Effect.PAGE_AFTER: 502,
    Effect.REDIRECTED: 307,
    Effect.ERROR_BEFORE: 500,
    Effect.ERROR_AFTER: 500,
    Effect.TWICE: 409,
}


@define(eq=False)
class Server(httpx.AsyncBaseTransport):
    """Answers each request, the first of its kind with 200 and others with 409, and streams two messages."""

    applied: list[str] = field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, stream=Frames())
        asked = json.loads(await request.aread())
        self.applied.append(asked["kind"])
        status = 200 if self.applied.count(asked["kind"]) == 1 else 409
        head = {**asked["head"], "status": status}
        return httpx.Response(status, json={"kind": asked["kind"], "head": head, "data": {}})


class Frames(Pieces):
    """The messages, and then silence."""

    def __init__(self) -> None:
        super().__init__(FRAMES)

    async def __anext__(self) -> bytes:
        if not self._left:
            await anyio.sleep_forever()
        return await super().__anext__()


async def ask(client: httpx.AsyncClient) -> httpx.Response:
    """Ask for something."""
    head = {"corrId": "1", "version": "2026-04-01"}
    return await client.post("/", json={"kind": "promise.get", "head": head, "data": {"id": "p"}})


async def said(trouble: Trouble | None, *, seconds: float = 10) -> bytes:
    """What is read from a stream within so many seconds."""
    weather, read = Weather(), b""
    if trouble is not None:
        weather.expect(trouble)
    async with create_task_group() as tasks:
        transport = FaultyTransport("a", Server(), weather, Meter(), tasks)
        async with httpx.AsyncClient(transport=transport, base_url="http://s", timeout=3600) as client:
            with anyio.move_on_after(seconds):
                async with client.stream("GET", "/poll/default/a") as response:
                    response.raise_for_status()
                    async for chunk in response.aiter_raw():
                        read += chunk
        tasks.cancel_scope.cancel()
    return read


@pytest.mark.parametrize("effect", Effect)
async def test_an_effect_spoils_one_request(effect: Effect) -> None:
    """The request that it happens to fails as it says and has the effect that it says; the next one goes well."""
    weather, server, meter = Weather(), Server(), Meter()
    weather.expect(Trouble(what=effect, kind="promise.get", seconds=60))
    async with create_task_group() as tasks:
        transport = FaultyTransport("a", server, weather, meter, tasks)
        async with httpx.AsyncClient(transport=transport, base_url="http://s", timeout=10) as client:
            if effect in RAISED:
                with pytest.raises(RAISED[effect]):
                    await ask(client)
            else:
                response = await ask(client)
                assert STATUSES.get(effect, 200) == response.status_code
                assert not (sound(response) and effect is not Effect.TWICE)
            await anyio.sleep(61)

            assert {Effect.TWICE: 2}.get(effect, 0 if effect in EARLY else 1) == len(server.applied)
            assert sound(await ask(client))

    assert 2 == meter.count("promise.get", who="a")
    assert 1 == len(weather.happened)


def sound(response: httpx.Response) -> bool:
    """Whether it is an answer of the protocol to the request."""
    try:
        document = response.json()
    except ValueError:
        return False
    own = "promise.get" == document["kind"] and "1" == document["head"]["corrId"]
    return own and document["head"]["status"] in {200, 409}


async def test_a_late_answer_arrives() -> None:
    """What is late by less than the client waits arrives, that much later."""
    weather = Weather()
    weather.expect(Trouble(what=Effect.LATE, seconds=9))
    async with create_task_group() as tasks:
        transport = FaultyTransport("a", Server(), weather, Meter(), tasks)
        async with httpx.AsyncClient(transport=transport, base_url="http://s", timeout=10) as client:
            before = current_time()
            assert sound(await ask(client))
            assert before + 9 == pytest.approx(current_time())


async def test_messages_arrive_without_trouble() -> None:
    """A stream to which nothing happens is handed on as it is."""
    assert b"".join(FRAMES) == await said(None)


async def test_tricks_with_messages() -> None:
    """Messages are lost, torn, repeated, crumbled or surrounded by noise, as the trick says."""
    first, second = FRAMES
    assert b"" == await said(Trouble(what=Trick.UNANSWERED))
    assert first == await said(Trouble(what=Trick.ENDED))
    assert first * 3 + second * 3 == await said(Trouble(what=Trick.REPEATED))
    assert first + second + first == await said(Trouble(what=Trick.STALE))
    assert first == await said(Trouble(what=Trick.LATE, seconds=6))
    assert first + second == await said(Trouble(what=Trick.CRUMBLED))
    noisy = await said(Trouble(what=Trick.NOISY))
    assert noisy.count(first.replace(b"\n", b"\r\n")) == noisy.count(b": still here") / 2 == 1
    assert 12 == (await said(Trouble(what=Trick.FORGED))).count(b"data: ") + 2
    assert b"html" in await said(Trouble(what=Trick.PAGE))


@pytest.mark.parametrize(
    ("trick", "error"),
    [
        (Trick.REFUSED, httpx.ConnectError),
        (Trick.FULL, httpx.HTTPStatusError),
        (Trick.TORN, httpx.ReadError),
        (Trick.STALLED, httpx.ReadError),
    ],
)
async def test_tricks_that_end_a_stream(trick: Trick, error: type[Exception]) -> None:
    """A stream is refused, or cut: at once, or after having been silent for a while."""
    before = current_time()
    with pytest.raises(BaseExceptionGroup) as caught:
        await said(Trouble(what=trick, seconds=5))
    assert caught.group_contains(error)
    assert before + (5 if trick is Trick.STALLED else 0) == pytest.approx(current_time())


def test_the_meter_finds_the_busiest_moment() -> None:
    """The most that is said within some seconds, and the most often that the same is said, wherever they are."""
    meter = Meter()
    meter.calls += [Call(who="a", kind="promise.get", subject=str(at), at=at) for at in range(100)]
    meter.calls += [Call(who="b", kind=STREAM, subject="/poll", at=at / 10) for at in range(200, 220)]

    assert (20, "b") == meter.busiest(2)
    assert (10, "b") == meter.busiest(1)
    assert (1, "a") == meter.busiest(1, since=30)
    assert (10, "('b', 'poll', '/poll')") == meter.most_repeated(1)
    assert (0, "nothing") == Meter().busiest(1)
    assert 100 == meter.count("promise.get")
    assert {"promise.get": 100, STREAM: 20} == meter.kinds
