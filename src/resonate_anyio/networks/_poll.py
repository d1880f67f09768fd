"""The stream of messages from a server: a background task keeps it open and reads it."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from http import HTTPStatus
from typing import Final, final
from urllib.parse import quote

import anyio
from anyio import BrokenResourceError, CancelScope, Event, create_memory_object_stream, current_time, lowlevel
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

from .._concurrency._backoff import Backoff
from .._protocol import Message, decode_message
from .._protocol._json import loads
from ..abc import Gap, Identity
from ._sse import EventDecoder
from ._token import Token
from ._wire import NoAnswer, Stream, Wire

logger: Final = logging.getLogger("resonate_anyio")

# Seconds after which a connection counts as good: when it is lost, the next attempt is made soon.
_GOOD_AFTER: Final = 10.0
# Seconds between attempts at most.
_LONGEST_PAUSE: Final = 30.0
# How much of an answer that is not a stream is read, in bytes and in seconds.
_ENOUGH: Final = 4096
_ENOUGH_WITHIN: Final = 2.0
# A token that is refused, or a server that is full, will not change within seconds.
_RETRY_LATER: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE})


class _Refused(Exception):
    """The server answered, but not with a stream."""

    def __init__(self, reason: str, *, soon: bool) -> None:
        super().__init__(reason)
        self.soon = soon


@final
class Messages(ObjectReceiveStream[Message | Gap]):
    """The messages that the poll has received. Closing it ends the poll, so that the server sends to other workers."""

    def __init__(self, receive: MemoryObjectReceiveStream[Message | Gap], scope: CancelScope) -> None:
        self._receive = receive
        self._scope = scope

    async def receive(self) -> Message | Gap:
        """Wait for the next message."""
        return await self._receive.receive()

    async def aclose(self) -> None:
        """Stop receiving, and close the stream."""
        self.close()
        await lowlevel.checkpoint()

    def close(self) -> None:
        """Stop receiving, without a checkpoint."""
        self._scope.cancel()
        self._receive.close()


@define(eq=False, repr=False)
class Poll:
    """Receives the messages for one identity.

    Messages are put into a queue without a limit: their reader may be slow, and the server drops messages that a
    connection does not accept.

    Attributes:
        attempted: is set when the first attempt to connect was answered or has failed.
        messages: the queue.
    """

    _wire: Wire
    _identity: Identity
    _token: Token
    _url: str
    attempted: Event = field(factory=Event, init=False)
    messages: Messages = field(init=False)
    _send: MemoryObjectSendStream[Message | Gap] = field(init=False)
    # A shield of its own: messages are received until the host has left, also when the host is cancelled.
    _scope: CancelScope = field(factory=lambda: CancelScope(shield=True), init=False)
    _backoff: Backoff = field(factory=lambda: Backoff(maximum=_LONGEST_PAUSE), init=False)
    _gap: bool = field(default=False, init=False)
    _connected_at: float = field(default=math.inf, init=False)
    _logged_reason: str | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._send, receive = create_memory_object_stream[Message | Gap](math.inf)
        self.messages = Messages(receive, self._scope)

    def expect_gap(self) -> None:
        """Report a gap at the first connection if there is none yet: messages may be lost from now on."""
        self._gap = self._gap or not self.attempted.is_set()

    async def run(self) -> None:
        """Connect and receive, repeatedly, until `messages` is closed."""
        with self._scope, self._send:
            while True:
                delay = await self._attempt()
                self._gap = True
                self.attempted.set()
                await anyio.sleep(delay)

    async def _attempt(self) -> float:
        """Receive while one connection lasts. Return the delay before the next attempt."""
        self._connected_at = math.inf
        try:
            await self._receive()
        except (NoAnswer, _Refused) as failure:
            reason, soon = str(failure), not isinstance(failure, _Refused) or failure.soon
        else:
            reason, soon = "the server ended the stream", True

        if current_time() - self._connected_at >= _GOOD_AFTER:
            self._backoff.reset()
        delay = self._backoff.next() if soon else self._backoff.longest()
        self._log_loss(reason, delay)
        return delay

    async def _receive(self) -> None:
        async with self._wire.stream(_path(self._identity)) as stream:
            await self._check(stream)
            self._connected()
            decoder = EventDecoder()
            async for chunk in stream.chunks:
                for data in decoder.feed(chunk):
                    self._enqueue(data)

    async def _check(self, stream: Stream) -> None:
        """Check that the answer is a stream of events.

        Raises:
            _Refused: it is another answer.
        """
        if stream.status == HTTPStatus.OK and stream.content_type.lower().startswith("text/event-stream"):
            return

        text = b""
        with anyio.move_on_after(_ENOUGH_WITHIN):
            async for chunk in stream.chunks:
                text = (text + chunk)[:_ENOUGH]
        excerpt = self._token.excerpt(text.decode(errors="replace"))
        msg = f"the server answered {stream.status} {stream.content_type!r} and no stream of events: {excerpt!r}"
        raise _Refused(msg, soon=stream.status not in _RETRY_LATER)

    def _connected(self) -> None:
        self._connected_at = current_time()
        if self._gap:
            self._put(Gap())
        if self._logged_reason is not None:
            self._logged_reason = None
            logger.info("poll.connected group=%s pid=%s", self._identity.group, self._identity.pid)
        self.attempted.set()

    def _enqueue(self, data: bytes) -> None:
        try:
            message = decode_message(loads(data, note_duplicates=False))
        except ValueError as error:
            reason, excerpt = self._token.redacted(str(error)), self._token.excerpt(data.decode(errors="replace"))
            logger.warning("poll.dropped reason=%r data=%r", reason, excerpt)
        else:
            self._put(message)

    def _put(self, message: Message | Gap) -> None:
        # `messages` may be closed between the arrival of a chunk and this call.
        with suppress(BrokenResourceError):
            self._send.send_nowait(message)

    def _log_loss(self, reason: str, delay: float) -> None:
        reason = self._token.redacted(reason)
        # A warning once for each reason: a server may be unreachable for hours.
        level = logging.DEBUG if reason == self._logged_reason else logging.WARNING
        self._logged_reason = reason
        group = self._identity.group
        logger.log(level, "poll.lost url=%s group=%s retry_in=%.1f reason=%r", self._url, group, delay, reason)


def _path(identity: Identity) -> str:
    return f"/poll/{quote(identity.group, safe='')}/{quote(identity.pid, safe='')}"
