"""Users' own concurrency inside of workflows: task groups and nurseries of anyio, asyncio and trio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest

from resonate_anyio import Context, DurableCancelledError, Resonate, UsageError
from resonate_anyio._protocol import Request

from .harness import Before, Look, Oops, Wire, World, creates

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


async def slow(seconds: float = 10) -> str:
    await anyio.sleep(seconds)
    return "done"


async def fail() -> None:
    await anyio.sleep(1)
    raise Oops


async def native_group() -> AbstractAsyncContextManager[Any]:
    """The task group of the backend itself."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.TaskGroup()
    import trio  # noqa: PLC0415 - only on trio

    return trio.open_nursery()


def start(group: Any, func: Callable[[], Awaitable[None]]) -> None:
    """Start a task in an asyncio.TaskGroup or a trio nursery."""
    if hasattr(group, "create_task"):
        group.create_task(func())
    else:
        group.start_soon(func)


async def test_failure_in_a_native_group(resonate: Resonate) -> None:
    """A failing call in a native group cancels its siblings' calls, durably; the error is the user's to catch."""

    async def workflow(ctx: Context) -> str:
        async def failing() -> None:
            await ctx.run(fail).named("fail")

        async def sibling() -> None:
            await ctx.run(slow).named("slow")

        try:
            async with await native_group() as group:
                start(group, failing)
                start(group, sibling)
        except* Oops:
            pass
        return await ctx.run(slow).named("after")

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        assert "done" == await resonate.run("w", workflow)
        assert 11 == pytest.approx(anyio.current_time() - begun, abs=0.1)
        states = await Look(resonate).states()
    assert {
        "w": "resolved",
        "w.after": "resolved",
        "w.fail": "rejected",
        "w.slow": "rejected_canceled",
    } == states


async def test_failure_that_leaves_a_group(resonate: Resonate) -> None:
    """A group's failure that nobody catches is the workflow's, without cancellations in it."""

    async def workflow(ctx: Context) -> None:
        async def failing() -> None:
            await ctx.run(fail)

        async def sibling() -> None:
            await ctx.run(slow)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(failing)
            tasks.start_soon(sibling)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("w", workflow)
    assert [Oops] == [type(error) for error in caught.value.exceptions]


async def test_many_tasks(resonate: Resonate) -> None:
    """Calls of many tasks run beside each other."""

    async def workflow(ctx: Context) -> int:
        results: list[str] = []

        async def one(n: int) -> None:
            results.append(await ctx.run(slow).named(f"n{n}"))

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(one, n)
        return len(results)

    resonate.register(workflow)
    async with resonate:
        begun = anyio.current_time()
        assert 50 == await resonate.run("w", workflow)
        assert 10 == pytest.approx(anyio.current_time() - begun, abs=0.1)


async def test_group_after_a_crash(world: World) -> None:
    """Named calls of a plain group are found again on a replay."""
    runs: list[int] = []

    async def step(n: int) -> int:
        runs.append(n)
        return n

    async def workflow(ctx: Context) -> int:
        results: list[int] = []

        async def one(n: int) -> None:
            results.append(await ctx.run(step, n).named(f"n{n}"))

        async with anyio.create_task_group() as tasks:
            for n in range(5):
                tasks.start_soon(one, n)
        await ctx.sleep(10)
        return sum(results)

    process = world.process(workflow)
    process.kill_at(creates("w.sleep-1"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        assert 10 == await (await process.resonate.get("w"))
    assert [0, 1, 2, 3, 4] == sorted(runs)


async def test_scope_around_several_calls(resonate: Resonate) -> None:
    """A plain deadline around several calls ends the one that is running; those that ended keep their outcomes."""

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(15):
            await ctx.run(slow)
            await ctx.run(slow)
            await ctx.run(slow)
        return "moved on"

    resonate.register(workflow)
    async with resonate:
        assert "moved on" == await resonate.run("w", workflow)
        states = await Look(resonate).states()
    assert {"w": "resolved", "w.slow-1": "resolved", "w.slow-2": "rejected_canceled"} == states


async def test_scope_around_a_workflow(resonate: Resonate) -> None:
    """Cancelling the await of a workflow goes down its graph."""

    async def child(ctx: Context) -> None:
        await ctx.run(slow).spawn()
        await ctx.rpc("nobody").target("elsewhere").spawn()
        await ctx.sleep(100)

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(1):
            await ctx.run(child)
        return "moved on"

    resonate.register(workflow)
    async with resonate:
        assert "moved on" == await resonate.run("w", workflow)
        records = {p.id: p async for p in resonate.promises.search()}
    assert "resolved" == records.pop("w").state
    assert {"rejected_canceled"} == {record.state for record in records.values()}
    assert {"by": "scope"} == records["w.child-1"].value


@on_asyncio
async def test_asyncio_timeout(resonate: Resonate) -> None:
    """`asyncio.timeout` around a call ends it."""

    async def workflow(ctx: Context) -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await ctx.run(slow)
        return await ctx.run(slow, 1)

    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)
        assert "rejected_canceled" == (await resonate.promises.get("w.slow-1")).state


async def test_task_that_outlives_the_workflow(resonate: Resonate) -> None:
    """A call that is still running when its function returns, in whatever task, is joined like any other."""

    async def workflow(ctx: Context) -> str:
        async def call() -> None:
            await ctx.run(slow).named("long")

        tasks.start_soon(call)
        await ctx.run(slow, 1).named("short")
        return "returned"

    resonate.register(workflow)
    async with anyio.create_task_group() as tasks, resonate:
        begun = anyio.current_time()
        assert "returned" == await resonate.run("w", workflow)
        assert 10 == pytest.approx(anyio.current_time() - begun, abs=0.1)
        assert "resolved" == (await resonate.promises.get("w.long")).state


async def test_call_after_the_function_returned(resonate: Resonate, wire: Wire) -> None:
    """A call that such a task makes while its function is being joined is joined as well."""

    async def workflow(ctx: Context) -> str:
        async def call() -> None:
            await ctx.run(slow, 5).named("a")
            await ctx.run(slow, 100).named("b")

        tasks.start_soon(call)
        await ctx.run(slow, 10).named("c").spawn()
        await ctx.run(slow, 1).named("d")
        return "returned"

    resonate.register(workflow)
    async with anyio.create_task_group() as tasks, resonate:
        begun = anyio.current_time()
        assert "returned" == await resonate.run("w", workflow)
        assert 105 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert ["w.d", "w.a", "w.c", "w.b", "w"] == [id for id, _ in wire.settled()]


async def test_call_on_its_way_to_the_record(wire: Wire) -> None:
    """A call that is not on record yet when its function returns is joined like any other."""
    resonate = Resonate(network=wire, one_request=False)
    wire.before = late("w.late")

    async def workflow(ctx: Context) -> str:
        async def call() -> None:
            await ctx.run(slow, 10).named("late")

        tasks.start_soon(call)
        await ctx.run(slow, 1).named("short")
        return "returned"

    resonate.register(workflow)
    async with anyio.create_task_group() as tasks, resonate:
        begun = anyio.current_time()
        assert "returned" == await resonate.run("w", workflow)
        assert 15 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert ["w.short", "w.late", "w"] == [id for id, _ in wire.settled()]


async def test_call_on_its_way_when_the_function_fails(resonate: Resonate, wire: Wire) -> None:
    """A call that is not on record yet when its function fails is cancelled like any other."""
    wire.before = late("w.late")

    async def workflow(ctx: Context) -> None:
        async def call() -> None:
            with pytest.raises(DurableCancelledError):
                await ctx.run(slow, 10).named("late")

        tasks.start_soon(call)
        await ctx.run(slow, 1).named("short")
        raise Oops

    resonate.register(workflow)
    async with anyio.create_task_group() as tasks, resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
    assert [("w.short", "resolved"), ("w.late", "rejected_canceled"), ("w", "rejected")] == wire.settled()


def late(id: str) -> Before:
    """The create of `id` takes five seconds to arrive."""

    async def hold(request: Request) -> None:
        if creates(id)(request):
            await anyio.sleep(5)

    return hold


async def test_recursion(resonate: Resonate) -> None:
    """Workflows may call each other a hundred deep, more than the interpreter's stack would hold."""

    async def down(ctx: Context, n: int) -> int:
        return 0 if n == 0 else 1 + await ctx.run(down, n - 1).named("n")

    resonate.register(down)
    async with resonate:
        assert 100 == await resonate.run("w", down, 100)


@pytest.mark.slow
async def test_recursion_without_end(resonate: Resonate) -> None:
    """A recursion that does not end is a failure on record: it neither hangs nor is tried again."""
    runs: list[str] = []

    async def down(ctx: Context) -> None:
        if ctx.parent_id is None:
            runs.append(ctx.id)
        await ctx.run(down).named("n")

    resonate.register(down)
    async with resonate:
        with anyio.fail_after(100), pytest.raises((RecursionError, UsageError)):
            await resonate.run("w", down)
        assert "rejected" == (await resonate.promises.get("w")).state
    assert ["w"] == runs


async def test_recursive_fan_out(resonate: Resonate) -> None:
    """A tree of spawned workflows is joined from the leaves up."""

    async def tree(ctx: Context, depth: int) -> int:
        if depth == 0:
            return 1
        futures = [await ctx.run(tree, depth - 1).spawn() for _ in range(3)]
        return sum([await future for future in futures])

    resonate.register(tree)
    async with resonate:
        assert 81 == await resonate.run("w", tree, 4)
