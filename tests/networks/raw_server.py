"""A server of bytes on a real socket: as much of HTTP as a test needs to break it."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, Event, create_task_group
from anyio.abc import ByteStream, Listener, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener
from attrs import define, field

Envelope: TypeAlias = dict[str, Any]

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@define(eq=False)
class Peer:
    """One connection, at the server's side."""

    stream: ByteStream
    #: The head of the request that is being answered, its first line, and its envelope if it has one.
    head: str = ""
    line: str = ""
    envelope: Envelope = field(factory=dict)
    #: Set when the client has hung up.
    gone: Event = field(factory=Event)

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def chunk(self, data: bytes) -> None:
        """Send data as a chunk of its own."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def answer(self, status: int = 200, data: object = None, *, extra: bytes = b"") -> None:
        await self.send(self.answer_bytes(status, data, extra=extra))

    def answer_bytes(self, status: int = 200, data: object = None, *, extra: bytes = b"") -> bytes:
        head = {"corrId": self.envelope["head"]["corrId"], "status": status, "version": "2026-04-01"}
        body = json.dumps({"kind": self.envelope["kind"], "head": head, "data": {} if data is None else data}).encode()
        return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%s\r\n%s" % (status, len(body), extra, body)

    async def reset(self) -> None:
        """Cut the connection off, so that the other side sees an error and no end."""
        raw = self.stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - of anyio, not of Django
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await anyio.aclose_forcefully(self.stream)


Behaviour: TypeAlias = Callable[[Peer], Awaitable[None]]


async def answers(peer: Peer) -> None:
    """Answer like an empty server."""
    if peer.envelope["kind"] == "task.heartbeat":
        await peer.answer()
    else:
        await peer.answer(404, "not found")


async def streams(peer: Peer) -> None:
    """Open a stream that stays silent."""
    await peer.send(STREAM_HEAD)


@define(eq=False)
class RawServer:
    """The server. Tests change `on_post` and `on_poll` as they go."""

    port: int
    scheme: str = "http"
    on_post: Behaviour = answers
    on_poll: Behaviour = streams
    #: What it does before it receives the body of a request.
    on_head: Behaviour | None = None
    lines: list[str] = field(factory=list)
    peers: list[Peer] = field(factory=list)
    polls: list[Peer] = field(factory=list)
    #: Set, and replaced, with each stream that is opened.
    polled: Event = field(factory=Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def handle(self, stream: ByteStream) -> None:
        peer = Peer(stream)
        self.peers.append(peer)
        async with stream:
            with suppress(EndOfStream, BrokenResourceError, ClosedResourceError, anyio.IncompleteRead):
                received = BufferedByteReceiveStream(stream)
                while True:
                    await self._exchange(peer, received)
            peer.gone.set()

    async def _exchange(self, peer: Peer, received: BufferedByteReceiveStream) -> None:
        peer.head = head = (await received.receive_until(b"\r\n\r\n", 65536)).decode()
        peer.line = head.split("\r\n")[0]
        self.lines.append(peer.line)
        if peer.line.startswith("GET"):
            self.polls.append(peer)
            await self.on_poll(peer)
            self.polled.set()
            self.polled = Event()
            return

        if self.on_head is not None:
            await self.on_head(peer)
        [length] = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length")]
        peer.envelope = json.loads(await received.receive_exactly(int(length)))
        await self.on_post(peer)

    async def next_poll(self) -> Peer:
        """Wait for another stream."""
        await self.polled.wait()
        return self.polls[-1]


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncGenerator[RawServer, None]:
    """Serve on a spare port, or on one that was spare a moment ago."""
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port, reuse_port=True)
    port = plain.extra(SocketAttribute.local_port)  # noqa: S610 - of anyio, not of Django
    server = RawServer(port, "http" if tls is None else "https")
    listener: Listener[Any] = plain if tls is None else TLSListener(plain, tls, standard_compatible=False)
    async with listener, create_task_group() as tasks:
        tasks.start_soon(listener.serve, server.handle)
        try:
            yield server
        finally:
            tasks.cancel_scope.cancel()
