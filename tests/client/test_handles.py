"""Handles: executions seen from outside."""

from __future__ import annotations

from collections.abc import Awaitable

import anyio
import pytest
from anyio import create_task_group, get_cancelled_exc_class, move_on_after

from resonate_anyio import (
    Context,
    DurableCancelledError,
    DurableTimeoutError,
    Handle,
    NotFound,
    Resonate,
    durable,
)

from .conftest import Make


class Log(list[str]):
    """What happened, in order."""


async def quick(number: int) -> int:
    """Double the number."""
    return 2 * number


async def nap(ctx: Context, number: int) -> int:
    """Take a minute, then double the number."""
    await ctx.sleep(60)
    return 2 * number


@pytest.fixture
def log() -> Log:
    """What the functions write into."""
    return Log()


@pytest.fixture
def resonate(resonate: Resonate, log: Log) -> Resonate:
    """A client that knows the functions of this module."""
    for func in (quick, nap):
        resonate.register(func)
    return resonate.with_dependency(log)


async def test_spawn_gives_a_handle_at_once(resonate: Resonate) -> None:
    """`spawn` returns before the end, with the id; `await` and `result()` wait for it, as often as one likes."""
    async with resonate:
        handle = await resonate.run("a", nap, 4).spawn()
        assert isinstance(handle, Handle)
        assert handle.id == "a"
        assert repr(handle) == "<Handle a>"
        assert not await handle.done()

        results = [await handle, await handle.result(), await handle]

        assert [8, 8, 8] == results
        assert await handle.done()


async def test_many_may_wait_for_one_execution(make: Make) -> None:
    """Tasks that wait for the same execution, by several handles in several clients, all get its result."""
    worker, other = make(), make(group="others")
    worker.register(nap)
    results: list[int] = []

    async def wait(handle: Handle[int]) -> None:
        results.append(await handle)

    async with worker, other, create_task_group() as tasks:
        first = await worker.run("a", nap, 4).spawn()
        handles = [first, await worker.get("a", int), await other.get("a", int), await other.get("a", int)]
        for handle in [*handles, *handles]:
            tasks.start_soon(wait, handle)

    assert [8] * 8 == results


async def test_a_cancelled_await_detaches(resonate: Resonate) -> None:
    """A caller that gives up waiting leaves the execution running: only `cancel()` cancels."""
    async with resonate:
        with move_on_after(5) as direct:
            await resonate.run("a", nap, 4)
        with move_on_after(5) as by_handle:
            await (await resonate.get("a", int))

        assert direct.cancelled_caught
        assert by_handle.cancelled_caught
        assert await (await resonate.get("a", int)) == 8


async def test_done_asks_the_engine(make: Make) -> None:
    """`done()` knows of an end that no message has told of: another client settled it."""
    mine, other = make(), make()
    async with mine, other:
        await mine.promises.create("a", 2_000_000_000_000)
        handle = await mine.get("a", str)
        assert not await handle.done()

        await other.promises.resolve("a", "from outside")

        assert await handle.done()
        assert await handle == "from outside"


async def test_a_handle_survives_a_restart(resonate: Resonate) -> None:
    """A handle of before the restart, and one that is asked for after it, give the result of the replayed execution."""
    async with resonate:
        before = await resonate.run("a", nap, 4).spawn()
    async with resonate:
        after = await resonate.get("a", int)

        assert (8, 8) == (await before, await after)


async def test_get_waits_for_what_another_client_runs(make: Make) -> None:
    """An execution can be waited for by a client that knows nothing of its function."""
    worker, stranger = make(), make(group="strangers")
    worker.register(nap)
    async with worker, stranger:
        await worker.run("a", nap, 4).spawn()

        assert await (await stranger.get("a", int)) == 8


async def stubborn(ctx: Context) -> None:
    """Start one of everything, and tell when the code ends."""
    log = ctx.get_dependency(Log)
    await ctx.run(leaf).spawn()
    await ctx.run(inner).spawn()
    await ctx.sleep(1000).spawn()
    await ctx.promise().spawn()
    await ctx.rpc("nobody").target("nowhere").spawn()
    await ctx.rpc(apart).spawn()
    await ctx.detached("nobody").target("nowhere").named("apart")
    log.append("started")
    try:
        await ctx.sleep(1000)
    except get_cancelled_exc_class():
        log.append("workflow cancelled")
        raise


async def apart(ctx: Context) -> None:
    """Wait as an execution of its own, and tell when the code ends."""
    try:
        await ctx.sleep(1000)
    except get_cancelled_exc_class():
        ctx.get_dependency(Log).append("remote child cancelled")
        raise


async def leaf() -> None:
    """Wait without any durable call."""
    await anyio.sleep(1000)


async def inner(ctx: Context) -> None:
    """Wait durably, one level down."""
    await ctx.sleep(1000)


async def states(resonate: Resonate) -> dict[str, str]:
    """All promises with their states."""
    return {promise.id: promise.state async for promise in resonate.promises.search()}


@pytest.mark.parametrize("by", ["handle", "client", "promises"])
async def test_cancel_ends_the_code_and_everything_below(resonate: Resonate, log: Log, by: str) -> None:
    """Cancelling settles the promise, ends the local code and settles what is pending below; detached calls go on."""
    resonate.register(stubborn)
    resonate.register(apart)
    async with resonate:
        handle = await resonate.run("a", stubborn).spawn()
        with move_on_after(1):
            await handle
        assert log == ["started"]
        assert {"pending"} == set((await states(resonate)).values())

        match by:
            case "handle":
                await handle.cancel()
            case "client":
                await resonate.cancel("a")
            case _:
                await resonate.promises.cancel("a")

        assert log == ["started", "workflow cancelled", "remote child cancelled"]
        found = await states(resonate)
        detached = [id for id, state in found.items() if state == "pending"]
        assert len(detached) == 1
        assert detached[0].startswith("a.d")
        assert {state for id, state in found.items() if id not in detached} == {"rejected_canceled"}
        assert {
            "a",
            "a.leaf-1",
            "a.inner-1",
            "a.inner-1.sleep-1",
            "a.sleep-1",
            "a.sleep-2",
            "a.promise-1",
            "a.nobody-1",
        } < set(found)
        with pytest.raises(DurableCancelledError):
            await handle


async def test_cancelling_what_has_ended_changes_nothing(resonate: Resonate) -> None:
    """The first outcome stays: `cancel()` of an ended execution is no error and loses nothing."""
    async with resonate:
        handle = await resonate.run("a", quick, 4).spawn()
        assert await handle == 8

        assert not await handle.cancel()
        assert not await resonate.cancel("a")

        assert await handle == 8
        assert (await resonate.promises.get("a")).state == "resolved"


async def test_cancelling_twice_is_fine(resonate: Resonate) -> None:
    """A second `cancel()` finds nothing to do, and says so."""
    async with resonate:
        handle = await resonate.run("a", nap, 4).spawn()
        assert await handle.cancel()
        assert not await handle.cancel()
        other = await resonate.run("b", nap, 4).spawn()
        assert await resonate.cancel("b")
        assert not await other.cancel()

        assert await handle.done()


async def test_cancel_reaches_what_another_client_waits_for(make: Make) -> None:
    """Whoever waits for a cancelled execution is told, in whichever client it is."""
    worker, other = make(), make(group="others")
    worker.register(nap)
    errors: list[Exception] = []

    async def wait(handle: Handle[int]) -> None:
        try:
            await handle
        except DurableCancelledError as error:
            errors.append(error)

    async with worker, other:
        handle = await worker.run("a", nap, 4).spawn()
        async with create_task_group() as tasks:
            tasks.start_soon(wait, handle)
            tasks.start_soon(wait, await other.get("a"))
            await anyio.sleep(1)
            await other.cancel("a")

    assert len(errors) == 2


async def test_what_never_was_has_no_handle(resonate: Resonate) -> None:
    """`get` looks before it gives a handle."""
    async with resonate:
        with pytest.raises(NotFound, match="no promise with the id 'a'"):
            await resonate.get("a")


@durable(timeout=30)
async def takes_long() -> None:
    """Never end."""
    await anyio.sleep_forever()


async def calls_it_elsewhere(ctx: Context) -> None:
    """Call it as an execution of its own."""
    await ctx.rpc(takes_long)


@pytest.mark.parametrize("how", ["run", "rpc", "by name", "below"])
async def test_a_timeout_of_the_function_itself_holds_everywhere(resonate: Resonate, how: str) -> None:
    """What `@durable(timeout=)` says is the deadline of a call without one of its own, however the call is made."""
    resonate.register(takes_long)
    resonate.register(calls_it_elsewhere)
    async with resonate:
        match how:
            case "run":
                call: Awaitable[None] = resonate.run("a", takes_long)
            case "rpc":
                call = resonate.rpc("a", takes_long)
            case "by name":
                call = resonate.run("a", "takes_long")
            case _:
                call = resonate.run("a", calls_it_elsewhere)
        begun = anyio.current_time()
        with pytest.raises(DurableTimeoutError):
            await call

        assert 30 == pytest.approx(anyio.current_time() - begun, abs=0.1)
