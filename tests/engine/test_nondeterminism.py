"""A replay that asks for something else than what is recorded is halted, and goes on once it is mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resonate_anyio import (
    Context,
    DurableCancelledError,
    NonDeterminismError,
    NotFound,
    NotRunning,
    StoreError,
    UsageError,
    durable,
)
from resonate_anyio._protocol import PromiseCreate, Request, Response, Value

from .harness import Look, Process, World, creates

Step = Callable[[Context], Any]


async def double(x: int) -> int:
    return x * 2


async def triple(x: int) -> int:
    return x * 3


@durable(name="double", version=2)
async def double_again(x: int) -> int:
    return x * 2


def program(step: Step) -> Callable[..., Any]:
    """A workflow that makes one call, which is in question, and then sleeps."""

    async def workflow(ctx: Context) -> object:
        result = await step(ctx)
        await ctx.sleep(10).named("end")
        return result

    return workflow


async def record(world: World, step: Step) -> None:
    """Run the program up to its sleep, then die."""
    workflow = program(step)
    process = world.process(workflow, double)
    process.kill_at(creates("w.end"), answered=True)
    await world.run_until_killed(process, "w", workflow)


def restart(world: World, step: Step) -> Process:
    return world.process(program(step), double)


CHANGES: dict[str, tuple[Step, Step, str, str]] = {
    "function": (
        lambda ctx: ctx.run(double, 1).named("step"),
        lambda ctx: ctx.run(triple, 1).named("step"),
        "ctx.run(double, version 1)",
        "ctx.run(triple, version 1)",
    ),
    "version": (
        lambda ctx: ctx.run(double, 1),
        lambda ctx: ctx.run(double_again, 1),
        "ctx.run(double, version 1)",
        "ctx.run(double, version 2)",
    ),
    "remote function": (
        lambda ctx: ctx.rpc("double", 1).named("step"),
        lambda ctx: ctx.rpc("triple", 1).named("step"),
        "ctx.rpc(double, version 1)",
        "ctx.rpc(triple, version 1)",
    ),
    "remote version": (
        lambda ctx: ctx.rpc("double", 1),
        lambda ctx: ctx.rpc("double", 1).version(2),
        "ctx.rpc(double, version 1)",
        "ctx.rpc(double, version 2)",
    ),
    "remote arguments": (
        lambda ctx: ctx.rpc("double", 1),
        lambda ctx: ctx.rpc("double", 2),
        "ctx.rpc(double, version 1) with (1)",
        "ctx.rpc(double, version 1) with (2)",
    ),
    "bare arguments": (
        lambda ctx: ctx.rpc("double", 0).bare_args(),
        lambda ctx: ctx.rpc("double", 1).bare_args(),
        "ctx.rpc(double, version 1) with bare (0)",
        "ctx.rpc(double, version 1) with bare (1)",
    ),
    "bare or not": (
        lambda ctx: ctx.rpc("double", 1),
        lambda ctx: ctx.rpc("double", 1).bare_args(),
        "ctx.rpc(double, version 1) with (1)",
        "ctx.rpc(double, version 1) with bare (1)",
    ),
    "local to remote": (
        lambda ctx: ctx.run(double, 1),
        lambda ctx: ctx.rpc("double", 1),
        "ctx.run(double, version 1)",
        "ctx.rpc(double, version 1) with (1)",
    ),
    "call to sleep": (
        lambda ctx: ctx.run(double, 1).named("step"),
        lambda ctx: ctx.sleep(1).named("step"),
        "ctx.run(double, version 1)",
        "ctx.sleep()",
    ),
    "sleep to promise": (
        lambda ctx: ctx.sleep(1).named("step"),
        lambda ctx: ctx.promise().named("step"),
        "ctx.sleep()",
        "ctx.promise()",
    ),
}


@pytest.mark.parametrize(("before", "after", "recorded", "requested"), CHANGES.values(), ids=CHANGES)
async def test_changed_program(world: World, before: Step, after: Step, recorded: str, requested: str) -> None:
    """Whoever awaits the execution is shown both sides; its task is halted and its promise stays pending."""
    await record(world, before)
    async with restart(world, after) as process:
        with pytest.raises(NonDeterminismError) as caught:
            await (await process.resonate.get("w"))
        look = Look(process.resonate)
        assert ("pending", "halted") == ((await look.promise("w")).state, (await look.task("w")).state)
    assert recorded in caught.value.recorded
    assert requested in caught.value.requested
    assert recorded in str(caught.value)
    assert requested in str(caught.value)
    assert "resonate.resume('w')" in str(caught.value)


async def test_joining_a_halted_execution(world: World) -> None:
    """Joining by id gets the same error, again and again."""
    await record(world, lambda ctx: ctx.run(double, 1).named("step"))
    workflow = program(lambda ctx: ctx.run(triple, 1).named("step"))
    async with world.process(workflow) as process:
        for _ in range(2):
            with pytest.raises(NonDeterminismError):
                await process.resonate.run("w", workflow)


async def test_mended_in_the_next_process(world: World) -> None:
    """A mended program continues after `resume`: what was recorded is not lost."""
    await record(world, lambda ctx: ctx.run(double, 1).named("step"))
    async with restart(world, lambda ctx: ctx.run(triple, 1).named("step")) as process:
        with pytest.raises(NonDeterminismError):
            await (await process.resonate.get("w"))
    async with restart(world, lambda ctx: ctx.run(double, 1).named("step")) as process:
        handle = await process.resonate.get("w", int)
        await process.resonate.resume("w")
        assert 2 == await handle


async def test_resumed_without_being_mended(world: World) -> None:
    """A program that is resumed as it is halts again, and its waiters hear of it again."""
    await record(world, lambda ctx: ctx.run(double, 1).named("step"))
    async with restart(world, lambda ctx: ctx.run(triple, 1).named("step")) as process:
        handle = await process.resonate.get("w")
        with pytest.raises(NonDeterminismError):
            await handle
        await process.resonate.resume("w")
        with pytest.raises(NonDeterminismError):
            await handle
        assert "halted" == (await Look(process.resonate).task("w")).state


async def test_mended_in_the_same_process(world: World) -> None:
    """A program whose wandering has an outside cause can be resumed where it halted."""
    wandering = True
    await record(world, lambda ctx: ctx.run(double, 1).named("step"))

    def step(ctx: Context) -> Any:
        return ctx.run(triple if wandering else double, 1).named("step")

    async with restart(world, step) as process:
        handle = await process.resonate.get("w", int)
        with pytest.raises(NonDeterminismError):
            await handle
        wandering = False
        await process.resonate.resume("w")
        assert 2 == await handle


async def test_resume_of_what_is_not_halted(world: World) -> None:
    """Only a halted execution can be resumed, and only one that exists."""
    async with world.process(double) as process:
        with pytest.raises(NotFound):
            await process.resonate.resume("w")
        await process.resonate.run("w", double, 1)
        with pytest.raises(UsageError, match=r"'w' cannot be resumed: .* has completed, which is final"):
            await process.resonate.resume("w")


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("fails", "it has failed"),
        ("is cancelled", "it was cancelled"),
        ("times out", "its deadline has passed"),
        ("waits", "It runs, waits, or is about to be run"),
    ],
)
async def test_resume_says_in_which_state_it_is(world: World, ends: str, said: str) -> None:
    """What has ended cannot be resumed, nor what is under way; the error says which it is, and what to do."""

    async def workflow(ctx: Context) -> None:
        if ends == "fails":
            raise ZeroDivisionError
        await ctx.sleep(1000)

    async with world.process(workflow) as process:
        handle = await process.resonate.run("w", workflow).timeout(10 if ends == "times out" else 5000).spawn()
        await anyio.sleep(20)
        if ends == "is cancelled":
            await handle.cancel()
        with pytest.raises(UsageError, match=said) as caught:
            await process.resonate.resume("w")
        assert "task.continue" not in str(caught.value)
        assert ends == "waits" or "run it under another id" in str(caught.value)


async def test_resume_of_a_promise(world: World) -> None:
    """A promise by hand is no execution, and nothing that could be resumed."""
    async with world.process() as process:
        await process.resonate.promises.create("p", 4_000_000_000_000)
        with pytest.raises(UsageError, match="no function runs"):
            await process.resonate.resume("p")


async def test_halting_runs_no_further_code(world: World) -> None:
    """A halted execution does not run on behind the caller's back, not even through `except Exception`."""
    reached: list[str] = []
    await record(world, lambda ctx: ctx.run(double, 1).named("step"))

    async def step(ctx: Context) -> None:
        try:
            await ctx.run(triple, 1).named("step")
        except Exception:  # noqa: BLE001 - the careless program in question
            reached.append("except")
        reached.append("after")

    async with restart(world, step) as process:
        with pytest.raises(NonDeterminismError):
            await (await process.resonate.get("w"))
    assert [] == reached


async def test_changed_local_arguments(world: World) -> None:
    """Other arguments of a local call are no difference: what was recorded stands."""
    await record(world, lambda ctx: ctx.run(double, 1))
    async with restart(world, lambda ctx: ctx.run(double, 50)) as process:
        assert 2 == await (await process.resonate.get("w", int))


async def test_changed_local_arguments_of_what_did_not_finish(world: World) -> None:
    """A step that had begun is run again with what the program passes now."""

    async def slow(x: int) -> int:
        await anyio.sleep(1)
        return x * 2

    async def before(ctx: Context) -> int:
        return await ctx.run(slow, 1)

    async def after(ctx: Context) -> int:
        return await ctx.run(slow, 50)

    process = world.process()
    process.resonate.register(before, name="workflow")
    process.kill_at(creates("w.slow-1"), answered=True)
    await world.run_until_killed(process, "w", before)
    process = world.process()
    process.resonate.register(after, name="workflow")
    async with process:
        assert 100 == await (await process.resonate.get("w", int))


async def test_changed_sleep(world: World) -> None:
    """A sleep of another length is the same sleep: the recorded instant stands."""
    await record(world, lambda ctx: ctx.run(double, 1))

    async def workflow(ctx: Context) -> int:
        result = await ctx.run(double, 1)
        await ctx.sleep(1_000_000).named("end")
        return result

    start = world.clock()
    async with world.process(workflow) as process:
        assert 2 == await (await process.resonate.get("w", int))
    assert 11_000 > world.clock() - start


async def test_difference_in_a_spawned_child(world: World) -> None:
    """A difference anywhere halts the whole execution: leaves that run beside it are cut, and nothing is recorded."""
    changed = False
    cut: list[str] = []

    async def slow() -> None:
        try:
            await anyio.sleep(1000)
        finally:
            cut.append("slow")

    async def child(ctx: Context) -> None:
        await anyio.sleep(1)
        await ctx.run(triple if changed else double, 1).named("step")
        await ctx.sleep(100)

    async def workflow(ctx: Context) -> None:
        await ctx.run(slow).spawn()
        await ctx.run(child).spawn()
        await ctx.sleep(100)

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        process.kill()
    changed = True
    async with world.process(workflow) as process:
        start = anyio.current_time()
        with pytest.raises(NonDeterminismError, match=r"'w\.child-1\.step'"):
            await (await process.resonate.get("w"))
        # The call waits to be cancelled: for the second in which it might have been, and one more.
        assert 3 == pytest.approx(anyio.current_time() - start, abs=0.1)
        assert [] == process.wire.settled()
    assert ["slow", "slow"] == cut


STEPS: dict[str, Step] = {
    "run": lambda ctx: ctx.run(double, 1),
    "rpc": lambda ctx: ctx.rpc("double", 1),
    "sleep": lambda ctx: ctx.sleep(1),
    "promise": lambda ctx: ctx.promise(),
}
TASK = {"resonate:target": "poll://any@elsewhere"}


# A bare promise is what `ctx.promise()` takes, see `test_made_ahead`.
@pytest.mark.parametrize(
    ("kind", "tags"), [(kind, tags) for kind in STEPS for tags in ({}, TASK) if kind != "promise" or tags]
)
async def test_id_that_is_taken(world: World, kind: str, tags: dict[str, str]) -> None:
    """A promise that was made under the id of a call, by other code, is not taken for that call."""
    step = STEPS[kind]

    async def workflow(ctx: Context) -> None:
        await step(ctx).named("step")

    async with world.process(workflow) as process:
        await process.resonate.promises.create("w.step", 4_000_000_000_000, "taken", tags)
        with anyio.fail_after(100), pytest.raises(NonDeterminismError, match=r"'w\.step'"):
            await process.resonate.run("w", workflow)


async def test_taken_by_what_nobody_can_read(world: World) -> None:
    """Nor is one whose content cannot be decoded: it is something else, and no failure of the call."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1).named("step")

    async with world.process(workflow) as process:
        garbage = PromiseCreate(id="w.step", timeout_at=4_000_000_000_000, param=Value(data="!!"))
        await Look(process.resonate).request(garbage)
        with anyio.fail_after(100), pytest.raises(NonDeterminismError, match=r"'w\.step'"):
            await process.resonate.run("w", workflow)


async def test_timer_that_nobody_can_read(world: World) -> None:
    """A timer without a due instant, as another program may make it, is due at its deadline."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(1000)

    async with world.process(workflow) as process:
        tags = {"resonate:timer": "true"}
        timer = PromiseCreate(id="w.sleep-1", timeout_at=world.clock() + 5000, param=Value(data="!!"), tags=tags)
        await Look(process.resonate).request(timer)
        start = anyio.current_time()
        await process.resonate.run("w", workflow)
        assert 5 == pytest.approx(anyio.current_time() - start, abs=0.1)


def later(step: Step) -> Step:
    """The same step a second later."""

    async def waits(ctx: Context) -> object:
        await anyio.sleep(1)
        return await step(ctx)

    return waits


async def test_stop_after_a_halt(world: World) -> None:
    """A halt does not keep another execution, which somebody waits for, from being put away."""
    told: list[str] = []

    async def sleeper(ctx: Context) -> None:
        await ctx.sleep(1000)

    async def wait() -> None:
        with pytest.raises(NotRunning):
            await process.resonate.run("other", sleeper)
        told.append("waiter")

    await record(world, lambda ctx: ctx.run(double, 1).named("step"))
    process = restart(world, later(lambda ctx: ctx.run(triple, 1).named("step")))
    process.resonate.register(sleeper)
    async with anyio.create_task_group() as tasks, process:
        tasks.start_soon(wait)
        await anyio.sleep(5)
        assert "halted" == (await Look(process.resonate).task("w")).state
        start = anyio.current_time()
        await process.resonate.stop()
        assert 0 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert ["waiter"] == told


async def test_cancel_after_a_halt(world: World) -> None:
    """Nor from being cancelled, its code with it."""
    order: list[str] = []

    async def sleeper(ctx: Context) -> None:
        try:
            await ctx.sleep(1000)
        finally:
            order.append("code")

    async def wait() -> None:
        with pytest.raises(DurableCancelledError):
            await process.resonate.run("other", sleeper)
        order.append("waiter")

    await record(world, lambda ctx: ctx.run(double, 1).named("step"))
    process = restart(world, later(lambda ctx: ctx.run(triple, 1).named("step")))
    process.resonate.register(sleeper)
    async with process, anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(5)
        await process.resonate.cancel("other")
        assert "code" in order
    assert ["code", "waiter"] == sorted(order)


def unanswered_halts(process: Process, times: int) -> list[str]:
    """Fail so many requests to halt a task."""
    failed: list[str] = []

    async def fail(request: Request) -> None:
        if request.kind == "task.halt" and len(failed) < times:
            failed.append(request.kind)
            msg = "disk full"
            raise StoreError(msg)

    process.wire.before = fail
    return failed


async def test_halt_without_an_answer(world: World) -> None:
    """A halt that could not be recorded is tried again: whoever has been told of it can resume."""
    wandering = True
    await record(world, lambda ctx: ctx.run(double, 1).named("step"))
    process = restart(world, lambda ctx: ctx.run(triple if wandering else double, 1).named("step"))
    failed = unanswered_halts(process, 3)
    async with process:
        handle = await process.resonate.get("w", int)
        with pytest.raises(NonDeterminismError):
            await handle
        assert "halted" == (await Look(process.resonate).task("w")).state
        wandering = False
        await process.resonate.resume("w")
        assert 2 == await handle
    assert ["task.halt"] * 3 == failed


@pytest.mark.parametrize("status", [401, 500, 503])
async def test_halt_that_is_answered_with_an_error(world: World, status: int) -> None:
    """An answer that speaks of the server and not of the task is none: the halt is tried again."""
    wandering = True
    refused: list[str] = []

    def refuse_twice(request: Request) -> Response | None:
        if request.kind != "task.halt" or len(refused) == 2:
            return None
        refused.append(request.kind)
        return Response(status=status, error="not now")

    await record(world, lambda ctx: ctx.run(double, 1).named("step"))
    process = restart(world, lambda ctx: ctx.run(triple if wandering else double, 1).named("step"))
    process.wire.answer = refuse_twice
    async with process:
        handle = await process.resonate.get("w", int)
        with pytest.raises(NonDeterminismError):
            await handle
        wandering = False
        await process.resonate.resume("w")
        assert 2 == await handle
    assert ["task.halt"] * 2 == refused


async def test_stop_while_a_halt_is_tried(world: World) -> None:
    """The end of the block does not wait for a halt to be recorded: it is tried once more, and that is it."""
    await record(world, lambda ctx: ctx.run(double, 1).named("step"))
    process = restart(world, lambda ctx: ctx.run(triple, 1).named("step"))
    failed = unanswered_halts(process, 100)
    async with process:
        await anyio.sleep(100)
        tried = len(failed)
        start = anyio.current_time()
    assert 0 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert tried + 1 == len(failed)


async def test_halted_remote_call(world: World) -> None:
    """The advice names the task that is to be resumed, which is not always that of the root."""
    wandering = False
    workflow = program(lambda ctx: ctx.run(triple if wandering else double, 1).named("step"))

    async def caller(ctx: Context) -> object:
        return await ctx.rpc(workflow).named("far")

    process = world.process(caller, workflow)
    process.kill_at(creates("w.far.end"), answered=True)
    await world.run_until_killed(process, "w", caller)
    wandering = True
    async with world.process(caller, workflow) as process:
        handle = await process.resonate.get("w.far", int)
        with pytest.raises(NonDeterminismError, match=r"resonate\.resume\('w\.far'\)"):
            await handle
        wandering = False
        await process.resonate.resume("w.far")
        assert 2 == await handle
        assert 2 == await (await process.resonate.get("w"))
