"""A function ends after what it has called; when it fails, what is unfinished is cancelled first, durably."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope

from resonate_anyio import Context, DurableFuture, DurableTimeoutError, Resonate

from .harness import Look, Oops, Wire, World, settles


async def double(x: int) -> int:
    return x * 2


async def slow() -> str:
    await anyio.sleep(10)
    return "done"


async def fail(message: str, after: float = 0) -> None:
    await anyio.sleep(after)
    raise ValueError(message)


async def settle_in(resonate: Resonate, id: str, delay: float) -> None:
    await anyio.sleep(delay)
    await resonate.promises.resolve(id, None)


KINDS: dict[str, Callable[[Context], Any]] = {
    "local": lambda ctx: ctx.run(slow),
    "remote": lambda ctx: ctx.rpc("slow"),
    "sleep": lambda ctx: ctx.sleep(10),
    "promise": lambda ctx: ctx.promise().named("promise"),
}


@pytest.mark.parametrize("call", KINDS.values(), ids=KINDS)
async def test_waits_for_what_nobody_awaited(resonate: Resonate, call: Callable[[Context], Any]) -> None:
    """A function that returns ends when all that it spawned has ended, awaited or not."""

    async def workflow(ctx: Context) -> str:
        await call(ctx).spawn()
        return "returned"

    resonate.register(workflow)
    resonate.register(slow)
    async with resonate, anyio.create_task_group() as tasks:
        start = anyio.current_time()
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        if "w.promise" in await Look(resonate).states():
            tasks.start_soon(settle_in, resonate, "w.promise", 9)
        assert not await handle.done()
        assert "returned" == await handle
        assert 10 <= anyio.current_time() - start < 11


async def test_children_are_recorded_first(resonate: Resonate, wire: Wire) -> None:
    """The record of a function is settled after those of all its children, at every depth."""

    async def child(ctx: Context) -> None:
        await ctx.run(slow).spawn()

    async def workflow(ctx: Context) -> None:
        await ctx.run(child).spawn()
        await ctx.run(double, 1)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
    assert ["w.double-1", "w.child-1.slow-1", "w.child-1", "w"] == [id for id, _ in wire.settled()]


async def test_failure_cancels_depth_first(resonate: Resonate, wire: Wire) -> None:
    """A function that fails cancels what is unfinished, leaves before their callers, all before its own end."""

    async def child(ctx: Context) -> None:
        await ctx.run(slow)

    async def workflow(ctx: Context) -> None:
        await ctx.run(child).spawn()
        await ctx.sleep(100).spawn()
        await ctx.promise().spawn()
        await ctx.rpc("nobody").target("elsewhere").spawn()
        await ctx.sleep(1).named("begin")
        msg = "enough"
        raise ValueError(msg)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ValueError, match="enough") as caught:
            await resonate.run("w", workflow)
        by = [(await resonate.promises.get(id)).value for id, state in wire.settled() if state == "rejected_canceled"]
    settled = wire.settled()
    order = [id for id, _ in settled]
    assert ("w", "rejected") == settled[-1]
    assert {"w.child-1.slow-1", "w.child-1", "w.sleep-1", "w.promise-1", "w.nobody-1"} == {
        id for id, state in settled if state == "rejected_canceled"
    }
    assert order.index("w.child-1.slow-1") < order.index("w.child-1")
    assert [{"by": "parent"}] * 5 == by
    # What it cancelled itself is no news.
    assert not hasattr(caught.value, "__notes__")


async def test_failure_reaches_below_remote_calls(resonate: Resonate) -> None:
    """A remote call that is cancelled takes everything below it along."""

    async def remote(ctx: Context) -> None:
        await ctx.run(slow)
        await ctx.sleep(1000)

    async def workflow(ctx: Context) -> None:
        await ctx.rpc(remote).spawn()
        await ctx.sleep(5)
        raise Oops

    resonate.register(workflow)
    resonate.register(remote)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        await anyio.sleep(1)
        assert {
            "w": "rejected",
            "w.remote-1": "rejected_canceled",
            "w.remote-1.slow-1": "rejected_canceled",
            "w.sleep-1": "resolved",
        } == await Look(resonate).states()


async def test_finished_children_keep_their_outcome(resonate: Resonate) -> None:
    """A failure cancels what is unfinished only."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1).spawn()
        await ctx.sleep(1)
        raise Oops

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert "resolved" == (await resonate.promises.get("w.double-1")).state


async def test_unseen_failures_are_the_failure(resonate: Resonate) -> None:
    """A function that returns while children failed unseen raises all of them as a group, in the order of the calls."""

    async def workflow(ctx: Context) -> str:
        await ctx.run(fail, "second to fail", 5).spawn()
        await ctx.run(double, 1).spawn()
        await ctx.run(fail, "first to fail", 1).spawn()
        return "fine"

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ExceptionGroup, match="2 of the children of 'w' failed") as caught:
            await resonate.run("w", workflow)
        assert "rejected" == (await resonate.promises.get("w")).state
    assert ["second to fail", "first to fail"] == [str(error) for error in caught.value.exceptions]


async def test_failing_child_does_not_interrupt(resonate: Resonate) -> None:
    """A child that fails unawaited does not stop its parent, nor its siblings."""
    reached: list[str] = []

    async def workflow(ctx: Context) -> None:
        await ctx.run(fail, "early").spawn()
        await ctx.run(slow).spawn()
        await ctx.sleep(20)
        reached.append("end")

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ExceptionGroup):
            await resonate.run("w", workflow)
        assert "resolved" == (await resonate.promises.get("w.slow-1")).state
    assert ["end"] == reached


async def test_unseen_failures_are_noted(resonate: Resonate) -> None:
    """On a function that fails itself, its children's unseen failures are noted, in the order of the calls."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(fail, "one", 5).spawn()
        await ctx.run(fail, "two", 1).spawn()
        await ctx.sleep(10)
        msg = "own"
        raise KeyError(msg)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(KeyError, match="own") as caught:
            await resonate.run("w", workflow)
    assert [
        "its child 'w.fail-1' failed as well: ValueError: one",
        "its child 'w.fail-2' failed as well: ValueError: two",
    ] == caught.value.__notes__


async def test_many_unseen_failures_are_counted(resonate: Resonate) -> None:
    """Of many unseen failures ten are noted, and how many more there are."""

    async def workflow(ctx: Context) -> None:
        for n in range(13):
            await ctx.run(fail, str(n)).spawn()
        await ctx.sleep(1)
        raise Oops

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(Oops) as caught:
            await resonate.run("w", workflow)
    notes = [f"its child 'w.fail-{n + 1}' failed as well: ValueError: {n}" for n in range(10)]
    assert [*notes, "... and 3 more of its children failed"] == caught.value.__notes__


class Mute(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        msg = "no words"
        raise RuntimeError(msg)


async def test_unseen_failure_without_words(resonate: Resonate) -> None:
    """An unseen failure whose message cannot be had is noted by its type."""

    async def mute() -> None:
        raise Mute

    async def workflow(ctx: Context) -> None:
        await ctx.run(mute).spawn()
        await ctx.sleep(1)
        raise Oops

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(Oops) as caught:
            await resonate.run("w", workflow)
    assert ["its child 'w.mute-1' failed as well: Mute"] == caught.value.__notes__


async def test_seen_failures_are_not_told_again(resonate: Resonate) -> None:
    """A failure that the function was handed, by await or by `exception()`, is its own to deal with."""

    async def see(future: DurableFuture[None]) -> None:
        with pytest.raises(ValueError, match="seen"):
            await future

    async def workflow(ctx: Context) -> str:
        await see(await ctx.run(fail, "seen").spawn())
        with pytest.raises(ValueError, match="seen"):
            await ctx.run(fail, "seen")
        return "fine"

    async def failing(ctx: Context) -> None:
        await see(await ctx.run(fail, "seen").spawn())
        msg = "own"
        raise KeyError(msg)

    resonate.register(workflow)
    resonate.register(failing)
    async with resonate:
        assert "fine" == await resonate.run("w", workflow)
        with pytest.raises(KeyError) as caught:
            await resonate.run("f", failing)
    assert not hasattr(caught.value, "__notes__")


async def test_unseen_timeout_of_a_child(resonate: Resonate) -> None:
    """A child that misses a deadline of its own has failed, seen or not."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(slow).timeout(5).spawn()

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("w", workflow)
    assert [DurableTimeoutError] == [type(error) for error in caught.value.exceptions]


async def test_child_cancelled_from_outside(resonate: Resonate) -> None:
    """A child that an outsider cancelled has failed, unlike one that its own function gave up."""

    async def workflow(ctx: Context) -> None:
        await ctx.promise().spawn()

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        await resonate.promises.cancel("w.promise-1")
        with pytest.raises(ExceptionGroup, match="1 of the children") as caught:
            await handle
    assert "from outside" in str(caught.value.exceptions[0])


async def test_child_given_up_is_no_failure(resonate: Resonate) -> None:
    """A child whose await the function itself cancelled is not held against it."""

    async def workflow(ctx: Context) -> str:
        future = await ctx.run(slow).spawn()
        with anyio.move_on_after(1):
            await future
        return "fine"

    resonate.register(workflow)
    async with resonate:
        assert "fine" == await resonate.run("w", workflow)


async def test_detached_call_is_left_alone(resonate: Resonate) -> None:
    """What was detached neither ends with its caller nor holds it up, whether that returns or fails."""

    async def returning(ctx: Context) -> str:
        return await ctx.detached("slow")

    async def failing(ctx: Context) -> None:
        ids.append(await ctx.detached("slow"))
        raise Oops

    ids: list[str] = []
    resonate.register(returning)
    resonate.register(failing)
    resonate.register(slow)
    async with resonate:
        start = anyio.current_time()
        ids.append(await resonate.run("r", returning))
        with pytest.raises(Oops):
            await resonate.run("f", failing)
        assert 1 > anyio.current_time() - start
        assert ["done", "done"] == [await (await resonate.get(id)) for id in ids]


async def test_cancelling_a_root_leaves_what_it_detached(resonate: Resonate) -> None:
    """Cancelling an execution goes down its graph, but not into what it detached."""

    async def workflow(ctx: Context) -> None:
        await ctx.detached("slow").named("free")
        await ctx.run(slow).spawn()
        await ctx.sleep(100)

    resonate.register(workflow)
    resonate.register(slow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        await handle.cancel()
        states = await Look(resonate).states()
        detached = next(id for id in states if id.startswith("w.d"))
        assert {
            "w": "rejected_canceled",
            "w.slow-2": "rejected_canceled",
            "w.sleep-1": "rejected_canceled",
            detached: "pending",
        } == states
        assert "done" == await (await resonate.get(detached))


async def test_cleanup_of_a_cancelled_child(resonate: Resonate, wire: Wire) -> None:
    """A child that is cancelled runs its `finally`, and only then is recorded, before its parent is."""
    seen: list[Any] = []

    async def careful(ctx: Context) -> None:
        try:
            await ctx.run(slow)
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(3)
            seen.append([id for id, _ in wire.settled()])

    async def workflow(ctx: Context) -> None:
        await ctx.run(careful).spawn()
        await ctx.sleep(1)
        raise Oops

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
    assert [["w.careful-1.slow-1"]] == seen
    assert ["w.careful-1.slow-1", "w.careful-1", "w"] == [id for id, _ in wire.settled()]


async def test_siblings_clean_up_side_by_side(resonate: Resonate) -> None:
    """All unfinished children are cancelled first and waited for then: their cleanups overlap."""

    async def careful() -> None:
        try:
            await anyio.sleep(1000)
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(3)

    async def workflow(ctx: Context) -> None:
        for _ in range(4):
            await ctx.run(careful).spawn()
        await ctx.sleep(1)
        raise Oops

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert 4 == pytest.approx(anyio.current_time() - start, abs=0.1)


async def test_durable_compensation(resonate: Resonate) -> None:
    """A function that is being cancelled can still make calls under a shield: its promise is pending."""

    async def careful(ctx: Context) -> None:
        try:
            await ctx.run(slow)
        finally:
            with CancelScope(shield=True):
                await ctx.run(double, 1).named("undo")

    async def workflow(ctx: Context) -> None:
        await ctx.run(careful).spawn()
        await ctx.sleep(1)
        raise Oops

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("w", workflow)
        assert "resolved" == (await resonate.promises.get("w.careful-1.undo")).state


async def test_root_cancelled_from_outside(resonate: Resonate) -> None:
    """Cancelling an execution ends its code, settles what is pending below it, and its waiters are told."""
    ended: list[str] = []

    async def child(ctx: Context) -> None:
        try:
            await ctx.run(slow)
        finally:
            ended.append("child")

    async def workflow(ctx: Context) -> None:
        await ctx.run(child)

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        await handle.cancel()
        assert ["child"] == ended
        with pytest.raises(Exception, match="'w' was cancelled: from outside"):
            await handle
        assert {"w", "w.child-1", "w.child-1.slow-1"} == {
            id for id, state in (await Look(resonate).states()).items() if state == "rejected_canceled"
        }


async def test_crash_while_failing(world: World) -> None:
    """A process that dies between the cancelling of children and its own end fails in the same way after it."""

    async def workflow(ctx: Context) -> None:
        await ctx.promise().spawn()
        await ctx.run(slow).spawn()
        await ctx.run(fail, "unseen").spawn()
        await ctx.sleep(1)
        raise Oops

    process = world.process(workflow)
    process.kill_at(settles("w"), answered=False)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        with pytest.raises(Oops) as caught:
            await (await process.resonate.get("w"))
        assert [("w", "rejected")] == process.wire.settled()
    assert "its child 'w.fail-1' failed as well: ValueError: unseen" == caught.value.__notes__[0]


async def test_crash_while_ending_a_remote_call(world: World) -> None:
    """What was to end with a remote call is ended by the replay, if the process died after cancelling that call."""

    async def far(ctx: Context) -> None:
        await ctx.run(slow)
        await ctx.promise()

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(1):
            await ctx.rpc(far).named("far")
        await ctx.sleep(1)
        return "went on"

    process = world.process(workflow, far)
    process.kill_at(settles("w.far"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow, far) as process:
        assert "went on" == await (await process.resonate.get("w"))
        states = await Look(process.resonate).states()
    assert {"w.far": "rejected_canceled", "w.far.slow-1": "rejected_canceled"} == {
        id: state for id, state in states.items() if id.startswith("w.far")
    }


async def down(ctx: Context, depth: int) -> None:
    """Call itself remotely, under ids that soon get too long and are shortened; wait at the bottom."""
    if depth > 0:
        await ctx.rpc(down, depth - 1).named("x" * 40)
    await ctx.sleep(1000).named("bottom")


async def test_cancelling_reaches_below_shortened_ids(resonate: Resonate) -> None:
    """A remote call that is cancelled takes along what is below it, although the ids do not show where that is."""

    async def workflow(ctx: Context) -> str:
        # Another branch of the same kind, which is to be spared.
        spared = await ctx.rpc(down, 6).named("spared").spawn()
        with anyio.move_on_after(10):
            await ctx.rpc(down, 6).named("given-up")
        await spared
        return "went on"

    resonate.register(down)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(100)
        states = await Look(resonate).states()
        # Of each branch: the call itself, six below it and the sleep. (And what wakes a parked execution.)
        states = {id: state for id, state in states.items() if "~wake" not in id}
        cancelled = [id for id, state in states.items() if state == "rejected_canceled"]
        assert 8 == len(cancelled)
        assert 8 == sum(state == "pending" for id, state in states.items() if id != "w")
        assert any(id.startswith("w.~") for id in cancelled)
        assert not any(id.startswith("w.spared") for id in cancelled)
        await handle.cancel()
        assert "pending" not in (await Look(resonate).states()).values()


async def test_detached_call_keeps_its_shortened_ids(resonate: Resonate) -> None:
    """What runs below a detached call is left alone when its origin is cancelled, under whatever id."""

    async def workflow(ctx: Context) -> None:
        await ctx.detached(down, 6)
        await ctx.sleep(10_000)

    resonate.register(down)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(10)
        await handle.cancel()
        states = await Look(resonate).states()
        assert any(id.startswith("w.~") for id in states)
        assert {"w", "w.sleep-1", "w.~wake-1"} == {id for id, state in states.items() if state != "pending"}
