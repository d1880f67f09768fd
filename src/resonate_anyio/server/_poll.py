"""The stream of messages to one worker (docs/protocol.md 11.3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from anyio import ClosedResourceError, EndOfStream, Event, create_task_group, move_on_after
from attrs import define, field

from .._embedded._engine import Engine
from .._embedded._router import Mailbox
from .._protocol import encode_message
from ..abc import Identity
from ._asgi import TEXT, Receive, Reply, Send, start

_MAX_STREAMS: Final = 1000
_ROOM: Final = 100
_FULL: Final = Reply(503, b"Poll registration at capacity", TEXT)
_ENDING: Final = Reply(503, b"The server is stopping", TEXT)
_HEADERS: Final = {"content-type": "text/event-stream", "cache-control": "no-cache"}


@define
class Polls:
    """The open streams of messages.

    Attributes:
        server_url: the URL at which workers reach this server; `execute` messages contain it.
    """

    _engine: Engine
    server_url: str | None = None
    _open: list[Mailbox] = field(init=False, factory=list)
    _closed: bool = field(init=False, default=False)
    _all_gone: Event = field(init=False, factory=Event)

    async def stream(self, group: str, id: str, receive: Receive, send: Send) -> None:
        """Send messages until the client closes the connection or the server stops."""
        if self._closed or len(self._open) >= _MAX_STREAMS:
            await (_ENDING if self._closed else _FULL).send(send)
            return

        with self._joined(Identity(group=group, pid=id, holder=id)) as mailbox:
            await start(send, 200, _HEADERS)
            async with create_task_group() as tasks:

                async def watch() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    tasks.cancel_scope.cancel()

                tasks.start_soon(watch, name="resonate poll: client")
                await self._copy(mailbox, send)
                tasks.cancel_scope.cancel()

            # After the task group: at the end of the response `watch` receives a disconnect, and would cancel this.
            await send({"type": "http.response.body", "body": b""})

    def close(self) -> None:
        """End all streams, and refuse new ones."""
        self._closed = True
        for mailbox in tuple(self._open):
            mailbox.close()

    async def end(self) -> None:
        """End all streams as `close` does, and wait for at most one second until they have ended."""
        self.close()
        with move_on_after(1):
            if self._open:
                await self._all_gone.wait()

    @contextmanager
    def _joined(self, identity: Identity) -> Iterator[Mailbox]:
        mailbox = self._engine.router.join(identity, _ROOM)
        self._open.append(mailbox)
        try:
            yield mailbox
        finally:
            self._open.remove(mailbox)
            mailbox.close()
            if self._closed and not self._open:
                self._all_gone.set()

    async def _copy(self, mailbox: Mailbox, send: Send) -> None:
        # After an empty piece the server sends the head of the response, which the client waits for.
        piece: bytes | None = b""
        while piece is not None:
            try:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            except BaseException:
                # The client has gone while it was sent a message, which another worker can have.
                mailbox.give_back()
                raise

            piece = await self._next(mailbox)

    async def _next(self, mailbox: Mailbox) -> bytes | None:
        try:
            message = await mailbox.receive()
        except (EndOfStream, ClosedResourceError):
            return None

        return b"data: %s\n\n" % json.dumps(encode_message(message, self.server_url), separators=(",", ":")).encode()
