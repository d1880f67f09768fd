"""Requests over HTTP: what is sent, what comes back, and what is said when something else comes back."""

from __future__ import annotations

import json
import logging
import os
import traceback
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio import CancelScope, Event, create_task_group

from resonate_anyio import BadAnswer, NetworkError, RequestError, ResonateError, TooLarge, UsageError
from resonate_anyio._protocol import (
    Promise,
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    PromiseState,
    RegisterCallback,
    RegisterListener,
    Request,
    ScheduleDelete,
    TaskCreate,
    TaskHeartbeat,
    TaskRef,
    Value,
)
from resonate_anyio.abc import Connection, Dialect
from resonate_anyio.networks import HttpNetwork
from resonate_anyio.testing import VirtualClock

from .helpers import worker
from .scripted import Envelope, Scripted, nothing_there, reply

ME = worker("me")
GET = PromiseGet(id="p")
RECORD = {"id": "p", "state": "pending", "param": {}, "value": {}, "tags": {}, "timeoutAt": 9, "createdAt": 1}


@pytest.fixture
def server() -> Scripted:
    """A server that has nothing and takes everything."""
    return Scripted()


@asynccontextmanager
async def connected(server: Scripted, **options: Any) -> AsyncGenerator[Connection, None]:
    async with HttpNetwork("http://server", transport=server, **options).connect(ME) as connection:
        yield connection


async def failure(server: Scripted, request: Request = GET, **options: Any) -> ResonateError:
    """The error that a request meets. If it was not answered, that says by which server."""
    async with connected(server, **options) as connection:
        with pytest.raises(ResonateError) as caught:
            await connection.request(request)
    error = caught.value
    assert not isinstance(error, NetworkError) or (error.url in str(error) and error.url == "http://server")
    return error


async def test_a_request_is_one_envelope(server: Scripted) -> None:
    """Kind, version, data, a new correlation id, and the token in both places that servers look at."""
    async with connected(server, token="secret", headers={"X-Gateway": "key"}) as connection:
        await connection.request(GET)
        await connection.request(GET)

    first, second = server.requests[-2:]
    assert ("promise.get", {"id": "p"}) == (first["kind"], first["data"])
    assert {"version": "2026-04-01", "auth": "secret"}.items() <= first["head"].items()
    assert first["head"]["corrId"] != second["head"]["corrId"]
    assert ("POST", "http://server/") == (server.raw[-1].method, str(server.raw[-1].url))
    assert ("Bearer secret", "key", "application/json") == tuple(
        server.raw[-1].headers[name] for name in ("authorization", "x-gateway", "content-type")
    )


async def test_without_a_token_none_is_sent(server: Scripted) -> None:
    """A server without authorisation is asked like that."""
    async with connected(server) as connection:
        await connection.request(GET)

    assert "auth" not in server.requests[-1]["head"]
    assert "authorization" not in server.raw[-1].headers


async def test_an_answer_is_read(server: Scripted) -> None:
    """A success has its record."""
    async with connected(server) as connection:
        server.answer = lambda envelope: reply(envelope, 200, {"promise": RECORD})
        response = await connection.request(GET)

    assert isinstance(response.promise, Promise)
    assert "p" == response.promise.id


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 501, 503])
async def test_an_envelope_of_any_status_is_an_answer(server: Scripted, status: int) -> None:
    """What a status means is for others to decide."""
    async with connected(server) as connection:
        server.answer = lambda envelope: reply(envelope, status, "because")
        response = await connection.request(GET)

    assert (status, "because") == (response.status, response.error)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: httpx.Response(502, html="<html>Bad Gateway"), "not JSON: '<html>Bad Gateway'"),
        (lambda _: httpx.Response(200, content=b""), "not JSON"),
        (lambda _: httpx.Response(200, content=b"\xff"), "not JSON"),
        (lambda _: httpx.Response(200, content=b"[" * 100_000), "not JSON"),
        (lambda _: httpx.Response(200, json=[]), "no envelope"),
        (lambda _: httpx.Response(410, json={"error": "gone"}), "no envelope"),
        (lambda _: httpx.Response(200, json={"kind": "promise.get", "head": 7}), "no envelope"),
        (lambda e: reply({**e, "head": {"corrId": "another"}}), "something else"),
        (lambda e: reply({**e, "kind": "promise.create"}), "something else"),
        (lambda e: reply({"kind": "unknown", "head": {"corrId": "0"}}, 500, "panic"), "something else: .*panic"),
        (lambda e: httpx.Response(502, content=reply(e).content), "its envelope says 200"),
        (lambda e: reply(e, 200, {}), "promise"),
        (lambda e: reply(e, 200, "text"), "data"),
        (lambda e: reply(e, 200, {"promise": {**RECORD, "state": "odd"}}), "state"),
        (lambda _: httpx.Response(307, headers={"location": "http://elsewhere/"}), "redirects to 'http://elsewhere/'"),
    ],
)
async def test_what_is_no_answer_is_an_error_that_shows_it(
    server: Scripted, answer: Callable[[Envelope], httpx.Response], reason: str
) -> None:
    """A proxy's page, another protocol, the answer to something else, a redirect: named with what came instead."""
    async with connected(server) as connection:
        server.answer = answer
        with pytest.raises(BadAnswer, match=reason) as caught:
            await connection.request(GET)

    assert ("promise.get", "p") == (caught.value.kind, caught.value.subject)
    assert "answered by http://server with status" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert 3 == len(server.requests)


async def test_a_redirect_is_not_followed_by_an_own_client_either(server: Scripted) -> None:
    """A token must not travel to where a server points."""
    server.poll_answer = lambda: httpx.Response(301, headers={"location": "http://elsewhere/"})
    server.answer = lambda _: httpx.Response(301, headers={"location": "http://elsewhere/"})
    client = httpx.AsyncClient(transport=server, follow_redirects=True)
    async with HttpNetwork("http://server", client=client, token="secret").connect(ME) as connection:
        with pytest.raises(BadAnswer, match="not followed"):
            await connection.request(GET)

    assert {"server"} == {request.url.host for request in server.raw}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectError("no route"), "ConnectError: no route"),
        (httpx.ConnectTimeout(""), "ConnectTimeout"),
        (httpx.ReadError(""), "ReadError"),
        (httpx.RemoteProtocolError("Server disconnected"), "Server disconnected"),
        (httpx.ProxyError("407"), "407"),
        (OSError("broken"), "broken"),
        (anyio.BrokenResourceError(), "BrokenResourceError"),
    ],
)
async def test_a_request_that_was_not_answered_says_so(server: Scripted, error: Exception, reason: str) -> None:
    """Whatever breaks off an exchange is one kind of error, which names the request. It was sent once."""
    async with connected(server) as connection:
        server.answer = _raising(error)
        with pytest.raises(NetworkError, match=reason) as caught:
            await connection.request(GET)

    assert not isinstance(caught.value, BadAnswer)
    assert ("promise.get", "p") == (caught.value.kind, caught.value.subject)
    assert ["promise.get"] == server.kinds()


@pytest.mark.parametrize(
    ("request_", "subject"),
    [
        (PromiseCreate(id="a", timeout_at=1), "a"),
        (TaskCreate(pid="me", ttl=1, action=PromiseCreate(id="b", timeout_at=1)), "b"),
        (RegisterCallback(awaited="c", awaiter="x"), "c"),
        (RegisterListener(awaited="d", address="poll://uni@g/me"), "d"),
        (ScheduleDelete(id="e"), "e"),
        (TaskHeartbeat(pid="me", tasks=(TaskRef("f", 1),)), ""),
        (PromiseSearch(), ""),
    ],
)
async def test_errors_name_what_the_request_is_about(server: Scripted, request_: Request, subject: str) -> None:
    """The id, whatever member of the request has it; nothing for those about none or several."""
    async with connected(server) as connection:
        server.answer = _raising(httpx.ReadError("cut"))
        with pytest.raises(NetworkError) as caught:
            await connection.request(request_)

    assert (request_.kind, subject) == (caught.value.kind, caught.value.subject)


async def test_a_request_is_given_up_in_time(server: Scripted) -> None:
    """However slowly a server answers, a request ends when leases reckon with it."""
    async with connected(server, request_timeout=3) as connection:
        server.answer = _never
        began = anyio.current_time()
        with pytest.raises(NetworkError, match="no answer within 3 s"):
            await connection.request(GET)

    assert 3 == pytest.approx(anyio.current_time() - began)


async def test_waiting_for_others_counts(server: Scripted) -> None:
    """A request that waits until others are done is not sent after its time: its lease may be gone by then."""
    async with connected(server, request_timeout=3) as connection, create_task_group() as tasks:
        server.answer = _never
        for _ in range(50):
            tasks.start_soon(_failing, connection)
        await anyio.sleep(1)
        sent = len(server.requests)
        with pytest.raises(NetworkError, match="no answer within 3 s"):
            await connection.request(GET)

    assert 52 == sent
    assert 53 >= len(server.requests)


async def test_finding_out_about_the_server_counts(server: Scripted) -> None:
    """A request that has to wait until the server was probed is given up in time as well."""
    server.answer = _never
    async with connected(server, request_timeout=3) as connection:
        began = anyio.current_time()
        with pytest.raises(NetworkError, match="'p' was not answered by http://server: no answer within 3 s"):
            await connection.request(GET)

    assert 3 == pytest.approx(anyio.current_time() - began)


async def test_what_is_too_large_is_not_sent(server: Scripted) -> None:
    """The limit counts the bytes of the whole envelope; the error tells both sizes."""
    settle = PromiseSettle(id="p", state=PromiseState.RESOLVED, value=Value(data="x" * 1000))
    async with connected(server, max_body=1000) as connection:
        with pytest.raises(TooLarge) as caught:
            await connection.request(settle)
        await connection.request(GET)

    assert ("promise.settle", "p", 1000) == (caught.value.kind, caught.value.subject, caught.value.limit)
    assert 1000 < caught.value.size
    assert ["promise.get"] == server.kinds()


async def test_the_limit_is_exact(server: Scripted) -> None:
    """A request of exactly the limit is sent, and one of a byte more is not; 2 MiB unless told otherwise."""
    async with connected(server) as connection:
        await connection.request(PromiseGet(id=""))
        empty = int(server.raw[-1].headers["content-length"])
        most = 2 * 1024 * 1024 - empty
        await connection.request(PromiseGet(id="x" * most))
        with pytest.raises(TooLarge):
            await connection.request(PromiseGet(id="x" * (most + 1)))


async def test_a_server_may_have_another_limit(server: Scripted) -> None:
    """413 comes without an envelope, from the server or from a proxy before it."""
    async with connected(server) as connection:
        server.answer = lambda _: httpx.Response(413, text="length limit exceeded")
        with pytest.raises(TooLarge) as caught:
            await connection.request(GET)

    assert ("promise.get", "p", None) == (caught.value.kind, caught.value.subject, caught.value.limit)


async def test_a_cancelled_request_is_not_sent(server: Scripted) -> None:
    """A cancellation that is there first is delivered first."""
    async with connected(server) as connection:
        with CancelScope() as scope:
            scope.cancel()
            await connection.request(GET)

    assert scope.cancelled_caught
    assert [] == server.kinds()


async def test_a_request_that_is_sent_runs_to_its_end(server: Scripted) -> None:
    """A cancellation that comes later is delivered after the answer, by whatever waits next."""
    answers = []
    async with connected(server) as connection:
        server.answer = _after(2)
        with anyio.move_on_after(1) as scope:
            answers.append((await connection.request(GET)).status)
            await anyio.sleep(10)

    assert [404] == answers
    assert scope.cancelled_caught


async def test_a_request_that_waits_for_others_can_be_cancelled(server: Scripted) -> None:
    """As long as it is not sent it had no effect."""
    async with connected(server) as connection, create_task_group() as tasks:
        server.answer = _after(2)
        for _ in range(50):
            tasks.start_soon(connection.request, GET)
        await anyio.sleep(1)
        with anyio.move_on_after(0.5) as scope:
            await connection.request(GET)

    assert scope.cancelled_caught
    assert 50 == len(server.kinds())


# --- probing --------------------------------------------------------------------------------------------------------


async def test_a_server_is_probed_once_and_first(server: Scripted) -> None:
    """Two heartbeats before anything else, whoever asks first."""
    async with connected(server) as connection:
        assert Dialect(separator=".", origins_mix=True) == connection.dialect
        await connection.request(GET)

    assert ["task.heartbeat", "task.heartbeat", "promise.get"] == [each["kind"] for each in server.requests]


async def test_a_server_with_colons_is_found_out(server: Scripted) -> None:
    """It refuses a heartbeat for what it takes for two roots."""
    server.answer = lambda envelope: reply(envelope, 400 if "." in json.dumps(envelope["data"]["tasks"]) else 200)
    async with connected(server) as connection:
        assert Dialect(separator=":", origins_mix=False) == connection.dialect


async def test_a_server_that_comes_late_is_probed_late(server: Scripted) -> None:
    """One that is away at the start is no error; the first request that reaches it is held until it was probed."""
    server.answer = _raising(httpx.ConnectError("refused"))
    server.poll_answer = lambda: httpx.ConnectError("refused")
    async with connected(server) as connection:
        with pytest.raises(NetworkError, match="'p' was not answered by http://server: ConnectError: refused"):
            await connection.request(GET)
        careful = connection.dialect
        server.requests.clear()
        server.answer = _after(1)
        async with create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(connection.request, GET)

        assert Dialect(separator=".", origins_mix=False) == careful
        assert Dialect(separator=".", origins_mix=True) == connection.dialect

    assert ["promise.get"] * 5 == server.kinds()


async def test_a_page_instead_of_a_server_is_named_with_the_request(server: Scripted) -> None:
    """What goes wrong in probing is told as the request's own failure, for it was not sent."""
    server.answer = lambda _: httpx.Response(200, html="<html>Welcome")

    error = await failure(server)

    assert isinstance(error, BadAnswer)
    assert ("promise.get", "p", 200) == (error.kind, error.subject, error.status)


async def test_a_server_that_fails_is_probed_again(server: Scripted) -> None:
    """A failure of its storage says nothing about ids."""
    server.answer = lambda envelope: reply(envelope, 500, "Internal error")
    async with connected(server) as connection:
        with pytest.raises(NetworkError, match=r"by http://server: .*Internal error"):
            await connection.request(GET)
        server.answer = nothing_there

        assert 404 == (await connection.request(GET)).status


async def test_a_refused_token_is_an_error_at_the_start(server: Scripted) -> None:
    """Whoever is not let in is told at once, and not by requests that fail for ever."""
    server.answer = lambda envelope: reply(envelope, 401, "Unauthorized")
    with pytest.raises(RequestError, match="Unauthorized") as caught:
        async with connected(server, token="secret"):
            pass

    assert 401 == caught.value.status
    assert all(poll.closed.is_set() for poll in server.polls)


async def test_a_token_without_a_known_prefix_is_treated_with_care(server: Scripted) -> None:
    """403 says that other ids are allowed, and nothing about how ids are read."""
    server.answer = lambda envelope: reply(envelope, 403, "Forbidden")
    async with connected(server, token="opaque") as connection:
        assert Dialect(separator=".", origins_mix=False) == connection.dialect


async def test_a_token_with_a_prefix_is_probed_within_it(server: Scripted) -> None:
    """Ids that the token is not good for would be refused, which says nothing about how ids are read."""

    def limited(envelope: Envelope) -> httpx.Response:
        ids = [task["id"] for task in envelope["data"]["tasks"]]
        return reply(envelope) if all(id.startswith("app1") for id in ids) else reply(envelope, 403, "Forbidden")

    server.answer = limited
    payload = urlsafe_b64encode(b'{"prefix": "app1"}').decode().rstrip("=")
    async with connected(server, token=f"e30.{payload}.x") as connection:
        assert Dialect(separator=".", origins_mix=True) == connection.dialect


async def test_a_server_that_is_away_is_reported_once(server: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """It is no error of the start: the log has a warning, and whoever asks for something has an error."""
    server.answer = _raising(httpx.ConnectError("refused"))
    server.poll_answer = lambda: httpx.ConnectError("refused")
    async with connected(server):
        await anyio.sleep(600)

    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "refused" in warning.message


# --- life -----------------------------------------------------------------------------------------------------------


async def test_a_closed_connection_says_so(server: Scripted) -> None:
    """After its block a connection refuses requests with the remedy."""
    async with connected(server) as connection:
        pass

    with pytest.raises(UsageError, match=r"inside `async with network\.connect"):
        await connection.request(GET)


async def test_a_forked_child_is_refused(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that write to one socket would garble each other's requests."""
    async with connected(server) as connection:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(UsageError, match="before a fork"):
            await connection.request(GET)
        monkeypatch.undo()


async def test_errors_of_the_block_are_not_wrapped(server: Scripted) -> None:
    """Whatever the block raises comes out as it was."""
    with pytest.raises(LookupError):
        async with connected(server):
            raise LookupError


async def test_several_share_a_network(server: Scripted) -> None:
    """Each connection has its own stream, and the end of one leaves the other."""
    network = HttpNetwork("http://server", transport=server)
    async with network.connect(worker("b")) as second:
        async with network.connect(worker("a")) as first:
            await first.request(GET)
        await second.request(GET)

    assert ["/poll/g/b", "/poll/g/a"] == [poll.path for poll in server.polls]
    assert not server.closed


async def test_an_own_client_is_left_open(server: Scripted) -> None:
    """Whoever made it closes it; its own headers go along."""
    client = httpx.AsyncClient(transport=server, headers={"X-Own": "1"})
    async with HttpNetwork("http://server", client=client).connect(ME) as connection:
        await connection.request(GET)

    assert not client.is_closed
    assert "1" == server.raw[-1].headers["x-own"]
    await client.aclose()


async def test_the_server_tells_the_time(server: Scripted, clock: VirtualClock) -> None:
    """A client whose clock is an hour slow dates its promises by the server's."""
    server.answer = lambda envelope: reply(envelope, 404, "", Date="Tue, 14 Nov 2023 23:13:20 GMT")
    async with connected(server, clock=clock) as connection:
        assert pytest.approx(1_700_003_600_000, abs=1000) == connection.now()


# --- the token ------------------------------------------------------------------------------------------------------

SECRET = "s3cret-t0ken"


@pytest.mark.parametrize(
    "answer",
    [
        lambda e: httpx.Response(502, text=f"you sent {e['head']['auth']}"),
        lambda e: reply(e, 500, f"no {e['head']['auth']}"),
        lambda e: reply(e, 200, {"promise": {**RECORD, "state": e["head"]["auth"]}}),
        lambda e: httpx.Response(302, headers={"location": f"http://x/?t={e['head']['auth']}"}),
        lambda e: _raise(httpx.RemoteProtocolError(f"illegal header {e['head']['auth']}")),
        lambda e: reply(e, 200, {"action": {"kind": "promise.get", "head": {"status": 404}, "data": SECRET}}),
    ],
)
async def test_a_server_that_repeats_the_token_does_not_spread_it(
    server: Scripted, answer: Callable[[Envelope], httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither errors nor answers nor tracebacks nor the log have it, whatever comes back."""
    caplog.set_level(logging.DEBUG)
    server.poll_answer = lambda: httpx.Response(403, text=f"not {SECRET}")
    texts = []
    async with connected(server, token=SECRET) as connection:
        server.answer = answer
        try:
            texts.append(repr(await connection.request(GET)))
        except NetworkError as error:
            texts += [repr(error), str(error), *traceback.format_exception(error)]
            texts += [repr(error.__cause__), repr(error.__context__)]
        texts.append(repr(connection))

    assert SECRET not in " ".join(texts)
    assert texts
    assert SECRET not in caplog.text
    assert "[token]" in caplog.text


def _raising(error: Exception) -> Callable[[Envelope], httpx.Response]:
    return lambda _: _raise(error)


def _raise(error: Exception) -> httpx.Response:
    raise error


async def _never(_: Envelope) -> httpx.Response:
    await Event().wait()
    raise AssertionError


def _after(seconds: float) -> Any:
    async def answer(envelope: Envelope) -> httpx.Response:
        await anyio.sleep(seconds)
        return nothing_there(envelope)

    return answer


async def _failing(connection: Connection) -> None:
    with pytest.raises(NetworkError):
        await connection.request(GET)
