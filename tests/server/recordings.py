"""Exchanges recorded from real servers, and an application called without a client."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping
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
    scope: Message = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *pieces = sent
    fields = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], fields, b"".join(piece["body"] for piece in pieces))


async def ask(app: Application, document: object) -> Answer:
    """Send one envelope."""
    return await call(app, "POST", "/", body=json.dumps(document).encode())


def without_texts(status: int, document: dict[str, Any]) -> dict[str, Any]:
    """The answer without what is for people only: the servers' own texts are not stable."""
    return document | {"data": ""} if status >= 400 else document
