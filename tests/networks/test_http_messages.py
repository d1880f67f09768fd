"""The stream of messages over HTTP: kept open for ever, and honest about what may have been lost."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest
from anyio import CancelScope, Event, create_task_group

from resonate_anyio._concurrency._backoff import Backoff
from resonate_anyio._protocol import PromiseGet
from resonate_anyio.abc import Connection, Gap, Identity
from resonate_anyio.networks import HttpNetwork

from .helpers import name_of, received, worker
from .scripted import Scripted, nothing_there

ME = worker("me")
DAY = 24 * 3600


@pytest.fixture
def server() -> Scripted:
    """A server that has nothing and takes everything."""
    return Scripted()


@asynccontextmanager
async def connected(server: Scripted, **options: Any) -> AsyncGenerator[Connection, None]:
    async with HttpNetwork("http://server", transport=server, **options).connect(ME) as connection:
        yield connection


async def next_name(connection: Connection) -> str:
    return name_of(await connection.messages.receive())


async def test_messages_are_received(server: Scripted) -> None:
    """Both kinds, in the order in which they were sent."""
    record = {"id": "p", "state": "resolved", "param": {}, "value": {"data": "e30="}, "tags": {}, "timeoutAt": 9}
    async with connected(server) as connection:
        [poll] = server.polls
        poll.execute("t", 3)
        poll.message({"kind": "unblock", "head": {}, "data": {"promise": {**record, "createdAt": 1, "settledAt": 2}}})

        assert ["t", "unblock p"] == [await next_name(connection), await next_name(connection)]


async def test_the_stream_is_asked_for_by_name(server: Scripted) -> None:
    """Group and pid are parts of a path, whatever they are made of, and the token is in the header."""
    identity = Identity(group="a b/c", pid="ü?", holder="x")
    async with HttpNetwork("http://server", transport=server, token="secret").connect(identity):
        [poll] = server.polls

    assert "/poll/a%20b%2Fc/%C3%BC%3F" == poll.path
    assert ("Bearer secret", "text/event-stream") == (poll.headers["authorization"], poll.headers["accept"])


async def test_the_stream_is_up_when_connect_returns(server: Scripted) -> None:
    """What is sent for right after it is not lost."""
    async with connected(server):
        assert 1 == len(server.polls)


async def test_silence_is_no_failure(server: Scripted) -> None:
    """A stream without a word for days is still the same stream."""
    async with connected(server) as connection:
        await anyio.sleep(10 * DAY)
        server.polls[0].execute("t")

        assert "t" == await next_name(connection)

    assert 1 == len(server.polls)


async def test_only_connecting_has_a_limit_for_the_stream(server: Scripted) -> None:
    """The HTTP library is told to wait for ever for what comes over it."""
    async with connected(server, connect_timeout=3):
        pass

    [stream] = [request for request in server.raw if request.method == "GET"]
    assert {"connect": 3, "read": None, "write": None, "pool": None} == stream.extensions["timeout"]


async def test_what_is_not_read_is_kept(server: Scripted) -> None:
    """The server drops what a connection does not take: so everything is taken, however slow the reader."""
    async with connected(server) as connection:
        for number in range(1000):
            server.polls[0].execute(f"t{number}")
        await anyio.sleep(1)

        assert [f"t{number}" for number in range(1000)] == await received(connection)


@pytest.mark.parametrize(
    "data",
    [
        b"no json",
        b'{"kind": "unknown", "head": {}, "data": {}}',
        b'{"kind": "execute", "head": {}, "data": {"task": {"id": 7, "version": 0}}}',
        b'{"kind": "execute"}',
        b"[]",
        b"\xff",
        b"NaN",
    ],
)
async def test_what_is_no_message_is_dropped_with_a_warning(
    server: Scripted, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """One that cannot be read takes neither the stream nor the next message with it."""
    async with connected(server) as connection:
        server.polls[0].send(b"data: " + data + b"\n\n")
        server.polls[0].execute("t")

        assert "t" == await next_name(connection)

    assert ["WARNING"] == [record.levelname for record in caplog.records if "poll.dropped" in record.message]
    assert 1 == len(server.polls)


@pytest.mark.parametrize("error", [None, httpx.ReadError("reset"), httpx.RemoteProtocolError("incomplete")])
async def test_a_lost_stream_is_opened_again(server: Scripted, error: Exception | None) -> None:
    """However it ended, another one is opened, and a gap says that messages may be lost, before any of the new ones."""
    async with connected(server) as connection:
        server.polls[0].execute("before")
        server.polls[0].end(error)
        await anyio.sleep(2)
        server.polls[1].execute("after")

        assert ["before", "gap", "after"] == await received(connection)


async def test_half_a_message_is_no_message(server: Scripted) -> None:
    """What a broken stream did not end is not joined to what the next one begins with."""
    async with connected(server) as connection:
        server.polls[0].send(b'data: {"kind": "execute", "head": {}, "data": {"task": {"id": "half", "version": 0}}}\n')
        server.polls[0].end()
        await anyio.sleep(2)
        server.polls[1].send(b"\n")
        server.polls[1].execute("whole")

        assert ["gap", "whole"] == await received(connection)


@pytest.mark.slow
async def test_a_server_that_is_down_is_tried_for_ever(server: Scripted) -> None:
    """After a second, then more and more rarely, but at least twice a minute; each pause has its share of chance."""
    async with connected(server):
        server.poll_answer = lambda: httpx.ConnectError("refused")
        server.polls[0].end()
        await anyio.sleep(DAY)

    pauses = [after - before for before, after in pairwise(server.attempts)]
    assert 0.5 <= pauses[0] <= 1
    assert all(15 <= pause <= 30 for pause in pauses[6:])
    assert len({round(pause, 6) for pause in pauses[6:]}) > 100


async def test_a_stream_that_lived_is_missed_at_once(server: Scripted) -> None:
    """The pause is short again after a stream that was up for a while."""
    async with connected(server):
        server.poll_answer = lambda: httpx.ConnectError("refused")
        server.polls[0].end()
        await anyio.sleep(3600)
        server.poll_answer = lambda: None
        await anyio.sleep(60)
        server.polls[1].end()
        await anyio.sleep(1.1)

        assert 3 == len(server.polls)


async def test_streams_that_end_at_once_are_not_opened_in_a_loop(server: Scripted) -> None:
    """A server that accepts and hangs up is left more and more alone, like one that is down."""
    server.poll_answer = lambda: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"")
    async with connected(server):
        await anyio.sleep(3600)

    assert len(server.attempts) < 250


@pytest.mark.parametrize("status", [401, 403, 503])
async def test_a_refused_stream_is_asked_for_rarely(
    server: Scripted, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What will not pass soon is reported with the server's words, once, and tried twice a minute at most."""
    server.poll_answer = lambda: httpx.Response(status, text="because")
    async with connected(server) as connection:
        await anyio.sleep(600)
        assert 404 == (await connection.request(PromiseGet(id="p"))).status

    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"{status}" in record.message
    assert "because" in record.message
    assert all(15 <= after - before <= 30 for before, after in pairwise(server.attempts))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<html>" + "x" * 100_000),
        httpx.Response(200, json={}),
        httpx.Response(404),
        httpx.Response(301, headers={"location": "http://elsewhere/"}),
    ],
)
async def test_what_is_no_stream_is_reported_and_tried_again(
    server: Scripted, answer: httpx.Response, caplog: pytest.LogCaptureFixture
) -> None:
    """A page of a proxy, or a redirect, is no stream, and is shown in a few words."""
    server.poll_answer = lambda: answer
    async with connected(server) as connection:
        server.poll_answer = lambda: None
        await anyio.sleep(2)
        server.polls[0].execute("t")

        assert ["gap", "t"] == await received(connection)

    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert str(answer.status_code) in record.message
    assert len(record.message) < 500


async def test_the_log_of_the_stream_does_not_tell_the_token(
    server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither what broke a stream, nor what is no stream, nor what is no message, although all of them repeat it."""
    caplog.set_level(logging.DEBUG)
    secret = "s3cret-t0ken"
    async with connected(server, token=secret):
        server.polls[0].send(b"data: " + b"x" * 195 + secret.encode() + b"\n\n")
        server.polls[0].end(httpx.RemoteProtocolError(f"illegal header {secret}"))
        server.poll_answer = lambda: httpx.Response(403, text=secret)
        await anyio.sleep(60)

    assert 3 == sum(record.levelname == "WARNING" for record in caplog.records)
    assert "[token]" in caplog.text
    assert "s3c" not in caplog.text


async def test_an_error_page_that_never_ends_is_not_read_for_ever(server: Scripted) -> None:
    """A refusal whose body hangs is a refusal."""

    class Hanging(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncGenerator[bytes, None]:
            yield b"wait"
            await Event().wait()

    server.poll_answer = lambda: httpx.Response(500, stream=Hanging())
    async with connected(server):
        await anyio.sleep(60)

    assert len(server.attempts) > 2


async def test_a_stream_that_is_up_late_begins_with_a_gap(server: Scripted) -> None:
    """Where connecting failed at first, requests were made meanwhile whose messages may be lost."""
    server.poll_answer = lambda: httpx.ConnectError("refused")
    async with connected(server) as connection:
        server.poll_answer = lambda: None

        assert Gap() == await connection.messages.receive()


async def test_connect_does_not_wait_for_ever(server: Scripted) -> None:
    """A server that says nothing holds the start up for 5 seconds; what it may have lost by then is a gap."""
    hold = Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        await hold.wait()
        return await Scripted.handle_async_request(server, request)

    transport = httpx.MockTransport(slow)
    began = anyio.current_time()
    async with HttpNetwork("http://server", transport=transport).connect(ME) as connection:
        assert 5 == pytest.approx(anyio.current_time() - began)
        hold.set()

        assert Gap() == await connection.messages.receive()
        assert 1 == len(server.attempts)


async def test_a_stream_that_is_not_answered_is_given_up(server: Scripted) -> None:
    """Only a stream that was opened may be silent for ever: opening one has the limit of a request."""
    asked: list[float] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            asked.append(anyio.current_time())
            await Event().wait()
        return await server.handle_async_request(request)

    async with HttpNetwork("http://server", transport=httpx.MockTransport(hang)).connect(ME) as connection:
        assert 404 == (await connection.request(PromiseGet(id="p"))).status
        await anyio.sleep(60)

    pauses = [after - before for before, after in pairwise(asked)]
    assert len(pauses) > 1
    assert all(pause > 10 for pause in pauses)


async def test_closing_the_messages_leaves_requests_only(server: Scripted) -> None:
    """The server is told to route elsewhere, no other stream is opened, and requests go on."""
    async with connected(server) as connection:
        await connection.messages.aclose()
        with anyio.fail_after(1):
            await server.polls[0].closed.wait()
        await anyio.sleep(DAY)

        assert 404 == (await connection.request(PromiseGet(id="p"))).status

    assert 1 == len(server.attempts)


async def test_closing_the_messages_wakes_who_waits_for_one(server: Scripted) -> None:
    """A reader that waits is told that there will be none."""

    async def read() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await connection.messages.receive()

    async with connected(server) as connection, create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await connection.messages.aclose()


async def test_messages_go_on_while_the_host_is_cancelled(server: Scripted) -> None:
    """Whoever is cancelled may still have things to put away, under a shield, and needs its network for that."""
    with CancelScope() as host:
        async with connected(server) as connection:
            host.cancel()
            with CancelScope(shield=True):
                server.polls[0].execute("t")

                assert "t" == await next_name(connection)
                assert 404 == (await connection.request(PromiseGet(id="p"))).status

    assert server.polls[0].closed.is_set()


@pytest.mark.parametrize("down", [False, True])
async def test_the_end_is_prompt(server: Scripted, down: bool) -> None:
    """Neither an open stream nor a pause before the next one holds up the exit, and nothing is left."""
    if down:
        server.poll_answer = lambda: httpx.ConnectError("refused")
    async with connected(server):
        await anyio.sleep(100)
        began = anyio.current_time()

    assert 0 == anyio.current_time() - began
    assert all(poll.closed.is_set() for poll in server.polls)


async def test_each_outage_is_reported_once(server: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is away for an hour makes one warning, and its return is told too."""
    caplog.set_level(logging.INFO, "resonate_anyio")
    async with connected(server):
        server.poll_answer = lambda: httpx.ConnectError("refused")
        server.polls[0].end()
        await anyio.sleep(3600)
        server.poll_answer = lambda: None
        await anyio.sleep(60)

    levels = [(record.levelname, record.message.split()[0]) for record in caplog.records]
    assert [("WARNING", "poll.lost")] * 2 + [("INFO", "poll.connected")] == [
        level for level in levels if level[1].startswith("poll")
    ]


def test_pauses_double_up_to_half_a_minute() -> None:
    """Without chance they are 1, 2, 4 ... 30 seconds; with it they are shorter by up to a half."""
    whole, half = Backoff(maximum=30, random=lambda: 0.0), Backoff(maximum=30, random=lambda: 1.0)

    assert [1, 2, 4, 8, 16, 30, 30] == [whole.next() for _ in range(7)]
    assert [0.5, 1, 2, 4, 8, 15, 15] == [half.next() for _ in range(7)]
    whole.reset()
    assert [1, 30, 30] == [whole.next(), whole.longest(), whole.next()]


async def test_requests_and_messages_share_nothing_that_blocks(server: Scripted) -> None:
    """A request that hangs holds up no message."""

    async def answer(envelope: Any) -> httpx.Response:
        await anyio.sleep(5)
        return nothing_there(envelope)

    async with connected(server) as connection, create_task_group() as tasks:
        server.answer = answer
        tasks.start_soon(connection.request, PromiseGet(id="p"))
        await anyio.sleep(1)
        server.polls[0].execute("t")

        with anyio.fail_after(0.1):
            assert "t" == await next_name(connection)
