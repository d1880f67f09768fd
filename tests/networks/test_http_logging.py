"""What httpx logs about the requests of this network: nothing at INFO, unless the program has asked for it."""

from __future__ import annotations

import json
import logging

import httpx
import pytest

from resonate_anyio import NetworkError
from resonate_anyio._protocol import PromiseGet
from resonate_anyio.networks import HttpNetwork

from .helpers import worker
from .raw_server import serving
from .scripted import Scripted, reply

GET = PromiseGet(id="p")
OWN = 'HTTP Request: GET http://elsewhere "HTTP/1.1 204 No Content"'
PROBED = ['HTTP Request: POST http://server/ "HTTP/1.1 200 OK"'] * 2
STREAM = 'HTTP Request: GET http://server/poll/g/p "HTTP/1.1 200 OK"'
ASKED = 'HTTP Request: POST http://server/ "HTTP/1.1 404 Not Found"'


async def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What httpx logs while a connection asks, listens and asks from a thread, and the program asks for something."""
    network = HttpNetwork(
        "http://server",
        client=httpx.AsyncClient(transport=Scripted()),
        sync_client=httpx.Client(transport=httpx.MockTransport(lambda e: reply(json.loads(e.content), 404, "none"))),
    )
    elsewhere = httpx.MockTransport(lambda _: httpx.Response(204))
    async with httpx.AsyncClient(transport=elsewhere) as own, network.connect(worker("p")) as connection:
        await connection.request(GET)
        assert connection.blocking_request is not None
        connection.blocking_request(GET)
        await own.get("http://elsewhere")
    return sorted(record.getMessage() for record in caplog.records if record.name == "httpx")


async def test_requests_of_this_network_are_not_logged_at_info(caplog: pytest.LogCaptureFixture) -> None:
    """A program that logs at INFO reads what it has asked for itself, also while it is connected."""
    caplog.set_level(logging.INFO)

    assert [OWN] == await logged(caplog)


async def test_they_are_logged_if_httpx_has_a_level(caplog: pytest.LogCaptureFixture) -> None:
    """A program that sets the level of httpx's logger has said what it wants."""
    caplog.set_level(logging.INFO, "httpx")

    assert sorted([OWN, *PROBED, STREAM, ASKED, ASKED]) == await logged(caplog)


async def test_they_are_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """A program that logs everything gets everything."""
    caplog.set_level(logging.DEBUG)

    assert sorted([OWN, *PROBED, STREAM, ASKED, ASKED]) == await logged(caplog)


async def test_a_request_that_fails_leaves_the_next_ones_of_the_program_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever comes of a request of the network, those of the program are logged; the filter is there once."""
    caplog.set_level(logging.INFO)
    server = Scripted(answer=lambda _: httpx.Response(500))
    for _ in range(2):
        async with HttpNetwork("http://server", transport=server).connect(worker("p")) as connection:
            with pytest.raises(NetworkError):
                await connection.request(GET)
    elsewhere = httpx.MockTransport(lambda _: httpx.Response(204))
    async with httpx.AsyncClient(transport=elsewhere) as own:
        await own.get("http://elsewhere")

    assert [OWN] == [record.getMessage() for record in caplog.records if record.name == "httpx"]
    names = [getattr(each, "__module__", "") for each in logging.getLogger("httpx").filters]
    assert 1 == names.count("resonate_anyio.networks._http")


@pytest.mark.wall
@pytest.mark.usefixtures("each_transport")
async def test_each_transport_logs_the_same_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A program that reads these lines does not see which transport is used."""
    caplog.set_level(logging.INFO, "httpx")
    async with serving() as server, HttpNetwork(server.url).connect(worker("p")) as connection:
        await connection.request(GET)

    asked = [record for record in caplog.records if "POST" in record.getMessage()]
    assert [f'HTTP Request: POST {server.url}/ "HTTP/1.1 {status} X"' for status in (200, 200, 404)] == [
        record.getMessage() for record in asked
    ]
    assert ("POST", f"{server.url}/", "HTTP/1.1", 404, "X") == tuple(
        str(each) if isinstance(each, httpx.URL) else each for each in asked[-1].args or ()
    )


@pytest.mark.wall
@pytest.mark.usefixtures("each_transport")
async def test_each_transport_logs_nothing_at_info(caplog: pytest.LogCaptureFixture) -> None:
    """The program logs at INFO and has not asked for these lines."""
    caplog.set_level(logging.INFO)
    async with serving() as server, HttpNetwork(server.url).connect(worker("p")) as connection:
        await connection.request(GET)

    assert [] == [record.getMessage() for record in caplog.records if record.name == "httpx"]
