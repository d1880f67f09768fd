"""`Site`: the routes of the server (docs/protocol.md 2)."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Final
from urllib.parse import unquote

from attrs import define

from .._embedded._engine import Engine
from .._errors import StoreError
from .._protocol import MAX_BODY
from ._asgi import JSON, TEXT, Receive, Reply, Scope, Send, header, read_body, target
from ._auth import Auth
from ._guard import Guard
from ._metrics import Metrics
from ._poll import Polls
from ._rpc import Rpc

_REMOVED: Final = {"promises", "schedules", "tasks"}

_OK: Final = Reply(200)
_UNAUTHORIZED: Final = Reply(401, b"Unauthorized", TEXT)
_NOT_FOUND: Final = Reply(404)
_ONLY_GET: Final = Reply(405, headers={"allow": "GET,HEAD"})
_ONLY_POST: Final = Reply(405, headers={"allow": "POST"})
_GONE: Final = Reply(410, b'{"error":"This endpoint is no longer supported. Please update to the latest SDK."}', JSON)
_TOO_LARGE: Final = Reply(413, b"Failed to buffer the request body: length limit exceeded", TEXT)
_NOT_READY: Final = Reply(503)


@define(eq=False)
class Site:
    """The routes of the server. Its engine is running."""

    _engine: Engine
    _guard: Guard
    _auth: Auth | None
    _rpc: Rpc
    _polls: Polls
    _metrics: Metrics | None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        reads = scope["method"] in {"GET", "HEAD"}
        match _segments(scope):
            case [""] if scope["method"] == "POST":
                await self._post(receive, send)
            case [""]:
                await _ONLY_POST.send(send)
            case ["poll", group, id] if group and id:
                await (self._poll(group, id, scope, receive, send) if reads else _ONLY_GET.send(send))
            case ["health"]:
                await (_OK if reads else _ONLY_GET).send(send)
            case ["ready"]:
                await (await self._ready() if reads else _ONLY_GET).send(send)
            case [root, *_] if root in _REMOVED:
                await _GONE.send(send)
            case _:
                await _NOT_FOUND.send(send)

    async def _post(self, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(receive, MAX_BODY)
        except ConnectionResetError:
            return

        if body is None:
            await _TOO_LARGE.send(send)
            return

        began = perf_counter()
        answer = await self._rpc.answer(body)
        if self._metrics is not None:
            self._metrics.answered(answer["kind"], answer["head"]["status"], perf_counter() - began)

        text = json.dumps(answer, separators=(",", ":")).encode()
        await Reply(answer["head"]["status"], text, JSON).send(send)

    async def _poll(self, group: str, id: str, scope: Scope, receive: Receive, send: Send) -> None:
        if self._auth is not None and not self._auth.lets_in(header(scope, b"authorization")):
            await _UNAUTHORIZED.send(send)
        elif scope["method"] == "HEAD":
            await _OK.send(send)
        elif refusal := self._guard.stream_refusal(scope):
            await refusal.send(send)
        else:
            await self._polls.stream(group, id, receive, send)

    async def _ready(self) -> Reply:
        try:
            await self._engine.check_writable()
        except StoreError:
            return _NOT_READY

        return _OK


def _segments(scope: Scope) -> list[str]:
    # The path is split before it is decoded, because an id may contain a slash as %2F.
    _, path = target(scope)
    return [unquote(segment) for segment in path.split("/")[1:]]
