"""The row of the table for a workflow whose process dies.

Where the engine dies with it, as in a program that keeps its own file, the next process goes on at once (`world`).
Where only the worker dies, its lease lapses first, and whatever runs on other workers meanwhile runs on (`network`).
"""

from __future__ import annotations

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.networks import LocalNetwork

from ..harness import World
from .cast import DETACHED, Diary, Start, branch, endings, knowing, passed, process, step

LEASE = 60
"""Seconds that the lease of a dead worker lasts at most."""


async def test_crash_local(world: World, start: Start) -> None:
    """What is on record is not run again; what was running begins anew, workflows from the top, steps as a whole."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(step, 1)
        await start(ctx.run(branch))

    before, after = Diary(), Diary()
    first = world.process(workflow)
    knowing(first.resonate, before)
    async with first:
        await first.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        first.kill()
    assert ["w.step-1 returned", "w.branch-1 begun", "w.branch-1.step-1 begun"] == before[1:4]

    second = world.process(workflow)
    knowing(second.resonate, after)
    async with second:
        begun = anyio.current_time()
        states = await endings(second.resonate)
        await (await second.resonate.get("w"))
        assert 10 == passed(begun)
        assert {"resolved"} == set((await endings(second.resonate)).values())
    assert {
        "w": "pending",
        "w.branch-1": "pending",
        "w.branch-1.step-1": "pending",
        "w.step-1": "resolved",
    } == states
    assert ["w.branch-1 begun", "w.branch-1.step-1 begun", "w.branch-1.step-1 returned", "w.branch-1 returned"] == after


async def test_crash_remote(network: LocalNetwork, elsewhere: Resonate, diary: Diary, start: Start) -> None:
    """What runs on another worker runs on, once, and its outcome is there for whoever continues the workflow."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.rpc(branch).target("elsewhere"))

    async with elsewhere:
        async with process(network, Diary(), workflow) as first:
            await first.resonate.run("w", workflow).spawn()
            await anyio.sleep(5)
            first.kill()
        begun = anyio.current_time()
        async with process(network, Diary(), workflow) as second:
            handle = await second.resonate.get("w")
            await anyio.sleep(6)
            assert {"w": "pending", "w.branch-1": "resolved", "w.branch-1.step-1": "resolved"} == await endings(
                second.resonate
            )
            await handle
        assert LEASE >= passed(begun)
    assert ["begun", "returned"] == diary.of("w.branch-1")
    assert ["begun", "returned"] == diary.of("w.branch-1.step-1")


async def test_crash_remote_same_process(world: World, start: Start) -> None:
    """What ran in the same process goes on in the next one as well, as an execution of its own."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.rpc(branch))

    diary = Diary()
    first = world.process(workflow)
    knowing(first.resonate, Diary())
    async with first:
        await first.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        first.kill()
    second = world.process(workflow)
    knowing(second.resonate, diary)
    async with second:
        begun = anyio.current_time()
        await (await second.resonate.get("w"))
        assert 10 == passed(begun)
    assert ["w.branch-1 begun", "w.branch-1.step-1 begun", "w.branch-1.step-1 returned", "w.branch-1 returned"] == diary


async def test_crash_remote_other_process(network: LocalNetwork, diary: Diary) -> None:
    """If it is the other process that dies, the workflow notices nothing but the time that it takes."""

    async def workflow(ctx: Context) -> str:
        with diary.tells("w"):
            return await ctx.rpc(branch).target("default")

    caller = knowing(Resonate(network=network, group="callers"), diary, workflow)
    async with caller:
        begun = anyio.current_time()
        async with process(network, Diary()) as first:
            handle = await caller.run("w", workflow).spawn()
            await anyio.sleep(5)
            first.kill()
        async with process(network, diary):
            assert "done" == await handle
        assert LEASE + 10 >= passed(begun)
    assert ["begun", "returned"] == diary.of("w")
    assert ["begun", "returned"] == diary.of("w.branch-1")


async def test_crash_sleep(world: World, start: Start) -> None:
    """A sleep ends when it was due: not later for the restart."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.sleep(3600))

    begun = anyio.current_time()
    async with world.process(workflow) as first:
        await first.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        first.kill()
    await anyio.sleep(1000)
    async with world.process(workflow) as second:
        await (await second.resonate.get("w"))
        assert 3600 == passed(begun)


async def test_crash_sleep_due(world: World, start: Start) -> None:
    """One that came due while no process lived is over when the next one starts."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.sleep(3600))

    async with world.process(workflow) as first:
        await first.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        first.kill()
    await anyio.sleep(7200)
    async with world.process(workflow) as second:
        begun = anyio.current_time()
        await (await second.resonate.get("w"))
        assert 0 == passed(begun)


async def test_crash_promise(network: LocalNetwork, elsewhere: Resonate) -> None:
    """A promise can be settled while nobody runs its workflow, which finds the value when it is continued."""

    async def workflow(ctx: Context) -> str:
        future = await ctx.promise().returns(str).spawn()
        return await future

    async with elsewhere:
        async with process(network, Diary(), workflow) as first:
            await first.resonate.run("w", workflow).spawn()
            await anyio.sleep(5)
            first.kill()
        begun = anyio.current_time()
        assert {"w": "pending", "w.promise-1": "pending"} == await endings(elsewhere)
        await elsewhere.promises.resolve("w.promise-1", "yes")
        async with process(network, Diary(), workflow) as second:
            assert "yes" == await (await second.resonate.get("w"))
        assert LEASE >= passed(begun)


async def test_crash_promise_pending(world: World, start: Start) -> None:
    """One that is still pending is waited for again, under the same id."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.promise())

    async with world.process(workflow) as first:
        await first.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        first.kill()
    async with world.process(workflow) as second:
        await anyio.sleep(60)
        assert {"w": "pending", "w.promise-1": "pending"} == await endings(second.resonate)
        await second.resonate.promises.resolve("w.promise-1", "yes")
        await (await second.resonate.get("w"))


async def test_crash_detached(network: LocalNetwork, elsewhere: Resonate, diary: Diary) -> None:
    """What was detached goes on on its worker, and is not started again by the replay."""

    async def workflow(ctx: Context) -> None:
        await ctx.detached(branch).target("elsewhere")
        await ctx.sleep(3600)

    async with elsewhere:
        begun = anyio.current_time()
        async with process(network, Diary(), workflow) as first:
            await first.resonate.run("w", workflow).spawn()
            await anyio.sleep(5)
            first.kill()
        assert "done" == await (await elsewhere.get(DETACHED))
        assert 10 == passed(begun)
        async with process(network, Diary(), workflow) as second:
            await (await second.resonate.get("w"))
    assert ["begun", "returned"] == diary.of(DETACHED)
