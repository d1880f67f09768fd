"""The row of the table for a workflow that misses its deadline."""

from __future__ import annotations

import anyio
import pytest

from resonate_anyio import Context, DurableTimeoutError, Resonate

from .cast import DETACHED, Diary, Start, branch, endings, passed

TIMEDOUT = "rejected_timedout"


async def test_timeout_local(resonate: Resonate, diary: Diary, start: Start) -> None:
    """What runs is stopped and unwound at that very instant, leaves first, and has timed out as well."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.run(branch))

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match="'w'"):
            await resonate.run("w", workflow).timeout(5)
        assert 5 == passed(begun)
        assert dict.fromkeys(["w", "w.branch-1", "w.branch-1.step-1"], TIMEDOUT) == await endings(resonate)
        records = [record async for record in resonate.promises.search()]
    assert 1 == len({record.settled_at for record in records} | {record.timeout_at for record in records})
    assert ["w.branch-1.step-1 unwound", "w.branch-1 unwound"] == diary[2:]


async def test_timeout_local_below(resonate: Resonate, diary: Diary, start: Start) -> None:
    """If it was called with a deadline of its own, its caller is told and goes on."""

    async def child(ctx: Context) -> None:
        await start(ctx.run(branch))

    async def workflow(ctx: Context) -> str:
        with pytest.raises(TimeoutError):
            await ctx.run(child).timeout(5)
        await ctx.sleep(60)
        return "went on"

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        assert "went on" == await resonate.run("w", workflow)
        assert 65 == passed(begun)
        below = ["w.child-1", "w.child-1.branch-1", "w.child-1.branch-1.step-1"]
        assert dict.fromkeys(below, TIMEDOUT) == {
            id: how for id, how in (await endings(resonate)).items() if id.startswith("w.child-1")
        }
    assert ["begun", "unwound"] == diary.of("w.child-1.branch-1.step-1")


async def test_timeout_remote(resonate: Resonate, elsewhere: Resonate, diary: Diary, start: Start) -> None:
    """What runs on another worker has the same deadline, and is stopped there at that instant."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.rpc(branch).target("elsewhere"))

    resonate.register(workflow)
    async with elsewhere, resonate:
        begun = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match="'w'"):
            await resonate.run("w", workflow).timeout(5)
        assert dict.fromkeys(["w", "w.branch-1", "w.branch-1.step-1"], TIMEDOUT) == await endings(resonate)
        await anyio.wait_all_tasks_blocked()
        assert 5 == passed(begun)
        assert ["w.branch-1.step-1 unwound", "w.branch-1 unwound"] == diary[2:]


async def test_timeout_sleep(resonate: Resonate, diary: Diary, start: Start) -> None:
    """A sleep ends with its function: whose code never sees it slept."""

    async def workflow(ctx: Context) -> None:
        with diary.tells("the sleep"):
            await start(ctx.sleep(3600))
            await ctx.sleep(3600)

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match="'w'"):
            await resonate.run("w", workflow).timeout(5)
        assert 5 == passed(begun)
        assert "pending" not in (await endings(resonate)).values()
    assert ["begun", "unwound"] == diary.of("the sleep")


async def test_timeout_promise(resonate: Resonate, start: Start) -> None:
    """A promise times out with the function that made it; who settles it later is told that it is too late."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.promise())

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(DurableTimeoutError, match="'w'"):
            await resonate.run("w", workflow).timeout(5)
        assert {"w": TIMEDOUT, "w.promise-1": TIMEDOUT} == await endings(resonate)
        assert TIMEDOUT == (await resonate.promises.resolve("w.promise-1", "yes")).state


async def test_timeout_detached(resonate: Resonate, elsewhere: Resonate) -> None:
    """What was detached goes on: it has a deadline of its own."""

    async def workflow(ctx: Context) -> None:
        await ctx.detached(branch).target("elsewhere")
        await ctx.sleep(3600)

    resonate.register(workflow)
    async with elsewhere, resonate:
        begun = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match="'w'"):
            await resonate.run("w", workflow).timeout(5)
        assert "done" == await (await elsewhere.get(DETACHED))
        assert 10 == passed(begun)
