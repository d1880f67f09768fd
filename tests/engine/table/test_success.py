"""The row of the table for a workflow that returns."""

from __future__ import annotations

import anyio
import pytest

from resonate_anyio import Context, DurableTimeoutError, Resonate

from ..harness import Look, Oops, Wire
from .cast import DETACHED, DETACHED_STEP, Diary, branch, endings, passed


async def fail(seconds: float) -> None:
    await anyio.sleep(seconds)
    raise Oops


async def test_success_local(resonate: Resonate, wire: Wire, diary: Diary) -> None:
    """What was spawned is waited for to the end, and recorded before its caller, from the leaves up."""

    async def workflow(ctx: Context) -> str:
        await ctx.run(branch).spawn()
        return "returned"

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        assert "returned" == await resonate.run("w", workflow)
        assert 10 == passed(begun)
    assert [(id, "resolved") for id in ("w.branch-1.step-1", "w.branch-1", "w")] == wire.settled()
    assert ["w.branch-1 begun", "w.branch-1.step-1 begun", "w.branch-1.step-1 returned", "w.branch-1 returned"] == diary


async def test_success_local_failing(resonate: Resonate, wire: Wire) -> None:
    """What fails and was awaited by nobody is its caller's failure, after everything else has ended."""

    async def workflow(ctx: Context) -> str:
        await ctx.run(fail, 5).spawn()
        await ctx.run(branch).spawn()
        return "returned"

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("w", workflow)
    assert [Oops] == [type(error) for error in caught.value.exceptions]
    assert [
        ("w.fail-1", "rejected"),
        ("w.branch-1.step-1", "resolved"),
        ("w.branch-1", "resolved"),
        ("w", "rejected"),
    ] == wire.settled()


async def test_success_remote(resonate: Resonate, elsewhere: Resonate, wire: Wire, diary: Diary) -> None:
    """So is what runs on another worker."""

    async def workflow(ctx: Context) -> str:
        await ctx.rpc(branch).target("elsewhere").spawn()
        return "returned"

    resonate.register(workflow)
    async with elsewhere, resonate:
        begun = anyio.current_time()
        assert "returned" == await resonate.run("w", workflow)
        assert 10 == passed(begun)
    assert [(id, "resolved") for id in ("w.branch-1.step-1", "w.branch-1", "w")] == wire.settled()
    assert ["begun", "returned"] == diary.of("w.branch-1")


async def test_success_remote_failing(resonate: Resonate, elsewhere: Resonate) -> None:
    """And so is its failure."""

    async def workflow(ctx: Context) -> str:
        await ctx.rpc(fail, 5).target("elsewhere").spawn()
        return "returned"

    resonate.register(workflow)
    elsewhere.register(fail)
    async with elsewhere, resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("w", workflow)
        assert {"w": "rejected", "w.fail-1": "rejected"} == await endings(resonate)
    assert [Oops] == [type(error) for error in caught.value.exceptions]


async def test_success_sleep(resonate: Resonate) -> None:
    """A sleep that was spawned is slept to its end."""

    async def workflow(ctx: Context) -> str:
        await ctx.sleep(3600).spawn()
        return "returned"

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        assert "returned" == await resonate.run("w", workflow)
        assert 3600 == passed(begun)
        assert {"w": "resolved", "w.sleep-1": "resolved"} == await endings(resonate)


async def test_success_promise(resonate: Resonate) -> None:
    """A promise that was made is waited for until somebody settles it."""

    async def workflow(ctx: Context) -> str:
        await ctx.promise().spawn()
        return "returned"

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(60)
        assert not await handle.done()
        await Look(resonate).settle("w.promise-1", "yes", resonate)
        assert "returned" == await handle
        assert 60 == passed(begun)


async def test_success_promise_rejected(resonate: Resonate) -> None:
    """If it is settled with an error that nobody awaits, that is its maker's failure."""

    async def workflow(ctx: Context) -> str:
        await ctx.promise().spawn()
        return "returned"

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(60)
        await resonate.promises.reject("w.promise-1", Oops("no"))
        with pytest.raises(ExceptionGroup) as caught:
            await handle
        assert {"w": "rejected", "w.promise-1": "rejected"} == await endings(resonate)
    assert [Oops] == [type(error) for error in caught.value.exceptions]


async def test_success_promise_forgotten(resonate: Resonate) -> None:
    """If nobody settles it, it and its maker end at the maker's deadline."""

    async def workflow(ctx: Context) -> str:
        await ctx.promise().spawn()
        return "returned"

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        with pytest.raises(DurableTimeoutError):
            await resonate.run("w", workflow).timeout(3600)
        assert 3600 == passed(begun)
        assert {"w": "rejected_timedout", "w.promise-1": "rejected_timedout"} == await endings(resonate)


async def test_success_detached(resonate: Resonate, elsewhere: Resonate, wire: Wire) -> None:
    """What was detached is not waited for, and goes on."""

    async def workflow(ctx: Context) -> str:
        await ctx.detached(branch).target("elsewhere")
        return "returned"

    resonate.register(workflow)
    async with elsewhere, resonate:
        begun = anyio.current_time()
        assert "returned" == await resonate.run("w", workflow)
        assert 0 == passed(begun)
        assert "done" == await (await elsewhere.get(DETACHED))
        assert 10 == passed(begun)
    assert [(id, "resolved") for id in ("w", DETACHED_STEP, DETACHED)] == wire.settled()
