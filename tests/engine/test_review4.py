"""What a review of the engine found: leases between two phases, shields on a replay, facts that were never seen."""

from __future__ import annotations

import gc
import weakref
from typing import Final

import anyio
import pytest
from anyio import CancelScope, Event

from resonate_anyio import Context, Resonate, UsageError
from resonate_anyio._protocol import PromiseCreate, Request, TaskAcquire, TaskCreate

from .harness import Look, Oops, Unreachable, Wire, World, creates

LIMIT: Final = 3600.0


async def waiting(ctx: Context) -> str:
    await ctx.promise().named("p")
    return "done"


async def quick() -> None:
    pass


async def boom() -> None:
    await anyio.sleep(2)
    raise Oops


# Leases


async def test_resuming_is_not_unloaded(world: World) -> None:
    """An execution whose task is being taken back is not unloaded for economy: its lease would be nobody's."""
    process = world.process(waiting, hot_for=0, parked_limit=1)
    answered = Event()

    async def before(request: Request) -> None:
        if isinstance(request, TaskAcquire) and request.id == "a":
            await answered.wait()

    async with process:
        resonate, look = process.resonate, Look(process.resonate)
        handle = await resonate.run("a", waiting).spawn()
        await anyio.sleep(5)
        process.wire.before = before
        await look.settle("a.p", None, resonate)
        await resonate.run("b", waiting).spawn()
        await anyio.sleep(5)
        answered.set()
        with anyio.fail_after(LIMIT):
            assert "done" == await handle
        await look.settle("b.p", None, resonate)


async def test_wake_that_was_never_made(world: World) -> None:
    """A wake promise that could not be made is missed by nobody: the execution ends as it does without."""
    process = world.process(waiting, hot_for=0)

    async def before(request: Request) -> None:
        if isinstance(request, TaskCreate) and "~wake" in request.action.id:
            raise Unreachable

    process.wire.before = before
    async with process:
        handle = await process.resonate.run("w", waiting).spawn()
        await anyio.sleep(5)
        await Look(process.resonate).settle("w.p", None, process.resonate)
        assert "done" == await handle


async def test_ended_executions_leave_memory(resonate: Resonate, wire: Wire) -> None:
    """Nothing in a worker holds an execution that has ended, however long it was looked after."""
    resonate.register(waiting)
    async with resonate:
        assert resonate._running is not None
        handle = await resonate.run("w", waiting).spawn()
        await anyio.sleep(5)
        execution = weakref.ref(resonate._running.worker.executions["w"])
        await Look(resonate).settle("w.p", None, resonate)
        await handle
        del handle
        wire.forget()
        await anyio.sleep(1)
        gc.collect()
        assert execution() is None


# Shields


async def careful_code(ctx: Context) -> str:
    async def code() -> None:
        with CancelScope(shield=True):
            await ctx.sleep(10)

    try:
        async with ctx.task_group() as tg:
            tg.run(boom)
            tg.start_soon(code)
            await anyio.sleep(0.1)
            tg.run(quick)
    except ExceptionGroup:
        return "failed"
    return "not reached"


async def test_shield_in_a_group_that_is_condemned(world: World) -> None:
    """A replay of a failed group goes on in a shield of one of its tasks, as the first run did."""
    process = world.process(careful_code)
    async with process:
        await process.resonate.run("w", careful_code).spawn()
        await anyio.sleep(5)
        process.kill()
    async with world.process(careful_code) as process:
        with anyio.fail_after(LIMIT):
            assert "failed" == await process.resonate.run("w", careful_code)


# Facts


async def in_a_plain_scope(ctx: Context) -> list[str]:
    seen: list[str] = []
    with CancelScope() as scope:
        scope.cancel()
        await ctx.now()
        seen.append("now")
    await ctx.sleep(9).named("last")
    return seen


async def in_a_durable_scope(ctx: Context) -> list[str]:
    seen: list[str] = []
    with ctx.move_on_after(0):
        await ctx.now()
        seen.append("now")
    await ctx.sleep(9).named("last")
    return seen


async def in_a_group(ctx: Context) -> list[str]:
    seen: list[str] = []

    async def code() -> None:
        with CancelScope(shield=True):
            await ctx.sleep(2)
        await ctx.now()
        seen.append("now")

    async with ctx.task_group() as tg:
        tg.start_soon(code)
        await ctx.sleep(1)
        tg.cancel_scope.cancel()
    await ctx.sleep(9).named("last")
    return seen


@pytest.mark.parametrize("workflow", [in_a_plain_scope, in_a_durable_scope, in_a_group])
async def test_fact_in_a_cancelled_scope(world: World, workflow: object) -> None:
    """A fact that was reached in a cancelled scope is no fact: a replay is cancelled there as the first run was."""
    assert callable(workflow)
    process = world.process(workflow)
    process.kill_at(creates("w.last"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        assert [] == await process.resonate.run("w", workflow)


async def hurried(ctx: Context) -> list[str]:
    seen: list[str] = []
    with anyio.move_on_after(5):
        await ctx.now()
        seen.append("now")
    await ctx.sleep(9).named("last")
    return seen


@pytest.mark.parametrize("dies", [False, True])
async def test_fact_that_is_interrupted(world: World, *, dies: bool) -> None:
    """A fact whose recording is interrupted was not seen by the code, and a replay does not see it either."""
    process = world.process(hurried)
    if dies:
        process.kill_at(creates("w.last"), answered=True)
    inner = process.wire.before

    async def slowly(request: Request) -> None:
        if isinstance(request, PromiseCreate) and request.id == "w.~now-1":
            await anyio.sleep(10)
        await inner(request)

    process.wire.before = slowly
    if dies:
        await world.run_until_killed(process, "w", hurried)
        process = world.process(hurried)
    async with process:
        assert [] == await process.resonate.run("w", hurried)


# Deadlines


async def slow() -> None:
    await anyio.sleep(100)


async def same_instant(ctx: Context) -> str:
    await ctx.run(slow).timeout(5).spawn()
    with ctx.move_on_after(5):
        await ctx.promise()
    return "nobody knows"


async def test_own_deadline_at_the_instant_of_a_scope(resonate: Resonate) -> None:
    """A call that its own deadline has ended has failed, although some scope has ended at the same instant."""
    resonate.register(same_instant)
    async with resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("w", same_instant)
        assert ["w.slow-1"] == [getattr(error, "id", None) for error in caught.value.exceptions]


# What is shown


async def test_reprs(resonate: Resonate) -> None:
    """What the engine is made of shows itself in a line each, and not the whole worker with it."""
    resonate.register(waiting)
    async with resonate:
        assert resonate._running is not None
        worker = resonate._running.worker
        handle = await resonate.run("w", waiting).spawn()
        await anyio.sleep(1)
        execution = worker.executions["w"]
        shown = [worker, execution, execution.root, *execution.externals]
        assert [
            "<Worker default/p with 1 executions>",
            "<Execution w at version 1: hot>",
            "<Frame w pending>",
            "<External w.p pending>",
        ] == [repr(each) for each in shown]
        await Look(resonate).settle("w.p", None, resonate)
        await handle


# What is started


async def test_function_that_cannot_be_called_so(resonate: Resonate) -> None:
    """A call that fails before there is a coroutine is a failure of the group like any other."""

    async def code(x: int) -> None:
        del x

    async def workflow(ctx: Context) -> list[str]:
        try:
            async with ctx.task_group() as tg:
                tg.start_soon(code)  # type: ignore[arg-type]
                await ctx.sleep(10)
        except ExceptionGroup as group:
            return [group.message, *(type(error).__name__ for error in group.exceptions)]
        return []

    resonate.register(workflow)
    async with resonate:
        message = "1 of what a task group of 'w' has started failed"
        assert [message, "TypeError"] == await resonate.run("w", workflow)


async def test_only_functions_are_started_soon(resonate: Resonate) -> None:
    """A durable call given to `start_soon` is refused, and the error says what takes it."""

    async def workflow(ctx: Context) -> None:
        async with ctx.task_group() as tg:
            call = ctx.run(quick)
            try:
                with pytest.raises(UsageError, match=r"tg\.start\(call\)"):
                    tg.start_soon(call)  # type: ignore[arg-type]
            finally:
                await call

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
