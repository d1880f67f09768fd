"""Envelopes, responses (docs/protocol.md 3) and messages (docs/protocol.md 11.1) as JSON, in both directions.

A client encodes requests, and decodes responses and messages. A server does the opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from attrs import field, frozen

from .._values import ValueObject
from ._json import Json, anything, array, integer, loads, members, optional, required, text
from ._messages import Execute, Message, Request, Response, TaskFence, Unblock
from ._wire_records import decode_promise, decode_schedule, decode_task, encode_promise, encode_schedule, encode_task
from ._wire_requests import DECODERS, encode_data

T = TypeVar("T")

VERSION: Final = "2026-04-01"
"""The protocol version, which is in every envelope."""

KINDS: Final = frozenset(DECODERS)
"""The operations on promises, tasks and schedules."""

MAX_BODY: Final = 2 * 1024 * 1024
"""Maximum size in bytes of a request over HTTP (docs/protocol.md 2)."""

DEBUG_KINDS: Final = frozenset({"debug.start", "debug.stop", "debug.reset", "debug.snap", "debug.tick"})

_RUN_AGAIN: Final = 300
_OK: Final = frozenset({200, _RUN_AGAIN})


class BadRequest(Exception):
    """A request is refused before it reaches the state machine.

    Attributes:
        status: the status of the response.
        text: the error message of the response.
        kind: the kind of the request, or `unknown`.
        corr_id: the correlation id of the request, or `0`.
    """

    def __init__(self, status: int, text: str, kind: str, corr_id: str) -> None:
        super().__init__(status, text, kind, corr_id)
        self.status = status
        self.text = text
        self.kind = kind
        self.corr_id = corr_id

    def __str__(self) -> str:
        return self.text


class NotProtocol(ValueError):
    """A server sent something other than a response or message of the protocol, such as the page of a proxy."""


@frozen(kw_only=True, eq=False, repr=False)
class Envelope(ValueObject):
    """A request with a valid envelope. Its `data` is not decoded yet."""

    kind: str
    corr_id: str
    auth: str | None = field(default=None, repr=False)
    debug_time: int | None = None
    data: Json

    def refuse(self, status: int, text: str) -> BadRequest:
        """Return the exception that refuses this request."""
        return BadRequest(status, text, self.kind, self.corr_id)


# --- requests -------------------------------------------------------------------------------------------------------


def read_envelope(body: bytes | str) -> Envelope:
    """Read the envelope of a request from JSON text.

    Raises:
        BadRequest: the text is not a valid envelope.
    """
    try:
        document = loads(body)
    except ValueError as error:
        raise BadRequest(400, f"Invalid request envelope: {error}", "unknown", "0") from None

    return open_envelope(document)


def open_envelope(document: object) -> Envelope:
    """Read the envelope of a request from parsed JSON.

    Raises:
        BadRequest: the document is not a valid envelope.
    """
    try:
        envelope, version = _envelope(document)
    except ValueError as error:
        raise BadRequest(400, f"Invalid request envelope: {error}", *_recovered(document)) from None

    if not envelope.kind:
        raise envelope.refuse(400, "Missing or invalid 'kind' field — must be a non-empty string")

    if not isinstance(envelope.data, dict):
        raise envelope.refuse(400, "Invalid 'data' field — must be an object")

    if version != VERSION:
        raise envelope.refuse(400, f"Unsupported protocol version {version!r}, supported versions: [{VERSION!r}]")

    return envelope


def _envelope(document: object) -> tuple[Envelope, str]:
    outer = members(document)
    head = required(outer, "head", members)
    if getattr(outer, "duplicated", False) or getattr(head, "duplicated", False):
        raise ValueError("a member occurs twice")

    envelope = Envelope(
        kind=required(outer, "kind", text),
        corr_id=required(head, "corrId", text),
        auth=optional(head, "auth", text),
        debug_time=optional(head, "resonate:debug_time", integer),
        data=required(outer, "data", anything),
    )
    return envelope, required(head, "version", text)


def _recovered(document: object) -> tuple[str, str]:
    """Return the kind and the correlation id of an invalid envelope, or their defaults."""
    outer = document if isinstance(document, dict) else {}
    head = outer.get("head")
    kind, corr_id = outer.get("kind"), head.get("corrId") if isinstance(head, dict) else None
    return kind if isinstance(kind, str) else "unknown", corr_id if isinstance(corr_id, str) else "0"


def decode_request(envelope: Envelope) -> Request:
    """Decode the request in an envelope. Debug operations are not requests: see `_debug`.

    Raises:
        BadRequest: the operation does not exist, or its data has another shape.
    """
    if envelope.kind in DEBUG_KINDS:
        raise envelope.refuse(403, "Debug operations are disabled")

    decode = DECODERS.get(envelope.kind)
    if decode is None:
        raise envelope.refuse(400, f"Unknown operation: {envelope.kind}")

    try:
        return decode(envelope.data)
    except ValueError as error:
        raise envelope.refuse(400, f"Invalid request: {error}") from None


def encode_request(
    request: Request, corr_id: str, *, auth: str | None = None, debug_time: int | None = None
) -> dict[str, Any]:
    """Return the envelope of a request."""
    inner = {"corrId": corr_id, "version": VERSION}
    head = inner | {
        name: value for name, value in (("auth", auth), ("resonate:debug_time", debug_time)) if value is not None
    }
    return {"kind": request.kind, "head": head, "data": encode_data(request, inner)}


# --- responses ------------------------------------------------------------------------------------------------------

_SHAPES: Final[Mapping[str, tuple[str, ...]]] = {
    "promise.get": ("promise",),
    "promise.create": ("promise",),
    "promise.settle": ("promise",),
    "promise.register_callback": ("promise",),
    "promise.register_listener": ("promise",),
    "promise.search": ("promises", "cursor"),
    "task.get": ("task",),
    "task.create": ("task", "promise", "preload"),
    "task.acquire": ("task", "promise", "preload"),
    "task.fulfill": ("promise",),
    "task.suspend": ("preload",),
    "task.fence": ("action", "preload"),
    "task.search": ("tasks", "cursor"),
    "schedule.get": ("schedule",),
    "schedule.create": ("schedule",),
    "schedule.search": ("schedules", "cursor"),
}
"""The members of a successful response, for each kind that has any."""


def _all(one: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    return lambda several: [one(item) for item in several]


def _each(one: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    return lambda document: tuple(one(item) for item in array(document))


_ENCODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "promise": encode_promise,
    "task": encode_task,
    "schedule": encode_schedule,
    "preload": _all(encode_promise),
    "promises": _all(encode_promise),
    "tasks": _all(encode_task),
    "schedules": _all(encode_schedule),
    "cursor": str,
}


def _decode_inner(document: object) -> Response:
    action = members(document)
    return _decode(required(action, "kind", text), action)


_DECODERS: Final[dict[str, Callable[[object], Any]]] = {
    "promise": decode_promise,
    "task": decode_task,
    "schedule": decode_schedule,
    "preload": _each(decode_promise),
    "promises": _each(decode_promise),
    "tasks": _each(decode_task),
    "schedules": _each(decode_schedule),
    "cursor": text,
    "action": _decode_inner,
}


def reply(kind: str, corr_id: str, status: int, data: object) -> dict[str, Any]:
    """Return the envelope of a response. `data` is JSON: an object, or a string for an error."""
    return {"kind": kind, "head": {"corrId": corr_id, "status": status, "version": VERSION}, "data": data}


def encode_response(request: Request, response: Response, corr_id: str) -> dict[str, Any]:
    """Return the envelope of the response to `request`."""
    return reply(request.kind, corr_id, response.status, _answer(request, response, corr_id))


def encode_refusal(refused: BadRequest) -> dict[str, Any]:
    """Return the envelope of the response to a refused request."""
    return reply(refused.kind, refused.corr_id, refused.status, refused.text)


def _answer(request: Request, response: Response, corr_id: str) -> object:
    if response.status not in _OK:
        return response.error or ""

    if isinstance(request, TaskFence):
        # A successful fence has an inner operation and an inner response.
        inner = encode_response(cast("Request", request.action), cast("Response", response.action), corr_id)
        return {"action": inner, "preload": _ENCODERS["preload"](response.preload)}

    if request.kind == "task.suspend" and response.status != _RUN_AGAIN:
        return {}

    names = _SHAPES.get(request.kind, ())
    return {name: _ENCODERS[name](value) for name in names if (value := getattr(response, name)) is not None}


def decode_response(kind: str, document: object) -> Response:
    """Decode the response to a request of this kind.

    Raises:
        NotProtocol: the document is not such a response.
    """
    try:
        return _decode(kind, members(document))
    except ValueError as error:
        raise NotProtocol(f"the answer to {kind} does not conform to the protocol: {error}") from None


def _decode(kind: str, envelope: Json) -> Response:
    status = required(required(envelope, "head", members), "status", integer)
    if status not in _OK:
        data = envelope.get("data")
        return Response(status=status, error=data if isinstance(data, str) else f"status {status}")

    data = required(envelope, "data", members)
    wanted = _SHAPES.get(kind, ())
    found: dict[str, Any] = {name: required(data, name, _DECODERS[name]) for name in wanted if name in data}
    missing = [name for name in wanted if name in {"promise", "task", "schedule", "action"} and name not in found]
    if missing:
        raise ValueError(f"missing field `{missing[0]}`")

    return Response(status=status, **found)


# --- messages -------------------------------------------------------------------------------------------------------


def encode_message(message: Message, server_url: str | None = None) -> dict[str, Any]:
    """Return the JSON of a message to a worker."""
    if isinstance(message, Unblock):
        return {"kind": "unblock", "head": {}, "data": {"promise": encode_promise(message.promise)}}

    head = {} if server_url is None else {"serverUrl": server_url}
    return {"kind": "execute", "head": head, "data": {"task": {"id": message.task_id, "version": message.version}}}


def decode_message(document: object) -> Message:
    """Decode a message from a server.

    Raises:
        NotProtocol: the document is not a message.
    """
    try:
        message = members(document)
        kind, data = required(message, "kind", text), required(message, "data", members)
        return _MESSAGES[kind](data)
    except KeyError as unknown:
        raise NotProtocol(f"{unknown} is not a kind of message") from None
    except ValueError as error:
        raise NotProtocol(f"the message does not conform to the protocol: {error}") from None


def _execute(data: Json) -> Execute:
    task = required(data, "task", members)
    return Execute(required(task, "id", text), required(task, "version", integer))


_MESSAGES: Final[dict[str, Callable[[Json], Message]]] = {
    "execute": _execute,
    "unblock": lambda data: Unblock(required(data, "promise", decode_promise)),
}
