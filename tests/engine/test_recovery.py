"""After a crash at any instant: finished steps are not run again, time goes on, and outcomes are the same."""

from __future__ import annotations

import anyio
import pytest

from resonate_anyio import Context, Resonate, durable

from .harness import Look, Wanted, World, creates, first_state, settles


@pytest.fixture(params=["memory", "sqlite"])
def any_world(request: pytest.FixtureRequest) -> World:
    """A world on either store."""
    world: World = request.getfixturevalue("world" if request.param == "memory" else "file_world")
    return world


class Steps:
    """Leaves that remember that they were called."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    async def step(self, name: str) -> str:
        self.runs.append(name)
        return name.upper()


async def test_finished_steps_are_not_run_again(any_world: World) -> None:
    """What was recorded before the crash is not run after it; what was in flight runs again."""
    steps = Steps()

    async def workflow(ctx: Context) -> list[str]:
        return [await ctx.run(steps.step, name) for name in "abc"]

    process = any_world.process(workflow)
    process.kill_at(settles("w.step-2"), answered=False)
    await any_world.run_until_killed(process, "w", workflow)
    assert ["a", "b"] == steps.runs
    async with any_world.process(workflow) as process:
        assert ["A", "B", "C"] == await (await process.resonate.get("w", list[str]))
    assert ["a", "b", "b", "c"] == steps.runs


CRASHES: dict[str, tuple[bool, Wanted, bool, list[str]]] = {
    "before the first record": (True, settles("w.step-1"), False, ["a", "a"]),
    "after the first record": (True, settles("w.step-1"), True, ["a"]),
    "before the last record": (True, settles("w.step-2"), False, ["a", "b", "b"]),
    "after the last record": (True, settles("w.step-2"), True, ["a", "b"]),
    "before the first create": (False, creates("w.step-1"), False, ["a"]),
    "after the first create": (False, creates("w.step-1"), True, ["a"]),
    "before the first settle": (False, settles("w.step-1"), False, ["a", "a"]),
    "after the first settle": (False, settles("w.step-1"), True, ["a"]),
    "before the last settle": (False, settles("w.step-2"), False, ["a", "b", "b"]),
    "before the end": (True, settles("w"), False, ["a", "b"]),
    "after the end": (True, settles("w"), True, ["a", "b"]),
    "after the start": (True, creates("w"), True, ["a"]),
}


@pytest.mark.parametrize(("one_request", "wanted", "answered", "runs"), CRASHES.values(), ids=CRASHES)
async def test_crash_at_a_request(
    world: World, wanted: Wanted, *, one_request: bool, answered: bool, runs: list[str]
) -> None:
    """Wherever the process dies the result is the same, and a step runs twice only if it was in flight."""
    steps = Steps()

    async def workflow(ctx: Context) -> str:
        return await ctx.run(steps.step, "a") + await ctx.run(steps.step, "b")

    process = world.process(workflow, one_request=one_request)
    process.kill_at(wanted, answered=answered)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow, one_request=one_request) as process:
        assert "AB" == await (await process.resonate.get("w", str))
    expected = runs if "b" in runs else [*runs, "b"]
    assert expected == steps.runs


async def test_crash_before_the_start(world: World) -> None:
    """A process that dies before its root was created has started nothing."""

    async def workflow(ctx: Context) -> str:
        return "done"

    process = world.process(workflow)
    process.kill_at(creates("w"), answered=False)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        assert {} == await Look(process.resonate).states()
        assert "done" == await process.resonate.run("w", workflow)


async def test_recovery_needs_no_call(any_world: World) -> None:
    """What was running is taken up by itself when the next process starts."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(10)

    async with any_world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        process.kill()
    async with any_world.process(workflow) as process:
        await anyio.sleep(20)
        assert "resolved" == (await process.resonate.promises.get("w")).state


@pytest.mark.parametrize("downtime", [0, 20, 200])
async def test_sleep_ends_when_it_was_due(any_world: World, downtime: float) -> None:
    """A sleep is not extended by a restart; one that came due while no process lived has been slept."""

    async def workflow(ctx: Context) -> str:
        await ctx.sleep(100)
        return "slept"

    start = any_world.clock()
    async with any_world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(10)
        process.kill()
    await anyio.sleep(downtime)
    async with any_world.process(workflow) as process:
        assert "slept" == await (await process.resonate.get("w"))
    assert max(100, 10 + downtime) == pytest.approx((any_world.clock() - start) / 1000, abs=1)


async def test_parallel_children_continue(any_world: World) -> None:
    """Of parallel children the finished ones stay finished; the others continue where they were."""
    steps = Steps()

    async def child(ctx: Context, name: str, seconds: float) -> str:
        first = await ctx.run(steps.step, f"{name} begins")
        await ctx.sleep(seconds)
        return first + await ctx.run(steps.step, f" {name} ends")

    async def workflow(ctx: Context) -> list[str]:
        futures = [await ctx.run(child, name, seconds).spawn() for name, seconds in (("a", 5), ("b", 15), ("c", 30))]
        return [await future for future in futures]

    start = any_world.clock()
    async with any_world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(10)
        process.kill()
    async with any_world.process(workflow) as process:
        results = await (await process.resonate.get("w", list[str]))
    assert [f"{name} BEGINS {name} ENDS" for name in "ABC"] == results
    assert sorted(f"{name} begins" for name in "abc") == sorted(steps.runs[:3])
    assert [" a ends", " b ends", " c ends"] == steps.runs[3:]
    assert 30 == pytest.approx((any_world.clock() - start) / 1000, abs=1)


async def test_remote_children(any_world: World) -> None:
    """Remote calls are found again: finished ones are not made again, unfinished ones continue."""
    steps = Steps()

    async def remote(ctx: Context, name: str, seconds: float) -> str:
        await ctx.run(steps.step, name)
        await ctx.sleep(seconds)
        return name

    async def workflow(ctx: Context) -> str:
        first = await ctx.rpc(remote, "a", 1)
        second = await ctx.rpc(remote, "b", 20).spawn()
        return first + await ctx.rpc(remote, "c", 2) + await second

    functions = (workflow, remote)
    async with any_world.process(*functions) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(10)
        process.kill()
    async with any_world.process(*functions) as process:
        assert "acb" == await (await process.resonate.get("w", str))
    assert ["a", "b", "c"] == sorted(steps.runs)


async def test_promise_settled_while_the_process_was_down(any_world: World) -> None:
    """A promise that was settled by somebody else meanwhile is the result after the restart."""

    async def workflow(ctx: Context) -> str:
        return "answer: " + await ctx.promise().returns(str)

    async with any_world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        process.kill()
    # A process that cannot run the workflow, but settles the promise.
    async with any_world.process() as process:
        await process.resonate.promises.resolve("w.promise-1", "42")
    async with any_world.process(workflow) as process:
        assert "answer: 42" == await (await process.resonate.get("w"))


async def test_promise_settled_after_the_restart(any_world: World) -> None:
    """A promise that is still pending is waited for again."""

    async def workflow(ctx: Context) -> str:
        return "answer: " + await ctx.promise().returns(str)

    async with any_world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        process.kill()
    async with any_world.process(workflow) as process:
        await anyio.sleep(1)
        await process.resonate.promises.resolve("w.promise-1", "42")
        assert "answer: 42" == await (await process.resonate.get("w"))


async def test_many_crashes(any_world: World) -> None:
    """One crash after every step: each is run once more at most, and the version of the task counts them."""
    steps = Steps()
    names = [f"s{n}" for n in range(8)]

    async def workflow(ctx: Context) -> list[str]:
        return [await ctx.run(steps.step, name) for name in names]

    process = any_world.process(workflow)
    process.kill_at(settles("w.step-1"), answered=True)
    await any_world.run_until_killed(process, "w", workflow)
    for n in range(2, 9):
        process = any_world.process(workflow)
        process.kill_at(settles(f"w.step-{n}"), answered=True)
        async with process:
            await process.killed.wait()
    async with any_world.process(workflow) as process:
        assert [name.upper() for name in names] == await (await process.resonate.get("w", list[str]))
        assert 9 == (await Look(process.resonate).task("w")).version
    assert names == steps.runs


async def test_failures_are_recovered(any_world: World) -> None:
    """A step that failed has failed after the restart as well, with the same error, and is not run again."""
    runs: list[str] = []

    async def broken() -> None:
        runs.append("broken")
        msg = "no"
        raise LookupError(msg)

    async def workflow(ctx: Context) -> str:
        error = ""
        try:
            await ctx.run(broken)
        except LookupError as exc:
            error = repr(exc)
        await ctx.sleep(10)
        return error

    async with any_world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        process.kill()
    async with any_world.process(workflow) as process:
        assert "LookupError('no')" == await (await process.resonate.get("w"))
    assert ["broken"] == runs


async def test_replay_of_a_history_above_one_page(world: World) -> None:
    """More remote records than one page of the range scan has are all found."""
    count = 1100

    async def workflow(ctx: Context) -> int:
        for _ in range(count):
            await ctx.detached("nobody").target("elsewhere")
        await ctx.sleep(100)
        return count

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(10)
        process.kill()
    async with world.process(workflow) as process:
        assert count == await (await process.resonate.get("w", int))
        # Nothing was made anew: the detached calls and the sleep were all in the history.
        assert [] == process.wire.created()


async def test_local_history_is_taken_from_the_lease(world: World) -> None:
    """A replay asks for no local record one by one, nor creates any of them again."""

    async def workflow(ctx: Context) -> None:
        for _ in range(20):
            await ctx.run(Steps().step, "x")
        await ctx.sleep(100)

    # Hot all the time, since nothing would be replayed of what is suspended.
    async with world.process(workflow, hot_for=100) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(10)
        process.kill()
    async with world.process(workflow, hot_for=100) as process:
        await anyio.sleep(10)
        # One acquire, one range scan, the mark of the crash, one listener each for the sleep and for the root.
        assert ["w.~life-2"] == process.wire.created()
        counts = {"task.acquire": 1, "promise.search": 1, "promise.create": 1, "promise.register_listener": 2}
        assert counts == process.wire.counts()


async def test_detached_is_not_started_twice(world: World) -> None:
    """A detached call that was made before the crash is not made again after it."""
    steps = Steps()

    async def free(name: str) -> None:
        await steps.step(name)

    async def workflow(ctx: Context) -> str:
        id = await ctx.detached(free, "x")
        await ctx.sleep(10)
        return id

    async with world.process(workflow, free) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        process.kill()
    async with world.process(workflow, free) as process:
        id = await (await process.resonate.get("w", str))
        assert "resolved" == (await process.resonate.promises.get(id)).state
    assert ["x"] == steps.runs


async def test_other_versions_live_on(world: World) -> None:
    """An execution continues in the version of the function that it was started with."""

    @durable(name="flow", version=1)
    async def first(ctx: Context) -> str:
        await ctx.sleep(10)
        return "first"

    @durable(name="flow", version=2)
    async def second(ctx: Context) -> str:
        await ctx.sleep(10)
        return "second"

    async with world.process(first) as process:
        await process.resonate.run("w", first).spawn()
        await anyio.sleep(1)
        process.kill()
    async with world.process(first, second) as process:
        assert "first" == await (await process.resonate.get("w"))
        assert "second" == await process.resonate.run("v", second)


async def test_joining_after_a_crash(world: World) -> None:
    """Running the same id again after a crash joins what was recovered, and does not start it twice."""
    steps = Steps()

    async def workflow(ctx: Context) -> str:
        result = await ctx.run(steps.step, "a")
        await ctx.sleep(10)
        return result

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        process.kill()
    async with world.process(workflow) as process:
        assert "A" == await process.resonate.run("w", workflow)
    assert ["a"] == steps.runs


async def test_finished_root_is_joined_from_the_record(any_world: World) -> None:
    """Running the id of what has ended gives its result in any later process."""
    steps = Steps()

    async def workflow(ctx: Context) -> str:
        return await ctx.run(steps.step, "a")

    for _ in range(2):
        async with any_world.process(workflow) as process:
            assert "A" == await process.resonate.run("w", workflow)
    assert ["a"] == steps.runs


async def test_memory_lives_with_the_object() -> None:
    """A `Resonate` object without a file keeps what it has between two blocks."""

    async def workflow(ctx: Context) -> str:
        return await ctx.promise().returns(str)

    resonate = Resonate.local()
    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        assert "pending" == await first_state(resonate, "w.promise-1")
    async with resonate:
        await resonate.promises.resolve("w.promise-1", "done")
        assert "done" == await (await resonate.get("w"))
