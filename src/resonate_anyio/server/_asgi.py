"""As much of ASGI as a server of two routes needs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

from attrs import frozen

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"

_ABSOLUTE: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?P<authority>[^/]*)(?P<path>.*)", re.IGNORECASE | re.DOTALL)


@frozen
class Reply:
    """A whole response."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = {}

    async def send(self, send: Send, *, kind: str = "http.response") -> None:
        """Give it to the client, as messages whose type begins with `kind`."""
        fields = {"content-length": str(len(self.body)), **self.headers}
        if self.content_type is not None:
            fields["content-type"] = self.content_type

        await start(send, self.status, fields, kind=kind)
        await send({"type": f"{kind}.body", "body": self.body})


async def start(send: Send, status: int, headers: Mapping[str, str], *, kind: str = "http.response") -> None:
    """Begin a response."""
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": f"{kind}.start", "status": status, "headers": fields})


def headers(scope: Scope, name: bytes) -> list[str]:
    """Give every value of a header of the request; its name in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def header(scope: Scope, name: bytes) -> str | None:
    """Give the first value of a header of the request; its name in lower case."""
    return next(iter(headers(scope, name)), None)


def target(scope: Scope) -> tuple[str | None, str]:
    """Give the authority that a request names before its path, if it does as requests to proxies do, and the path.

    The path is as it was sent, percent signs included.
    """
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    text = path.decode("latin-1")
    match = _ABSOLUTE.match(text)
    return (None, text) if match is None else (match["authority"], match["path"] or "/")


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """Give the body of the request; None if it is longer than `limit` bytes.

    What is too long is read to its end all the same: a client that is answered while it sends may never see the answer.

    Raises:
        ConnectionResetError: the client went away meanwhile.
    """
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError

        piece, more = message.get("body", b""), message.get("more_body", False)
        size += len(piece)
        if size <= limit:
            pieces.append(piece)

    return b"".join(pieces) if size <= limit else None


async def empty_lifespan(receive: Receive, send: Send) -> None:
    """Start and stop, with nothing to do."""
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
