"""Exchanges recorded from real servers, and an application called without a client."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from resonate_anyio._protocol import RELEASE, SNAPSHOT

from ..asgi_transport import Application, Message

FOLDER: Final = Path(__file__).parents[1] / "transcripts"
RULES: Final = {"release": RELEASE, "snapshot": SNAPSHOT}


def files(*families: str) -> list[str]:
    """The recordings of these families, of every server."""
    paths = sorted(FOLDER.glob("*/*.jsonl.xz"))
    return [f"{path.parent.name}/{path.name}" for path in paths if path.name.startswith(families)]


def exchanges(name: str) -> Iterator[dict[str, Any]]:
    with lzma.open(FOLDER / name, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@frozen
class Answer:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def call(
    app: Application, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """Let the application answer one request whose answer has an end."""
    return await answer_to(app, method, path, headers or {}, body)


async def answer_to(
    app: Application,
    method: str,
    path: str,
    headers: Mapping[str, str] | Sequence[tuple[str, str]],
    body: bytes = b"",
    *,
    scheme: str = "http",
    server: tuple[str, int | None] | None = None,
) -> Answer:
    """Let the application answer a request with these headers, in this order."""
    fields = list(headers.items()) if isinstance(headers, Mapping) else headers
    scope: Message = {
        "type": "http",
        "method": method,
        "scheme": scheme,
        "server": server,
        "path": path,
        "raw_path": path.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *pieces = sent
    received = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], received, b"".join(piece["body"] for piece in pieces))


async def ask(app: Application, document: object) -> Answer:
    """Send one envelope."""
    return await call(app, "POST", "/", body=json.dumps(document).encode())


def is_of_a_page(exchange: Mapping[str, Any]) -> bool:
    """Whether a recorded request has the origin of a page. Those are refused here, which the servers do not do."""
    return "Origin" in exchange["headers"]


def without_texts(status: int, document: dict[str, Any]) -> dict[str, Any]:
    """The answer without what is for people only: the servers' own texts are not stable."""
    return document | {"data": ""} if status >= 400 else document
