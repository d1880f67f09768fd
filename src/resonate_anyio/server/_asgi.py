"""The parts of ASGI that this server needs: replies, headers, the target and the body of a request."""

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
    """A complete response."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = {}

    async def send(self, send: Send, *, kind: str = "http.response") -> None:
        """Send the response to the client, as messages whose type begins with `kind`."""
        fields = {"content-length": str(len(self.body)), **self.headers}
        if self.content_type is not None:
            fields["content-type"] = self.content_type

        await start(send, self.status, fields, kind=kind)
        await send({"type": f"{kind}.body", "body": self.body})


async def start(send: Send, status: int, headers: Mapping[str, str], *, kind: str = "http.response") -> None:
    """Send the status and the headers of a response."""
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": f"{kind}.start", "status": status, "headers": fields})


def headers(scope: Scope, name: bytes) -> list[str]:
    """Return every value of a header of the request. `name` is in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first value of a header of the request, or None. `name` is in lower case."""
    return next(iter(headers(scope, name)), None)


def target(scope: Scope) -> tuple[str | None, str]:
    """Return the authority before the path of a request, and the path.

    Only requests in the form for proxies have the authority there; otherwise it is None. The path is not decoded.
    """
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    text = path.decode("latin-1")
    match = _ABSOLUTE.match(text)
    return (None, text) if match is None else (match["authority"], match["path"] or "/")


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """Return the body of the request; None if it is longer than `limit` bytes.

    A body that is too long is read to its end too, because a client that is answered while it sends may never see the
    answer.

    Raises:
        ConnectionResetError: the client has closed the connection.
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
    """Answer the messages of a lifespan in which nothing has to be started or stopped."""
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
