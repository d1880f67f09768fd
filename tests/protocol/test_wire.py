"""Envelopes, requests, responses and messages as JSON."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from resonate_anyio._protocol import (
    EMPTY,
    RELEASE,
    BadRequest,
    Envelope,
    Execute,
    Message,
    NotProtocol,
    Promise,
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    PromiseState,
    RegisterCallback,
    Request,
    Response,
    ScheduleDelete,
    ScheduleSearch,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskHeartbeat,
    TaskRecord,
    TaskRef,
    TaskSearch,
    TaskState,
    TaskSuspend,
    Unblock,
    Value,
    decode_message,
    decode_promise,
    decode_request,
    decode_response,
    encode_message,
    encode_promise,
    encode_request,
    encode_response,
    open_envelope,
    read_envelope,
    tick_time,
)

HEAD = {"corrId": "c1", "version": "2026-04-01"}
PROMISE = Promise(id="p", timeout_at=9, created_at=1)


def raw(kind: object = "promise.get", head: object = HEAD, data: object = {"id": "none"}) -> str:
    return json.dumps({"kind": kind, "head": head, "data": data})


def request(kind: str, data: dict[str, Any]) -> Request:
    return decode_request(open_envelope({"kind": kind, "head": HEAD, "data": data}))


# --- envelopes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "corr_id"),
    [
        ("", "unknown", "0"),
        ("{", "unknown", "0"),
        ("null", "unknown", "0"),
        ("[]", "unknown", "0"),
        ("[" * 100_000 + "]" * 100_000, "unknown", "0"),
        ("{}", "unknown", "0"),
        (b"\xff\xfe", "unknown", "0"),
        ("\ufeff" + raw(), "unknown", "0"),
        ("\ufeff".encode() + raw().encode(), "unknown", "0"),
        (raw() + " trailing", "unknown", "0"),
        ('{"kind": NaN}', "unknown", "0"),
        (raw(kind=5), "unknown", "c1"),
        (raw(kind=""), "", "c1"),
        (raw(kind="\ud800"), "\ud800", "c1"),
        (raw(head="x"), "promise.get", "0"),
        (raw(head={}), "promise.get", "0"),
        (raw(head={"corrId": 5, "version": "2026-04-01"}), "promise.get", "0"),
        (raw(head={"corrId": "c1"}), "promise.get", "c1"),
        (raw(head={**HEAD, "version": "2025-01-15"}), "promise.get", "c1"),
        (raw(head={**HEAD, "auth": 5}), "promise.get", "c1"),
        (raw(head={**HEAD, "resonate:debug_time": 5.0}), "promise.get", "c1"),
        (raw(head={**HEAD, "resonate:debug_time": True}), "promise.get", "c1"),
        (raw(data=None), "promise.get", "c1"),
        (raw(data=[]), "promise.get", "c1"),
        ('{"kind":"promise.get","kind":"promise.get","head":{"corrId":"c1"},"data":{}}', "promise.get", "c1"),
        ('{"kind":"k","head":{"corrId":"c0","corrId":"c1","version":"2026-04-01"},"data":{}}', "k", "c1"),
    ],
)
def test_broken_envelope(body: str | bytes, kind: str, corr_id: str) -> None:
    """A broken envelope is a 400 that echoes what could be made out."""
    with pytest.raises(BadRequest) as refused:
        read_envelope(body)

    assert (400, kind, corr_id) == (refused.value.status, refused.value.kind, refused.value.corr_id)
    assert str(refused.value)


def test_sound_envelope() -> None:
    """Unknown members, nulls, white space, and a member that occurs twice in the data are all fine."""
    head = {**HEAD, "auth": None, "resonate:debug_time": None, "extra": {"a": 1}}
    body = raw(head=head).replace('{"id": "none"}', '{"id": "none", "id": "p"}') + " \n "

    envelope = read_envelope(body.encode())

    assert Envelope(kind="promise.get", corr_id="c1", data={"id": "p"}) == envelope
    assert PromiseGet(id="p") == decode_request(envelope)


def test_credentials_are_not_shown() -> None:
    """The token of an envelope does not leak through its repr."""
    assert "secret" not in repr(read_envelope(raw(head={**HEAD, "auth": "secret"})))


@pytest.mark.parametrize(
    ("kind", "status"), [("nope", 400), ("PROMISE.GET", 400), ("debug.nope", 400), ("debug.tick", 403)]
)
def test_unknown_operation(kind: str, status: int) -> None:
    """There are no other operations, and the debug ones are not for everybody."""
    with pytest.raises(BadRequest) as refused:
        request(kind, {})

    assert status == refused.value.status


# --- requests -------------------------------------------------------------------------------------------------------

CREATE = PromiseCreate(id="p", timeout_at=5, param=Value("ZGF0YQ==", {"h": "1"}), tags={"a": "b"})
SETTLE = PromiseSettle(id="p", state=PromiseState.CANCELED, value=Value(""))


@pytest.mark.parametrize(
    "sent",
    [
        CREATE,
        SETTLE,
        PromiseSearch(state=PromiseState.TIMEDOUT, tags={"a": "b"}, limit=3, cursor=""),
        PromiseSearch(),
        TaskSearch(state=TaskState.HALTED, limit=7, cursor="x"),
        TaskSearch(),
        ScheduleSearch(tags={"a": "b"}),
        ScheduleDelete(id="s"),
        TaskCreate(pid="w", ttl=5, action=CREATE),
        TaskFulfill(id="p", version=1, action=SETTLE),
        TaskSuspend(id="p", version=1, awaited=("a", "b"), awaiters=("p", "p")),
        TaskFence(id="t", version=1, action=CREATE, action_id="p"),
        TaskFence(id="t", version=1, action=SETTLE, action_id="p"),
        TaskHeartbeat(pid="w", tasks=(TaskRef("a", 1), TaskRef("b", 2))),
    ],
)
def test_request_round_trip(sent: Request) -> None:
    """What one side encodes the other side decodes."""
    document = json.loads(json.dumps(encode_request(sent, "c", auth="t", debug_time=3)))

    envelope = open_envelope(document)

    assert ("c", "t", 3) == (envelope.corr_id, envelope.auth, envelope.debug_time)
    assert sent == decode_request(envelope)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("promise.get", {"id": "\ud800"}),
        ("promise.get", {"id": True}),
        ("promise.create", {"id": "p", "timeoutAt": 2**63}),
        ("promise.create", {"id": "p", "timeoutAt": -(2**63) - 1}),
        ("promise.create", {"id": "p", "timeoutAt": 1.0}),
        ("promise.create", {"id": "p", "timeoutAt": 1, "tags": {"a": 1}}),
        ("promise.create", {"id": "p", "timeoutAt": 1, "param": {"headers": {"a": None}}}),
        ("promise.settle", {"id": "p", "state": "rejected_timedout"}),
        ("promise.search", {"state": "nope"}),
        ("task.suspend", {"id": "p", "version": 1, "actions": {"a": 1}}),
        ("task.suspend", {"id": "p", "version": 1, "actions": [{"kind": "", "data": {"awaited": "", "awaiter": ""}}]}),
    ],
)
def test_undecodable_request(kind: str, data: dict[str, Any]) -> None:
    """Nothing is coerced."""
    with pytest.raises(BadRequest, match="Invalid request: ") as refused:
        request(kind, data)

    assert 400 == refused.value.status


@pytest.mark.parametrize(
    ("action", "action_id", "error"),
    [
        ({"kind": "promise.get", "data": {"id": "x"}}, "x", "Invalid fence action kind"),
        ({"kind": "promise.create", "data": None}, "", "Invalid action data: expected an object, not null"),
        ({"kind": "promise.settle", "data": {"id": 5}}, "", "Invalid action data: id: expected a string, not 5"),
    ],
)
def test_undecodable_fence(action: dict[str, Any], action_id: str, error: str) -> None:
    """A fence whose inner operation is broken is still a request: the machine answers it after the touch."""
    fence = request("task.fence", {"id": "t", "version": 1, "action": action})

    assert TaskFence(id="t", version=1, action=None, action_id=action_id, action_error=error) == fence
    with pytest.raises(ValueError, match="cannot be sent on"):
        encode_request(fence, "c")


def test_not_a_request() -> None:
    """Something else cannot be encoded as a request."""
    with pytest.raises(TypeError, match="SimpleNamespace is not a request"):
        encode_request(cast("Any", SimpleNamespace(kind="promise.get")), "c")


# --- responses ------------------------------------------------------------------------------------------------------

TASK = TaskRecord(id="p", state=TaskState.ACQUIRED, version=1, resumes=0, ttl=5, pid="w")
FENCE = TaskFence(id="t", version=1, action=SETTLE, action_id="p")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (PromiseGet(id="p"), Response(status=200, promise=PROMISE)),
        (PromiseGet(id="p"), Response(status=404, error="Promise not found")),
        (PromiseSearch(), Response(status=200, promises=(PROMISE,), cursor="p")),
        (PromiseSearch(), Response(status=200)),
        (TaskSearch(), Response(status=200, tasks=(TASK,))),
        (TaskCreate(pid="w", ttl=5, action=CREATE), Response(status=200, task=TASK, promise=PROMISE)),
        (TaskSuspend(id="p", version=1, awaited=("a",), awaiters=("p",)), Response(status=200)),
        (
            TaskSuspend(id="p", version=1, awaited=("a",), awaiters=("p",)),
            Response(status=300, preload=(PROMISE,)),
        ),
        (FENCE, Response(status=200, action=Response(status=200, promise=PROMISE), preload=(PROMISE,))),
        (FENCE, Response(status=200, action=Response(status=404, error="Promise not found"))),
        (FENCE, Response(status=409, error="Version mismatch")),
        (ScheduleDelete(id="s"), Response(status=200)),
    ],
)
def test_response_round_trip(asked: Request, answered: Response) -> None:
    """What the server encodes the client decodes."""
    document = json.loads(json.dumps(encode_response(asked, answered, "c")))

    assert (asked.kind, "c") == (document["kind"], document["head"]["corrId"])
    assert answered == decode_response(asked.kind, document)


def test_error_without_a_text() -> None:
    """An error is always a text on the wire, and something other than a text does no harm."""
    assert "" == encode_response(PromiseGet(id="p"), Response(status=500), "c")["data"]
    assert Response(status=500, error="status 500") == decode_response("promise.get", {"head": {"status": 500}})


@pytest.mark.parametrize(
    "document",
    [
        None,
        "<html>",
        {"error": "gone"},
        {"head": {"status": "200"}, "data": {}},
        {"head": {"status": 200}, "data": "text"},
        {"head": {"status": 200}, "data": {}},
        {"head": {"status": 200}, "data": {"promise": {**encode_promise(PROMISE), "state": "new"}}},
    ],
)
def test_not_a_response(document: object) -> None:
    """A proxy's page is told from an answer."""
    with pytest.raises(NotProtocol, match=r"promise\.get"):
        decode_response("promise.get", document)


def test_records_of_a_sparser_server() -> None:
    """Members that only some servers send are not insisted on."""
    sparse = {"id": "p", "state": "pending", "timeoutAt": 9, "createdAt": 1}

    assert PROMISE == decode_promise(sparse)
    assert Response(status=300) == decode_response("task.suspend", {"head": {"status": 300}, "data": {}})


@pytest.mark.parametrize("value", [EMPTY, Value(""), Value(None, {}), Value("x", {"a": "b"})])
def test_value_round_trip(value: Value) -> None:
    """Absent, empty and null are three things."""
    promise = Promise(id="p", param=value, timeout_at=9, created_at=1)

    assert promise == decode_promise(json.loads(json.dumps(encode_promise(promise))))
    assert EMPTY == decode_promise({**encode_promise(promise), "param": {"data": None, "headers": None}}).param


# --- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [Execute("t", 3), Unblock(PROMISE)])
def test_message_round_trip(message: Message) -> None:
    """What the server sends the worker reads."""
    assert message == decode_message(json.loads(json.dumps(encode_message(message, "http://h"))))


def test_message_head() -> None:
    """An execute tells where its server is, if that is known."""
    assert {"serverUrl": "http://h"} == encode_message(Execute("t", 0), "http://h")["head"]
    assert {} == encode_message(Execute("t", 0))["head"]


@pytest.mark.parametrize(
    "document", [None, {}, {"kind": "notify", "data": {}}, {"kind": "execute", "data": {"task": {"id": "t"}}}]
)
def test_not_a_message(document: object) -> None:
    """What is no message is told from one."""
    with pytest.raises(NotProtocol):
        decode_message(document)


# --- debug ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [{}, {"time": None}, {"time": 1.5}, {"time": True}])
def test_tick_without_a_time(data: dict[str, Any]) -> None:
    """A tick needs an instant."""
    with pytest.raises(BadRequest, match="'time'"):
        tick_time(Envelope(kind="debug.tick", corr_id="c", data=data), RELEASE)


def test_callback_kind_is_not_looked_at() -> None:
    """The kind and the head of a nested action mean nothing."""
    data = {"awaited": "a", "awaiter": "p"}
    nested = {"kind": "?", "head": None, "data": data}

    assert RegisterCallback(awaited="a", awaiter="p") == request("promise.register_callback", data)
    assert TaskSuspend(id="p", version=1, awaited=("a",), awaiters=("p",)) == request(
        "task.suspend", {"id": "p", "version": 1, "actions": [nested]}
    )
