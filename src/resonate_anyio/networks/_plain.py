"""The transport for plain connections: HTTP/1.1 over TCP, with neither TLS nor a proxy.

The transport of httpx takes several times as long for a request as the socket does. This transport knows less: one
server, connections that are kept alive, and h11 for all but the common form of an answer. Its errors are those of
httpx. A request is never sent twice, and an idle connection is used only if nothing has arrived on it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

import anyio
import httpx
from anyio import BrokenResourceError, CancelScope

from ._plain_connection import Exchange, Origin, PlainConnection, Prepared, origin_of, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from ._plain_answers import Answer

# Seconds that a connection may be idle. Many servers close it after five, and a request must not meet that.
_IDLE: Final = 4.0


@final
class PlainTransport(httpx.AsyncBaseTransport):
    """Plain connections to one server, below an `httpx.AsyncClient` or without one.

    The number of connections has no limit: there are as many as there are requests at once.

    Args:
        url: the address of the server.

    Raises:
        httpx.UnsupportedProtocol: the address asks for more than a plain connection.
    """

    def __init__(self, url: httpx.URL) -> None:
        self._origin = origin_of(url)
        self._open: set[PlainConnection] = set()
        # The connection that was used last is at the end, and is used first.
        self._idle: list[PlainConnection] = []
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Its response is streamed, and the connection is in use until the response is closed."""
        if origin_of(request.url) != self._origin:
            msg = f"this transport leads to {_text(self._origin)} only, not to {_text(origin_of(request.url))}"
            raise httpx.UnsupportedProtocol(msg)

        timeouts: Mapping[str, float | None] = request.extensions.get("timeout", {})
        connection = await self._acquire(timeouts.get("connect"))
        exchange = Exchange(connection, timeouts)
        try:
            await exchange.send(request)
            head = await exchange.head()
        except BaseException:
            await self.release(connection, reusable=False)
            raise

        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, connection, exchange),
            extensions={
                "http_version": b"HTTP/" + head.http_version,
                "reason_phrase": head.reason,
                "network_stream": connection,
            },
        )

    async def exchange(self, prepared: Prepared, body: bytes, *, connect_timeout: float | None = None) -> Answer:
        """Send a prepared request with this body, and return the complete answer. The caller limits the time.

        Raises:
            httpx.TransportError: there was no connection, or no complete answer.
        """
        connection = await self._acquire(connect_timeout)
        reusable = False
        try:
            answer, reusable = await connection.exchange(prepared, body)
        finally:
            await self.release(connection, reusable=reusable)
        return answer

    async def release(self, connection: PlainConnection, *, reusable: bool) -> None:
        """End the use of a connection: keep it if that is possible, or close it."""
        # It may have been closed by `aclose` meanwhile.
        if not (reusable and connection in self._open):
            await self._close(connection)
            return

        now = connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if self._idle[0].idle_since < now - _IDLE:
            await self._close(self._idle.pop(0))

    async def aclose(self) -> None:
        """Close all connections, also those in use, without waiting for the peer."""
        self._closed = True
        self._idle.clear()
        while self._open:
            await self._close(next(iter(self._open)))

    async def _acquire(self, connect_timeout: float | None) -> PlainConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(since=time.monotonic() - _IDLE):
                return connection
            await self._close(connection)
        return await self._connect(connect_timeout)

    async def _connect(self, within: float | None) -> PlainConnection:
        try:
            with anyio.fail_after(within):
                stream = await anyio.connect_tcp(*self._origin)
        except TimeoutError as error:
            msg = f"no connection within {within} s"
            raise httpx.ConnectTimeout(msg) from error
        except (OSError, BrokenResourceError) as error:
            raise httpx.ConnectError(text_of(error)) from error

        connection = PlainConnection(stream)
        self._open.add(connection)
        if self._closed:
            await self._close(connection)
            msg = "the transport is closed"
            raise httpx.ConnectError(msg)
        return connection

    async def _close(self, connection: PlainConnection) -> None:
        self._open.discard(connection)
        with CancelScope(shield=True):
            await connection.aclose()


@final
class _Body(httpx.AsyncByteStream):
    """The body of a response, as it arrives. It ends the use of its connection when it is closed."""

    def __init__(self, transport: PlainTransport, connection: PlainConnection, exchange: Exchange) -> None:
        self._transport = transport
        self._connection = connection
        self._exchange = exchange
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._exchange.chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._transport.release(self._connection, reusable=self._exchange.reusable)


def _text(origin: Origin) -> str:
    host, port = origin
    return f"{host}:{port}"
