"""Deadlines are instants on record: clamped down the graph, not extended by a restart, and kept to the moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from anyio import CancelScope

from resonate_anyio import Context, DurableTimeoutError, Info, Resonate, durable
from resonate_anyio._protocol import Request

from .harness import Look, Wire, World, creates


async def double(x: int) -> int:
    return x * 2


async def slow(seconds: float = 100) -> str:
    await anyio.sleep(seconds)
    return "done"


def passed(since: float) -> float:
    return round(anyio.current_time() - since, 1)


async def test_timeout_of_a_leaf(resonate: Resonate) -> None:
    """A leaf is stopped at its deadline; its caller gets a TimeoutError at that moment and goes on."""

    async def workflow(ctx: Context) -> str:
        try:
            return await ctx.run(slow).timeout(5)
        except DurableTimeoutError as exc:
            return f"{exc.id} {isinstance(exc, TimeoutError)}"

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        assert "w.slow-1 True" == await resonate.run("w", workflow)
        assert 5 == passed(start)
        assert "rejected_timedout" == (await resonate.promises.get("w.slow-1")).state


async def test_timeout_as_a_timedelta(resonate: Resonate) -> None:
    """A duration may be a `timedelta`; the deadline is public as an aware instant in UTC."""

    async def leaf(info: Info) -> datetime:
        return info.timeout_at

    async def workflow(ctx: Context) -> float:
        deadline = await ctx.run(leaf).timeout(timedelta(minutes=2)).returns(datetime)
        assert deadline.tzinfo is UTC
        return (ctx.timeout_at - deadline).total_seconds()

    resonate.register(workflow)
    async with resonate:
        assert 3600 - 120 == pytest.approx(await resonate.run("w", workflow).timeout(3600), abs=0.1)


async def test_timeout_of_a_spawned_call(resonate: Resonate) -> None:
    """A spawned call's deadline counts from its start, not from the await."""

    async def workflow(ctx: Context) -> None:
        future = await ctx.run(slow).timeout(5).spawn()
        await ctx.sleep(3)
        await future

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        with pytest.raises(DurableTimeoutError):
            await resonate.run("w", workflow)
        assert 5 == passed(start)


async def test_timeout_of_a_workflow(resonate: Resonate) -> None:
    """A workflow that misses its deadline takes its children along; they were clamped to it."""

    async def child(ctx: Context) -> None:
        await ctx.run(slow).spawn()
        await ctx.rpc("nobody").target("elsewhere").spawn()
        await ctx.promise()

    async def workflow(ctx: Context) -> str:
        with pytest.raises(DurableTimeoutError, match=r"'w\.child-1'"):
            await ctx.run(child).timeout(5)
        return "went on"

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        assert "went on" == await resonate.run("w", workflow)
        assert 5 == passed(start)
        states = await Look(resonate).states()
    ids = {"w.child-1", "w.child-1.slow-1", "w.child-1.nobody-1", "w.child-1.promise-1"}
    assert dict.fromkeys(ids, "rejected_timedout") | {"w": "resolved"} == states


async def test_timeout_of_a_root(resonate: Resonate) -> None:
    """A root's deadline ends it and everything below it at that moment."""
    cleaned: list[float] = []

    async def child(ctx: Context) -> None:
        try:
            await ctx.run(slow)
        finally:
            cleaned.append(passed(start))

    async def workflow(ctx: Context) -> None:
        await ctx.run(child)

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match="'w'"):
            await resonate.run("w", workflow).timeout(5)
        assert [5] == cleaned
        assert 5 == passed(start)
        assert {"rejected_timedout"} == set((await Look(resonate).states()).values())


async def test_timeout_of_a_remote_call(resonate: Resonate) -> None:
    """A remote call that nobody takes times out at its own deadline."""

    async def workflow(ctx: Context) -> None:
        await ctx.rpc("nobody").target("elsewhere").timeout(5)

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match=r"'w\.nobody-1'"):
            await resonate.run("w", workflow)
        assert 5 == passed(start)


async def test_timeout_of_a_promise(resonate: Resonate) -> None:
    """So does a promise that nobody settles."""

    async def workflow(ctx: Context) -> None:
        await ctx.promise().timeout(5)

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match=r"'w\.promise-1'"):
            await resonate.run("w", workflow)
        assert 5 == passed(start)


async def test_timeout_of_the_function(resonate: Resonate) -> None:
    """`@durable(timeout=...)` is the default of a call's deadline; `.timeout()` has the last word."""

    @durable(timeout=5)
    async def limited() -> str:
        await anyio.sleep(10)
        return "done"

    async def workflow(ctx: Context) -> str:
        with pytest.raises(DurableTimeoutError):
            await ctx.run(limited)
        return await ctx.run(limited).timeout(20)

    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)


async def test_no_timeout_is_one_year(resonate: Resonate) -> None:
    """Without a deadline of its own a root gets one year, and what it calls gets the root's."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        root, child = [await resonate.promises.get(id) for id in ("w", "w.double-1")]
    assert timedelta(days=365) == root.timeout_at - root.created_at
    assert root.timeout_at == child.timeout_at


async def test_clamped(resonate: Resonate) -> None:
    """No deadline is later than the caller's, at any depth and for any kind of call; earlier ones stand."""

    async def child(ctx: Context) -> None:
        await ctx.run(double, 1).timeout(1000)
        await ctx.rpc("double", 1).timeout(1000).named("far")
        await ctx.run(double, 1).timeout(5).named("short")

    async def workflow(ctx: Context) -> None:
        await ctx.run(child).timeout(1000)
        await ctx.promise().timeout(1000).spawn()

    resonate.register(workflow)
    resonate.register(double)
    async with resonate:
        handle = await resonate.run("w", workflow).timeout(60).spawn()
        await anyio.sleep(1)
        await resonate.promises.resolve("w.promise-1")
        await handle
        rows = {p.id: (p.timeout_at - p.created_at).total_seconds() async for p in resonate.promises.search()}
        deadlines = {p.id: p.timeout_at async for p in resonate.promises.search()}
    assert 5 == pytest.approx(rows.pop("w.child-1.short"), abs=0.1)
    del deadlines["w.child-1.short"]
    assert {deadlines["w"]} == set(deadlines.values())
    assert 60 == pytest.approx(rows["w"], abs=0.1)


async def test_detached_is_not_clamped(resonate: Resonate) -> None:
    """A detached call outlives its caller: it has a deadline of its own, one year by default."""

    async def workflow(ctx: Context) -> list[str]:
        return [await ctx.detached("nobody").target("elsewhere"), await ctx.detached("nobody").timeout(100)]

    resonate.register(workflow)
    async with resonate:
        ids = await resonate.run("w", workflow).timeout(5)
        records = [await resonate.promises.get(id) for id in ids]
    assert [timedelta(days=365), timedelta(seconds=100)] == [r.timeout_at - r.created_at for r in records]


async def test_not_extended_by_a_restart(world: World) -> None:
    """A deadline that was recorded before a crash is kept after it."""

    async def workflow(ctx: Context) -> str:
        try:
            return await ctx.run(slow).timeout(60)
        except DurableTimeoutError:
            return "timed out"

    start = anyio.current_time()
    process = world.process(workflow)
    async with process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(20)
        process.kill()
    await anyio.sleep(10)
    async with world.process(workflow) as process:
        assert "timed out" == await (await process.resonate.get("w"))
    assert 60 == passed(start)


async def test_root_deadline_that_passed_meanwhile(world: World) -> None:
    """A root whose deadline passes while no process lives has timed out, and is not run again."""
    runs: list[int] = []

    async def workflow(ctx: Context) -> None:
        runs.append(1)
        await ctx.sleep(100)

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).timeout(30).spawn()
        await anyio.sleep(1)
        process.kill()
    await anyio.sleep(60)
    async with world.process(workflow) as process:
        with pytest.raises(DurableTimeoutError):
            await (await process.resonate.get("w"))
    assert [1] == runs


async def test_child_deadline_that_passed_meanwhile(world: World) -> None:
    """A call whose deadline passed while no process lived has timed out; its function is not called again."""
    runs: list[int] = []

    async def step() -> None:
        runs.append(1)
        await anyio.sleep(1000)

    async def workflow(ctx: Context) -> str:
        with pytest.raises(DurableTimeoutError):
            await ctx.run(step).timeout(30)
        return "went on"

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        process.kill()
    await anyio.sleep(60)
    async with world.process(workflow) as process:
        assert "went on" == await (await process.resonate.get("w"))
    assert [1] == runs


@pytest.mark.parametrize("spawned", [False, True])
async def test_due_at_the_start(resonate: Resonate, *, spawned: bool) -> None:
    """A call whose deadline has come when it starts times out without its function being called."""
    called: list[int] = []

    async def step() -> None:
        called.append(1)

    async def workflow(ctx: Context) -> str:
        call = ctx.run(step).timeout(0)
        with pytest.raises(DurableTimeoutError):
            await (await call.spawn() if spawned else call)
        return "went on"

    resonate.register(workflow)
    async with resonate:
        assert "went on" == await resonate.run("w", workflow)
        assert "rejected_timedout" == (await resonate.promises.get("w.step-1")).state
    assert [] == called


async def test_root_that_is_due_at_the_start(resonate: Resonate, wire: Wire) -> None:
    """A root whose lease comes after its deadline times out without its function being called."""
    called: list[int] = []

    async def step() -> None:
        called.append(1)

    async def delay(request: Request, _: object) -> None:
        if request.kind == "task.create":
            await anyio.sleep(10)

    wire.after = delay
    resonate.register(step)
    async with resonate:
        with pytest.raises(DurableTimeoutError):
            await resonate.run("r", step).timeout(5)
    assert [] == called


async def test_sleep(resonate: Resonate) -> None:
    """A sleep lasts as long as it says, and gives None."""

    async def workflow(ctx: Context) -> None:
        assert (await ctx.sleep(90)) is None  # type: ignore[func-returns-value]
        await ctx.sleep(timedelta(hours=1))

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        await resonate.run("w", workflow)
        assert 3690 == passed(start)


async def test_sleep_that_is_clamped(resonate: Resonate) -> None:
    """A sleep beyond its function's deadline ends as that function's timeout: its code never sees it slept."""
    reached: list[str] = []

    async def child(ctx: Context) -> None:
        await ctx.sleep(100)
        reached.append("slept")

    async def workflow(ctx: Context) -> str:
        try:
            await ctx.run(child).timeout(5)
        except DurableTimeoutError as exc:
            return str(exc.id)
        return "slept"

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        assert "w.child-1" == await resonate.run("w", workflow)
        assert 5 == passed(start)
        record = await resonate.promises.get("w.child-1.sleep-1")
    assert [] == reached
    assert 95_000 == pytest.approx(record.param["due"] - int(record.timeout_at.timestamp() * 1000), abs=100)


async def test_clamped_sleep_inside_of_a_shield(resonate: Resonate) -> None:
    """A shield does not let a clamped sleep pass for slept, nor keeps its function from timing out."""
    reached: list[str] = []

    async def child(ctx: Context) -> None:
        with CancelScope(shield=True):
            await ctx.sleep(100)
            reached.append("slept")

    async def workflow(ctx: Context) -> str:
        try:
            await ctx.run(child).timeout(5)
        except DurableTimeoutError as exc:
            return str(exc.id)
        return "slept"

    resonate.register(workflow)
    async with resonate:
        with anyio.fail_after(1000):
            assert "w.child-1" == await resonate.run("w", workflow)
    assert [] == reached


async def test_clamped_sleep_that_ended_meanwhile(world: World) -> None:
    """A clamped sleep whose time came while no process lived has not been slept either."""
    reached: list[str] = []

    async def child(ctx: Context) -> None:
        await ctx.sleep(100)
        reached.append("slept")

    async def workflow(ctx: Context) -> str:
        try:
            await ctx.run(child).timeout(30)
        except DurableTimeoutError as exc:
            return str(exc.id)
        return "slept"

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        process.kill()
    await anyio.sleep(60)
    async with world.process(workflow) as process:
        assert "w.child-1" == await (await process.resonate.get("w"))
    assert [] == reached


async def test_sleep_that_is_due_with_the_deadline(resonate: Resonate) -> None:
    """A sleep that is within the deadline has been slept, the deadline notwithstanding."""

    async def child(ctx: Context) -> str:
        await ctx.sleep(4.9)
        return "slept"

    async def workflow(ctx: Context) -> str:
        return await ctx.run(child).timeout(5)

    resonate.register(workflow)
    async with resonate:
        assert "slept" == await resonate.run("w", workflow)


async def test_cleanup_at_a_deadline(resonate: Resonate) -> None:
    """Code that a deadline stops runs its `finally`; nothing that it returns afterwards counts."""
    cleaned: list[str] = []

    async def leaf() -> str:
        try:
            await anyio.sleep(100)
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(3)
            cleaned.append("leaf")
        return "never"

    async def child(ctx: Context) -> str:
        try:
            return await ctx.run(leaf)
        finally:
            cleaned.append("child")

    async def workflow(ctx: Context) -> str:
        with pytest.raises(DurableTimeoutError):
            await ctx.run(child).timeout(5)
        return "went on"

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        assert "went on" == await resonate.run("w", workflow)
        assert 8 == passed(start)
    assert ["leaf", "child"] == cleaned


async def test_swallowed_deadline(resonate: Resonate) -> None:
    """A function that swallows its deadline's cancellation and returns has timed out all the same."""

    async def stubborn() -> str:
        try:
            await anyio.sleep(100)
        except BaseException:  # noqa: BLE001 - the bad manners in question
            return "stubborn"
        return "slept"

    async def workflow(ctx: Context) -> str:
        return await ctx.run(stubborn).timeout(5)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(DurableTimeoutError):
            await resonate.run("w", workflow)


async def test_plain_deadline_in_a_workflow(resonate: Resonate) -> None:
    """`anyio.fail_after` around durable calls ends them, durably, and the workflow goes on."""

    async def workflow(ctx: Context) -> str:
        with pytest.raises(TimeoutError):
            with anyio.fail_after(5):
                await ctx.run(slow)
        with anyio.move_on_after(5) as scope:
            await ctx.sleep(100)
        return f"went on: {scope.cancelled_caught}"

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        assert "went on: True" == await resonate.run("w", workflow)
        assert 10 == passed(start)
        states = await Look(resonate).states()
    assert ("rejected_canceled", "rejected_canceled") == (states["w.slow-1"], states["w.sleep-1"])


async def test_plain_scope_inside_of_a_deadline(resonate: Resonate) -> None:
    """A plain scope that is longer than the function's deadline does not swallow that."""

    async def child(ctx: Context) -> str:
        with anyio.move_on_after(50):
            await ctx.sleep(100)
        return "moved on"

    async def workflow(ctx: Context) -> str:
        return await ctx.run(child).timeout(5)

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match=r"'w\.child-1'"):
            await resonate.run("w", workflow)
        assert 5 == passed(start)


async def test_deadline_is_kept_in_the_replay(world: World) -> None:
    """A call that timed out has timed out on every replay, without waiting."""
    seen: list[str] = []

    async def workflow(ctx: Context) -> None:
        try:
            await ctx.run(slow).timeout(5)
        except DurableTimeoutError as exc:
            seen.append(str(exc))
        await ctx.sleep(5)

    process = world.process(workflow)
    process.kill_at(creates("w.sleep-1"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    start = anyio.current_time()
    async with world.process(workflow) as process:
        await (await process.resonate.get("w"))
    assert 5 == passed(start)
    assert ["the deadline of 'w.slow-1' passed before it was settled"] * 2 == seen


async def test_deadline_inside_of_a_shield(resonate: Resonate) -> None:
    """A shield around a call does not keep it from ending at its deadline, be it the caller's as well."""

    async def workflow(ctx: Context) -> None:
        with CancelScope(shield=True):
            await ctx.run(slow)

    resonate.register(workflow)
    async with resonate:
        start = anyio.current_time()
        with pytest.raises(DurableTimeoutError):
            await resonate.run("w", workflow).timeout(5)
        assert 5 == passed(start)
        assert "rejected_timedout" == (await resonate.promises.get("w.slow-1")).state
