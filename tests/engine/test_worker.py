"""The worker: tasks that it cannot run, answers that do not come, messages that come twice, programs that end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any, Literal

import anyio
import pytest

from resonate_anyio import Context, NotRegistered, RequestError, Resonate, StoreError
from resonate_anyio._execution._execution import Execution
from resonate_anyio._protocol import Execute, PromiseState, Request, Response, TaskAcquire, TaskRelease, Unblock
from resonate_anyio.networks import LocalNetwork

from ..chosen import CHOSEN
from ..inside import worker_of
from .harness import Look, Unreachable, Wanted, Wire, World, creates, settles


async def double(x: int) -> int:
    return x * 2


async def slow(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "done"


IN_TEN_MINUTES = 26
"""How often a task may be given back in ten minutes: after pauses of 1, 2, 4, ... 60, 60, ... seconds, each of which is
shortened at random by up to a half."""


async def test_unknown_function_is_given_back(resonate: Resonate, wire: Wire) -> None:
    """A task whose function nobody here knows is released after a pause that grows: no hot loop."""
    resonate.register(slow)
    async with resonate:
        await resonate.rpc("r", "unknown").spawn()
        await anyio.sleep(600)
        counts = wire.counts()
    # The last one is being kept for a while. At a server its lease may lapse meanwhile, so that it is sent again.
    assert counts["task.acquire"] - counts["task.release"] in ({1} if CHOSEN.network == "local" else {1, 2, 3})
    assert 10 <= counts["task.acquire"] <= IN_TEN_MINUTES


async def test_function_that_is_registered_later(resonate: Resonate) -> None:
    """A task that could not be run runs soon after its function has been registered."""
    resonate.register(slow)
    async with resonate:
        handle = await resonate.rpc("r", "double", 4).spawn()
        await anyio.sleep(10)
        resonate.register(double)
        with anyio.fail_after(61):
            assert 8 == await handle


async def test_unknown_version(resonate: Resonate) -> None:
    """A version that is not registered waits for a worker that has it."""
    resonate.register(double)

    async def triple(x: int) -> int:
        return x * 3

    async with resonate:
        handle = await resonate.rpc("r", "double", 4).version(7).spawn()
        await anyio.sleep(10)
        assert not await handle.done()
        resonate.register(triple, name="double", version=7)
        with anyio.fail_after(61):
            assert 12 == await handle


async def test_another_worker_has_it(network: LocalNetwork) -> None:
    """What one worker of a group cannot run, another can."""
    ignorant = Resonate(network=network, pid="a")
    able = Resonate(network=network, pid="b")
    able.register(double)
    async with ignorant, able:
        for n in range(4):
            with anyio.fail_after(61):
                assert 2 * n == await ignorant.rpc(f"r{n}", "double", n)


@pytest.mark.parametrize("args", [["four"], [], [1, 2]], ids=["of another type", "too few", "too many"])
async def test_arguments_that_do_not_fit(resonate: Resonate, wire: Wire, args: list[Any]) -> None:
    """A task whose recorded arguments the function cannot take is given back, with pauses, and stays pending."""
    resonate.register(double)
    async with resonate:
        handle = await resonate.rpc("r", "double", *args).spawn()
        await anyio.sleep(600)
        assert not await handle.done()
        assert 10 <= wire.counts()["task.release"] <= IN_TEN_MINUTES


async def test_promise_that_is_no_call(resonate: Resonate, wire: Wire) -> None:
    """A task without a call in it, as another program may make, is given back in the same manner."""
    resonate.register(slow)
    async with resonate:
        await resonate.promises.create("p", 4_000_000_000_000, ["?"], {"resonate:target": "poll://any@default"})
        await anyio.sleep(600)
        assert "pending" == (await resonate.promises.get("p")).state
        assert 10 <= wire.counts()["task.release"] <= IN_TEN_MINUTES


async def test_giving_back_ends_with_the_block(resonate: Resonate) -> None:
    """A pause before giving back does not hold up the end of the block, and the task is free afterwards."""
    resonate.register(slow)
    async with resonate:
        await resonate.rpc("r", "double", 4).spawn()
        await anyio.sleep(100)
        start = anyio.current_time()
    assert 1 > anyio.current_time() - start
    resonate.register(double)
    async with resonate:
        with anyio.fail_after(1):
            assert 8 == await (await resonate.get("r"))


async def test_unregistered_function(resonate: Resonate, wire: Wire) -> None:
    """Outside, a function or name that is not registered is refused before any request."""
    async with resonate:
        with pytest.raises(NotRegistered, match="'double' is not registered"):
            resonate.run("r", double, 1)
        with pytest.raises(NotRegistered, match="'nobody' is not registered"):
            resonate.run("r", "nobody")
        with pytest.raises(NotRegistered, match="'double' is not registered"):
            resonate.rpc("r", double, 1)
    assert [] == wire.kinds


async def waiting(ctx: Context) -> str:
    await ctx.promise().named("p")
    return "done"


async def test_reprs(resonate: Resonate) -> None:
    """What the engine is made of shows itself in a line each, and not the whole worker with it."""
    resonate.register(waiting)
    async with resonate:
        worker = worker_of(resonate)
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


def break_once(wire: Wire, wanted: Wanted, error: Exception, *, answered: bool) -> list[str]:
    """Raise `error` over the first wanted request, before or after it has had its effect."""
    broken: list[str] = []

    async def hook(request: Any, *_: object) -> None:
        if wanted(request) and not broken:
            broken.append(request.kind)
            raise error

    if answered:
        wire.after = hook
    else:
        wire.before = hook
    return broken


@pytest.mark.parametrize("answered", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("error", [StoreError("disk full"), Unreachable("no route")], ids=["store", "network"])
@pytest.mark.parametrize(
    "wanted",
    [creates("w.double-1"), settles("w.double-1"), creates("w.sleep-1"), creates("w.far"), settles("w")],
    ids=["create", "settle", "timer", "fence", "end"],
)
async def test_request_without_an_answer(
    resonate: Resonate, wire: Wire, wanted: Wanted, error: Exception, *, answered: bool
) -> None:
    """A platform failure is no outcome: the execution is dropped, and soon tried again from its records."""
    # Making it the value of an `except Exception` would let user code take it for an answer.
    caught: list[Exception] = []

    async def workflow(ctx: Context) -> int:
        try:
            first = await ctx.run(double, 1)
            await ctx.sleep(1)
            return first + await ctx.rpc(double, 2).named("far")
        except Exception as exc:
            caught.append(exc)
            raise

    broken = break_once(wire, wanted, error, answered=answered)
    resonate.register(workflow)
    resonate.register(double)
    async with resonate:
        try:
            handle = await resonate.run("w", workflow).spawn()
            await handle
        except type(error):
            # Whoever waits here may be told; the execution goes on all the same.
            handle = await resonate.get("w", int)
        with anyio.fail_after(100):
            assert 6 == await handle
    assert 1 == len(broken)
    assert [] == caught


@pytest.mark.parametrize("status", [401, 500])
@pytest.mark.parametrize(
    "kind", ["promise.create", "promise.settle", "task.fence", "promise.register_listener", "task.fulfill"]
)
@pytest.mark.parametrize("one_request", [True, False])
async def test_answer_that_is_an_error(wire: Wire, kind: str, status: Literal[401, 500], *, one_request: bool) -> None:
    """A server that fails, or refuses everything for a moment, is no outcome of any call either."""
    resonate = Resonate(network=wire, pid="p", one_request=one_request)
    caught: list[Exception] = []

    async def workflow(ctx: Context) -> int:
        try:
            return await (await ctx.run(double, 1).spawn()) + await ctx.run(double, 0) + await ctx.rpc(double, 2)
        except Exception as exc:
            caught.append(exc)
            raise

    failed: list[str] = []

    def fail_once(request: Request) -> Response | None:
        if request.kind != kind or failed:
            return None
        failed.append(kind)
        return Response(status=status, error="not now")

    wire.answer = fail_once
    resonate.register(workflow)
    resonate.register(double)
    with anyio.fail_after(1000):
        async with resonate:
            with suppress(RequestError):
                # Whoever waits here may be told; the execution goes on all the same.
                await resonate.run("w", workflow)
            assert 6 == await (await resonate.get("w", int))
    assert [kind] == failed
    assert [] == caught


@pytest.mark.parametrize("kind", ["promise.create", "promise.settle", "task.fulfill"])
async def test_fault_in_the_network(resonate: Resonate, wire: Wire, kind: str) -> None:
    """An error that a network must not raise ends the execution like a crash, or the block, but hangs nothing."""
    caught: list[Exception] = []

    async def workflow(ctx: Context) -> int:
        try:
            return await ctx.run(double, 1)
        except Exception as exc:
            caught.append(exc)
            raise

    break_once(wire, lambda request: request.kind == kind, ZeroDivisionError(), answered=False)
    resonate.register(workflow)
    with anyio.fail_after(1000):
        with suppress(ZeroDivisionError, ExceptionGroup):
            async with resonate:
                await resonate.run("w", workflow)
        async with resonate:
            assert 2 == await (await resonate.get("w", int))
    assert [] == caught


async def test_listener_without_an_answer(resonate: Resonate, wire: Wire) -> None:
    """So it is when only the listener of a remote call could not be registered."""

    async def workflow(ctx: Context) -> int:
        return await ctx.rpc(double, 2)

    broken = break_once(
        wire, lambda request: request.kind == "promise.register_listener", Unreachable("no"), answered=False
    )
    resonate.register(workflow)
    resonate.register(double)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(100)
        assert 4 == (await resonate.promises.get("w")).value
    assert 1 == len(broken)


async def test_acquire_without_an_answer(resonate: Resonate, wire: Wire) -> None:
    """A task whose acquire failed is sent for again by the engine, and runs then."""
    broken = break_once(wire, lambda request: request.kind == "task.acquire", Unreachable("no"), answered=False)
    resonate.register(double)
    async with resonate:
        with anyio.fail_after(100):
            assert 4 == await resonate.rpc("r", "double", 2)
    assert 1 == len(broken)


async def test_lost_answer_of_an_acquire(resonate: Resonate, wire: Wire) -> None:
    """A lease that was taken without the worker knowing is found out about, and does not keep the task for ever."""
    broken = break_once(wire, lambda request: request.kind == "task.acquire", Unreachable("no"), answered=True)
    resonate.register(double)
    async with resonate:
        with anyio.fail_after(600):
            assert 4 == await resonate.rpc("r", "double", 2)
    assert 1 == len(broken)


async def test_lost_answer_of_a_start(resonate: Resonate, wire: Wire) -> None:
    """A root whose start was answered to nobody runs all the same; starting it again joins it."""
    broken = break_once(wire, creates("r"), Unreachable("no"), answered=True)
    resonate.register(double)
    async with resonate:
        with pytest.raises(Unreachable):
            await resonate.run("r", double, 2)
        with anyio.fail_after(600):
            assert 4 == await resonate.run("r", double, 2)
    assert 1 == len(broken)


@pytest.mark.parametrize("error", [StoreError("disk full"), ZeroDivisionError()], ids=["store", "fault"])
async def test_start_whose_history_cannot_be_read(world: World, error: Exception) -> None:
    """A task that was leased by its start, but whose history could not be read, is given back and runs later."""
    process = world.process(naps)
    process.kill_at(creates("w.sleep-1"), answered=True)
    await world.run_until_killed(process, "w", naps)

    process = world.process(naps)
    # It is to be found by the start, not by itself.
    broken = break_once(process.wire, lambda request: request.kind == "promise.search", error, answered=False)
    once = process.wire.before

    async def before(request: Request) -> None:
        await once(request)
        if request.kind == "task.acquire" and not broken:
            msg = "not yet"
            raise StoreError(msg)

    process.wire.before = before
    async with process:
        with pytest.raises(type(error)):
            await process.resonate.run("w", naps)
        with anyio.fail_after(200):
            assert "rested" == await (await process.resonate.get("w"))
    assert ["promise.search"] == broken


async def test_history_that_can_never_be_read(world: World) -> None:
    """A task whose history cannot be read is given back after pauses that grow: no hot loop."""
    process = world.process(naps)
    process.kill_at(creates("w.sleep-1"), answered=True)
    await world.run_until_killed(process, "w", naps)

    process = world.process(naps)
    tries: list[float] = []

    async def fail(request: Request) -> None:
        if request.kind == "promise.search":
            tries.append(anyio.current_time())
            # In the end it can, so that this ends in any case.
            if len(tries) < 1000:
                msg = "cannot be read"
                raise StoreError(msg)

    process.wire.before = fail
    async with process:
        await anyio.sleep(600)
    assert 10 <= len(tries) <= 20


async def naps(ctx: Context) -> str:
    """Sleep."""
    await ctx.sleep(100)
    return "rested"


async def test_crash_that_is_over(resonate: Resonate, wire: Wire) -> None:
    """An execution that crashed and has ended since gives its result, to old handles as well."""

    async def workflow(ctx: Context) -> int:
        return await ctx.run(double, 1)

    broken = break_once(wire, settles("w.double-1"), StoreError("disk full"), answered=False)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(60)
        assert await handle.done()
        assert 2 == await handle
    assert 1 == len(broken)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("one_request", [True, False])
async def test_request_that_is_refused(wire: Wire, status: Literal[400, 422], *, one_request: bool) -> None:
    """A call that the server refuses as it is has failed: it would be refused again."""
    resonate = Resonate(network=wire, one_request=one_request)

    async def workflow(ctx: Context) -> str:
        with pytest.raises(RequestError, match="too odd"):
            await ctx.run(double, 1)
        return "went on"

    wire.answer = lambda request: Response(status=status, error="too odd") if creates("w.double-1")(request) else None
    resonate.register(workflow)
    async with resonate:
        assert "went on" == await resonate.run("w", workflow)


@pytest.mark.parametrize(
    "ask",
    [
        lambda resonate: resonate.promises.get("p"),
        lambda resonate: resonate.schedules.get("s"),
        lambda resonate: resonate.get("r"),
        lambda resonate: resonate.cancel("r"),
        lambda resonate: resonate.run("r", double, 1),
    ],
    ids=["promise", "schedule", "get", "cancel", "run"],
)
async def test_server_that_fails(resonate: Resonate, wire: Wire, ask: Callable[[Resonate], Awaitable[Any]]) -> None:
    """Outside of executions, a server that fails is told to whoever asked, with what it says."""
    resonate.register(double)
    async with resonate:
        wire.answer = lambda _: Response(status=500, error="no disk")
        with pytest.raises(RequestError, match="no disk"):
            await ask(resonate)
        wire.answer = lambda _: None


async def test_sweep_that_fails(resonate: Resonate, wire: Wire) -> None:
    """If what is below a cancelled remote call cannot be ended, that is tried again with its caller."""

    async def far(ctx: Context) -> None:
        await ctx.promise().named("p")

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(5):
            await ctx.rpc(far).named("far")
        return "went on"

    broken = break_once(
        wire,
        lambda request: request.kind == "promise.search",
        StoreError("cannot be read"),
        answered=False,
    )
    resonate.register(far)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        with anyio.fail_after(200), suppress(StoreError):
            await handle
        with anyio.fail_after(200):
            assert "went on" == await handle
        states = await Look(resonate).states()
    assert 1 == len(broken)
    assert {"w": "resolved", "w.far": "rejected_canceled", "w.far.p": "rejected_canceled"} == states


async def test_fault_of_one_execution(resonate: Resonate, wire: Wire) -> None:
    """A fault that strikes in the engine's own code is a crash of one execution: the others run on."""
    broken: list[str] = []

    def nonsense(request: Request) -> Response | None:
        if settles("r")(request) and not broken:
            broken.append(request.kind)
            return Response(status=200)
        return None

    wire.answer = nonsense
    resonate.register(double)
    resonate.register(slow)
    async with resonate:
        other = await resonate.run("other", slow, 50).spawn()
        with pytest.raises(RequestError):
            await resonate.run("r", double, 2)
        with anyio.fail_after(100):
            assert 4 == await (await resonate.get("r"))
            assert "done" == await other
    assert 1 == len(broken)


async def test_crashed_executions_are_let_go(resonate: Resonate, wire: Wire) -> None:
    """An execution that crashed listens no more to what it was waiting for, which would keep it in memory."""
    crashes: list[str] = []

    async def fail(request: Request) -> None:
        if settles("w.double-1tp1")(request) and len(crashes) < 3:
            crashes.append(request.kind)
            msg = "disk full"
            raise StoreError(msg)

    async def workflow(ctx: Context) -> None:
        async def call() -> None:
            await anyio.sleep(1)
            await ctx.run(double, 1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await ctx.promise().named("p")

    wire.before = fail
    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(60)
        assert "resolved" == (await Look(resonate).states())["w.double-1tp1"]
        # One for the attempt that lives.
        assert 1 == len(worker_of(resonate).subscriptions._listeners["w.p"])
    assert 3 == len(crashes)


async def test_network_that_is_down_for_a_while(resonate: Resonate, wire: Wire) -> None:
    """After an outage everything goes on by itself."""

    async def workflow(ctx: Context) -> str:
        await ctx.run(slow, 10)
        return await ctx.run(slow, 10)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        wire.cut()
        await anyio.sleep(60)
        wire.mend()
        with anyio.fail_after(600):
            assert "done" == await (await resonate.get("w"))


@pytest.mark.embedded("a server lets a lease that is not renewed lapse: long before the tenth attempt to give it back")
async def test_release_that_fails(resonate: Resonate, wire: Wire) -> None:
    """A task that cannot be given back is tried again, with growing pauses, until there is an answer."""
    refused: list[float] = []

    async def refuse(request: Request) -> None:
        if request.kind == "task.release" and len(refused) < 10:
            refused.append(anyio.current_time())
            msg = "disk full"
            raise StoreError(msg)

    async def flow(ctx: Context) -> int:
        return 4

    broken = break_once(wire, settles("r"), RuntimeError("a bug"), answered=False)
    once = wire.before

    async def before(request: Request) -> None:
        await once(request)
        await refuse(request)

    wire.before = before
    resonate.register(flow)
    async with resonate:
        with pytest.raises(RuntimeError, match="a bug"):
            await resonate.run("r", flow)
        with anyio.fail_after(3600):
            assert 4 == await (await resonate.get("r"))
    assert 1 == len(broken)
    pauses = [later - earlier for earlier, later in pairwise(refused)]
    nominal = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    # Each is shorter by up to a half, so that workers that failed at the same time do not return at the same time.
    assert [True] * 9 == [0.49 * n < pause < 1.01 * n for n, pause in zip(nominal, pauses, strict=True)]


async def test_duplicate_execute_messages(resonate: Resonate, wire: Wire) -> None:
    """A message that repeats itself does not start a task twice, at any moment of it."""
    runs: list[int] = []

    async def step() -> None:
        runs.append(1)
        await anyio.sleep(10)

    resonate.register(step)
    async with resonate:
        handle = await resonate.rpc("r", step).spawn()
        for _ in range(3):
            wire.inject(Execute("r", 0))
            wire.inject(Execute("r", 1))
        await anyio.sleep(1)
        for version in range(4):
            wire.inject(Execute("r", version))
        await handle
        for version in range(4):
            wire.inject(Execute("r", version))
        await anyio.sleep(1)
    assert [1] == runs


async def test_stale_messages(resonate: Resonate, wire: Wire) -> None:
    """Messages about what is not known, or of another version, are of no effect."""
    resonate.register(slow)
    async with resonate:
        wire.inject(Execute("never", 3))
        handle = await resonate.run("r", slow, 10).spawn()
        record = await Look(resonate).promise("r")
        wire.inject(Execute("r", 17))
        wire.inject(Unblock(record))
        await anyio.sleep(1)
        assert not await handle.done()
        assert "done" == await handle


async def test_unblock_that_comes_twice(resonate: Resonate, wire: Wire) -> None:
    """A settlement that is told twice is handed over once."""

    async def workflow(ctx: Context) -> list[str]:
        first = await ctx.promise().named("a").returns(str)
        wire.inject(Unblock(await Look(resonate).promise("w.a")))
        return [first, await ctx.promise().named("b").returns(str)]

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        await resonate.promises.resolve("w.a", "A")
        await anyio.sleep(1)
        await resonate.promises.resolve("w.b", "B")
        assert ["A", "B"] == await handle


async def test_unblock_that_says_pending(resonate: Resonate, wire: Wire) -> None:
    """A message about a promise that is still pending wakes nobody."""

    async def workflow(ctx: Context) -> str:
        return await ctx.promise().returns(str)

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        record = await Look(resonate).promise("w.promise-1")
        assert record.state is PromiseState.PENDING
        wire.inject(Unblock(record))
        await anyio.sleep(1)
        assert not await handle.done()
        await resonate.promises.resolve("w.promise-1", "A")
        assert "A" == await handle


async def test_keyboard_interrupt_is_not_recorded(wire: Wire) -> None:
    """A program that is ending is no outcome: nothing is recorded, and the step runs again at the next start."""
    runs: list[int] = []

    async def step() -> str:
        runs.append(1)
        if runs == [1]:
            raise KeyboardInterrupt
        return "done"

    async def workflow(ctx: Context) -> str:
        return await ctx.run(step)

    resonate = Resonate(network=wire, pid="p")
    resonate.register(workflow)
    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
        async with resonate:
            await resonate.run("w", workflow)
    assert [] == wire.settled()
    async with resonate:
        assert "done" == await (await resonate.get("w"))
    assert [1, 1] == runs


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_cancellation_that_nobody_asked_for(resonate: Resonate) -> None:
    """A cancellation that escapes from a helper, and comes from no scope of the engine's, is a failure on record."""

    async def helper() -> None:
        await asyncio.sleep(100)

    async def step() -> None:
        task = asyncio.ensure_future(helper())
        await asyncio.sleep(1)
        task.cancel()
        await task

    async def workflow(ctx: Context) -> str:
        try:
            await ctx.run(step)
        except Exception as exc:  # noqa: BLE001 - which one is the question
            return type(exc).__name__
        return "nothing"

    resonate.register(workflow)
    async with resonate:
        with anyio.fail_after(100):
            result = await resonate.run("w", workflow)
        assert "rejected" == (await resonate.promises.get("w.step-1")).state
    assert "nothing" != result


async def test_cancellation_that_is_raised_again(resonate: Resonate) -> None:
    """So is one that was caught and is raised again when the scope that had asked for it is gone."""

    async def step() -> None:
        kept: list[BaseException] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            except anyio.get_cancelled_exc_class() as exc:
                kept.append(exc)
        raise kept[0]

    async def workflow(ctx: Context) -> str:
        try:
            await ctx.run(step)
        except Exception as exc:  # noqa: BLE001 - which one is the question
            return type(exc).__name__
        return "nothing"

    resonate.register(workflow)
    async with resonate:
        with anyio.fail_after(100):
            result = await resonate.run("w", workflow)
        assert "rejected" == (await resonate.promises.get("w.step-1")).state
    assert "nothing" != result


async def test_lost_lease(resonate: Resonate) -> None:
    """An execution whose lease somebody else has ended is dropped, and runs again from its records."""
    runs: list[str] = []

    async def step(name: str) -> str:
        runs.append(name)
        return name

    async def workflow(ctx: Context) -> str:
        await ctx.run(step, "first")
        await anyio.sleep(10)
        return await ctx.rpc(step, "remote")

    resonate.register(workflow)
    resonate.register(step)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        look = Look(resonate)
        await look.request(TaskRelease(id="w", version=(await look.task("w")).version))
        with anyio.fail_after(200):
            assert "remote" == await handle
        assert 1 < (await look.task("w")).version
    assert ["first", "remote"] == runs


@pytest.mark.parametrize("taken", [False, True])
async def test_lost_lease_at_the_end(resonate: Resonate, wire: Wire, taken: bool) -> None:
    """An execution that finds at its end that its lease has lapsed takes it again; if somebody else has, it is over."""
    runs: list[int] = []

    async def step() -> str:
        runs.append(1)
        await anyio.sleep(10)
        return f"run {len(runs)}"

    resonate.register(step)
    async with resonate:
        handle = await resonate.run("r", step).spawn()
        await anyio.sleep(5)
        look = Look(resonate)
        looked = anyio.Event()

        async def until_looked(request: Request) -> None:
            if request.kind == "task.get":
                await looked.wait()

        version = (await look.task("r")).version
        wire.before = until_looked
        await look.request(TaskRelease(id="r", version=version))
        if taken:
            await look.request(TaskAcquire(id="r", version=version, pid="somebody else", ttl=20_000))
        await anyio.sleep(7)
        looked.set()
        with anyio.fail_after(200):
            assert ("run 2" if taken else "run 1") == await handle
    assert [1] * (1 + taken) == runs


async def test_lease_outlives_its_ttl(network: LocalNetwork) -> None:
    """A lease is kept up for as long as the process lives: nobody else runs what runs here."""
    runs: list[str] = []

    async def step() -> None:
        runs.append("run")
        await anyio.sleep(1000)

    first = Resonate(network=network, pid="a", ttl=60)
    second = Resonate(network=network, pid="b", ttl=60)
    first.register(step)
    second.register(step)
    async with first, second:
        await first.run("r", step)
    assert ["run"] == runs


async def test_an_execution_that_has_ended_is_not_kept(resonate: Resonate) -> None:
    """The engine keeps no execution in memory once it has ended: thousands may end within a second."""

    async def workflow(ctx: Context) -> int:
        return await ctx.run(double, 2)

    resonate.register(workflow)
    began = anyio.current_time()
    async with resonate:
        for n in range(300):
            assert 4 == await resonate.run(f"w{n}", workflow)
        gc.collect()
        kept = sum(isinstance(each, Execution) for each in gc.get_objects())
        assert anyio.current_time() - began < 0.5
    # asyncio keeps up to about a hundred timers that were cancelled, each with the context that has set it.
    assert kept < 150
