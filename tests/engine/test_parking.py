"""Executions that wait: hot at first, then parked, then unloaded; what each costs, and what must not be seen of it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import anyio
import pytest
from anyio import CancelScope
from attrs import define, evolve, field

from resonate_anyio import Context, DurableCancelledError, DurableTimeoutError, Resonate
from resonate_anyio._concurrency._tasks import TaskSnapshot
from resonate_anyio._execution._phases import Phase
from resonate_anyio._functions._retry import Constant
from resonate_anyio._protocol import (
    Execute,
    PromiseState,
    RegisterListener,
    Request,
    Response,
    TaskAcquire,
    TaskCreate,
    TaskFulfill,
    TaskRelease,
    TaskState,
    TaskSuspend,
    Unblock,
)
from resonate_anyio._worker import _residency
from resonate_anyio._workflow._host import Drop
from resonate_anyio.networks import LocalNetwork

from ..inside import worker_of
from .harness import Look, Oops, Unreachable, Wire, World, nothing

YEAR: Final = timedelta(days=365)


@define
class Runs:
    """How often the functions of a test were called."""

    workflow: int = 0
    steps: list[str] = field(factory=list)

    async def step(self, name: str) -> str:
        self.steps.append(name)
        return name

    async def waiting(self, ctx: Context) -> Any:
        """Make a step, wait for a promise that a test settles, make another."""
        self.workflow += 1
        await ctx.run(self.step, "before")
        value = await ctx.promise()
        await ctx.run(self.step, "after")
        return value


@pytest.fixture
def runs(resonate: Resonate) -> Runs:
    """The functions, of which `waiting` is registered."""
    runs = Runs()
    resonate.register(runs.waiting, name="waiting")
    return runs


async def task_state(resonate: Resonate, id: str = "w") -> TaskState:
    """How the task of an execution stands at the server."""
    return (await Look(resonate).task(id)).state


def wakes(states: dict[str, str]) -> list[str]:
    """How the wake promises ended."""
    return [state for id, state in states.items() if "~wake" in id]


# When


async def test_parked_after_a_minute(resonate: Resonate, runs: Runs) -> None:
    """An execution that waits is suspended after a minute, and a second for its record; it goes on where it was."""
    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(60.9)
        assert TaskState.ACQUIRED is await task_state(resonate)
        await anyio.sleep(0.2)
        assert TaskState.SUSPENDED is await task_state(resonate)
        await resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await handle
        assert ["resolved"] == wakes(await Look(resonate).states())
    assert 1 == runs.workflow
    assert ["before", "after"] == runs.steps


async def test_each_local_record_is_worth_a_second(resonate: Resonate) -> None:
    """What has a long history to load is kept longer."""

    async def step() -> None:
        pass

    async def workflow(ctx: Context) -> None:
        for _ in range(30):
            await ctx.run(step)
        await ctx.promise()

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(89)
        assert TaskState.ACQUIRED is await task_state(resonate)
        await anyio.sleep(2)
        assert TaskState.SUSPENDED is await task_state(resonate)


async def test_hot_for(wire: Wire) -> None:
    """How long that is can be chosen."""
    resonate = Resonate(network=wire, hot_for=timedelta(seconds=5))
    runs = Runs()
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        await resonate.run("w", "waiting").spawn()
        await anyio.sleep(5.9)
        assert TaskState.ACQUIRED is await task_state(resonate)
        await anyio.sleep(0.2)
        assert TaskState.SUSPENDED is await task_state(resonate)


async def test_long_sleep_is_parked_at_once(resonate: Resonate) -> None:
    """One that sleeps for longer than it would be kept hot is parked within a second, whenever it falls asleep."""
    calls: list[int] = []

    async def workflow(ctx: Context) -> str:
        calls.append(1)
        await ctx.sleep(30)
        await ctx.sleep(61)
        return "rested"

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(29)
        assert TaskState.ACQUIRED is await task_state(resonate)
        await anyio.sleep(2)
        assert TaskState.SUSPENDED is await task_state(resonate)
        start = anyio.current_time()
        assert "rested" == await handle
        assert 60 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert [1] == calls


async def test_what_is_about_to_end_stays_hot(resonate: Resonate) -> None:
    """It is not worth the requests if what is waited for ends in less than a minute anyway."""

    async def workflow(ctx: Context) -> None:
        promise = await ctx.promise().spawn()
        await ctx.sleep(50)
        await ctx.sleep(50)
        await promise

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(DurableTimeoutError):
            await resonate.run("w", workflow).timeout(150)
        wire = resonate._network
        assert isinstance(wire, Wire)
        assert "task.suspend" not in wire.kinds


async def test_pressure(wire: Wire) -> None:
    """When too many are hot, those that have waited longest are parked without waiting for their minute."""
    resonate = Resonate(network=wire, hot_limit=2)
    runs = Runs()
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        for n in range(5):
            await resonate.run(f"w{n}", "waiting").spawn()
            await anyio.sleep(0.1)
        await anyio.sleep(2)
        states = [await task_state(resonate, f"w{n}") for n in range(5)]
    assert [TaskState.SUSPENDED] * 3 + [TaskState.ACQUIRED] * 2 == states


async def test_pressure_that_finds_code_at_work(wire: Wire) -> None:
    """What works is not parked, however many there are; the first that begins to wait is."""

    async def workflow(ctx: Context, seconds: float) -> None:
        await anyio.sleep(seconds)
        await ctx.promise()

    resonate = Resonate(network=wire, hot_limit=0)
    resonate.register(workflow)
    async with resonate:
        await resonate.run("a", workflow, 10).spawn()
        await resonate.run("b", workflow, 20).spawn()
        await anyio.sleep(9)
        assert TaskState.ACQUIRED is await task_state(resonate, "a")
        await anyio.sleep(2)
        assert TaskState.SUSPENDED is await task_state(resonate, "a")
        assert TaskState.ACQUIRED is await task_state(resonate, "b")


@pytest.mark.parametrize(("limit", "calls"), [(0, 2), (1, 1)])
async def test_unloaded(wire: Wire, limit: int, calls: int) -> None:
    """What is parked is kept in memory up to a limit. Beyond it is replayed: called again, with no step run again."""
    resonate = Resonate(network=wire, hot_for=1, parked_limit=limit)
    runs = Runs()
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        wire.forget()
        await resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await handle
        assert ["resolved"] == wakes(await Look(resonate).states())
    assert calls == runs.workflow
    assert ["before", "after"] == runs.steps


async def test_longest_parked_is_unloaded(wire: Wire) -> None:
    """The first that was parked is the first to go."""
    resonate = Resonate(network=wire, hot_for=1, parked_limit=1)
    runs = Runs()
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        handles = []
        for n in range(3):
            handles.append(await resonate.run(f"w{n}", "waiting").spawn())
            await anyio.sleep(10)
        for n in (2, 1, 0):
            await resonate.promises.resolve(f"w{n}.promise-1", n)
            assert n == await handles[n]
            # The two that were unloaded are called again.
            assert 3 + (2 - n) == runs.workflow


# Whether


async def hold(ctx: Context) -> None:
    """Wait for a promise."""
    await ctx.promise()


async def with_a_leaf(ctx: Context) -> None:
    """A leaf runs beside what waits."""

    async def leaf() -> None:
        await anyio.sleep(10_000)

    await ctx.run(leaf).spawn()
    await ctx.promise()


async def with_a_back_off(ctx: Context) -> None:
    """A leaf waits for its next attempt."""

    async def leaf() -> None:
        raise Oops

    await ctx.run(leaf).retry(Constant(delay=10_000)).spawn()
    await ctx.promise()


async def with_a_task_at_work(ctx: Context) -> None:
    """A task of the user's own does something that the engine does not know."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 10_000)
        await ctx.promise()


async def with_a_plain_deadline(ctx: Context) -> None:
    """A scope of the user's own is to end the wait."""
    with anyio.move_on_after(10_000):
        await ctx.promise()


async def with_a_plain_deadline_in_a_shield(ctx: Context) -> None:
    """The same in a shield."""
    with CancelScope(shield=True, deadline=anyio.current_time() + 10_000):
        await ctx.promise()


async def waiting_otherwise(ctx: Context) -> None:
    """One task waits in the engine, another for an event."""
    event = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(event.wait)
        await ctx.promise()


async def in_the_background(ctx: Context) -> None:
    """One task is nobody's child (in asyncio)."""
    task = asyncio.ensure_future(asyncio.sleep(10_000))
    try:
        await ctx.promise()
    finally:
        task.cancel()


BUSY: Final = [
    with_a_leaf,
    with_a_back_off,
    with_a_task_at_work,
    with_a_plain_deadline,
    with_a_plain_deadline_in_a_shield,
    waiting_otherwise,
]


async def stays_hot(wire: Wire, func: Callable[..., Any]) -> None:
    """Run `func`, which waits for a promise, and see that it is not parked."""
    resonate = Resonate(network=wire, hot_for=1, grace=0)
    resonate.register(func)
    async with resonate:
        await resonate.run("w", func).spawn()
        await anyio.sleep(300)
        assert TaskState.ACQUIRED is await task_state(resonate)
        assert "task.suspend" not in wire.kinds


@pytest.mark.parametrize("func", BUSY)
async def test_not_parked(wire: Wire, func: Callable[..., Any]) -> None:
    """An execution of which anything may go on by itself stays hot."""
    await stays_hot(wire, func)


async def in_a_timeout(ctx: Context) -> None:
    """A deadline of asyncio's own is to end the wait."""
    async with asyncio.timeout(10_000):
        await ctx.promise()


async def in_a_timeout_above(ctx: Context) -> None:
    """The same around a group, in another function."""
    async with asyncio.timeout(10_000):
        await ctx.run(in_a_task_group_of_asyncio)


async def after_a_timeout(ctx: Context) -> None:
    """A deadline that is over counts no more."""
    async with asyncio.timeout(10_000) as timeout:
        await asyncio.sleep(0)
    await ctx.promise()
    assert timeout.when() is not None


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("func", [in_a_timeout, in_a_timeout_above])
async def test_not_parked_in_a_timeout(wire: Wire, func: Callable[..., Any]) -> None:
    """A timeout of asyncio's own is seen, wherever in the stack it is: it begins anew in a replay, so none is made."""
    await stays_hot(wire, func)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_parked_after_a_timeout(wire: Wire) -> None:
    """One that has been left does not keep anything hot."""
    await is_parked(wire, after_a_timeout)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_not_parked_with_a_background_task(wire: Wire) -> None:
    """A task of asyncio's that was started by the function counts, whoever owns it."""
    await stays_hot(wire, in_the_background)


async def in_a_group(ctx: Context) -> None:
    """Tasks of a plain group wait, and the function waits for them."""

    async def wait(name: str) -> None:
        await ctx.promise().named(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, "a")
        tasks.start_soon(wait, "b")


async def in_a_nested_group(ctx: Context) -> None:
    """The same one level below, in place and spawned."""
    await ctx.run(in_a_group).spawn()
    await ctx.run(in_a_group)


async def in_a_group_with_a_body(ctx: Context) -> None:
    """The function waits in the group itself."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold, ctx)
        await ctx.sleep(10_000)


async def in_children(ctx: Context) -> None:
    """Spawned children wait, and the function has returned."""
    await ctx.run(hold).spawn()
    await ctx.run(hold).spawn()


async def in_a_durable_scope(ctx: Context) -> None:
    """A deadline that is on record."""
    with ctx.move_on_after(10_000):
        await ctx.promise()


async def in_a_durable_group(ctx: Context) -> None:
    """A group that is on record."""
    async with ctx.task_group() as tg:
        tg.promise()
        tg.start_soon(hold, ctx)


async def in_a_task_group_of_asyncio(ctx: Context) -> None:
    """As `in_a_group`."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold(ctx))
        tasks.create_task(hold(ctx))


async def in_a_nursery(ctx: Context) -> None:
    """As `in_a_group`."""
    import trio  # noqa: PLC0415 - only where it runs

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, ctx)
        nursery.start_soon(hold, ctx)


def after_a_background_task() -> Callable[[Context], Awaitable[None]]:
    """A leaf has left a task behind that is not the function's any more (a connection pool does)."""
    left: list[asyncio.Future[None]] = []

    async def leaf() -> None:
        left.append(asyncio.ensure_future(asyncio.sleep(10_000)))

    async def workflow(ctx: Context) -> None:
        await ctx.run(leaf)
        try:
            await ctx.promise()
        finally:
            left[0].cancel()

    return workflow


async def is_parked(wire: Wire, func: Callable[..., Any]) -> None:
    """Run `func` and see that it is suspended, put away, and nothing of it recorded."""
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(func, name="func")
    async with resonate:
        await resonate.run("w", "func").spawn()
        await anyio.sleep(30)
        assert TaskState.SUSPENDED is await task_state(resonate)


@pytest.mark.parametrize(
    "func",
    [hold, in_a_group, in_a_nested_group, in_a_group_with_a_body, in_children, in_a_durable_scope, in_a_durable_group],
)
async def test_parked_as_a_whole(wire: Wire, func: Callable[..., Any]) -> None:
    """An execution is parked when each of its tasks waits in the engine, or for others that do."""
    await is_parked(wire, func)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_parked_in_a_task_group_of_asyncio(wire: Wire) -> None:
    """So with the groups of asyncio."""
    await is_parked(wire, in_a_task_group_of_asyncio)


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_parked_in_a_nursery(wire: Wire) -> None:
    """So with the nurseries of trio."""
    await is_parked(wire, in_a_nursery)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_parked_after_a_background_task(wire: Wire) -> None:
    """A task that has outlived the leaf that started it can make no durable call, and keeps nothing hot."""
    await is_parked(wire, after_a_background_task())


# Going on


async def test_group_goes_on(wire: Wire) -> None:
    """Each task of a group is resumed with what it waits for, and the execution is parked again in between."""
    results: list[Any] = []
    calls: list[int] = []

    async def workflow(ctx: Context) -> None:
        calls.append(1)

        async def wait(name: str) -> None:
            results.append(await ctx.promise().named(name))

        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(wait, name)

    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        for name in "bca":
            await anyio.sleep(30)
            assert TaskState.SUSPENDED is await task_state(resonate)
            await resonate.promises.resolve(f"w.{name}", name)
        await handle
        assert ["resolved"] * 3 == wakes(await Look(resonate).states())
    assert ["b", "c", "a"] == results
    assert [1] == calls


async def test_remote_call(network: LocalNetwork) -> None:
    """A remote child is awaited parked, its worker knows nothing of that, and the result arrives."""

    async def slow() -> str:
        await anyio.sleep(500)
        return "done"

    async def workflow(ctx: Context) -> str:
        result: str = await ctx.rpc("slow").target("far")
        return result

    near = Resonate(network=Wire(network), group="near", hot_for=10)
    far = Resonate(network=network, group="far")
    near.register(workflow)
    far.register(slow)
    async with near, far:
        handle = await near.run("w", workflow).spawn()
        await anyio.sleep(30)
        assert TaskState.SUSPENDED is await task_state(near)
        assert "done" == await handle


async def test_deadline_of_a_call(wire: Wire) -> None:
    """The deadline of a local call passes on time while parked; what the function does then is recorded."""
    calls: list[int] = []

    async def step() -> str:
        return "went on"

    async def workflow(ctx: Context) -> str:
        calls.append(1)
        with pytest.raises(DurableTimeoutError):
            await ctx.run(hold).timeout(100)
        return await ctx.run(step)

    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        assert "went on" == await resonate.run("w", workflow)
        assert 100 == pytest.approx(anyio.current_time() - start, abs=0.1)
        assert "pending" not in (await Look(resonate).states()).values()
    assert 1 == wire.kinds.count("task.suspend")
    assert [1] == calls


async def test_deadline_while_nobody_lives(world: World) -> None:
    """The deadline of a local call wakes the task although the process that had parked it is gone."""

    async def workflow(ctx: Context) -> str:
        with pytest.raises(DurableTimeoutError):
            await ctx.run(hold).timeout(100)
        return "went on"

    async with world.process(workflow, hot_for=1) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(30)
        process.kill()
    async with world.process(workflow) as process:
        await anyio.sleep(65)
        assert TaskState.SUSPENDED is await task_state(process.resonate)
        await anyio.sleep(10)
        assert "went on" == await (await process.resonate.get("w"))
        assert "pending" not in (await Look(process.resonate).states()).values()


async def test_process_that_dies_parked(world: World) -> None:
    """What waits is not replayed before there is something to do; then no wake promise is left pending."""
    runs = Runs()
    async with world.process(runs.waiting, hot_for=1) as process:
        await process.resonate.run("w", runs.waiting).spawn()
        await anyio.sleep(30)
        process.kill()
    async with world.process(runs.waiting) as process:
        await anyio.sleep(100)
        assert 1 == runs.workflow
        await process.resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await (await process.resonate.get("w"))
        states = await Look(process.resonate).states()
    assert 2 == runs.workflow
    assert ["before", "after"] == runs.steps
    assert "pending" not in states.values()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_deadline_that_cannot_be_seen(wire: Wire) -> None:
    """A cancellation by a timer of asyncio's own comes on time while parked, and what it cancels is recorded."""

    async def workflow(ctx: Context) -> str:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(100, task.cancel)
        try:
            await ctx.promise()
        except asyncio.CancelledError:
            task.uncancel()
            return "timed out"
        return "unreachable"

    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(30)
        assert TaskState.SUSPENDED is await task_state(resonate)
        start = anyio.current_time()
        assert "timed out" == await handle
        assert 70 == pytest.approx(anyio.current_time() - start, abs=0.1)
        assert "rejected_canceled" == (await resonate.promises.get("w.promise-1")).state


async def test_a_year(wire: Wire) -> None:
    """A year of waiting costs a handful of requests where all deadlines are seen, and twenty wakes elsewhere."""
    runs = Runs()
    resonate = Resonate(network=wire)
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        handle = await resonate.run("w", "waiting").timeout(2 * YEAR).spawn()
        await anyio.sleep(YEAR.total_seconds())
        await resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await handle
    assert 1 == runs.workflow
    assert wire.kinds.count("task.suspend") <= 20
    assert len(wire.kinds) <= 120


# Requests that go wrong


async def after_suspends(wire: Wire, do: Callable[[], Awaitable[None]], *, answered: bool) -> None:
    """Do something at the next suspend: before it has its effect, or after it."""
    done: list[int] = []

    async def hook(request: Request, *_: Response) -> None:
        if isinstance(request, TaskSuspend) and not done:
            done.append(1)
            await do()

    if answered:
        wire.after = hook
    else:
        wire.before = hook


async def lose() -> None:
    raise Unreachable


@pytest.mark.parametrize("answered", [False, True])
async def test_suspend_without_an_answer(wire: Wire, answered: bool) -> None:
    """The task itself tells whether it was suspended; either way the execution goes on without a replay."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")
    await after_suspends(wire, lose, answered=answered)
    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(2.5)
        assert (TaskState.SUSPENDED if answered else TaskState.ACQUIRED) is await task_state(resonate)
        # It is tried again.
        await anyio.sleep(10)
        assert TaskState.SUSPENDED is await task_state(resonate)
        await resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await handle
        assert {"resolved"} == set(wakes(await Look(resonate).states()))
    assert 1 == runs.workflow


@pytest.mark.parametrize("answered", [False, True])
async def test_settled_over_a_suspend(wire: Wire, answered: bool) -> None:
    """What settles just before the suspend, or just after it, is delivered; nothing is run again."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")

    async def settle() -> None:
        await Look(resonate).settle("w.promise-1", "value", resonate)

    await after_suspends(wire, settle, answered=answered)
    async with resonate:
        start = anyio.current_time()
        assert "value" == await resonate.run("w", "waiting")
        assert 2 == pytest.approx(anyio.current_time() - start, abs=0.1)
        assert ["resolved"] == wakes(await Look(resonate).states())
    assert 1 == runs.workflow


async def test_message_lost_over_a_suspend(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the message does not come that says what has settled, it is asked for."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")

    async def settle() -> None:
        await Look(resonate).settle("w.promise-1", "value", resonate)

    await after_suspends(wire, settle, answered=False)
    async with resonate:
        forget_messages(resonate, monkeypatch, Unblock)
        start = anyio.current_time()
        assert "value" == await resonate.run("w", "waiting")
        assert 2.3 == pytest.approx(anyio.current_time() - start, abs=0.1)


def forget_messages(resonate: Resonate, monkeypatch: pytest.MonkeyPatch, *kinds: type[object]) -> None:
    """From now on such messages are lost."""
    messages = worker_of(resonate).messages
    handle = messages.handle

    def lossy(message: Any) -> None:
        if not isinstance(message, kinds):
            handle(message)

    monkeypatch.setattr(type(messages), "handle", lambda _, message: lossy(message))


@pytest.mark.parametrize("kind", [Unblock, Execute])
async def test_lost_message_to_what_is_parked(wire: Wire, monkeypatch: pytest.MonkeyPatch, kind: type[object]) -> None:
    """Either of the two messages is enough to resume what is parked."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        forget_messages(resonate, monkeypatch, kind)
        await resonate.promises.resolve("w.promise-1", "value")
        with anyio.fail_after(0.2):
            assert "value" == await handle
    assert 1 == runs.workflow


async def test_nothing_is_told_of_a_suspend(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """If answer and message are lost of a suspend that was ended at once, the task itself tells that it is pending."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")

    async def settle_and_lose() -> None:
        await Look(resonate).settle("w.promise-1", "value", resonate)
        raise Unreachable

    await after_suspends(wire, settle_and_lose, answered=True)
    async with resonate:
        forget_messages(resonate, monkeypatch, Unblock, Execute)
        start = anyio.current_time()
        assert "value" == await resonate.run("w", "waiting")
        assert 2 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert 1 == runs.workflow


async def test_suspend_that_is_not_needed_any_more(wire: Wire) -> None:
    """What settles while the suspend is prepared keeps the execution hot: none is sent."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")

    async def settle(request: Request, _: Response) -> None:
        if isinstance(request, TaskCreate) and "~wake" in request.action.id:
            await Look(resonate).settle("w.promise-1", "value", resonate)
            await anyio.sleep(0.1)

    wire.after = settle
    async with resonate:
        assert "value" == await resonate.run("w", "waiting")
        assert ["resolved"] == wakes(await Look(resonate).states())
    assert "task.suspend" not in wire.kinds
    assert 1 == runs.workflow


@pytest.mark.parametrize("status", [404, 409])
async def test_suspend_that_is_refused(resonate: Resonate, wire: Wire, runs: Runs, status: int) -> None:
    """An execution whose task the server says to be gone, or in other hands, is dropped, and is not suspended again."""
    async with resonate:
        await resonate.run("w", "waiting").spawn()
        execution = worker_of(resonate).executions["w"]
        wire.answer = lambda request: Response(status=status) if isinstance(request, TaskSuspend) else None
        # It parks after a minute. A server that takes the lease to be lapsed offers the task again a minute after that.
        await anyio.sleep(100)
        assert Drop.LOST is execution.dropped
        assert 1 == wire.counts()["task.suspend"]
    assert ["before"] == runs.steps


async def test_answer_of_a_suspend_that_comes_too_late(wire: Wire) -> None:
    """An answer that comes when the task was taken back and is being suspended again is of no effect."""

    async def workflow(ctx: Context) -> list[Any]:
        return [await ctx.promise(), await ctx.promise()]

    delays = [30.0, 40.0]

    async def late(request: Request, _: Response) -> None:
        if isinstance(request, TaskSuspend):
            suspending.set()
            await anyio.sleep(delays.pop(0))

    suspending = anyio.Event()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(workflow)
    wire.after = late
    async with resonate, anyio.create_task_group() as tasks:
        handle = await resonate.run("w", workflow).spawn()
        suspension = worker_of(resonate).executions["w"].suspension
        await suspending.wait()
        await resonate.promises.resolve("w.promise-1", 1)
        # The task is free now, and this takes it.
        tasks.start_soon(resonate.run("w", workflow).spawn)
        await anyio.sleep(0.5)
        phases = [suspension.phase]
        await anyio.sleep(20)
        phases.append(suspension.phase)
        await anyio.sleep(15)
        phases.append(suspension.phase)
        await anyio.sleep(30)
        phases.append(suspension.phase)
        assert [Phase.HOT, Phase.SUSPENDING, Phase.SUSPENDING, Phase.PARKED] == phases
        await resonate.promises.resolve("w.promise-2", 2)
        assert [1, 2] == await handle


async def test_lease_that_was_lost(wire: Wire) -> None:
    """A hot execution whose task is sent for once more has lost its lease: it is taken again, and the code goes on."""
    runs = Runs()
    resonate = Resonate(network=wire)
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        await Look(resonate).request(TaskRelease(id="w", version=1))
        await anyio.sleep(1)
        assert 1 == runs.workflow
        assert 2 == (await Look(resonate).task("w")).version
        await resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await handle
    assert ["before", "after"] == runs.steps


async def test_process_that_dies_with_deadlines_that_cannot_be_seen(
    world: World, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    """On asyncio, what was parked is run again after ten minutes, by whoever lives; trio has no such deadlines."""
    runs = Runs()
    async with world.process(runs.waiting, hot_for=1) as process:
        await process.resonate.run("w", runs.waiting).spawn()
        await anyio.sleep(30)
        process.kill()
    async with world.process(runs.waiting) as process:
        await anyio.sleep(560)
        assert 1 == runs.workflow
        await anyio.sleep(40)
        assert (2 if anyio_backend[0] == "asyncio" else 1) == runs.workflow


async def test_lost_messages_are_asked_for(network: LocalNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network that loses messages what is waited for is asked for now and then, hot or parked, or by a handle."""
    runs = Runs()
    resonate = Resonate(network=network, hot_for=100)
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        worker = worker_of(resonate)
        worker.connection.recheck = 20
        worker.background(worker.rechecks.run_periodically, name="recheck")
        forget_messages(resonate, monkeypatch, Unblock, Execute)
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        await resonate.promises.resolve("w.promise-1", "value")
        with anyio.fail_after(31):
            assert "value" == await handle

        await resonate.promises.create("p", worker.connection.now() + 86_400_000)
        waiter = await resonate.get("p")

        async def resolve() -> None:
            await anyio.sleep(1)
            await resonate.promises.resolve("p", "late")

        with anyio.fail_after(32):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(resolve)
                assert "late" == await waiter


@pytest.mark.parametrize("answered", [False, True])
async def test_acquire_without_an_answer(wire: Wire, answered: bool) -> None:
    """A task that was taken back although nobody answered is not lost, nor run again."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")
    lost: list[int] = []

    async def hook(request: Request, *_: Response) -> None:
        if isinstance(request, TaskAcquire) and not lost:
            lost.append(1)
            raise Unreachable

    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        wire.after, wire.before = (hook, nothing) if answered else (nothing, hook)
        await resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await handle
    assert 1 == runs.workflow
    assert [1] == lost


async def test_taken_by_another_worker(wire: Wire) -> None:
    """A parked execution whose task somebody else has taken is dropped, with nothing written; later it is replayed."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")
    taken: list[int] = []

    async def take_first(request: Request) -> None:
        if isinstance(request, TaskAcquire) and not taken:
            taken.append(request.version)
            wire.forget()
            response = await look.request(TaskAcquire(id="w", version=request.version, pid="other", ttl=60_000))
            assert 200 == response.status

    async with resonate:
        look = Look(resonate)
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        wire.before = take_first
        await resonate.promises.resolve("w.promise-1", "value")
        await anyio.sleep(10)
        assert [] == wire.settled()
        assert ["before"] == runs.steps
        await look.request(TaskRelease(id="w", version=taken[0] + 1))
        assert "value" == await handle
        assert "pending" not in (await look.states()).values()
    assert 2 == runs.workflow
    assert ["before", "after"] == runs.steps


async def test_stale_messages(wire: Wire) -> None:
    """Messages with other versions have no effect on what is parked, and repeated ones no second one."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")
    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        for version in (0, 7, 2):
            wire.inject(Execute("w", version))
        await anyio.sleep(1)
        assert TaskState.SUSPENDED is await task_state(resonate)
        # Of the right version it is believed: the task is taken back, or turns out to be suspended still.
        await resonate.promises.resolve("w.promise-1", "value")
        for _ in range(3):
            wire.inject(Execute("w", 1))
        assert "value" == await handle
    assert 1 == runs.workflow


async def test_settled_from_outside_while_parked(wire: Wire) -> None:
    """A local call that was cancelled from outside meanwhile is seen to be when the task is taken back."""

    async def child(ctx: Context) -> None:
        await ctx.promise()

    async def workflow(ctx: Context) -> str:
        future = await ctx.run(child).spawn()
        await ctx.promise()
        with pytest.raises(DurableCancelledError):
            await future
        return "went on"

    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(10)
        assert TaskState.SUSPENDED is await task_state(resonate)
        await Look(resonate).settle("w.child-1", None, resonate, PromiseState.CANCELED.value)
        await anyio.sleep(10)
        assert TaskState.SUSPENDED is await task_state(resonate)
        await resonate.promises.resolve("w.promise-1")
        assert "went on" == await handle
        assert "pending" not in (await Look(resonate).states()).values()


async def test_started_again_while_parked(wire: Wire) -> None:
    """Starting what is parked joins it, also in the moment in which its task is free."""
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")
    joined: list[Any] = []

    async def join() -> None:
        joined.append(await resonate.run("w", "waiting"))

    async def join_first(request: Request) -> None:
        if isinstance(request, TaskAcquire):
            wire.before = nothing
            tasks.start_soon(join)
            await anyio.sleep(1)

    async with resonate, anyio.create_task_group() as tasks:
        await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        tasks.start_soon(join)
        await anyio.sleep(1)
        assert TaskState.SUSPENDED is await task_state(resonate)
        wire.before = join_first
        await resonate.promises.resolve("w.promise-1", "value")
    assert ["value", "value"] == joined
    assert 1 == runs.workflow


async def test_gate(wire: Wire) -> None:
    """Code that goes on by itself while its task is parked makes no request before the task is taken back."""

    async def step() -> None:
        pass

    async def workflow(ctx: Context) -> None:
        try:
            await ctx.run(hold).timeout(100)
        except DurableTimeoutError:
            await ctx.run(step)

    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(50)
        wire.forget()
        await handle
    assert ["promise.settle", "task.acquire"] == [kind for kind in wire.kinds if kind != "promise.get"][:2]


async def test_one_run_at_a_time(wire: Wire) -> None:
    """What is sent for while the code of its last run has not ended yet begins when that has."""
    active: list[int] = []
    most: list[int] = []

    async def workflow(ctx: Context) -> str:
        active.append(1)
        most.append(len(active))
        try:
            await ctx.promise()
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(10)
            active.pop()
        return "done"

    resonate = Resonate(network=wire, hot_for=1, parked_limit=0)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await resonate.promises.resolve("w.promise-1")
        assert "done" == await handle
    assert [1, 1] == most


async def test_own_end_is_no_end_from_outside(wire: Wire) -> None:
    """The message of its own end, which may come before the answer to that, makes nothing be swept."""
    runs = Runs()
    resonate = Resonate(network=wire)
    resonate.register(runs.waiting, name="waiting")

    async def slowly(request: Request, _: Response) -> None:
        if isinstance(request, TaskFulfill):
            await anyio.sleep(10)

    wire.after = slowly
    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(5)
        await resonate.promises.resolve("w.promise-1", "value")
        start = anyio.current_time()
        assert "value" == await handle
        assert 10 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert "promise.search" not in wire.kinds


async def test_deadline_of_a_root_is_no_end_from_outside(wire: Wire) -> None:
    """A hot root that times out at the server, before it does here, ends in the way of any deadline."""
    ends: list[str] = []

    async def workflow(ctx: Context) -> None:
        try:
            await ctx.promise()
        finally:
            ends.append("cleaned up")

    resonate = Resonate(network=wire)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).timeout(20).spawn()
        await anyio.sleep(10)
        record = await Look(resonate).promise("w")
        wire.inject(Unblock(evolve(record, state=PromiseState.TIMEDOUT, settled_at=record.timeout_at)))
        await anyio.sleep(1)
        assert ["cleaned up"] == ends
        with pytest.raises(DurableTimeoutError):
            await handle
        assert "promise.search" not in wire.kinds


async def test_pinned(wire: Wire) -> None:
    """What a replay could not give back at once is parked, but not unloaded for economy."""
    calls: list[int] = []

    async def workflow(ctx: Context) -> None:
        calls.append(1)
        with anyio.move_on_after(5):
            await ctx.promise()
        await ctx.promise()

    resonate = Resonate(network=wire, hot_for=1, parked_limit=0)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(30)
        assert TaskState.SUSPENDED is await task_state(resonate)
        await resonate.promises.resolve("w.promise-2")
        await handle
    assert [1] == calls


async def test_wake_that_was_never_made(wire: Wire) -> None:
    """A wake promise whose making had no effect does not keep the root from ending."""
    lost: list[str] = []

    async def lose_wakes(request: Request) -> None:
        if isinstance(request, TaskCreate) and "~wake" in request.action.id:
            lost.append(request.action.id)
            raise Unreachable

    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")
    wire.before = lose_wakes
    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        await resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await handle
    assert lost
    assert 1 == runs.workflow


async def waiting(ctx: Context) -> str:
    await ctx.promise().named("p")
    return "done"


async def test_wake_that_cannot_be_made(world: World) -> None:
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


async def test_slow_look_after_a_refused_suspend(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still asked for after one suspend that was refused does not decide about the next one."""

    async def workflow(ctx: Context) -> str:
        first = await ctx.promise().named("first").spawn()
        second = await ctx.promise().named("second").spawn()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first._wait)
            tasks.start_soon(second._wait)
        return "done"

    async def settle() -> None:
        await Look(resonate).settle("w.first", "value", resonate)
        wire.before = slowly

    async def slowly(request: Request) -> None:
        if isinstance(request, RegisterListener) and request.awaited == "w.second":
            await anyio.sleep(20)

    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(workflow)
    await after_suspends(wire, settle, answered=False)
    async with resonate:
        forget_messages(resonate, monkeypatch, Unblock)
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(60)
        assert TaskState.SUSPENDED is await task_state(resonate)
        assert Phase.PARKED is worker_of(resonate).executions["w"].suspension.phase
        await resonate.promises.resolve("w.second")
        assert "done" == await handle


async def test_dropped_while_resumed(wire: Wire) -> None:
    """A task that is taken back for an execution that was dropped meanwhile is let go, and taken anew."""
    resuming = anyio.Event()
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(runs.waiting, name="waiting")

    async def slowly(request: Request, _: Response) -> None:
        if isinstance(request, TaskAcquire) and not resuming.is_set():
            resuming.set()
            await anyio.sleep(1)

    async with resonate:
        handle = await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        wire.after = slowly
        await resonate.promises.resolve("w.promise-1", "value")
        await resuming.wait()
        worker_of(resonate).executions["w"].drop(Drop.LOST)
        with anyio.fail_after(5):
            assert "value" == await handle
    assert 2 == runs.workflow
    assert ["before", "after"] == runs.steps


async def test_not_unloaded_while_resumed(wire: Wire) -> None:
    """What is being resumed does not count as parked any more."""
    resuming = anyio.Event()
    runs = Runs()
    resonate = Resonate(network=wire, hot_for=1, parked_limit=1)
    resonate.register(runs.waiting, name="waiting")

    async def slowly(request: Request) -> None:
        if isinstance(request, TaskAcquire):
            resuming.set()
            await anyio.sleep(10)

    async with resonate:
        handle = await resonate.run("a", "waiting").spawn()
        await anyio.sleep(10)
        await resonate.run("b", "waiting").spawn()
        wire.before = slowly
        await anyio.sleep(0.5)
        await resonate.promises.resolve("a.promise-1", "value")
        await resuming.wait()
        await anyio.sleep(5)
        assert TaskState.SUSPENDED is await task_state(resonate, "b")
        assert "value" == await handle
    assert 2 == runs.workflow


async def test_resuming_is_not_unloaded(world: World) -> None:
    """An execution whose task is being taken back is not unloaded for economy: its lease would be nobody's."""
    process = world.process(waiting, hot_for=0, parked_limit=1)
    answered = anyio.Event()

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
        with anyio.fail_after(3600):
            assert "done" == await handle
        await look.settle("b.p", None, resonate)


async def test_ended_executions_are_forgotten(wire: Wire) -> None:
    """An execution that has ended is not kept in memory, however long it was at work and would have been looked at."""

    async def workflow(ctx: Context) -> None:
        await anyio.sleep(80_000)

    resonate = Resonate(network=wire)
    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(10)
        execution = weakref.ref(worker_of(resonate).executions["w"])
        await anyio.sleep(80_000)
        gc.collect()
        assert execution() is None


async def test_ended_executions_leave_memory(resonate: Resonate, wire: Wire) -> None:
    """Nothing in a worker holds an execution that has ended, however long it was looked after."""
    resonate.register(waiting)
    async with resonate:
        handle = await resonate.run("w", waiting).spawn()
        await anyio.sleep(5)
        execution = weakref.ref(worker_of(resonate).executions["w"])
        await Look(resonate).settle("w.p", None, resonate)
        await handle
        del handle
        wire.forget()
        await anyio.sleep(1)
        gc.collect()
        assert execution() is None


async def test_a_long_sleep_of_an_unloaded_execution_is_cheap(network: LocalNetwork) -> None:
    """Unloaded or not, it is woken in ever longer steps, since the history tells how long nothing has happened."""

    async def workflow(ctx: Context) -> str:
        await ctx.sleep(YEAR)
        return "a year later"

    resonate = Resonate(network=network, hot_for=0, parked_limit=0)
    resonate.register(workflow)
    async with resonate:
        assert "a year later" == await resonate.run("w", workflow).timeout(2 * YEAR)
        wakes = [id for id in await Look(resonate).states() if "~wake" in id]
    assert len(wakes) < 25


async def test_waiting_is_not_looked_at_before_its_time(
    resonate: Resonate, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks of the process are looked through when an execution may be parked, and not once for each that waits."""
    snapshots: list[TaskSnapshot] = []

    class Counted(TaskSnapshot):
        def __init__(self, owner_in: Callable[[Context], object | None]) -> None:
            super().__init__(owner_in)  # type: ignore[arg-type]
            snapshots.append(self)

    monkeypatch.setattr(_residency, "TaskSnapshot", Counted)
    async with resonate:
        for number in range(20):
            await resonate.run(f"w{number:02}", runs.waiting).spawn()
            await anyio.sleep(0.01)

        await anyio.sleep(1)
        assert [] == snapshots
        await anyio.sleep(600)
        assert {TaskState.SUSPENDED} == {await task_state(resonate, f"w{number:02}") for number in range(20)}
        assert 20 == len(snapshots)
