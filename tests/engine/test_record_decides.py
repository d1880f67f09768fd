"""The record decides: over what is in memory, over clocks, and over a cancelled scope."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from resonate_anyio import Context, DurableCancelledError, DurableTimeoutError, Handle, Resonate
from resonate_anyio._protocol import SNAPSHOT, PromiseSettle, PromiseState, Value
from resonate_anyio.abc import Clock
from resonate_anyio.stores import MemoryStore

from .harness import Look, Oops, Wire, World, creates, nothing


async def double(x: int) -> int:
    return x * 2


async def slow(value: str) -> str:
    await anyio.sleep(10)
    return value


async def deaf(value: str) -> str:
    """A leaf that cannot be stopped."""
    with CancelScope(shield=True):
        await anyio.sleep(10)
    return value


async def test_child_settled_from_outside(resonate: Resonate) -> None:
    """A child that somebody settles while its leaf runs has the outcome that is on record, not the leaf's."""

    async def workflow(ctx: Context) -> str:
        return await ctx.run(slow, "inside")

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await resonate.promises.resolve("w.slow-1", "outside")
        assert "outside" == await handle


async def test_child_rejected_from_outside(resonate: Resonate) -> None:
    """The same with an error: the leaf's value is of no account."""

    async def workflow(ctx: Context) -> str:
        return await ctx.run(slow, "inside")

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await resonate.promises.reject("w.slow-1", KeyError("outside"))
        with pytest.raises(KeyError, match="outside"):
            await handle


async def test_failed_child_that_was_resolved_from_outside(resonate: Resonate) -> None:
    """A leaf that raises after its promise was resolved has not failed."""

    async def broken() -> str:
        await anyio.sleep(10)
        raise Oops

    async def workflow(ctx: Context) -> str:
        return await ctx.run(broken)

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await resonate.promises.resolve("w.broken-1", "mended")
        assert "mended" == await handle


async def test_root_settled_from_outside(resonate: Resonate) -> None:
    """A root that somebody settled first has that outcome, whatever its function returns."""
    resonate.register(slow)
    async with resonate:
        handle = await resonate.run("r", slow, "inside").spawn()
        await anyio.sleep(5)
        await Look(resonate).settle("r", "outside", resonate)
        assert "outside" == await handle


async def test_timed_out_although_it_returned(resonate: Resonate) -> None:
    """A leaf that comes back after its deadline has timed out, its value notwithstanding."""

    async def workflow(ctx: Context) -> str:
        return await ctx.run(deaf, "late").timeout(5)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(DurableTimeoutError):
            await resonate.run("w", workflow)
        assert "rejected_timedout" == (await resonate.promises.get("w.deaf-1")).state


async def test_cancelled_although_it_returned(resonate: Resonate) -> None:
    """A child that its parent cancelled, but that had been settled first, keeps that outcome."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(deaf, "kept").spawn()
        await ctx.sleep(0.1)
        raise Oops

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        record = await resonate.promises.get("w.deaf-1")
    assert ("resolved", "kept") == (record.state, record.value)


async def test_recorded_future_in_a_cancelled_scope(resonate: Resonate) -> None:
    """An outcome that is known is handed over in a cancelled scope too: history cannot be cancelled."""

    async def workflow(ctx: Context) -> list[int]:
        future = await ctx.run(double, 1).spawn()
        await future
        with CancelScope() as scope:
            scope.cancel()
            return [await future, await future]
        return []

    resonate.register(workflow)
    async with resonate:
        assert [2, 2] == await resonate.run("w", workflow)


async def test_recorded_calls_in_a_cancelled_scope(world: World) -> None:
    """On a replay every recorded outcome is handed over without a checkpoint, of whatever kind of call."""
    cancelled = False

    async def child(ctx: Context) -> int:
        return await ctx.run(double, 4)

    async def workflow(ctx: Context) -> list[Any]:
        with CancelScope() as scope:
            if cancelled:
                scope.cancel()
            got: list[Any] = [await ctx.run(double, 1), await ctx.run(child), await ctx.rpc("double", 3)]
            await ctx.sleep(1)
            future = await ctx.run(double, 5).spawn()
            got.append(await future)
            try:
                await ctx.promise().timeout(1)
            except DurableTimeoutError:
                got.append("timed out")
        await ctx.sleep(5).named("end")
        return [*got, scope.cancelled_caught]

    process = world.process(workflow, double)
    process.kill_at(creates("w.end"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    cancelled = True
    async with world.process(workflow, double) as process:
        assert [2, 8, 6, 10, "timed out", False] == await (await process.resonate.get("w"))


async def test_deadline_that_passed_unseen(clock: Clock) -> None:
    """An outcome that the engine has to ask for is fetched under a shield: a cancelled scope does not lose it."""
    cancelled = False

    async def workflow(ctx: Context) -> str:
        with CancelScope() as scope:
            if cancelled:
                scope.cancel()
            try:
                await ctx.run(slow, "x").timeout(5)
            except DurableTimeoutError:
                return "timed out"
        return f"cancelled: {scope.cancelled_caught}"

    # These rules leave a deadline unswept until somebody asks, as newer servers do.
    world = World(MemoryStore(), clock, SNAPSHOT)
    process = world.process(workflow)
    process.kill_at(creates("w.slow-1"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    cancelled = True
    await anyio.sleep(60)
    async with world.process(workflow) as process:
        assert "timed out" == await (await process.resonate.get("w"))


async def test_call_in_a_cancelled_scope_raises(resonate: Resonate) -> None:
    """A call that is new ends as the backend's cancellation there, and its function is not called."""
    called: list[int] = []

    async def step(x: int) -> None:
        called.append(x)
        await checkpoint()

    async def workflow(ctx: Context) -> bool:
        with CancelScope() as scope:
            scope.cancel()
            await ctx.run(double, 1)
            await ctx.run(step, 1)
        return scope.cancelled_caught

    resonate.register(workflow)
    async with resonate:
        assert await resonate.run("w", workflow)
    assert [] == called


async def test_lost_answer_of_a_settle(wire: Wire, resonate: Resonate) -> None:
    """A call whose settling was answered to nobody has ended all the same: the next run finds it."""
    runs: list[int] = []

    async def step() -> int:
        runs.append(1)
        return len(runs)

    async def workflow(ctx: Context) -> int:
        return await ctx.run(step)

    async def lose(request: Any, _: object) -> None:
        if request.kind == "promise.settle" and runs == [1]:
            wire.after = nothing
            wire.cut()

    wire.after = lose
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(0.1)
        wire.mend()
        assert 1 == await (await resonate.get("w", int))
        del handle
    assert [1] == runs


async def test_cancelled_child_is_cancelled_for_every_waiter(resonate: Resonate) -> None:
    """A future whose await was cancelled has been cancelled, whoever else waits for it."""

    async def workflow(ctx: Context) -> list[str]:
        future = await ctx.run(slow, "x").spawn()
        seen: list[str] = []

        async def wait() -> None:
            try:
                await future
            except DurableCancelledError as exc:
                seen.append(str(exc.by))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            with anyio.move_on_after(1):
                await future
        return seen

    resonate.register(workflow)
    async with resonate:
        assert ["scope"] == await resonate.run("w", workflow)


@pytest.mark.parametrize("awaited", [True, False], ids=["awaited", "not awaited"])
async def test_cancelled_with_what_nobody_can_read(resonate: Resonate, *, awaited: bool) -> None:
    """A promise that somebody else cancelled has been cancelled, whatever was written into it."""

    async def workflow(ctx: Context) -> None:
        future = await ctx.promise().named("p").spawn()
        if awaited:
            await future

    resonate.register(workflow)
    with anyio.fail_after(100):
        async with resonate:
            handle = await resonate.run("w", workflow).spawn()
            await anyio.sleep(1)
            garbage = PromiseSettle(id="w.p", state=PromiseState.CANCELED, value=Value(data="!!"))
            await Look(resonate).request(garbage)
            error = await failure(handle)
            assert "!!" == (await resonate.promises.get("w.p")).value
    cancelled = error if awaited else only_one_in(error)
    assert isinstance(cancelled, DurableCancelledError)
    assert ("w.p", None) == (cancelled.id, cancelled.by)


async def failure(handle: Handle[Any]) -> Exception:
    """What an execution failed with."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - that is for the caller to say
        await handle
    return caught.value


def only_one_in(error: Exception) -> Exception:
    """The only member of a group."""
    assert isinstance(error, ExceptionGroup)
    (only,) = error.exceptions
    return only
