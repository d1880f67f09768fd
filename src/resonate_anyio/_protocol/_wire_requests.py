"""The `data` of every request as JSON, in both directions (docs/protocol.md 8)."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, Final

from ._json import Json, anything, array, defaulted, integer, members, optional, required, text, texts
from ._messages import (
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    RegisterCallback,
    RegisterListener,
    Request,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    ScheduleSearch,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRef,
    TaskRelease,
    TaskSearch,
    TaskSuspend,
)
from ._records import EMPTY, NO_TAGS, Missed, PromiseState
from ._wire_records import decode_value, encode_missed, encode_value, missed, promise_state, task_state

# --- decoding -------------------------------------------------------------------------------------------------------


def _id(data: Json) -> str:
    return required(data, "id", text)


def _version(data: Json) -> int:
    return required(data, "version", integer)


def _settling(value: object) -> PromiseState:
    state = promise_state(value)
    if state in {PromiseState.PENDING, PromiseState.TIMEDOUT}:
        raise ValueError(f"unknown variant `{state}`")

    return state


def _promise_create(document: object) -> PromiseCreate:
    data = members(document)
    return PromiseCreate(
        id=_id(data),
        timeout_at=required(data, "timeoutAt", integer),
        param=defaulted(data, "param", decode_value, EMPTY),
        tags=defaulted(data, "tags", texts, NO_TAGS),
    )


def _promise_settle(document: object) -> PromiseSettle:
    data = members(document)
    return PromiseSettle(
        id=_id(data),
        state=required(data, "state", _settling),
        value=defaulted(data, "value", decode_value, EMPTY),
    )


def _register_callback(document: object) -> RegisterCallback:
    data = members(document)
    return RegisterCallback(awaited=required(data, "awaited", text), awaiter=required(data, "awaiter", text))


def _register_listener(data: Json) -> RegisterListener:
    return RegisterListener(awaited=required(data, "awaited", text), address=required(data, "address", text))


def _promise_search(data: Json) -> PromiseSearch:
    return PromiseSearch(
        state=optional(data, "state", promise_state),
        tags=optional(data, "tags", texts) or NO_TAGS,
        limit=_limit(data, 100),
        cursor=optional(data, "cursor", text),
    )


def _limit(data: Json, default: int) -> int:
    limit = optional(data, "limit", integer)
    return default if limit is None else limit


def _nested(document: object) -> object:
    """Return the data of a nested action. Its kind and head must be present, and are ignored (docs/protocol.md 8.0)."""
    action = members(document)
    required(action, "kind", text)
    required(action, "head", anything)
    return required(action, "data", anything)


def _task_create(data: Json) -> TaskCreate:
    return TaskCreate(
        pid=required(data, "pid", text),
        ttl=required(data, "ttl", integer),
        action=required(data, "action", lambda action: _promise_create(_nested(action))),
    )


def _task_acquire(data: Json) -> TaskAcquire:
    return TaskAcquire(
        id=_id(data),
        version=_version(data),
        pid=required(data, "pid", text),
        ttl=required(data, "ttl", integer),
    )


def _task_fulfill(data: Json) -> TaskFulfill:
    return TaskFulfill(
        id=_id(data),
        version=_version(data),
        action=required(data, "action", lambda action: _promise_settle(_nested(action))),
    )


def _task_suspend(data: Json) -> TaskSuspend:
    actions = [_register_callback(_nested(action)) for action in required(data, "actions", array)]
    return TaskSuspend(
        id=_id(data),
        version=_version(data),
        awaited=tuple(action.awaited for action in actions),
        awaiters=tuple(action.awaiter for action in actions),
    )


_FENCED: Final[dict[str, Callable[[object], PromiseCreate | PromiseSettle]]] = {
    "promise.create": _promise_create,
    "promise.settle": _promise_settle,
}


def _task_fence(data: Json) -> TaskFence:
    id, version, action = _id(data), _version(data), required(data, "action", members)
    kind, inner = required(action, "kind", text), required(action, "data", anything)
    optional(action, "head", anything)
    named = inner.get("id") if isinstance(inner, dict) else None
    action_id = named if isinstance(named, str) else ""

    try:
        decoded = _FENCED[kind](inner)
    except KeyError:
        error = "Invalid fence action kind"
    except ValueError as reason:
        error = f"Invalid action data: {reason}"
    else:
        return TaskFence(id=id, version=version, action=decoded, action_id=action_id)

    return TaskFence(id=id, version=version, action=None, action_id=action_id, action_error=error)


def _task_ref(document: object) -> TaskRef:
    ref = members(document)
    return TaskRef(_id(ref), _version(ref))


def _task_heartbeat(data: Json) -> TaskHeartbeat:
    return TaskHeartbeat(pid=required(data, "pid", text), tasks=tuple(map(_task_ref, required(data, "tasks", array))))


def _task_search(data: Json) -> TaskSearch:
    return TaskSearch(
        state=optional(data, "state", task_state), limit=_limit(data, 100), cursor=optional(data, "cursor", text)
    )


def _schedule_create(data: Json) -> ScheduleCreate:
    return ScheduleCreate(
        id=_id(data),
        cron=required(data, "cron", text),
        promise_id=required(data, "promiseId", text),
        promise_timeout=required(data, "promiseTimeout", integer),
        promise_param=defaulted(data, "promiseParam", decode_value, EMPTY),
        promise_tags=defaulted(data, "promiseTags", texts, NO_TAGS),
        missed=defaulted(data, "missed", missed, Missed.ALL),
    )


def _schedule_search(data: Json) -> ScheduleSearch:
    return ScheduleSearch(
        tags=optional(data, "tags", texts) or NO_TAGS, limit=_limit(data, 10), cursor=optional(data, "cursor", text)
    )


DECODERS: Final[dict[str, Callable[[Json], Request]]] = {
    PromiseGet.kind: lambda data: PromiseGet(id=_id(data)),
    PromiseCreate.kind: _promise_create,
    PromiseSettle.kind: _promise_settle,
    RegisterCallback.kind: _register_callback,
    RegisterListener.kind: _register_listener,
    PromiseSearch.kind: _promise_search,
    TaskGet.kind: lambda data: TaskGet(id=_id(data)),
    TaskCreate.kind: _task_create,
    TaskAcquire.kind: _task_acquire,
    TaskRelease.kind: lambda data: TaskRelease(id=_id(data), version=_version(data)),
    TaskFulfill.kind: _task_fulfill,
    TaskSuspend.kind: _task_suspend,
    TaskFence.kind: _task_fence,
    TaskHeartbeat.kind: _task_heartbeat,
    TaskHalt.kind: lambda data: TaskHalt(id=_id(data)),
    TaskContinue.kind: lambda data: TaskContinue(id=_id(data)),
    TaskSearch.kind: _task_search,
    ScheduleGet.kind: lambda data: ScheduleGet(id=_id(data)),
    ScheduleCreate.kind: _schedule_create,
    ScheduleDelete.kind: lambda data: ScheduleDelete(id=_id(data)),
    ScheduleSearch.kind: _schedule_search,
}
"""The decoder for each kind of request. A decoder raises `ValueError` if the data has another shape."""


# --- encoding -------------------------------------------------------------------------------------------------------


@singledispatch
def encode_data(request: Any, head: Json) -> dict[str, Any]:  # noqa: ARG001 - the fallback of a dispatch
    """Return the data of a request. Each nested action gets a copy of `head`."""
    raise TypeError(f"{type(request).__name__} is not a request")


def _nest(kind: str, head: Json, data: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "head": dict(head), "data": data}


@encode_data.register(PromiseGet)
@encode_data.register(TaskGet)
@encode_data.register(TaskHalt)
@encode_data.register(TaskContinue)
@encode_data.register(ScheduleGet)
@encode_data.register(ScheduleDelete)
def _(
    request: PromiseGet | TaskGet | TaskHalt | TaskContinue | ScheduleGet | ScheduleDelete, _: Json
) -> dict[str, Any]:
    return {"id": request.id}


@encode_data.register
def _(request: PromiseCreate, _: Json) -> dict[str, Any]:
    return {
        "id": request.id,
        "timeoutAt": request.timeout_at,
        "param": encode_value(request.param),
        "tags": dict(request.tags),
    }


@encode_data.register
def _(request: PromiseSettle, _: Json) -> dict[str, Any]:
    return {"id": request.id, "state": request.state.value, "value": encode_value(request.value)}


@encode_data.register
def _(request: RegisterCallback, _: Json) -> dict[str, Any]:
    return {"awaited": request.awaited, "awaiter": request.awaiter}


@encode_data.register
def _(request: RegisterListener, _: Json) -> dict[str, Any]:
    return {"awaited": request.awaited, "address": request.address}


def _page(limit: int, cursor: str | None, **filters: object) -> dict[str, Any]:
    return {name: value for name, value in {**filters, "limit": limit, "cursor": cursor}.items() if value is not None}


@encode_data.register
def _(request: PromiseSearch, _: Json) -> dict[str, Any]:
    state = None if request.state is None else request.state.value
    return _page(request.limit, request.cursor, state=state, tags=dict(request.tags))


@encode_data.register
def _(request: TaskSearch, _: Json) -> dict[str, Any]:
    return _page(request.limit, request.cursor, state=None if request.state is None else request.state.value)


@encode_data.register
def _(request: ScheduleSearch, _: Json) -> dict[str, Any]:
    return _page(request.limit, request.cursor, tags=dict(request.tags))


@encode_data.register
def _(request: TaskCreate, head: Json) -> dict[str, Any]:
    action = _nest(request.action.kind, head, encode_data(request.action, head))
    return {"pid": request.pid, "ttl": request.ttl, "action": action}


@encode_data.register
def _(request: TaskAcquire, _: Json) -> dict[str, Any]:
    return {"id": request.id, "version": request.version, "pid": request.pid, "ttl": request.ttl}


@encode_data.register
def _(request: TaskRelease, _: Json) -> dict[str, Any]:
    return {"id": request.id, "version": request.version}


@encode_data.register
def _(request: TaskFulfill, head: Json) -> dict[str, Any]:
    action = _nest(request.action.kind, head, encode_data(request.action, head))
    return {"id": request.id, "version": request.version, "action": action}


@encode_data.register
def _(request: TaskSuspend, head: Json) -> dict[str, Any]:
    pairs = zip(request.awaited, request.awaiters, strict=True)
    actions = [_nest(RegisterCallback.kind, head, {"awaited": one, "awaiter": by}) for one, by in pairs]
    return {"id": request.id, "version": request.version, "actions": actions}


@encode_data.register
def _(request: TaskFence, head: Json) -> dict[str, Any]:
    if request.action is None:
        raise ValueError("a fence whose inner operation did not decode cannot be sent on")

    action = _nest(request.action.kind, head, encode_data(request.action, head))
    return {"id": request.id, "version": request.version, "action": action}


@encode_data.register
def _(request: TaskHeartbeat, _: Json) -> dict[str, Any]:
    return {"pid": request.pid, "tasks": [{"id": task.id, "version": task.version} for task in request.tasks]}


@encode_data.register
def _(request: ScheduleCreate, _: Json) -> dict[str, Any]:
    said = encode_missed(request.missed)
    return {
        "id": request.id,
        "cron": request.cron,
        "promiseId": request.promise_id,
        "promiseTimeout": request.promise_timeout,
        "promiseParam": encode_value(request.promise_param),
        "promiseTags": dict(request.promise_tags),
        **({} if said is None else {"missed": said}),
    }
