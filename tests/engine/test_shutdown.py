"""The end of the block: one order, nothing recorded that did not happen, and everything goes on at the next start."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from typing import Any, Final

import anyio
import pytest
from anyio import CancelScope

from resonate_anyio import Context, NotRunning, Resonate, UsageError
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.testing import VirtualClock

from .harness import Look, Oops, Wire, nothing

LIMIT: Final = 100.0


async def double(x: int) -> int:
    return x * 2


async def slow(seconds: float = 5) -> str:
    await anyio.sleep(seconds)
    return "done"


async def test_order(resonate: Resonate, wire: Wire) -> None:
    """The stream is closed; what waits is suspended; finished leaves are settled; leases released, after a mark."""

    async def waiting(ctx: Context) -> None:
        await ctx.promise()

    async def working(ctx: Context) -> str:
        return await ctx.run(slow) + await ctx.run(slow)

    resonate.register(waiting)
    resonate.register(working)
    async with resonate:
        await resonate.run("a", waiting).spawn()
        await resonate.run("b", working).spawn()
        await anyio.sleep(1)
        wire.forget()
    assert 0 == wire.closed
    assert ["task.create", "task.suspend", "promise.settle", "promise.create", "task.release"] == wire.kinds
    assert [("b.slow-1", "resolved")] == wire.settled()


async def test_grace_for_a_running_leaf(resonate: Resonate) -> None:
    """A running leaf may finish within the grace period; what it did is recorded and not done again."""
    runs: list[int] = []

    async def step() -> str:
        runs.append(1)
        return await slow()

    async def workflow(ctx: Context) -> str:
        return await ctx.run(step)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
    async with resonate:
        assert "done" == await (await resonate.get("w"))
    assert [1] == runs


async def test_leaf_beyond_the_grace_period(network: LocalNetwork, wire: Wire) -> None:
    """A leaf that takes longer is cut: nothing is recorded of it, and it runs again."""
    runs: list[int] = []

    async def step() -> str:
        runs.append(1)
        return await slow(100)

    async def workflow(ctx: Context) -> str:
        return await ctx.run(step)

    resonate = Resonate(network=wire, pid="p", grace=10)
    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        start = anyio.current_time()
    assert 10 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert [] == wire.settled()
    async with resonate:
        await anyio.sleep(1)
        assert "pending" == (await resonate.promises.get("w.step-1")).state
        assert "done" == await (await resonate.get("w"))
    assert [1, 1] == runs


async def test_no_step_begins_during_the_grace_period(resonate: Resonate) -> None:
    """While running leaves are given grace, no other durable call starts."""
    runs: list[str] = []

    async def step(name: str) -> None:
        runs.append(name)
        await anyio.sleep(3)

    async def workflow(ctx: Context) -> None:
        for name in "abc":
            await ctx.run(step, name)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        start = anyio.current_time()
    assert 2 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert ["a"] == runs


async def test_no_step_begins_while_others_are_given_grace(resonate: Resonate) -> None:
    """Nor do those of another execution, whose own leaf has ended already."""
    runs: list[str] = []

    async def step(name: str, seconds: float) -> None:
        runs.append(name)
        await anyio.sleep(seconds)

    async def workflow(ctx: Context, name: str, seconds: float) -> None:
        await ctx.run(step, f"{name} first", seconds)
        await ctx.run(step, f"{name} second", seconds)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow, "long", 8).spawn()
        await resonate.run("v", workflow, "short", 3).spawn()
        await anyio.sleep(1)
        start = anyio.current_time()
    assert 7 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert ["long first", "short first"] == sorted(runs)


async def test_waiting_execution_does_not_hold_up(resonate: Resonate) -> None:
    """What only waits is put away at once."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1)
        await ctx.sleep(1000)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        start = anyio.current_time()
    assert 0 == pytest.approx(anyio.current_time() - start, abs=0.01)


async def test_unload_inside_of_a_shield(resonate: Resonate, wire: Wire) -> None:
    """A durable wait inside a shield of the user's ends as well, with the backend's own cancellation."""
    seen: list[str] = []

    async def workflow(ctx: Context) -> None:
        with CancelScope(shield=True):
            try:
                await ctx.sleep(1000)
            except Exception as exc:  # noqa: BLE001 - nothing may be caught here
                seen.append(repr(exc))
            except anyio.get_cancelled_exc_class():
                seen.append("cancelled")
                raise

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
    assert ["cancelled"] == seen
    assert [] == wire.settled()


async def test_swallowing_workflow(resonate: Resonate, wire: Wire) -> None:
    """A workflow that goes on making calls while it is put away ends: each call raises, and none is sent."""
    seen: list[str] = []

    async def workflow(ctx: Context) -> str:
        try:
            await ctx.sleep(1000)
        finally:
            for _ in range(3):
                try:
                    await ctx.run(double, 1)
                except anyio.get_cancelled_exc_class():
                    seen.append("cancelled")
            await ctx.run(double, 1)
        return "unreachable"

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        # Younger than what is suspended for its long sleep.
        await anyio.sleep(0.2)
        wire.forget()
    assert ["cancelled"] * 3 == seen
    assert ["task.create", "task.suspend"] == wire.kinds


async def test_swallowing_and_returning(resonate: Resonate, wire: Wire) -> None:
    """What a function returns after it was put away is dropped."""

    async def workflow(ctx: Context) -> str:
        try:
            await ctx.sleep(10)
        except anyio.get_cancelled_exc_class():
            return "swallowed"
        return "slept"

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
    assert [] == wire.settled()
    async with resonate:
        assert "slept" == await (await resonate.get("w"))


async def test_nothing_is_recorded_of_what_is_unloaded(resonate: Resonate, wire: Wire) -> None:
    """No frame at any depth, nothing spawned and nothing remote is settled by being put away."""

    async def child(ctx: Context) -> None:
        await ctx.run(double, 1)
        await ctx.promise().spawn()
        await ctx.sleep(1000)

    async def workflow(ctx: Context) -> None:
        await ctx.run(child).spawn()
        await ctx.rpc("nobody").target("elsewhere").spawn()
        await ctx.run(child)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        before = await Look(resonate).states()
    async with resonate:
        assert before == await Look(resonate).states()
    assert {"w.child-1.double-1", "w.child-2.double-1"} == {id for id, state in before.items() if state != "pending"}


async def test_goes_on_after_entering_again(resonate: Resonate) -> None:
    """An execution goes on when the block is entered again, in order and without repeating what was done."""
    runs: list[str] = []

    async def step(name: str) -> None:
        runs.append(name)

    async def workflow(ctx: Context) -> str:
        for name in "abcd":
            await ctx.run(step, name)
            await ctx.sleep(10)
        return "done"

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
    for _ in range(2):
        async with resonate:
            await anyio.sleep(12)
    async with resonate:
        assert "done" == await (await resonate.get("w"))
    assert ["a", "b", "c", "d"] == runs


async def test_released_tasks_are_taken_by_others(network: LocalNetwork) -> None:
    """What one process puts away another one of the group takes up, at once."""

    async def workflow(ctx: Context) -> str:
        await ctx.run(double, 1)
        await ctx.sleep(10)
        return "done"

    first = Resonate(network=network, pid="a")
    second = Resonate(network=network, pid="b")
    first.register(workflow)
    second.register(workflow)
    async with second:
        start = anyio.current_time()
        async with first:
            await first.run("w", workflow).spawn()
            await anyio.sleep(1)
        assert "done" == await (await second.get("w"))
        assert 10 == pytest.approx(anyio.current_time() - start, abs=0.1)


async def test_host_scope_is_cancelled(resonate: Resonate, wire: Wire) -> None:
    """Cancelling the host reaches the body only: the exit does all of the order, under a shield."""
    runs: list[int] = []

    async def step() -> str:
        runs.append(1)
        return await slow()

    async def workflow(ctx: Context) -> str:
        return await ctx.run(step)

    resonate.register(workflow)
    with anyio.move_on_after(1) as scope:
        async with resonate:
            await resonate.run("w", workflow).spawn()
            await anyio.sleep(100)
    assert scope.cancelled_caught
    assert ["promise.settle", "promise.create", "task.release"] == wire.kinds[-3:]
    async with resonate:
        assert "done" == await (await resonate.get("w"))
    assert [1] == runs


async def test_exception_in_the_body(resonate: Resonate) -> None:
    """An exception of the body comes out as it is, not in a group, whatever runs."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(1000)

    resonate.register(workflow)
    error = Oops("body")
    with pytest.raises(Oops) as caught:  # noqa: PT012 - the block is what is tested
        async with resonate:
            await resonate.run("w", workflow).spawn()
            await anyio.sleep(1)
            raise error
    assert error is caught.value


async def test_base_exception_in_the_body(resonate: Resonate) -> None:
    """So does one that ends the program."""
    with pytest.raises(SystemExit):
        async with resonate:
            raise SystemExit(3)


async def test_failing_execution_does_not_end_the_block(resonate: Resonate) -> None:
    """A failure that nobody waits for is on record, and reaches neither the body nor other executions."""

    async def broken() -> None:
        raise Oops

    resonate.register(broken)
    resonate.register(double)
    async with resonate:
        await resonate.run("b", broken).spawn()
        await anyio.sleep(1)
        assert 2 == await resonate.run("r", double, 1)
        assert "rejected" == (await resonate.promises.get("b")).state


async def test_stop(resonate: Resonate) -> None:
    """`stop()` does the same inside the block: what waits is told, and calls are refused afterwards."""
    told: list[str] = []

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(1000)

    async def wait() -> None:
        with pytest.raises(NotRunning, match="goes on at the next start"):
            await resonate.run("w", workflow)
        told.append("waiter")

    resonate.register(workflow)
    async with resonate, anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(1)
        await resonate.stop()
        with pytest.raises(NotRunning, match="stopped"):
            await resonate.run("v", workflow)
    assert ["waiter"] == told


async def test_serve_ends_with_stop(resonate: Resonate) -> None:
    """A worker that serves ends when it is stopped, and works until then."""
    resonate.register(double)

    async def use() -> None:
        assert 8 == await resonate.rpc("r", "double", 4)
        await anyio.sleep(100)
        await resonate.stop()

    async with resonate, anyio.create_task_group() as tasks:
        start = anyio.current_time()
        tasks.start_soon(use)
        await resonate.serve()
        assert 100 == pytest.approx(anyio.current_time() - start, abs=0.1)


async def test_serve_ends_with_its_scope(resonate: Resonate) -> None:
    """A worker that serves ends when it is cancelled."""
    async with resonate:
        with anyio.move_on_after(10) as scope:
            await resonate.serve()
    assert scope.cancelled_caught


async def test_entered_twice(resonate: Resonate) -> None:
    """An object is entered once at a time."""
    async with resonate:
        with pytest.raises(UsageError, match="running already"):
            async with resonate:
                pass
    async with resonate:
        pass


async def test_used_outside_of_the_block(resonate: Resonate) -> None:
    """Before and after its block an object makes no calls, and says where they belong."""
    resonate.register(double)
    with pytest.raises(NotRunning, match="async with resonate"):
        await resonate.run("r", double, 1)
    async with resonate:
        pass
    with pytest.raises(NotRunning, match="async with resonate"):
        await resonate.get("r")


@pytest.mark.wall
def test_used_in_another_loop(wire: Wire) -> None:
    """An object that runs in one event loop is refused in another."""
    resonate = Resonate(network=wire)

    async def other() -> None:
        with pytest.raises(NotRunning, match="another event loop"):
            await resonate.get("r")

    async def main() -> None:
        async with resonate:
            await anyio.to_thread.run_sync(anyio.run, other)

    anyio.run(main)


def test_entered_in_one_loop_after_another(wire: Wire) -> None:
    """One after the other is fine: an object outlives event loops."""
    resonate = Resonate(network=wire)
    resonate.register(double)

    async def main(id: str) -> int:
        async with resonate:
            return await resonate.run(id, double, 1)

    assert [2, 2] == [anyio.run(main, "a"), anyio.run(main, "b", backend="trio")]


async def test_release_that_fails(resonate: Resonate, wire: Wire) -> None:
    """A network that is down does not hold up the end of the block."""

    async def workflow(ctx: Context) -> str:
        await ctx.sleep(1)
        return "done"

    resonate.register(workflow)
    with anyio.fail_after(30):
        async with resonate:
            await resonate.run("w", workflow).spawn()
            await anyio.sleep(1)
            wire.cut()
        wire.mend()
        async with resonate:
            assert "done" == await (await resonate.get("w"))


async def test_release_that_is_not_answered(resonate: Resonate, wire: Wire) -> None:
    """Releases share one limit of five seconds."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(1)

    async def stall(request: Any) -> None:
        if request.kind == "task.release":
            await anyio.sleep(math.inf)

    resonate.register(workflow)
    async with resonate:
        for n in range(3):
            await resonate.run(f"w{n}", workflow).spawn()
        await anyio.sleep(1)
        wire.before = stall
        start = anyio.current_time()
    assert 5 == pytest.approx(anyio.current_time() - start, abs=0.1)


async def test_code_that_does_not_stop(resonate: Resonate) -> None:
    """Code that cannot be cancelled is waited for, and its lease is released only after it has ended."""
    order: list[str] = []

    async def workflow(ctx: Context) -> None:
        with CancelScope(shield=True):
            await anyio.sleep(30)
        order.append("code")

    async def watch(request: Any) -> None:
        if request.kind == "task.release":
            order.append("release")

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        wire = resonate._network
        assert isinstance(wire, Wire)
        wire.before = watch
    assert ["code", "release"] == order


async def test_acquire_during_the_stop(resonate: Resonate, wire: Wire) -> None:
    """A task that is acquired while the block ends is given back at once, without being run."""
    runs: list[int] = []

    async def step() -> str:
        runs.append(1)
        return "done"

    async def stall(request: Any) -> None:
        if request.kind == "task.acquire":
            await anyio.sleep(5)

    wire.before = stall
    resonate.register(step)
    async with resonate:
        await resonate.rpc("r", step).spawn()
        await anyio.sleep(1)
    assert [] == runs
    assert ["task.acquire", "promise.create", "task.release"] == wire.kinds[-3:]
    async with resonate:
        assert "done" == await (await resonate.get("r"))


async def test_start_during_the_stop(resonate: Resonate, wire: Wire) -> None:
    """A root whose start is under way when the block ends is on record, and runs at the next start."""
    told: list[str] = []

    async def stall(request: Any) -> None:
        if request.kind == "task.create":
            await anyio.sleep(5)

    async def call() -> None:
        with pytest.raises(NotRunning):
            await resonate.run("r", double, 1)
        told.append("caller")

    wire.before = stall
    resonate.register(double)
    async with anyio.create_task_group() as tasks:
        async with resonate:
            tasks.start_soon(call)
            await anyio.sleep(1)
        await anyio.sleep(10)
        assert ["caller"] == told
    wire.before = nothing
    async with resonate:
        assert 2 == await resonate.run("r", double, 1)


async def test_stopped_twice(resonate: Resonate) -> None:
    """Stopping twice, and leaving the block after stopping, is fine."""
    resonate.register(double)
    async with resonate:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(resonate.stop)
            tasks.start_soon(resonate.stop)
        with pytest.raises(NotRunning):
            await resonate.run("r", double, 1)
    async with resonate:
        assert 2 == await resonate.run("r", double, 1)


async def test_clock_that_was_set_back(resonate: Resonate, clock: VirtualClock) -> None:
    """The block ends at once while a deadline, which has passed in the event loop, is waited for at the server."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(slow, 1000).timeout(299)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(298)
        clock.advance(-3_600_000)
        await anyio.sleep(1.5)
        start = anyio.current_time()
    assert 0 == pytest.approx(anyio.current_time() - start, abs=0.1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_interrupted_stop(resonate: Resonate, wire: Wire) -> None:
    """A task of asyncio's that is cancelled again and again while it stops does not keep the rest from being done."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(slow, 1000)

    async def host() -> None:
        async with resonate:
            await resonate.run("w", workflow)

    resonate.register(workflow)
    start = anyio.current_time()
    task = asyncio.ensure_future(host())
    for _ in range(3):
        await anyio.sleep(1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The first second, and the grace period.
    assert 11 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert "task.release" == wire.kinds[-1]
    resonate.register(double)
    async with resonate:
        assert 4 == await resonate.run("r", double, 2)


@pytest.mark.embedded("the server of these tests runs in the loop that is taken down, and goes with it")
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_loop_that_is_taken_down(resonate: Resonate, wire: Wire) -> None:
    """When asyncio cancels every task, as it does after a second interrupt, nothing is recorded as cancelled."""

    async def workflow(ctx: Context) -> str:
        future = await ctx.run(slow, 1000).named("spawned").spawn()
        await ctx.run(slow, 1000).named("awaited")
        await future
        return "went on"

    async def host() -> None:
        async with resonate:
            await resonate.run("w", workflow)

    resonate.register(workflow)
    others = asyncio.all_tasks()
    task = asyncio.ensure_future(host())
    await anyio.sleep(1)
    for running in asyncio.all_tasks() - others:
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "promise.settle" not in wire.kinds
    assert "task.fulfill" not in wire.kinds
    async with resonate:
        assert "went on" == await (await resonate.get("w", str))


PROGRAM = """
import signal
import sys
import threading
import time
import anyio
from resonate_anyio import Resonate

resonate = Resonate.local(grace=0.5)
began = threading.Event()

def tell() -> None:
    # From a thread, so that signals find the event loop idle, and not in the middle of the step.
    began.wait()
    print("running", flush=True)
    while not resonate._running.worker.draining:
        time.sleep(0.01)
    print("stopping", flush=True)

@resonate.register
async def step() -> None:
    began.set()
    await anyio.sleep_forever()

async def tick() -> None:
    # A signal that arrives just before the loop goes to sleep is seen when it wakes (CPython's Runner sets no wakeup
    # descriptor), so it wakes often.
    while True:
        await anyio.sleep(0.02)

async def main() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        async with resonate:
            await resonate.run("r", step)

# A shell that starts tests in the background lets them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=tell, daemon=True).start()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.wall
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_second_interrupt(backend: str) -> None:
    """A program that is interrupted again while it stops ends as an interrupted program does, and does not hang."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROGRAM, backend]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            for line in ("running\n", "stopping\n"):
                assert line == process.stdout.readline()
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert "KeyboardInterrupt" in errors
    assert "TrioInternalError" not in errors
