"""Cancellations of asyncio's own that come while the engine is recording something: no shield of anyio's holds them up.

`asyncio.timeout`, `wait_for`, `Task.cancel` and `TaskGroup` throw into whatever a task is waiting for.
"""

from __future__ import annotations

import asyncio

import anyio
import pytest

from resonate_anyio import Context, Resonate
from resonate_anyio._protocol import Request, Response

from .harness import Look, Wanted, Wire, World, creates, settles

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


async def quick() -> str:
    await anyio.sleep(4)
    return "quick"


async def slow() -> str:
    await anyio.sleep(1000)
    return "slow"


def delay(wire: Wire, wanted: Wanted, *, answered: bool) -> None:
    """The request takes ten seconds to be heard, or (`answered`) its answer does."""

    async def before(request: Request) -> None:
        if not answered and wanted(request):
            await anyio.sleep(10)

    async def after(request: Request, _: Response) -> None:
        if answered and wanted(request):
            await anyio.sleep(10)

    wire.before, wire.after = before, after


async def states(resonate: Resonate) -> dict[str, str]:
    """All promises of functions and their calls, with their states."""
    return {id: state for id, state in (await Look(resonate).states()).items() if "~" not in id}


@pytest.mark.parametrize("answered", [False, True])
async def test_while_a_call_is_created(resonate: Resonate, wire: Wire, answered: bool) -> None:
    """The call is recorded as cancelled, and the cancellation goes where it belongs."""
    delay(wire, creates("w.slow-1"), answered=answered)

    async def workflow(ctx: Context) -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await ctx.run(slow)
        return await ctx.run(quick)

    resonate.register(workflow)
    async with resonate:
        with anyio.fail_after(100):
            assert "quick" == await resonate.run("w", workflow)
        assert {"w": "resolved", "w.quick-1": "resolved", "w.slow-1": "rejected_canceled"} == await states(resonate)


@pytest.mark.parametrize("answered", [False, True])
async def test_while_a_result_is_recorded(resonate: Resonate, wire: Wire, answered: bool) -> None:
    """What has an outcome is handed over; the cancellation stays owed, and ends the next call."""
    delay(wire, settles("w.quick-1"), answered=answered)
    got: list[str] = []

    async def workflow(ctx: Context) -> str:
        with pytest.raises(TimeoutError):  # noqa: PT012 - the deadline is what raises
            async with asyncio.timeout(5):
                got.append(await ctx.run(quick))
                got.append(await ctx.run(slow))
        return await ctx.run(quick)

    resonate.register(workflow)
    async with resonate:
        with anyio.fail_after(100):
            assert "quick" == await resonate.run("w", workflow)
        assert {
            "w": "resolved",
            "w.quick-1": "resolved",
            "w.quick-2": "resolved",
            "w.slow-1": "rejected_canceled",
        } == await states(resonate)
    assert ["quick"] == got


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("how", ["awaited", "spawned", "in a group", "in another workflow"])
async def test_while_a_cancellation_is_recorded(resonate: Resonate, wire: Wire, answered: bool, how: str) -> None:
    """A second deadline that passes meanwhile does not keep the first one's from being recorded; both take effect."""
    delay(wire, settles("w.slow"), answered=answered)

    async def calls_slow(ctx: Context) -> None:
        await ctx.run(slow).named("inner")

    async def call(ctx: Context) -> None:
        match how:
            case "awaited":
                await ctx.run(slow).named("slow")
            case "spawned":
                await (await ctx.run(slow).named("slow").spawn())
            case "in a group":
                async with ctx.task_group() as tg:
                    tg.start(ctx.run(slow).named("slow"))
            case _:
                await ctx.run(calls_slow).named("slow")

    async def workflow(ctx: Context) -> str:
        with pytest.raises(TimeoutError):  # noqa: PT012 - the deadline is what raises
            async with asyncio.timeout(6):
                async with asyncio.timeout(5):
                    await call(ctx)
        return await ctx.run(quick)

    resonate.register(workflow)
    async with resonate:
        with anyio.fail_after(100):
            assert "quick" == await resonate.run("w", workflow)
        ended = await states(resonate)
    assert ("resolved", "resolved") == (ended.pop("w"), ended.pop("w.quick-1"))
    assert {"rejected_canceled"} == set(ended.values())


@pytest.mark.parametrize("answered", [False, True])
async def test_while_the_cancellation_of_a_remote_call_is_recorded(
    resonate: Resonate, wire: Wire, answered: bool
) -> None:
    """A remote call ends as well, with what is below it."""
    delay(wire, settles("w.child-1"), answered=answered)

    async def child(ctx: Context) -> None:
        await ctx.sleep(1000)

    async def workflow(ctx: Context) -> str:
        with pytest.raises(TimeoutError):  # noqa: PT012 - the deadline is what raises
            async with asyncio.timeout(6):
                async with asyncio.timeout(5):
                    await ctx.rpc(child)
        return await ctx.run(quick)

    resonate.register(workflow)
    resonate.register(child)
    async with resonate:
        with anyio.fail_after(100):
            assert "quick" == await resonate.run("w", workflow)
        assert {
            "w": "resolved",
            "w.child-1": "rejected_canceled",
            "w.child-1.sleep-1": "rejected_canceled",
            "w.quick-1": "resolved",
        } == await states(resonate)


@pytest.mark.parametrize("answered", [False, True])
async def test_while_the_execution_is_put_away(world: World, answered: bool) -> None:
    """A gathering that is cancelled again and again, since its execution ends, does not keep what it records going."""

    async def workflow(ctx: Context) -> list[str]:
        return [*await asyncio.gather(ctx.run(quick), ctx.run(quick))]

    process = world.process(workflow)
    process.kill_at(settles("w.quick-2"), answered=answered)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        assert ["quick", "quick"] == await (await process.resonate.get("w", list[str]))
