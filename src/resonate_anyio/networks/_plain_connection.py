"""One plain connection to a server, and one exchange over it by h11."""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import anyio
import h11
import httpx
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.abc import SocketAttribute, SocketStream

from ._plain_answers import Answer, CommonHead, joined, read_common_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Origin: TypeAlias = tuple[str, int]
"""Host and port."""

# As in httpx: the largest head of an answer, in bytes.
_LARGEST_HEAD: Final = 100 * 1024
# The bytes of one read, and of one read of a body that is known to be long.
_READ: Final = 64 * 1024
_LONG_READ: Final = 256 * 1024


@final
class Prepared:
    """A POST request without its body, formatted once for all bodies.

    Args:
        request: a request with any body.

    Raises:
        httpx.LocalProtocolError: it cannot be sent.
    """

    def __init__(self, request: httpx.Request) -> None:
        assert request.method == "POST"
        framing = {b"content-length", b"transfer-encoding"}
        self._target = request.url.raw_path
        self._headers = [header for header in request.headers.raw if header[0].lower() not in framing]
        # h11 checks the headers, and writes the length last because it comes last here.
        written = h11.Connection(h11.CLIENT).send(self.event(0))
        self._head = written.removesuffix(b"0\r\n\r\n")
        assert self._head.endswith(b"Content-Length: ")

    def head(self, length: int) -> bytes:
        """Return the bytes to send before a body of this length."""
        return b"%b%d\r\n\r\n" % (self._head, length)

    def event(self, length: int) -> h11.Request:
        """Return the same for h11."""
        headers = [*self._headers, (b"Content-Length", b"%d" % length)]
        return _request(b"POST", self._target, headers)


@final
class PlainConnection:
    """A connection. It is used by one exchange at a time.

    Attributes:
        idle_since: the instant of `time.monotonic` at which it was last used.
    """

    def __init__(self, stream: SocketStream) -> None:
        self.idle_since = 0.0
        self._stream = stream
        self._socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - of anyio, not of Django
        self._readable = _readable(self._socket)

    def is_usable(self, *, since: float) -> bool:
        """Return whether an idle connection can be used: it was last used after `since`, and the server kept it open.

        Between two exchanges a server sends nothing. If there is something to read, it is the end of the connection,
        or an answer that announces the end, e.g. 408.
        """
        return self.idle_since >= since and self._socket.fileno() >= 0 and not self._readable()

    def get_extra_info(self, info: str) -> Any:
        """Return the socket, as the network streams of httpx do."""
        return self._socket if info == "socket" else None

    async def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            httpx.WriteError: the connection is broken.
        """
        try:
            await self._stream.send(data)
        except (BrokenResourceError, ClosedResourceError) as error:
            raise httpx.WriteError(text_of(error)) from error

    async def receive(self, at_most: int = _READ) -> bytes:
        """Receive bytes. There are none after the end of the connection.

        Raises:
            httpx.ReadError: the connection is broken.
        """
        try:
            return await self._stream.receive(at_most)
        except EndOfStream:
            return b""
        except (BrokenResourceError, ClosedResourceError) as error:
            raise httpx.ReadError(text_of(error)) from error

    async def exchange(self, prepared: Prepared, body: bytes) -> tuple[Answer, bool]:
        """Send a request. Return the answer, and whether the connection can be used again."""
        sent = False
        # A server may answer early and close the connection. Then the answer is there although sending fails.
        with suppress(httpx.WriteError):
            await self.send(prepared.head(len(body)) + body)
            sent = True
        data = await self.receive()
        head = read_common_head(data)
        if head is None or len(data) - head.body_at > head.length:
            answer, reusable = await self._read_by_h11(prepared, body, data)
            return answer, reusable and sent

        content = data[head.body_at :]
        if len(content) < head.length:
            content = await self._receive_rest(head, content)
        return Answer(status=head.status, reason=head.reason, headers=head.headers, body=content), sent

    async def _receive_rest(self, head: CommonHead, content: bytes) -> bytes:
        parts, size = [content], len(content)
        while size < head.length:
            part = await self.receive(min(head.length - size, _LONG_READ))
            if not part:
                msg = (
                    "peer closed connection without sending complete message body "
                    f"(received {size} bytes, expected {head.length})"
                )
                raise httpx.RemoteProtocolError(msg)
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    async def _read_by_h11(self, prepared: Prepared, body: bytes, data: bytes) -> tuple[Answer, bool]:
        """Read an answer that begins with `data`. Return it, and whether the connection can be used again."""
        exchange = Exchange(self, {})
        exchange.note_sent(prepared.event(len(body)), body)
        exchange.feed(data)
        head = await exchange.head()
        parts = []
        while (part := await exchange.chunk()) is not None:
            parts.append(part)
        headers = joined(head.headers.raw_items())
        answer = Answer(status=head.status_code, reason=head.reason, headers=headers, body=b"".join(parts))
        return answer, exchange.reusable

    async def aclose(self) -> None:
        """Close the connection, without waiting for the peer."""
        await self._stream.aclose()


@final
class Exchange:
    """One request and its response, by h11."""

    def __init__(self, connection: PlainConnection, timeouts: Mapping[str, float | None]) -> None:
        self._connection = connection
        self._timeouts = timeouts
        self._machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)

    async def send(self, request: httpx.Request) -> None:
        """Send a request.

        Raises:
            httpx.LocalProtocolError: it cannot be sent.
            httpx.WriteTimeout: the peer did not take it in time.
        """
        assert isinstance(request.stream, httpx.AsyncByteStream)
        head = _request(request.method.encode(), request.url.raw_path, request.headers.raw)
        # A server may answer early and close the connection. Then the answer is there although sending fails.
        with suppress(httpx.WriteError):
            await self._send(head)
            async for chunk in request.stream:
                await self._send(h11.Data(data=chunk))
            await self._send(h11.EndOfMessage())

    def note_sent(self, head: h11.Request, body: bytes) -> None:
        """Note that a request was sent in another way."""
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self._machine.send(event)

    def feed(self, data: bytes) -> None:
        """Take bytes that were received. There are none after the end of the connection.

        Raises:
            httpx.RemoteProtocolError: the connection has ended without an answer.
        """
        if not data and self._machine.their_state is h11.SEND_RESPONSE:
            msg = "Server disconnected without sending a response."
            raise httpx.RemoteProtocolError(msg)
        self._machine.receive_data(data)

    async def head(self) -> h11.Response | h11.InformationalResponse:
        """Receive the head of the response. Responses that only announce another one are skipped.

        Raises:
            httpx.TransportError: it is not the head of a response, or did not arrive.
        """
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return event

    async def chunk(self) -> bytes | None:
        """Receive the next bytes of the body, or None after its end.

        Raises:
            httpx.TransportError: they are malformed, or did not arrive.
        """
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    @property
    def reusable(self) -> bool:
        """Whether the exchange is complete, and its connection can be used again."""
        machine = self._machine
        complete = machine.our_state is h11.DONE and machine.their_state is h11.DONE
        return complete and machine.trailing_data == (b"", False)

    async def _send(self, event: h11.Event) -> None:
        try:
            data = self._machine.send(event)
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        if not data:
            return
        limit = self._timeouts.get("write")
        try:
            with anyio.fail_after(limit):
                await self._connection.send(data)
        except TimeoutError as error:
            msg = f"the request was not taken within {limit} s"
            raise httpx.WriteTimeout(msg) from error

    async def _next(self) -> Any:
        while True:
            try:
                event = self._machine.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            self.feed(await self._receive())

    async def _receive(self) -> bytes:
        limit = self._timeouts.get("read")
        try:
            with anyio.fail_after(limit):
                return await self._connection.receive()
        except TimeoutError as error:
            msg = f"nothing has arrived for {limit} s"
            raise httpx.ReadTimeout(msg) from error


def origin_of(url: httpx.URL) -> Origin:
    """Return the host and the port that a URL leads to.

    Raises:
        httpx.UnsupportedProtocol: the URL asks for more than a plain connection.
    """
    if url.scheme != "http":
        msg = f"a plain transport has no {url.scheme}://"
        raise httpx.UnsupportedProtocol(msg)
    return url.raw_host.decode("ascii"), url.port or 80


def text_of(error: BaseException) -> str:
    """Return the text of an error. Errors of streams have none, but the errors below them have."""
    return str(error) or str(error.__cause__ or "")


def _request(method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> h11.Request:
    try:
        return h11.Request(method=method, target=target, headers=list(headers))
    except h11.LocalProtocolError as error:
        raise httpx.LocalProtocolError(str(error)) from error


def _readable(sock: Any) -> Callable[[], object]:
    """Return a function that says whether a socket has something to read, or has reached its end."""
    if not hasattr(select, "poll"):
        return lambda: select.select([sock], [], [], 0)[0]

    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return lambda: poll.poll(0)
