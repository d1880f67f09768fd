"""The network to a server, over HTTP. Only this module and those of the plain transport import the HTTP library."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar, final
from urllib.request import getproxies

import anyio
import httpx
from anyio import CancelScope

from .._embedded._clock import system_clock
from .._protocol import MAX_BODY
from ..abc import Clock, Connection, Identity, Network
from ._http_options import check_headers, check_proxy, check_size, check_timeout, check_url, is_plain
from ._keepalive import watch_peer
from ._plain import PlainTransport
from ._plain_answers import Answer
from ._plain_connection import Prepared
from ._remote import Terms, open_connection
from ._tls import Certificate, Security, Verify
from ._token import Token
from ._wire import NoAnswer, Reply, Stream, Wire

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

logger: Final = logging.getLogger("resonate_anyio")
_httpx_logger: Final = logging.getLogger("httpx")

_CLOSE_WITHIN: Final = 1.0
# The errors of a failed exchange: mostly those of httpx, and at times those of the layers below it.
_BROKEN: Final = (
    httpx.HTTPError,
    httpx.StreamError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    OSError,
)


@final
class HttpNetwork(Network):
    """The network to a Resonate Server, or to `resonate-anyio dev`.

    Two clients are made from the options for each connection: one for the event loop, and one for the thread that sends
    heartbeats. As usual with httpx, they honour `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`
    and `SSL_CERT_DIR`. Redirects are not followed.

    If the URL begins with `http://`, no proxy is set, and neither `client` nor `transport` is given, then requests from
    the event loop use a transport of this package, which takes less time than the one of httpx and does the same.

    httpx logs each request at INFO. For the requests of this network this line is left out, unless the program sets a
    level of the logger `httpx`, or logs at DEBUG. Other requests of the program are logged as usual.

    Args:
        url: the address of the server, e.g. `http://localhost:8001`.
        token: sent with every request. It is never shown.
        headers: further headers, sent with every request, e.g. for a gateway.
        verify: how the server's certificate is checked: True (by the usual authorities), the path of a file or
            directory of CA certificates, an `ssl.SSLContext`, or False (not at all).
        cert: the certificate of this client: a path, or paths of certificate and key, and the key's password.
        proxy: the address of a proxy.
        connect_timeout: maximum number of seconds for connecting.
        request_timeout: maximum number of seconds for a request as a whole. Leases have to be at least four times as
            long.
        max_body: the largest request that the server accepts, in bytes. Larger requests are not sent.
        client: a client to use instead of one that is made here. It is not closed. The options above that concern
            connecting are ignored then.
        sync_client: a client for heartbeats. If only `client` is given, heartbeats are sent from the event loop.
        transport: replaces the network below httpx, for tests. It is not closed, and heartbeats are sent from the event
            loop.
        clock: the wall clock in milliseconds.

    Raises:
        InvalidArgument: an option is unusable.
    """

    def __init__(  # noqa: PLR0913 - one for each option, all by name
        self,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        verify: Verify = True,
        cert: Certificate | None = None,
        proxy: str | None = None,
        connect_timeout: float = 5.0,
        request_timeout: float = 10.0,
        max_body: int = MAX_BODY,
        client: httpx.AsyncClient | None = None,
        sync_client: httpx.Client | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self.url: str = check_url(url)
        self.request_timeout: float = check_timeout("request_timeout", request_timeout)
        self._terms = Terms(
            url=self.url,
            token=Token(token),
            request_timeout=self.request_timeout,
            max_body=check_size("max_body", max_body),
            clock=clock,
        )
        self._headers = check_headers(headers, with_token=token is not None)
        self._connect_timeout = check_timeout("connect_timeout", connect_timeout)
        self._security = Security(verify, cert, self._usual_security)
        self._proxy = check_proxy(proxy)
        self._client = client
        self._sync_client = sync_client
        self._transport = transport
        if client is not None and sync_client is None:
            logger.warning(
                "http.heartbeats_on_the_loop hint=%r",
                "client= was given without sync_client=httpx.Client(...): heartbeats are sent from the event loop, "
                "and a function that blocks it for longer than the ttl loses its lease",
            )

    def __repr__(self) -> str:
        return f"<HttpNetwork to {self.url}>"

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncGenerator[Connection, None]:
        """Open a connection; see `abc.Network.connect`.

        This returns when the stream of messages is open, when opening it has failed, or after 5 seconds.

        Raises:
            RequestError: the server does not accept the token.
        """
        # Adding a filter that was added before changes nothing.
        _httpx_logger.addFilter(_without_own_requests)
        async with AsyncExitStack() as stack:
            url = httpx.URL(self.url)
            plain = PlainTransport(url) if self._is_plain() else None
            if plain is not None:
                stack.push_async_callback(plain.aclose)
            clients = _Clients(lambda: self._make_client(plain))
            if self._client is None and self._transport is None:
                stack.push_async_callback(clients.aclose)
            wire = _HttpxWire(
                url=url,
                headers={**self._headers, **self._terms.token.headers},
                timeout=httpx.Timeout(self.request_timeout, connect=self._connect_timeout),
                clients=clients,
                sync_client=self._open_sync_client(stack),
                plain=plain,
            )
            yield await stack.enter_async_context(open_connection(wire, identity, self._terms))

    def _usual_security(self, verify: bool) -> ssl.SSLContext:  # noqa: FBT001 - as httpx has it
        if self.url.startswith("http:"):
            # Without TLS nothing is checked, so the authorities need not be loaded.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.create_ssl_context(verify=verify)

    def _is_plain(self) -> bool:
        own = self._client is not None or self._transport is not None or self._proxy is not None
        return not own and is_plain(self.url, self._headers, getproxies())

    def _make_client(self, plain: PlainTransport | None) -> httpx.AsyncClient:
        if self._client is not None:
            return self._client
        if plain is not None:
            return httpx.AsyncClient(transport=plain)
        return httpx.AsyncClient(verify=self._security.context(), proxy=self._proxy, transport=self._transport)

    def _open_sync_client(self, stack: AsyncExitStack) -> httpx.Client | None:
        if self._sync_client is not None or self._client is not None or self._transport is not None:
            return self._sync_client

        client = httpx.Client(verify=self._security.context(), proxy=self._proxy)
        stack.callback(client.close)
        return client


@final
class _Clients:
    """Clients for the event loop: each makes one exchange at a time, and more are made when all are in use.

    For each request httpx looks at all connections of its client several times. With twenty connections this takes
    longer than the request itself.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._made: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    @contextmanager
    def borrow(self) -> Generator[httpx.AsyncClient, None, None]:
        # The client that was used last: its connection is the least likely to have been closed meanwhile.
        client = self._idle.pop() if self._idle else self._another()
        try:
            yield client
        finally:
            self._idle.append(client)

    def _another(self) -> httpx.AsyncClient:
        client = self._make()
        self._made.append(client)
        return client

    async def aclose(self) -> None:
        """Close all connections, also if cancelled, without waiting for the peer."""
        with CancelScope(shield=True), anyio.move_on_after(_CLOSE_WITHIN):
            for client in self._made:
                await client.aclose()


@final
class _HttpxWire(Wire):
    """A server, reached by httpx.

    If the connection is plain, requests do not pass through the client of httpx: it would format the same head each
    time, and has hooks, redirects, authentication and cookies, which are not used here.
    """

    def __init__(
        self,
        *,
        url: httpx.URL,
        headers: Mapping[str, str],
        timeout: httpx.Timeout,
        clients: _Clients,
        sync_client: httpx.Client | None,
        plain: PlainTransport | None,
    ) -> None:
        self._url = url.join("/")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        # A proxy that compresses a stream may hold it back.
        self._stream_headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **headers}
        self._timeout = timeout
        self._clients = clients
        self._sync_client = sync_client
        self._plain = plain
        self._prepared: Prepared | None = None
        self.blocking = sync_client is not None

    async def post(self, body: bytes) -> Reply:
        if self._plain is not None:
            return await self._post_plain(self._plain, body)

        with self._clients.borrow() as client:
            request = client.build_request(
                "POST", self._url, content=body, headers=self._headers, timeout=self._timeout
            )
            request.stream = _Body(body)
            with _own_request():
                return _reply(await _unbroken(client.send(request, follow_redirects=False)))

    async def _post_plain(self, plain: PlainTransport, body: bytes) -> Reply:
        if self._prepared is None:
            with self._clients.borrow() as client:
                self._prepared = Prepared(client.build_request("POST", self._url, headers=self._headers))
        try:
            answer = await plain.exchange(self._prepared, body, connect_timeout=self._timeout.connect)
            reply = _plain_reply(answer)
        except _BROKEN as error:
            failure = _reason(error)
        else:
            if b"set-cookie" in answer.headers:
                # A gateway may rely on its cookies. The client of httpx keeps them, and sends the further requests.
                self._plain = None
            if _httpx_logger.isEnabledFor(logging.INFO):
                self._log(answer)
            return reply

        raise NoAnswer(failure)

    def _log(self, answer: Answer) -> None:
        """Log the line that the client of httpx logs."""
        with _own_request():
            reason = answer.reason.decode("ascii", errors="ignore")
            _httpx_logger.info('HTTP Request: %s %s "%s %d %s"', "POST", self._url, "HTTP/1.1", answer.status, reason)

    def post_blocking(self, body: bytes, timeout: float) -> Reply:
        assert self._sync_client is not None
        failure = ""
        try:
            with _own_request():
                response = self._sync_client.post(
                    self._url, content=body, headers=self._headers, timeout=timeout, follow_redirects=False
                )
        except _BROKEN as error:
            failure = _reason(error)
        else:
            return _reply(response)

        raise NoAnswer(failure)

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncGenerator[Stream, None]:
        with self._clients.borrow() as client:
            response = await self._open(client, path)
            try:
                _watch(response)
                yield Stream(
                    status=response.status_code,
                    content_type=response.headers.get("content-type", ""),
                    chunks=_chunks(response),
                )
            finally:
                with CancelScope(shield=True), anyio.move_on_after(_CLOSE_WITHIN):
                    await response.aclose()

    async def _open(self, client: httpx.AsyncClient, path: str) -> httpx.Response:
        # The limit is for the answer's head only: the first message may take hours.
        timeout = httpx.Timeout(None, connect=self._timeout.connect)
        request = client.build_request("GET", self._url.join(path), headers=self._stream_headers, timeout=timeout)
        with anyio.move_on_after(self._timeout.read), _own_request():
            return await _unbroken(client.send(request, stream=True, follow_redirects=False))

        msg = f"no answer within {self._timeout.read:g} s"
        raise NoAnswer(msg)


@final
class _Body(httpx.AsyncByteStream):
    """The body of a request, in one chunk.

    The class of httpx is an async generator. A connection that breaks during sending leaves the generator unfinished,
    and trio warns.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._sent = False

    def __aiter__(self) -> Self:
        self._sent = False
        return self

    async def __anext__(self) -> bytes:
        if self._sent:
            raise StopAsyncIteration
        self._sent = True
        return self._body


_in_own_request: Final = ContextVar("resonate_anyio_own_request", default=False)


@contextmanager
def _own_request() -> Generator[None, None, None]:
    """Mark the lines that httpx logs in the block as lines about a request of this network."""
    token = _in_own_request.set(True)
    try:
        yield
    finally:
        _in_own_request.reset(token)


def _without_own_requests(record: logging.LogRecord) -> bool:
    """Return whether to log a line of httpx. Lines about requests of this network are left out unless asked for.

    This is a filter that looks at the request, because a level of the logger would concern the whole program.
    """
    if record.levelno > logging.INFO or not _in_own_request.get():
        return True
    return _httpx_logger.level != logging.NOTSET or _httpx_logger.isEnabledFor(logging.DEBUG)


async def _unbroken(sending: Awaitable[T]) -> T:
    """Await a call of httpx. Raise `NoAnswer` for its errors, without chaining them."""
    try:
        return await sending
    except _BROKEN as error:
        failure = _reason(error)

    raise NoAnswer(failure)


async def _chunks(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    failure = ""
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    except _BROKEN as error:
        failure = _reason(error)

    if failure:
        raise NoAnswer(failure)


def _reply(response: httpx.Response) -> Reply:
    headers = response.headers
    return Reply(
        status=response.status_code,
        body=response.content,
        date=headers.get("date"),
        location=headers.get("location") if response.has_redirect_location else None,
    )


def _plain_reply(answer: Answer) -> Reply:
    headers = answer.headers
    if b"content-encoding" in headers or b"location" in headers:
        # Rare, and httpx knows how to read them.
        return _reply(httpx.Response(answer.status, headers=list(headers.items()), content=answer.body))

    date = headers.get(b"date")
    return Reply(status=answer.status, body=answer.body, date=None if date is None else date.decode("latin-1"))


def _reason(error: BaseException) -> str:
    """Return a short description of an error. Many errors of httpx have no text, but the errors below them have."""
    link: BaseException | None = error
    while link is not None and not str(link):
        link = link.__cause__ or link.__context__
    return type(error).__name__ if link is None else f"{type(error).__name__}: {link}"


def _watch(response: httpx.Response) -> None:
    # A transport for tests has no socket.
    stream = response.extensions.get("network_stream")
    sock = None if stream is None else stream.get_extra_info("socket")
    if sock is not None:
        watch_peer(sock)
