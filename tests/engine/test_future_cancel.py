"""`await future.cancel()`: dropping a call that was started, live and after a crash at any point."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import CancelScope

from resonate_anyio import Context, DurableCancelledError, DurableFuture, Resonate, UsageError, WrongWorld
from resonate_anyio.abc import Clock
from tests.crash.corpus.leaves import Oops, fail, slow, step

from ..chosen import dotted
from .harness import World
from .replays import survives

BY_FUTURE = ("rejected_canceled", {"by": "future"})


async def _child(ctx: Context) -> None:
    await ctx.run(slow, 60, None)


async def _outcome(future: DurableFuture[Any]) -> str:
    try:
        return f"value {await future}"
    except Exception as exc:  # noqa: BLE001 - whatever it is
        return f"{type(exc).__name__}: {dotted(str(exc))}"


async def test_every_kind_of_call_is_cancelled() -> None:
    """It ends with everything below it, is no failure, and a later await of it says so, live and on a replay."""

    async def workflow(ctx: Context) -> list[object]:
        calls: list[Any] = [
            ctx.run(slow, 60, None),
            ctx.run(_child),
            ctx.rpc("nobody").target("elsewhere"),
            ctx.sleep(30),
            ctx.promise(),
        ]
        futures = [await call.spawn() for call in calls]
        await ctx.sleep(1)
        got: list[object] = [await future.cancel() for future in futures]
        got += [type(future.exception()).__name__ for future in futures]
        got += [await futures[0].cancel(), await _outcome(futures[0])]
        return [*got, await ctx.run(step, "after")]

    said = "DurableCancelledError: 'w.slow-1' was cancelled: the function that called it cancelled its future"
    endings = await survives(workflow, returns=[*[True] * 5, *["DurableCancelledError"] * 5, True, said, "after"])
    assert {
        "slow-1": BY_FUTURE,
        "_child-1": BY_FUTURE,
        "_child-1.slow-1": ("rejected_canceled", {"by": "parent"}),
        "nobody-1": BY_FUTURE,
        "sleep-1": BY_FUTURE,
        "sleep-2": ("resolved", None),
        "promise-1": BY_FUTURE,
        "step-1": ("resolved", "after"),
    } == endings


async def test_what_has_ended_stays() -> None:
    """A call that had ended keeps its outcome, and one that had failed is no failure of its function any more."""

    async def workflow(ctx: Context) -> list[object]:
        won, failed = await ctx.run(step, "won").spawn(), await ctx.run(fail, "no", 1).spawn()
        await ctx.sleep(5)
        return [await won.cancel(), await failed.cancel(), await won, type(failed.exception()).__name__]

    await survives(workflow, returns=[False, False, "won", "Oops"])


async def test_in_a_group() -> None:
    """A member that is cancelled does not fail its group, whether it runs or waits for its turn."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group(limit=2) as tg:
            kept, dropped, queued, last = (
                tg.run(slow, 2, "kept"),
                tg.run(slow, 60, None),
                tg.run(slow, 3, "queued"),
                tg.run(slow, 1, "last"),
            )
            await ctx.sleep(1)
            got: list[object] = [await queued.cancel(), await dropped.cancel()]
        return [*got, kept.result(), last.result(), await _outcome(queued)]

    said = "DurableCancelledError: 'w.slow-3' was cancelled: the function that called it cancelled its future"
    endings = await survives(workflow, returns=[True, True, "kept", "last", said])
    assert (BY_FUTURE, BY_FUTURE) == (endings["slow-2"], endings["slow-3"])


async def test_another_task_awaits_it() -> None:
    """A task that waits for the call hears of it, and can go on."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        future = await ctx.run(slow, 60, None).spawn()

        async def wait() -> None:
            got.append(await _outcome(future))
            got.append(await ctx.run(step, "waiter"))

        async with ctx.task_group() as tg:
            tg.start_soon(wait)
            await ctx.sleep(1)
            await future.cancel()
        return got

    said = "DurableCancelledError: 'w.slow-1' was cancelled: the function that called it cancelled its future"
    await survives(workflow, returns=[said, "waiter"])


async def test_after_a_limited_wait() -> None:
    """The usual end of `ctx.first(future, ctx.sleep(...))`: what has taken too long is dropped."""

    async def workflow(ctx: Context) -> list[object]:
        future = await ctx.run(slow, 60, None).spawn()
        index, _ = await ctx.first(future, ctx.sleep(5))
        return [index, await future.cancel()]

    await survives(workflow, returns=[1, True])


async def test_in_a_cancelled_scope() -> None:
    """A `finally` block may drop a call although it is being cancelled."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        future = await ctx.run(slow, 60, None).spawn()
        with ctx.move_on_after(2):
            try:
                await ctx.sleep(30)
            finally:
                with CancelScope(shield=True):
                    got.append(await future.cancel())
        return [*got, await ctx.run(step, "after")]

    await survives(workflow, returns=[True, "after"])


async def drops(ctx: Context) -> str:
    """Wait long, be parked, then drop the promise."""
    promise = await ctx.promise().spawn()
    await ctx.first(promise, ctx.sleep(1000))
    await promise.cancel()
    await ctx.sleep(1000)
    return await _outcome(promise)


@pytest.mark.parametrize("killed_at", [None, 500, 1500])
async def test_parked(world: World, clock: Clock, killed_at: int | None) -> None:
    """What was parked before and after it gives the same, in one life and in two."""
    began = clock()
    async with world.process(drops, hot_for=5) as process:
        handle = await process.resonate.run("w", drops).spawn()
        if killed_at is None:
            assert "cancelled its future" in await handle
            return
        await anyio.sleep(killed_at)
        process.kill()
    async with world.process(drops) as process:
        assert "cancelled its future" in await (await process.resonate.get("w"))
    assert clock() - began == pytest.approx(2_000_000, abs=2000)


async def test_from_elsewhere(resonate: Resonate) -> None:
    """Only the function that has started the call can drop it: a replay would not see anything else."""
    futures: list[DurableFuture[Any]] = []

    async def leaf() -> None:
        with pytest.raises(WrongWorld):
            await futures[0].cancel()

    async def workflow(ctx: Context) -> str:
        futures.append(await ctx.promise().spawn())
        await ctx.run(leaf)
        await futures[0].cancel()
        return "done"

    resonate.register(workflow)
    async with resonate:
        assert await resonate.run("w", workflow) == "done"
        with pytest.raises(WrongWorld):
            await futures[0].cancel()


async def test_whether_it_is_done_cannot_be_asked(resonate: Resonate) -> None:
    """`done()` of a future says what to do instead."""

    async def workflow(ctx: Context) -> str:
        future = await ctx.sleep(1).spawn()
        with pytest.raises(UsageError, match=r"ctx\.first\(future"):
            future.done()
        await future
        return "a"

    resonate.register(workflow)
    async with resonate:
        assert await resonate.run("w", workflow) == "a"


async def test_the_cancelled_member_may_be_caught_by_type(resonate: Resonate) -> None:
    """`DurableCancelledError.by` tells that it was its future."""

    async def workflow(ctx: Context) -> str | None:
        future = await ctx.promise().spawn()
        await future.cancel()
        try:
            await future
        except DurableCancelledError as exc:
            return exc.by
        raise Oops

    resonate.register(workflow)
    async with resonate:
        assert await resonate.run("w", workflow) == "future"
