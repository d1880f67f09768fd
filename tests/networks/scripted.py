"""A server below httpx that does what a test tells it, without sockets: every chunk, error and pause is the test's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import httpx
from anyio import create_memory_object_stream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field

Envelope: TypeAlias = dict[str, Any]
Answer: TypeAlias = Callable[[Envelope], "httpx.Response | Awaitable[httpx.Response]"]

STREAM = {"content-type": "text/event-stream"}


def reply(envelope: Envelope, status: int = 200, data: object = None, **headers: str) -> httpx.Response:
    """An answer as the protocol has it."""
    head = {"corrId": envelope["head"]["corrId"], "status": status, "version": "2026-04-01"}
    body = {"kind": envelope["kind"], "head": head, "data": {} if data is None else data}
    return httpx.Response(status, json=body, headers=headers)


def nothing_there(envelope: Envelope) -> httpx.Response:
    """The answers of an empty server that takes every id."""
    if envelope["kind"] == "task.heartbeat":
        return reply(envelope)
    return reply(envelope, 404, "not found")


@define(eq=False)
class Poll:
    """One connection of the message stream, at the server's side."""

    path: str
    headers: httpx.Headers
    _send: MemoryObjectSendStream[bytes | Exception]
    _receive: MemoryObjectReceiveStream[bytes | Exception]
    #: Set when the client has hung up.
    closed: anyio.Event = field(factory=anyio.Event)

    def send(self, chunk: bytes) -> None:
        self._send.send_nowait(chunk)

    def message(self, document: object) -> None:
        self.send(b"data: " + json.dumps(document).encode() + b"\n\n")

    def execute(self, id: str, version: int = 0) -> None:
        self.message({"kind": "execute", "head": {}, "data": {"task": {"id": id, "version": version}}})

    def end(self, error: Exception | None = None) -> None:
        """Close the stream, in order or with an error that the client sees."""
        if error is not None:
            self._send.send_nowait(error)
        self._send.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._receive:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class _Body(httpx.AsyncByteStream):
    def __init__(self, poll: Poll) -> None:
        self._poll = poll

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._poll.chunks():
            yield chunk

    async def aclose(self) -> None:
        self._poll.closed.set()
        self._poll._send.close()
        self._poll._receive.close()


@define(eq=False)
class Scripted(httpx.AsyncBaseTransport):
    """The transport. Tests change `answer` and `poll_answer` as they go.

    Attributes:
        requests: the envelopes that were sent, in order.
        polls: the streams that were opened, in order.
        attempts: when the stream was asked for, by the loop's clock.
    """

    answer: Answer = nothing_there
    #: What opening the stream gives instead of a stream: a response, or an error.
    poll_answer: Callable[[], httpx.Response | Exception | None] = field(default=lambda: None)
    requests: list[Envelope] = field(factory=list)
    raw: list[httpx.Request] = field(factory=list)
    polls: list[Poll] = field(factory=list)
    attempts: list[float] = field(factory=list)
    closed: bool = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.raw.append(request)
        if request.method == "GET":
            return self._poll(request)

        envelope = json.loads(await request.aread())
        self.requests.append(envelope)
        answer = self.answer(envelope)
        return answer if isinstance(answer, httpx.Response) else await answer

    def _poll(self, request: httpx.Request) -> httpx.Response:
        self.attempts.append(anyio.current_time())
        instead = self.poll_answer()
        if isinstance(instead, Exception):
            raise instead
        if instead is not None:
            return instead

        poll = Poll(
            request.url.raw_path.decode(), request.headers, *create_memory_object_stream[bytes | Exception](1000)
        )
        self.polls.append(poll)
        return httpx.Response(200, headers=STREAM, stream=_Body(poll))

    async def aclose(self) -> None:
        self.closed = True

    def kinds(self) -> list[str]:
        """What was asked for, without the two heartbeats that come first."""
        return [envelope["kind"] for envelope in self.requests][2:]
