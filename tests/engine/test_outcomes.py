"""What calls hand over: the same thing live and on a replay, as recorded; futures; handles that let go."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from resonate_anyio import Context, DurableTimeoutError, Info, NotRunning, Resonate, UsageError, durable
from resonate_anyio.networks import LocalNetwork

from ..inside import worker_of
from .harness import Look, Wire, World, settles


async def double(x: int) -> int:
    return x * 2


async def fail(message: str) -> None:
    raise ValueError(message)


async def test_value_live_and_replayed(world: World) -> None:
    """Without an annotation a step gives what JSON gives back, live too: tuples are lists, keys are strings."""
    seen: list[Any] = []

    async def step():  # type: ignore[no-untyped-def]  # noqa: ANN202 - the case at hand
        return {1: (2, (3, 4))}

    async def workflow(ctx: Context) -> None:
        seen.append(await ctx.run(step))
        await ctx.run(double, 1)

    process = world.process(workflow)
    process.kill_at(settles("w.double-1"), answered=False)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        await (await process.resonate.get("w")).result()
    assert [{"1": [2, [3, 4]]}] * 2 == seen


async def test_annotated_value_live_and_replayed(world: World) -> None:
    """With an annotation the type comes back, live and on a replay."""
    seen: list[Any] = []

    async def step() -> tuple[int, datetime]:
        return 1, datetime(2026, 1, 2, tzinfo=UTC)

    async def workflow(ctx: Context) -> None:
        seen.append(await ctx.run(step))
        await ctx.run(double, 1)

    process = world.process(workflow)
    process.kill_at(settles("w.double-1"), answered=False)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        await (await process.resonate.get("w")).result()
    assert [(1, datetime(2026, 1, 2, tzinfo=UTC))] * 2 == seen


def _described(error: BaseException) -> Any:
    members = [_described(member) for member in getattr(error, "exceptions", ())]
    cause = None if error.__cause__ is None else repr(error.__cause__)
    return type(error), str(error), members, getattr(error, "__notes__", []), cause


async def test_error_live_and_replayed(world: World) -> None:
    """An exception group comes back with its members, notes and cause, equal live and on a replay."""
    seen: list[Any] = []

    async def step() -> None:
        member = ValueError("b")
        member.add_note("of the member")
        group = ExceptionGroup("many", [KeyError("a"), member])
        group.add_note("of the group")
        raise group from OSError(5, "disk")

    async def workflow(ctx: Context) -> None:
        try:
            await ctx.run(step)
        except Exception as exc:  # noqa: BLE001 - what it is, is the question
            seen.append(_described(exc))
        await ctx.run(double, 1)

    process = world.process(workflow)
    process.kill_at(settles("w.double-1"), answered=False)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        await (await process.resonate.get("w")).result()
    members: list[Any] = [(KeyError, "'a'", [], [], None), (ValueError, "b", [], ["of the member"], None)]
    expected = (ExceptionGroup, "many (2 sub-exceptions)", members, ["of the group"], "OSError(5, 'disk')")
    assert [expected, expected] == seen


async def test_notes_that_are_none(network: LocalNetwork) -> None:
    """An error whose notes are not what Python makes them is recorded all the same."""

    async def step() -> None:
        error = ValueError("bad")
        error.__notes__ = 7  # type: ignore[assignment]
        raise error

    resonate = Resonate(network=network)
    resonate.register(step)
    async with resonate:
        with anyio.fail_after(10), pytest.raises(ValueError, match="bad"):
            await resonate.run("w", step)


async def test_live_error_keeps_its_traceback(resonate: Resonate) -> None:
    """An error of this process shows where it was raised, through every frame up to the client."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(fail, "no")

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ValueError, match="no") as caught:
            await resonate.run("w", workflow)
    names = [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert {"workflow", "fail"} <= set(names)


async def test_result_does_not_fit(resonate: Resonate) -> None:
    """A result that its annotation does not allow fails the call, with both named, and is not recorded as a value."""

    async def step() -> int:
        return "seven"  # type: ignore[return-value]

    async def workflow(ctx: Context) -> None:
        await ctx.run(step)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(TypeError, match="result of function 'step' does not fit its annotation int"):
            await resonate.run("w", workflow)
        assert "rejected" == (await resonate.promises.get("w.step-1")).state


async def test_future_before_the_await(resonate: Resonate) -> None:
    """A future has no answer before it was awaited, even if the call has ended: a replay could not tell."""

    async def workflow(ctx: Context) -> int:
        future = await ctx.run(double, 1).spawn()
        await ctx.sleep(10)
        with pytest.raises(UsageError, match="before it was awaited"):
            future.result()
        with pytest.raises(UsageError, match="before it was awaited"):
            future.exception()
        return await future

    resonate.register(workflow)
    async with resonate:
        assert 2 == await resonate.run("w", workflow)
        assert "resolved" == (await resonate.promises.get("w.double-1")).state


async def test_future_after_the_await(resonate: Resonate) -> None:
    """Once awaited, a future gives its result or its error as often as one likes."""

    async def workflow(ctx: Context) -> list[Any]:
        good = await ctx.run(double, 1).spawn()
        bad = await ctx.run(fail, "no").spawn()
        assert 2 == await good == await good
        with pytest.raises(ValueError, match="no"):
            await bad
        with pytest.raises(ValueError, match="no"):
            bad.result()
        return [good.result(), good.exception(), repr(bad.exception()), good.id]

    resonate.register(workflow)
    async with resonate:
        assert [2, None, "ValueError('no')", "w.double-1"] == await resonate.run("w", workflow)


async def test_cancelled_run_detaches(resonate: Resonate) -> None:
    """A cancelled `await resonate.run(...)` lets go: the execution runs on."""

    async def workflow(ctx: Context) -> str:
        await ctx.sleep(10)
        return "done"

    resonate.register(workflow)
    async with resonate:
        with anyio.move_on_after(1) as scope:
            await resonate.run("w", workflow)
        assert scope.cancelled_caught
        assert "done" == await (await resonate.get("w", str))


async def test_cancelled_result_detaches(resonate: Resonate) -> None:
    """So does a cancelled `await handle.result()`, which can be repeated."""

    async def workflow(ctx: Context) -> str:
        await ctx.sleep(10)
        return "done"

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        with anyio.move_on_after(1) as scope:
            await handle.result()
        assert scope.cancelled_caught
        assert not await handle.done()
        assert "done" == await handle.result() == await handle
        assert await handle.done()


async def test_asking_again_and_again_leaves_nothing_behind(network: LocalNetwork) -> None:
    """Whoever waits for a promise a second at a time leaves no task behind with each try."""
    resonate = Resonate(network=Wire(network, lapsing=True))
    async with resonate:
        worker = worker_of(resonate)
        await resonate.promises.create("approval", worker.connection.now() + 10**9)
        handle = await resonate.get("approval")
        before = worker.supervisor._busy
        for _ in range(50):
            with anyio.move_on_after(1):
                await handle
        assert worker.supervisor._busy - before < 5


async def test_cancelled_before_the_start(resonate: Resonate) -> None:
    """A run that is awaited in a cancelled scope is not started at all."""
    resonate.register(double)
    async with resonate:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await resonate.run("r", double, 1)
        assert {} == await Look(resonate).states()


async def test_workflow_and_leaves(resonate: Resonate) -> None:
    """The first parameter decides: a context orchestrates, an info informs, anything else is a pure leaf."""

    async def asking(info: Info, x: int) -> list[Any]:
        return [info.id, info.parent_id, info.origin_id, info.branch_id, info.func_name, info.attempt, x]

    async def workflow(ctx: Context, x: int) -> list[Any]:
        own = [ctx.id, ctx.parent_id, ctx.origin_id, ctx.func_name, ctx.info.id]
        return [own, await ctx.run(asking, x), await ctx.run(double, x)]

    resonate.register(workflow)
    async with resonate:
        result = await resonate.run("w", workflow, 4)
    assert [
        ["w", None, "w", "workflow", "w"],
        ["w.asking-1", "w", "w", "w", "asking", 1, 4],
        8,
    ] == result


async def test_leaf_as_root(resonate: Resonate) -> None:
    """A leaf can be run as a root, and is told about itself."""

    async def leaf(info: Info, x: int) -> list[Any]:
        return [info.id, info.parent_id, info.branch_id, info.tags["team"], info.timeout_at.isoformat(), x]

    resonate.register(leaf)
    async with resonate:
        result = await resonate.run("r", leaf, 1).timeout(60).tags({"team": "x"})
        deadline = (await resonate.promises.get("r")).timeout_at
    assert ["r", None, "r", "x", deadline.isoformat(), 1] == result


async def test_remote_call_knows_its_lineage(resonate: Resonate) -> None:
    """What a remote call runs is a branch of its own, below its caller and of the same origin."""

    async def remote(ctx: Context) -> list[Any]:
        return [ctx.id, ctx.parent_id, ctx.origin_id, ctx.info.branch_id]

    async def workflow(ctx: Context) -> Any:
        return await ctx.rpc(remote)

    resonate.register(workflow)
    resonate.register(remote)
    async with resonate:
        assert ["w.remote-1", "w", "w", "w.remote-1"] == await resonate.run("w", workflow)


async def test_returns(resonate: Resonate) -> None:
    """By name, `.returns(T)` says what the result is rebuilt as."""

    @durable
    async def remote() -> set[int]:
        return {1, 2}

    async def workflow(ctx: Context) -> bool:
        plain = await ctx.rpc("remote")
        typed = await ctx.rpc("remote").returns(set[int])
        return plain == [1, 2] and typed == {1, 2}

    resonate.register(workflow)
    resonate.register(remote)
    async with resonate:
        assert await resonate.run("w", workflow)
        assert {1, 2} == await resonate.rpc("r", "remote").returns(set[int])


async def test_root_error_reaches_every_waiter(resonate: Resonate) -> None:
    """Whoever waits for a root, by handle, by id or by joining it, gets its error."""
    resonate.register(fail)
    async with resonate:
        handle = await resonate.run("r", fail, "no").spawn()
        for wait in (handle, await resonate.get("r"), resonate.run("r", fail, "no")):
            with pytest.raises(ValueError, match="no"):
                await wait


async def test_waiting_beyond_the_end_of_the_block(resonate: Resonate) -> None:
    """A handle that is awaited after the block says that nothing runs any more."""
    resonate.register(double)
    async with resonate:
        handle = await resonate.run("r", double, 1).spawn()
    with pytest.raises(NotRunning):
        await handle


async def test_timeout_is_a_timeout_error(resonate: Resonate) -> None:
    """A root that misses its deadline raises an error of ours that is a TimeoutError as well."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(100)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(TimeoutError, match="the deadline of 'w' passed") as caught:
            await resonate.run("w", workflow).timeout(5)
    assert isinstance(caught.value, DurableTimeoutError)
