"""The HTTP network over real sockets: chunks, cuts, stalls, closed connections, certificates, proxies, threads."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from anyio import Event, create_task_group, to_thread

from resonate_anyio import NetworkError, UsageError, networks
from resonate_anyio._protocol import Execute, PromiseGet
from resonate_anyio.abc import Connection, Gap
from resonate_anyio.networks import HttpNetwork, _http, _remote
from resonate_anyio.networks._keepalive import watch_peer

from .helpers import worker
from .raw_server import Peer, RawServer, answers, serving

ME = worker("me")
GET = PromiseGet(id="p")
UNTRUSTED = r"(?i)certificate.verify.failed"

pytestmark = pytest.mark.wall
over_both = pytest.mark.usefixtures("each_transport")


@asynccontextmanager
async def connected(server: RawServer, **options: Any) -> AsyncGenerator[Connection, None]:
    url = options.pop("url", server.url)
    async with HttpNetwork(url, **options).connect(ME) as connection:
        yield connection


def execute(id: str) -> bytes:
    return (
        b"data: "
        + json.dumps(
            {"kind": "execute", "head": {}, "data": {"task": {"id": id, "version": 0}}}, ensure_ascii=False
        ).encode()
        + b"\r\n\r\n"
    )


@over_both
async def test_requests_and_messages() -> None:
    """Both ways over the loopback, and nothing is left open after it."""
    async with serving() as server:
        async with connected(server) as connection:
            await server.polls[0].chunk(execute("t"))

            assert 404 == (await connection.request(GET)).status
            assert Execute("t", 0) == await connection.messages.receive()

        for peer in server.peers:
            await peer.gone.wait()


@over_both
async def test_messages_come_in_pieces() -> None:
    """Byte by byte, each in a chunk of its own, several to a packet, with characters and line ends cut in two."""
    async with serving() as server, connected(server) as connection:
        for byte in execute("\u2028ü€"):
            await server.polls[0].chunk(bytes([byte]))
        await server.polls[0].chunk(execute("a") + execute("b"))

        assert [Execute(id, 0) for id in ("\u2028ü€", "a", "b")] == [
            await connection.messages.receive() for _ in range(3)
        ]


@over_both
async def test_an_idle_connection_that_the_server_closed_is_no_failure() -> None:
    """Servers close what is idle; the next request finds that out before it is sent."""
    async with serving() as server, connected(server) as connection:
        await connection.request(GET)
        for peer in server.peers:
            if peer is not server.polls[0]:
                await peer.stream.aclose()
        # the end has to arrive first
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            assert 404 == (await connection.request(GET)).status


@over_both
async def test_connections_are_kept() -> None:
    """A hundred requests one after the other go over one connection, besides the one of the stream."""
    async with serving() as server, connected(server) as connection:
        for _ in range(100):
            await connection.request(GET)

        assert 2 == len(server.peers)


@over_both
async def test_requests_at_once_have_connections_of_their_own() -> None:
    """Fifty at once are answered in any order; there are no more connections than that."""
    everybody, waiting = Event(), []

    async def together(peer: Peer) -> None:
        waiting.append(peer)
        if len(waiting) == 50:
            everybody.set()
        await everybody.wait()
        await answers(peer)

    # A busy machine may take its time for a hundred and fifty of them.
    async with serving() as server, connected(server, request_timeout=60) as connection:
        server.on_post = together
        async with create_task_group() as tasks:
            for _ in range(150):
                tasks.start_soon(connection.request, GET)

        assert 150 == len(waiting)
        assert 51 == len(server.peers)


async def close(peer: Peer) -> None:
    await peer.stream.aclose()


async def reset(peer: Peer) -> None:
    await peer.reset()


async def cut_in_the_head(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-le")
    await peer.stream.aclose()


async def cut_in_the_body(peer: Peer) -> None:
    await peer.send(peer.answer_bytes(404, "not found")[:-3])
    await peer.stream.aclose()


async def garbage(peer: Peer) -> None:
    await peer.send(b"\x15\x03\x01\x00\x02\x02\x50 what is this\r\n\r\n")


@over_both
@pytest.mark.parametrize(
    ("cut", "error"),
    [
        (close, "RemoteProtocolError: Server disconnected without sending a response"),
        (reset, "ReadError: "),
        (cut_in_the_head, "RemoteProtocolError: "),
        (cut_in_the_body, "RemoteProtocolError: peer closed connection without sending complete message body"),
        (garbage, "RemoteProtocolError: "),
    ],
)
async def test_a_broken_exchange_is_an_error_and_the_next_is_none(cut: Any, error: str) -> None:
    """Whatever the server does instead of answering, the request is named, was sent once, and the next one works."""
    async with serving() as server, connected(server) as connection:
        await connection.request(GET)
        before = len(server.lines)
        server.on_post = cut
        with pytest.raises(NetworkError, match=rf"promise\.get 'p' was not answered by http://[\w.:]+: {error}"):
            await connection.request(GET)
        assert before + 1 == len(server.lines)
        server.on_post = answers

        assert 404 == (await connection.request(GET)).status


@over_both
async def test_an_answer_that_drips_is_given_up() -> None:
    """The limit is for all of it: bytes that arrive now and then do not prolong it."""

    async def drip(peer: Peer) -> None:
        for byte in peer.answer_bytes(404, "x" * 10_000):
            await peer.send(bytes([byte]))
            await anyio.sleep(0.02)

    async with serving() as server, connected(server, request_timeout=0.5) as connection:
        server.on_post = drip
        with anyio.fail_after(60), pytest.raises(NetworkError, match=r"no answer within 0\.5 s"):
            await connection.request(GET)


@over_both
@pytest.mark.parametrize("cut", [close, reset])
async def test_a_stream_that_is_cut_is_opened_again(cut: Any) -> None:
    """The new one begins with a gap."""
    async with serving() as server, connected(server) as connection:
        await cut(server.polls[0])
        poll = await server.next_poll()
        await poll.chunk(execute("t"))

        assert [Gap(), Execute("t", 0)] == [await connection.messages.receive() for _ in range(2)]


@over_both
async def test_a_server_that_comes_back_is_found() -> None:
    """Away at the start, there, away and there again: requests fail while it is away, and nothing has to be done."""
    async with serving() as server:
        port = server.port
    async with HttpNetwork(server.url).connect(ME) as connection:
        for _ in range(2):
            with pytest.raises(NetworkError, match="ConnectError: "):
                await connection.request(GET)
            async with serving(port=port) as server:
                await server.next_poll()

                assert 404 == (await connection.request(GET)).status
                assert Gap() == await connection.messages.receive()


@over_both
async def test_a_server_that_hangs_does_not_hold_up_the_end() -> None:
    """Neither a stream that says nothing nor one that was never answered."""

    async def nothing(peer: Peer) -> None:
        await Event().wait()

    async with serving() as server:
        async with connected(server):
            await server.polls[0].reset()
            server.on_poll = nothing
            began = anyio.current_time()

        assert anyio.current_time() - began < 1


@over_both
async def test_the_system_watches_a_silent_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is gone without a word would be waited for for ever: TCP asks it now and then."""
    watched: list[Any] = []

    def watch(sock: Any) -> None:
        watched.append(sock)
        watch_peer(sock)

    monkeypatch.setattr(_http, "watch_peer", watch)
    async with serving() as server, connected(server):
        [sock] = watched

        assert 0 != sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert 30 == sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


# --- from a thread --------------------------------------------------------------------------------------------------


async def test_a_thread_can_send_requests_of_its_own() -> None:
    """With its own connection, and with everything that is sent from the loop."""
    async with serving() as server, connected(server, token="secret") as connection:
        assert connection.blocking_request is not None
        response = await to_thread.run_sync(connection.blocking_request, GET)

    assert 404 == response.status
    assert "secret" == server.peers[-1].envelope["head"]["auth"]


@pytest.mark.parametrize("cut", [close, cut_in_the_body])
async def test_a_thread_is_told_the_same_errors(cut: Any) -> None:
    """One kind of error, which names the request."""
    async with serving() as server, connected(server) as connection:
        server.on_post = cut
        assert connection.blocking_request is not None
        with pytest.raises(NetworkError, match=r"promise\.get 'p' was not answered"):
            await to_thread.run_sync(connection.blocking_request, GET)


async def test_a_thread_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that is not answered soon is of no use."""
    monkeypatch.setattr(_remote, "_BLOCKING_TIMEOUT", 0.2)

    async def nothing(peer: Peer) -> None:
        await peer.gone.wait()

    async with serving() as server, connected(server) as connection:
        server.on_post = nothing
        assert connection.blocking_request is not None
        with pytest.raises(NetworkError, match="ReadTimeout"):
            await to_thread.run_sync(connection.blocking_request, GET)


async def test_a_thread_cannot_use_a_closed_connection() -> None:
    """A heartbeat thread that comes too late is told so."""
    async with serving() as server:
        async with connected(server) as connection:
            late = connection.blocking_request
        assert late is not None
        with pytest.raises(UsageError, match="closed"):
            late(GET)


async def test_own_clients_are_used_for_both_and_left_open() -> None:
    """An asynchronous and a synchronous one, with what is their own."""
    async with serving() as server, httpx.AsyncClient() as client:
        with httpx.Client() as sync_client:
            async with connected(server, client=client, sync_client=sync_client) as connection:
                assert connection.blocking_request is not None
                await connection.request(GET)
                await to_thread.run_sync(connection.blocking_request, GET)

            assert not sync_client.is_closed
        assert not client.is_closed


# --- certificates and proxies ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the certificates here."""
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """The server's side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def authorities(authority: trustme.CA, tmp_path: Path) -> Path:
    """A file with the authority."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return file


async def test_a_certificate_of_a_known_authority_is_good(tls: ssl.SSLContext, authorities: Path) -> None:
    """Given as a file, for requests, messages and threads alike."""
    async with serving(tls) as server, connected(server, verify=authorities) as connection:
        await server.polls[0].chunk(execute("t"))

        assert Execute("t", 0) == await connection.messages.receive()
        assert 404 == (await connection.request(GET)).status
        assert connection.blocking_request is not None
        assert 404 == (await to_thread.run_sync(connection.blocking_request, GET)).status


async def test_a_certificate_may_go_unchecked_or_be_checked_by_an_own_context(
    tls: ssl.SSLContext, authority: trustme.CA
) -> None:
    """False asks for no check at all, and a context does what it does."""
    own = ssl.create_default_context()
    authority.configure_trust(own)
    async with serving(tls) as server:
        for verify in (False, own):
            async with connected(server, verify=verify) as connection:
                assert 404 == (await connection.request(GET)).status


async def test_an_unknown_certificate_is_refused(tls: ssl.SSLContext) -> None:
    """Nothing is sent to a server that is not who it should be, and the error says why."""
    async with serving(tls) as server, connected(server, token="secret") as connection:
        with pytest.raises(NetworkError, match=UNTRUSTED):
            await connection.request(GET)
        assert connection.blocking_request is not None
        with pytest.raises(NetworkError, match=UNTRUSTED):
            await to_thread.run_sync(connection.blocking_request, GET)

    assert [] == server.lines


async def test_a_server_may_ask_for_a_certificate(
    tls: ssl.SSLContext, authority: trustme.CA, authorities: Path, tmp_path: Path
) -> None:
    """The client shows the one that it was given."""
    mine = authority.issue_cert("client@example.org")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "me.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    cert = str(tmp_path / "me.pem")
    async with serving(tls) as server, connected(server, verify=authorities, cert=cert) as connection:
        assert 404 == (await connection.request(GET)).status


@pytest.mark.parametrize("given", ["option", "environment"])
async def test_a_proxy_is_used_for_everything(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests, messages and threads go through it; it is asked for the server by its full address."""
    async with serving() as proxy:
        if given == "environment":
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
        options = {"proxy": proxy.url} if given == "option" else {}
        async with connected(proxy, url="http://server.invalid", **options) as connection:
            await connection.request(GET)
            assert connection.blocking_request is not None
            await to_thread.run_sync(connection.blocking_request, GET)

    assert {"GET http://server.invalid/poll/g/me HTTP/1.1", "POST http://server.invalid/ HTTP/1.1"} == set(proxy.lines)


@pytest.mark.slow
def test_the_http_library_is_imported_by_those_who_have_a_server() -> None:
    """It takes a while to import, which an embedded engine has no use for."""
    program = (
        "import sys, resonate_anyio, resonate_anyio.networks as networks; resonate_anyio.Resonate.local(); "
        "assert 'httpx' not in sys.modules; networks.HttpNetwork('http://h'); assert 'httpx' in sys.modules; "
        "assert 'HttpNetwork' in dir(networks)"
    )

    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})


def test_the_networks_have_no_other_names() -> None:
    """A name that is not there is missed as usual."""
    with pytest.raises(AttributeError, match="Nothing"):
        networks.Nothing  # noqa: B018
