"""A web application that runs durable executions: entered in its lifespan, used by its requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import move_on_after

from resonate_anyio import Context, Info, Resonate

from .asgi import Application, StartupFailed, application, serving
from .conftest import Make


class Bills(list[str]):
    """What was billed, in order."""


async def bill(info: Info, order: str) -> str:
    info.get_dependency(Bills).append(order)
    await anyio.sleep(1)
    return f"{order} billed"


async def ship(ctx: Context, order: str) -> str:
    """Take a minute, with a step before and one after it."""
    billed = await ctx.run(bill, order)
    await ctx.sleep(60)
    return f"{billed} and shipped"


def shop(resonate: Resonate, bills: Bills) -> Application:
    """An application whose paths are orders: asking for one ships it, and waits for that."""
    resonate.register(ship)
    resonate.with_dependency(bills)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with resonate:
            yield

    async def handle(path: str) -> str:
        return await resonate.run(path, ship, path)

    return application(lifespan, handle)


@pytest.fixture
def bills() -> Bills:
    return Bills()


@pytest.fixture
def app(resonate: Resonate, bills: Bills) -> Application:
    return shop(resonate, bills)


async def test_requests_use_what_the_lifespan_has_entered(app: Application, bills: Bills) -> None:
    """Requests run in tasks of their own, none of which has entered the client; each gets its result."""
    async with serving(app, patience=100) as server:
        begun = anyio.current_time()
        requests = [server.get(path) for path in ("books", "pens", "books")]
        assert [
            "books billed and shipped",
            "pens billed and shipped",
            "books billed and shipped",
        ] == [await request.body() for request in requests]
        assert 61 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert ["books", "pens"] == sorted(bills)


async def test_a_client_that_hangs_up_loses_nothing(app: Application, bills: Bills) -> None:
    """The execution goes on without it, and is there for whoever asks again."""
    async with serving(app, patience=100) as server:
        begun = anyio.current_time()
        request = server.get("books")
        await anyio.sleep(5)
        request.hang_up()
        await request.ended.wait()
        assert 5 == pytest.approx(anyio.current_time() - begun, abs=0.1)
        assert request.response is None

        assert "books billed and shipped" == await server.get("books").body()
        assert 61 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert ["books"] == bills


async def test_of_several_clients_one_hangs_up(app: Application) -> None:
    """The others that wait for the same execution get its result."""
    async with serving(app, patience=100) as server:
        requests = [server.get("books") for _ in range(3)]
        await anyio.sleep(5)
        requests[0].hang_up()
        assert ["books billed and shipped"] * 2 == [await request.body() for request in requests[1:]]
        assert requests[0].response is None


async def test_shutting_down_while_requests_wait(app: Application, bills: Bills) -> None:
    """Requests that outlast the server's patience are cancelled; what they asked for goes on at its next start."""
    begun = anyio.current_time()
    async with serving(app, patience=10) as server:
        request = server.get("books")
        await anyio.sleep(5)
    assert 15 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert request.response is None

    async with serving(app, patience=100) as server:
        assert "books billed and shipped" == await server.get("books").body()
    assert 61 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert ["books"] == bills


async def test_a_request_that_comes_too_late(app: Application, resonate: Resonate) -> None:
    """A request that waits while the client is stopped, and one that comes after it, are told that it does not run."""
    async with serving(app, patience=100) as server:
        early = server.get("books")
        await anyio.sleep(5)
        await resonate.stop()
        await early.ended.wait()
        late = server.get("books")
        await late.ended.wait()
        for request in (early, late):
            assert request.response is not None
            assert 503 == request.response["status"]
            assert "stopped" in request.response["body"]


async def test_a_server_that_is_cancelled(app: Application, bills: Bills) -> None:
    """Cancelling the server, with the lifespan and all its requests in it, ends everything in order."""
    begun = anyio.current_time()
    with move_on_after(5) as scope:
        async with serving(app, patience=100) as server:
            server.get("books")
            await anyio.sleep(1000)
    assert scope.cancelled_caught
    assert 5 == pytest.approx(anyio.current_time() - begun, abs=0.1)

    async with serving(app, patience=100) as server:
        assert "books billed and shipped" == await server.get("books").body()
    assert 61 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert ["books"] == bills


async def test_a_startup_that_fails(tmp_path: Path) -> None:
    """The server is told why the client could not be entered, and can start the application once that is mended."""
    path = tmp_path / "shop.db"
    owner, second = Resonate.local(path), Resonate.local(path)
    app = shop(second, Bills())
    async with owner:
        with pytest.raises(StartupFailed, match=r"shop\.db"):
            async with serving(app, patience=0):
                pytest.fail("it cannot start")
    async with serving(app, patience=0):
        assert [] == [promise async for promise in second.promises.search()]


async def test_two_applications_in_one_server(make: Make) -> None:
    """An application mounted in another has a client of its own beside the other's, on the same network."""
    outer, inner = make(group="outer"), make(group="inner")
    async with serving(shop(outer, Bills()), patience=100) as first:
        async with serving(shop(inner, Bills()), patience=0) as second:
            waiting = first.get("books")
            second.get("pens")
            await anyio.sleep(5)
        # The inner one is gone, and its order waits for its next start; the outer one serves on.
        assert "books billed and shipped" == await waiting.body()
        states = {promise.id: promise.state async for promise in outer.promises.search()}
        assert ("resolved", "pending") == (states["books"], states["pens"])
