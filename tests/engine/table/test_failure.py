"""The row of the table for a workflow that raises."""

from __future__ import annotations

import anyio
import pytest
from anyio import CancelScope

from resonate_anyio import Context, Resonate

from ..harness import Oops, Wire
from .cast import DETACHED, DETACHED_STEP, Diary, branch, endings, passed, step

CANCELED = "rejected_canceled"


async def fail(seconds: float = 5) -> None:
    await anyio.sleep(seconds)
    raise Oops


async def test_failure_local(resonate: Resonate, wire: Wire, diary: Diary) -> None:
    """What runs is cancelled and unwound, leaves first, and recorded as cancelled by its caller, before that fails."""

    async def workflow(ctx: Context) -> None:
        with ctx.get_dependency(Diary).tells("w"):
            await ctx.run(branch).spawn()
            await ctx.run(fail)

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert 5 == passed(begun)
        assert {
            "w": "rejected",
            "w.branch-1": "rejected_canceled by parent",
            "w.branch-1.step-1": "rejected_canceled by parent",
            "w.fail-1": "rejected",
        } == await endings(resonate)
    assert [
        ("w.fail-1", "rejected"),
        ("w.branch-1.step-1", CANCELED),
        ("w.branch-1", CANCELED),
        ("w", "rejected"),
    ] == wire.settled()
    assert ["w unwound", "w.branch-1.step-1 unwound", "w.branch-1 unwound"] == diary[-3:]


async def test_failure_local_ended(resonate: Resonate) -> None:
    """What has ended keeps its outcome; a failure that nobody has seen is noted on the error."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(step, 1).spawn()
        await ctx.run(fail, 1).spawn()
        await ctx.sleep(5)
        msg = "enough"
        raise ValueError(msg)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ValueError, match="enough") as caught:
            await resonate.run("w", workflow)
        assert {
            "w": "rejected",
            "w.fail-1": "rejected",
            "w.sleep-1": "resolved",
            "w.step-1": "resolved",
        } == await endings(resonate)
    assert ["its child 'w.fail-1' failed as well: Oops: "] == caught.value.__notes__


async def test_failure_local_compensating(resonate: Resonate, wire: Wire) -> None:
    """What is being cancelled may make durable calls under a shield: it is pending still, and waited for."""

    async def booking(ctx: Context) -> None:
        try:
            await ctx.sleep(100)
        finally:
            with CancelScope(shield=True):
                await ctx.run(step, 20)

    async def workflow(ctx: Context) -> None:
        await ctx.run(booking).spawn()
        await ctx.run(fail)

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert 25 == passed(begun)
    assert [
        ("w.fail-1", "rejected"),
        ("w.booking-1.sleep-1", CANCELED),
        ("w.booking-1.step-1", "resolved"),
        ("w.booking-1", CANCELED),
        ("w", "rejected"),
    ] == wire.settled()


async def test_failure_remote(resonate: Resonate, elsewhere: Resonate, wire: Wire, diary: Diary) -> None:
    """What runs on another worker is cancelled, with all that is below it, before its caller fails."""

    async def workflow(ctx: Context) -> None:
        await ctx.rpc(branch).target("elsewhere").spawn()
        await ctx.run(fail)

    resonate.register(workflow)
    async with elsewhere, resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert [
            ("w.fail-1", "rejected"),
            ("w.branch-1", CANCELED),
            ("w.branch-1.step-1", CANCELED),
            ("w", "rejected"),
            # Its own worker hears of it, too, and may say so again.
        ] == list(dict.fromkeys(wire.settled()))
        assert {
            "w": "rejected",
            "w.branch-1": "rejected_canceled by parent",
            "w.branch-1.step-1": "rejected_canceled by parent",
            "w.fail-1": "rejected",
        } == await endings(resonate)
        await anyio.sleep(1)
        assert ["begun", "unwound"] == diary.of("w.branch-1.step-1")
        assert ["begun", "unwound"] == diary.of("w.branch-1")


async def test_failure_remote_untaken(resonate: Resonate, elsewhere: Resonate, diary: Diary) -> None:
    """What no worker has taken yet is never run."""

    async def workflow(ctx: Context) -> None:
        await ctx.rpc(branch).target("elsewhere").spawn()
        await ctx.run(fail)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        async with elsewhere:
            await anyio.sleep(100)
        assert "rejected_canceled by parent" == (await endings(resonate))["w.branch-1"]
    assert [] == diary


async def test_failure_sleep(resonate: Resonate, wire: Wire) -> None:
    """A sleep is cancelled."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(3600).spawn()
        await ctx.run(fail)

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert 5 == passed(begun)
        assert "rejected_canceled by parent" == (await endings(resonate))["w.sleep-1"]
    assert [("w.fail-1", "rejected"), ("w.sleep-1", CANCELED), ("w", "rejected")] == wire.settled()


async def test_failure_promise(resonate: Resonate, wire: Wire) -> None:
    """A promise is cancelled: who settles it later is told that it is too late."""

    async def workflow(ctx: Context) -> None:
        await ctx.promise().spawn()
        await ctx.run(fail)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert [("w.fail-1", "rejected"), ("w.promise-1", CANCELED), ("w", "rejected")] == wire.settled()
        assert CANCELED == (await resonate.promises.resolve("w.promise-1", "yes")).state
        assert "rejected_canceled by parent" == (await endings(resonate))["w.promise-1"]


async def test_failure_detached(resonate: Resonate, elsewhere: Resonate, wire: Wire) -> None:
    """What was detached goes on."""

    async def workflow(ctx: Context) -> None:
        await ctx.detached(branch).target("elsewhere")
        await ctx.run(fail)

    resonate.register(workflow)
    async with elsewhere, resonate:
        begun = anyio.current_time()
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert 5 == passed(begun)
        assert "done" == await (await elsewhere.get(DETACHED))
        assert 10 == passed(begun)
    assert [
        ("w.fail-1", "rejected"),
        ("w", "rejected"),
        (DETACHED_STEP, "resolved"),
        (DETACHED, "resolved"),
    ] == wire.settled()
