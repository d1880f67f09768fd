"""CORS: allows the pages of an allowed origin to read the answers."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from ._asgi import Application, Message, Receive, Reply, Scope, Send, header

_METHODS: Final = "GET, HEAD, POST"
_HEADERS: Final = "authorization, content-type"
_SECONDS: Final = "600"


@frozen
class Sharing:
    """Adds headers to answers that tell a browser that pages of one origin may read them.

    Args:
        origin: the origin in the form that the browser has sent. It must be an allowed one.
    """

    _origin: str

    async def answer(self, application: Application, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of the origin: a preflight request directly, any other by the application."""
        shared = {"access-control-allow-origin": self._origin, "vary": "Origin"}

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode("latin-1")) for name, value in shared.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method") is not None:
            permitted = {
                "access-control-allow-methods": _METHODS,
                "access-control-allow-headers": _HEADERS,
                "access-control-max-age": _SECONDS,
            }
            await Reply(200, headers=permitted).send(send_shared)
        else:
            await application(scope, receive, send_shared)
