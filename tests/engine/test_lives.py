"""Lives: which runs of an execution follow a crash, and what `Info.attempt` says of that (docs/semantics.md 7.6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resonate_anyio import Context, Info, Resonate
from resonate_anyio._protocol import Request, Response, TaskRelease
from resonate_anyio.abc import Network

from .harness import Wire, World, creates, settles
from .test_no_search import refuses_searches


class Attempts:
    """A leaf that takes a while, and notes the number of each attempt."""

    def __init__(self, seconds: float = 1) -> None:
        self.seen: list[int] = []
        self.seconds = seconds

    async def leaf(self, info: Info) -> str:
        self.seen.append(info.attempt)
        await anyio.sleep(self.seconds)
        return "done"

    async def flow(self, ctx: Context) -> str:
        return await ctx.run(self.leaf)


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


def marks(wire: Wire) -> list[str]:
    """The marks that were asked for."""
    return [id for id in wire.created() if "~life" in id or "~stopped" in id]


async def test_a_crash(world: World, attempts: Attempts) -> None:
    """Each life that follows a crash says so with one request, and counts as an attempt of what was in flight."""
    for life in (1, 2, 3):
        async with world.process(attempts.flow) as process:
            if life == 1:
                await process.resonate.run("w", attempts.flow).spawn()
            await anyio.sleep(0.5)
            assert ([] if life == 1 else [f"w.~life-{life}"]) == marks(process.wire)
            process.kill()
    async with world.process(attempts.flow) as process:
        assert "done" == await (await process.resonate.get("w"))
    assert [1, 2, 3, 4] == attempts.seen


async def test_a_root_that_is_a_leaf(world: World, attempts: Attempts) -> None:
    """The same holds for a leaf that is called from outside."""
    async with world.process(attempts.leaf) as process:
        await process.resonate.run("w", attempts.leaf).spawn()
        await anyio.sleep(0.5)
        process.kill()
    async with world.process(attempts.leaf) as process:
        assert "done" == await (await process.resonate.get("w"))
    assert [1, 2] == attempts.seen


async def test_a_leaf_that_kills_its_process_at_once(world: World) -> None:
    """It is recorded before it runs from the second life on, so that its later attempts are counted."""
    attempts = Attempts(seconds=0)
    killers: list[Callable[[], None]] = []

    async def fatal(info: Info) -> None:
        attempts.seen.append(info.attempt)
        await anyio.sleep(0.01)
        killers[-1]()

    async def flow(ctx: Context) -> None:
        await ctx.run(fatal)

    for life in range(4):
        async with world.process(flow, one_request=True) as process:
            killers.append(process.kill)
            if life == 0:
                await process.resonate.run("w", flow).spawn()
            with anyio.move_on_after(1):
                await process.killed.wait()
            assert process.killed.is_set()
    assert [1, 1, 2, 3] == attempts.seen


async def test_a_leaf_that_follows_a_crash(world: World) -> None:
    """The first leaf of a life that follows a crash takes two requests; when one has ended, the others take one."""

    async def step(number: int) -> int:
        return number

    async def flow(ctx: Context) -> int:
        return sum([await ctx.run(step, number) for number in range(6)])

    process = world.process(flow, one_request=True)
    process.kill_at(settles("w.step-2"), answered=True)
    await world.run_until_killed(process, "w", flow)
    async with world.process(flow, one_request=True) as process:
        assert 15 == await (await process.resonate.get("w", int))
        assert ["w.~life-2", *(f"w.step-{number}" for number in (3, 4, 5, 6))] == process.wire.created()
        assert 1 == process.wire.counts()["promise.settle"]


async def test_stops_in_order_count_nothing(world: World, attempts: Attempts) -> None:
    """Twenty deploys that cut a leaf off: each says so before it releases the task, and the attempt stays the first."""
    for life in range(1, 21):
        async with world.process(attempts.flow) as process:
            if life == 1:
                await process.resonate.run("w", attempts.flow).spawn()
            await anyio.sleep(0.5)
        assert [f"w.~stopped-{life}"] == marks(process.wire)
        assert ["promise.create", "task.release"] == process.wire.kinds[-2:]
    async with world.process(attempts.flow) as process:
        assert "done" == await (await process.resonate.get("w"))
    assert [1] * 21 == attempts.seen


async def test_a_stop_that_is_cut_off(world: World, attempts: Attempts) -> None:
    """A process that dies before it has said that it stops has crashed."""
    async with world.process(attempts.flow) as process:
        await process.resonate.run("w", attempts.flow).spawn()
        await anyio.sleep(0.5)
        process.kill_at(creates("w.~stopped-1"), answered=False)
    async with world.process(attempts.flow) as process:
        assert "done" == await (await process.resonate.get("w"))
        assert ["w.~life-2"] == marks(process.wire)
    assert [1, 2] == attempts.seen


@pytest.mark.parametrize("refused", [None, 403])
async def test_what_was_parked_has_not_crashed(world: World, attempts: Attempts, refused: int | None) -> None:
    """The life after a suspension follows no crash, however the process has ended; nor if it may not search."""

    async def flow(ctx: Context) -> str:
        await ctx.sleep(1000)
        return await attempts.flow(ctx)

    def process() -> Any:
        started = world.process(flow)
        if refused is not None:
            refuses_searches(started.wire, refused)
        return started

    async with process() as first:
        await first.resonate.run("w", flow).spawn()
        await anyio.sleep(10)
        assert "task.suspend" in first.wire.kinds
        first.kill()
    async with process() as second:
        assert "done" == await (await second.resonate.get("w"))
        assert [] == marks(second.wire)
    assert [1] == attempts.seen


async def test_a_wake_that_came_to_nothing(world: World, attempts: Attempts) -> None:
    """An execution that was resumed in memory, and whose process died after that, has crashed."""

    async def flow(ctx: Context) -> str:
        await ctx.sleep(1000)
        return await attempts.flow(ctx)

    async with world.process(flow) as process:
        await process.resonate.run("w", flow).spawn()
        await anyio.sleep(1000.5)
        assert [1] == attempts.seen
        process.kill()
    async with world.process(flow) as process:
        assert "done" == await (await process.resonate.get("w"))
        [mark] = marks(process.wire)
        assert mark.startswith("w.~life-")
    assert [1, 2] == attempts.seen


async def test_handed_back(network: Network, attempts: Attempts) -> None:
    """A worker that does not know the function hands the task back, and says so: the next life follows no crash."""
    wire = Wire(network)
    other, late = Resonate(network=wire, pid="other"), Resonate(network=network, pid="late")
    other.register(_unrelated)
    async with other:
        await other.rpc("w", "flow").spawn()
        await anyio.sleep(5)
        assert "w.~stopped-1" in marks(wire)
    late.register(attempts.flow)
    async with late:
        assert "done" == await (await late.get("w"))
    assert [1] == attempts.seen


async def _unrelated() -> None: ...


async def test_a_crash_of_the_platform(world: World, attempts: Attempts) -> None:
    """An execution that is taken again by the same process, after an error of a network, has not crashed."""
    process = world.process(attempts.flow, one_request=False)

    def broken(request: Request) -> Response | None:
        if creates("w.leaf-1")(request):
            process.wire.answer = lambda _: None
            msg = "out of order"
            raise ZeroDivisionError(msg)
        return None

    process.wire.answer = broken
    async with process:
        await process.resonate.rpc("w", attempts.flow).spawn()
        assert "done" == await (await process.resonate.get("w"))
    assert ["w.~stopped-1"] == marks(process.wire)
    assert [1] == attempts.seen


async def test_a_mark_that_cannot_be_made(world: World, attempts: Attempts) -> None:
    """A stop goes on if the server refuses its mark: the task is released, and the next life follows a crash."""
    async with world.process(attempts.flow) as process:
        process.wire.answer = lambda request: (
            Response(status=500, error="no disk") if creates("w.~stopped-1")(request) else None
        )
        await process.resonate.run("w", attempts.flow).spawn()
        await anyio.sleep(0.5)
    assert any(isinstance(exchange.request, TaskRelease) for exchange in process.wire.exchanges)
    async with world.process(attempts.flow) as process:
        assert "done" == await (await process.resonate.get("w"))
        assert ["w.~life-2"] == marks(process.wire)
