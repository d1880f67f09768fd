"""Synchronous leaves: in worker threads, never on the loop, abandoned when they are no longer wanted.

By the wall clock, because of the threads; nothing here waits for a fixed time, only for events with a limit.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest
from anyio import to_thread

from resonate_anyio import Constant, Context, DurableTimeoutError, Info, Resonate, durable
from resonate_anyio._concurrency._threads import Threads

from .harness import Look, Oops, Wire

pytestmark = pytest.mark.wall

LIMIT = 10.0


async def call_until(event: threading.Event, call: Callable[[], Awaitable[object]]) -> None:
    """Make a call, and cancel it when something has happened in its thread."""

    async def make() -> None:
        await call()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        await happened(event)
        tasks.cancel_scope.cancel()


async def happened(event: threading.Event) -> None:
    """Wait for something that happens in a thread."""
    assert await to_thread.run_sync(event.wait, LIMIT)


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """Lets blocked threads go on; at the latest, when the test has ended."""
    event = threading.Event()
    yield event
    event.set()


async def test_runs_in_a_thread(resonate: Resonate) -> None:
    """A synchronous leaf runs in a thread, as a root and as a step, with info or without."""

    def where() -> int:
        return threading.get_ident()

    def told(info: Info, x: int) -> list[object]:
        return [info.id, info.attempt, x, threading.get_ident()]

    async def workflow(ctx: Context) -> list[object]:
        return [await ctx.run(where), *await ctx.run(told, 4)]

    resonate.register(workflow)
    resonate.register(where)
    async with resonate:
        here = threading.get_ident()
        assert here != await resonate.run("r", where)
        first, id, attempt, x, second = await resonate.run("w", workflow)
    assert ["w.told-1", 1, 4] == [id, attempt, x]
    assert here not in (first, second)


async def test_does_not_block_the_loop(resonate: Resonate, go: threading.Event) -> None:
    """While a thread works the loop runs: another execution goes through meanwhile."""

    def blocked() -> str:
        assert go.wait(LIMIT)
        return "blocked"

    async def quick() -> str:
        return "quick"

    resonate.register(blocked)
    resonate.register(quick)
    async with resonate:
        handle = await resonate.run("b", blocked).spawn()
        assert "quick" == await resonate.run("q", quick)
        assert not await handle.done()
        go.set()
        assert "blocked" == await handle


async def test_failure(resonate: Resonate) -> None:
    """What a thread raises is the outcome, with its traceback."""

    def broken() -> None:
        msg = "in the thread"
        raise Oops(msg)

    resonate.register(broken)
    async with resonate:
        with pytest.raises(Oops, match="in the thread") as caught:
            await resonate.run("r", broken)
    assert "broken" == caught.traceback[-1].name


async def test_abandoned_at_its_deadline(resonate: Resonate, go: threading.Event) -> None:
    """A deadline ends the await at once, although the thread cannot be stopped; what it returns is dropped."""
    ended = threading.Event()

    def blocked() -> str:
        assert go.wait(LIMIT)
        ended.set()
        return "late"

    async def workflow(ctx: Context) -> str:
        with pytest.raises(DurableTimeoutError):
            await ctx.run(blocked).timeout(0.5)
        return "went on"

    resonate.register(workflow)
    async with resonate:
        assert "went on" == await resonate.run("w", workflow)
        assert not ended.is_set()
        go.set()
        await happened(ended)
        assert "rejected_timedout" == (await resonate.promises.get("w.blocked-1")).state


async def test_abandoned_when_cancelled(resonate: Resonate, go: threading.Event) -> None:
    """Cancelling the await ends it at once as well."""
    began = threading.Event()

    def blocked() -> None:
        began.set()
        assert go.wait(LIMIT)

    async def workflow(ctx: Context) -> str:
        await call_until(began, lambda: ctx.run(blocked))
        return "went on"

    resonate.register(workflow)
    async with resonate:
        assert "went on" == await resonate.run("w", workflow)
        assert not go.is_set()
        assert "rejected_canceled" == (await resonate.promises.get("w.blocked-1tp1")).state


async def test_abandoned_threads_are_counted(wire: Wire, go: threading.Event) -> None:
    """The limit on threads counts those that were abandoned until they have really ended."""
    began = threading.Event()
    calls: list[str] = []
    ended: list[str] = []

    def blocked() -> None:
        began.set()
        assert go.wait(LIMIT)
        ended.append("blocked")

    def after() -> str:
        calls.append("after")
        ended.append("after")
        return "after"

    async def workflow(ctx: Context) -> str:
        await call_until(began, lambda: ctx.run(blocked))
        return await ctx.run(after)

    resonate = Resonate(network=wire, threads=1)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        look = Look(resonate)
        while "w.after-1" not in await look.states():
            await anyio.lowlevel.checkpoint()
        # The step is on record, but its thread cannot have begun: the only one is taken.
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert [] == calls
        go.set()
        assert "after" == await handle
    assert ["blocked", "after"] == ended


async def test_place_is_given_back(go: threading.Event) -> None:
    """At whatever moment a call is cancelled, its place below the limit is given back."""
    threads = Threads(anyio.CapacityLimiter(1))
    go.set()

    async def call(scope: anyio.CancelScope) -> None:
        with scope:
            await threads.run(lambda: go.wait(LIMIT), await threads.permit())

    for steps in range(12):
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, scope)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            scope.cancel()
    with anyio.fail_after(LIMIT):
        assert 7 == await threads.run(lambda: 7, await threads.permit())


async def test_no_more_than_the_limit(wire: Wire) -> None:
    """No more threads run at once than the setting says, and all get their turn."""
    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []
    both = threading.Barrier(2)

    def step(n: int) -> int:
        with lock:
            running.append(n)
            most.append(len(running))
        both.wait(LIMIT)
        with lock:
            running.remove(n)
        return n

    async def workflow(ctx: Context) -> list[int]:
        futures = [await ctx.run(step, n).spawn() for n in range(8)]
        return [await future for future in futures]

    resonate = Resonate(network=wire, threads=2)
    resonate.register(workflow)
    async with resonate:
        assert list(range(8)) == await resonate.run("w", workflow)
    assert 2 == max(most)


async def test_check_cancelled(resonate: Resonate) -> None:
    """`info.check_cancelled()` lets a thread notice that its result is no longer wanted."""
    began, stopped = threading.Event(), threading.Event()

    def loop(info: Info) -> None:
        pause = threading.Event()
        began.set()
        try:
            while True:
                info.check_cancelled()
                pause.wait(0.001)
        except BaseException as exc:
            if not isinstance(exc, Exception):
                stopped.set()
            raise

    async def workflow(ctx: Context) -> str:
        await call_until(began, lambda: ctx.run(loop))
        return "went on"

    resonate.register(workflow)
    async with resonate:
        assert "went on" == await resonate.run("w", workflow)
        await happened(stopped)


async def test_check_cancelled_of_what_is_wanted(resonate: Resonate) -> None:
    """Operation while the result is wanted, it does nothing."""

    def step(info: Info) -> str:
        info.check_cancelled()
        return "done"

    resonate.register(step)
    async with resonate:
        assert "done" == await resonate.run("r", step)


async def test_cut_by_shutdown(wire: Wire, go: threading.Event) -> None:
    """A thread that outlasts the grace period is abandoned: its step is not settled, and runs again."""
    began = threading.Event()
    runs: list[int] = []

    def step() -> str:
        runs.append(1)
        if len(runs) == 1:
            began.set()
            assert go.wait(LIMIT)
        return f"run {len(runs)}"

    async def workflow(ctx: Context) -> str:
        return await ctx.run(step)

    resonate = Resonate(network=wire, grace=0.05)
    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await happened(began)
    assert [] == wire.settled()
    assert not go.is_set()
    async with resonate:
        assert "run 2" == await (await resonate.get("w"))


async def test_grace(wire: Wire, go: threading.Event) -> None:
    """A thread that ends within the grace period is recorded."""
    began = threading.Event()
    runs: list[int] = []

    def step() -> str:
        runs.append(1)
        began.set()
        assert go.wait(LIMIT)
        return "done"

    async def workflow(ctx: Context) -> str:
        return await ctx.run(step)

    resonate = Resonate(network=wire, grace=LIMIT)
    resonate.register(workflow)
    async with resonate, anyio.create_task_group() as tasks:

        async def stop() -> None:
            await resonate.stop()

        await resonate.run("w", workflow).spawn()
        await happened(began)
        tasks.start_soon(stop)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert [("w.step-1", "resolved")] == wire.settled()
    async with resonate:
        assert "done" == await (await resonate.get("w"))
    assert [1] == runs


async def test_no_thread_begins_during_the_grace_period(wire: Wire, go: threading.Event) -> None:
    """A leaf that waits for a thread when the block ends does not begin, even if a thread becomes free."""
    began = threading.Event()
    runs: list[int] = []

    def step(n: int) -> int:
        runs.append(n)
        began.set()
        assert go.wait(LIMIT)
        return n

    async def workflow(ctx: Context) -> list[int]:
        futures = [await ctx.run(step, n).spawn() for n in range(3)]
        return [await future for future in futures]

    resonate = Resonate(network=wire, threads=1, grace=LIMIT)
    resonate.register(workflow)
    async with resonate, anyio.create_task_group() as tasks:

        async def stop() -> None:
            await resonate.stop()

        await resonate.run("w", workflow).spawn()
        await happened(began)
        tasks.start_soon(stop)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert [0] == runs
    assert [("w.step-1", "resolved")] == wire.settled()
    async with resonate:
        assert [0, 1, 2] == await (await resonate.get("w"))
    assert [0, 1, 2] == sorted(runs)


async def test_retries(resonate: Resonate) -> None:
    """Synchronous leaves are retried like others, each attempt in a thread."""
    attempts: list[int] = []

    @durable(retry=Constant(delay=0.001, attempts=3))
    def flaky(info: Info) -> str:
        attempts.append(info.attempt)
        if info.attempt < 3:
            raise Oops
        return "done"

    resonate.register(flaky)
    async with resonate:
        assert "done" == await resonate.run("r", flaky)
    assert [1, 2, 3] == attempts


async def test_due_at_the_start(resonate: Resonate) -> None:
    """A thread is not started for a step whose deadline has come."""
    called: list[int] = []

    def step() -> None:
        called.append(1)

    async def workflow(ctx: Context) -> None:
        with pytest.raises(DurableTimeoutError):
            await ctx.run(step).timeout(0)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
    assert [] == called


async def test_deadline_while_waiting_for_a_thread(wire: Wire, go: threading.Event) -> None:
    """A step that times out before a thread is free never begins."""
    began = threading.Event()
    called: list[int] = []

    def blocked() -> str:
        began.set()
        assert go.wait(LIMIT)
        return "done"

    def step() -> None:
        called.append(1)

    async def workflow(ctx: Context) -> str:
        first = await ctx.run(blocked).spawn()
        await happened(began)
        with pytest.raises(DurableTimeoutError):
            await ctx.run(step).timeout(0.05)
        go.set()
        return await first

    resonate = Resonate(network=wire, threads=1)
    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)
    assert [] == called


async def test_system_exit_in_a_thread(wire: Wire) -> None:
    """A thread that ends the program is no outcome: nothing is recorded."""

    def leave() -> None:
        raise SystemExit(3)

    async def workflow(ctx: Context) -> None:
        await ctx.run(leave)

    resonate = Resonate(network=wire)
    resonate.register(workflow)
    with pytest.raises((SystemExit, BaseExceptionGroup)):
        async with resonate:
            await resonate.run("w", workflow)
    assert [] == wire.settled()
