"""Users' own concurrency does what its documentation says around durable calls too: live, parked, unloaded, killed."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import pytest

from resonate_anyio import Context
from resonate_anyio.abc import Clock
from resonate_anyio.stores import MemoryStore

from .compositions import CASES, Begun, Case, How, ends, knowing
from .compositions.cases import Workflow, after, call, slow
from .compositions.with_asyncio import asyncio_shield
from .harness import Look, World


def each(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """A test for each of the cases, on the backends that have what it uses."""
    return pytest.mark.parametrize(
        ("anyio_backend", "case"),
        [
            pytest.param(backend, case, id=f"{case.name}-{backend}")
            for case in cases
            for backend in ("asyncio", "trio")
            if case.backend in {None, backend}
        ],
        indirect=["anyio_backend"],
    )


both_ways = pytest.mark.parametrize("how", ["run", "rpc"])


@both_ways
@each(CASES)
async def test_live(world: World, case: Case, how: How) -> None:
    """It ends as it says, and its calls are recorded as having ended so, without delay."""
    process = world.process()
    resonate = knowing(process.resonate, Begun(), case.workflow)
    async with process:
        begun = anyio.current_time()
        assert case.seen == await resonate.run("w", case.workflow, how)
        assert case.seconds == pytest.approx(anyio.current_time() - begun, abs=0.1)
        assert case.states == await ends(resonate)


@both_ways
@each(case for case in CASES if case.replays)
async def test_killed(clock: Clock, case: Case, how: How) -> None:
    """Whenever its process is killed, the next one brings it to the same end, and repeats no step that had ended."""
    for second in range(round(case.seconds)):
        world, begun = World(MemoryStore(), clock), Begun()
        finished = await killed(world, case.workflow, how, second + 0.5)

        process = world.process()
        resonate = knowing(process.resonate, begun, case.workflow)
        async with process:
            with anyio.fail_after(3600):
                assert case.seen == await (await resonate.get("w", list[str]))
            assert case.states == await ends(resonate)
        assert set() == finished & set(begun), f"after {second + 0.5} seconds"


@each(CASES)
async def test_parked(world: World, case: Case) -> None:
    """It ends as it does in memory, with no delay, if it is parked whenever it only waits."""
    process = world.process(hot_for=0)
    resonate = knowing(process.resonate, Begun(), case.workflow)
    async with process:
        begun = anyio.current_time()
        assert case.seen == await resonate.run("w", case.workflow, "rpc")
        assert case.seconds == pytest.approx(anyio.current_time() - begun, abs=0.1)
        assert case.states == await ends(resonate)


@each(case for case in CASES if case.replays and not case.hidden)
async def test_unloaded(world: World, case: Case) -> None:
    """It ends as it does in memory if it is dropped from there whenever it only waits, and run again from the top."""
    process = world.process(hot_for=0, parked_limit=0)
    resonate = knowing(process.resonate, Begun(), case.workflow)
    async with process:
        with anyio.fail_after(3600):
            assert case.seen == await resonate.run("w", case.workflow, "rpc")
        assert case.states == await ends(resonate)


@pytest.mark.parametrize("parked_limit", [1000, 0], ids=["parked", "unloaded"])
@each(case for case in CASES if case.name in {"anyio_group", "asyncio_group", "trio_nursery"})
async def test_groups_are_put_away(world: World, case: Case, parked_limit: int) -> None:
    """Tasks of a plain group that all wait for durable calls do not keep their execution in memory."""
    process = world.process(hot_for=0, parked_limit=parked_limit)
    resonate = knowing(process.resonate, Begun(), case.workflow)
    async with process:
        await resonate.run("w", case.workflow, "rpc").spawn()
        await anyio.sleep(4)
        assert "suspended" == (await Look(resonate).task("w")).state
        await (await resonate.get("w"))
    # It waited for the first of two calls, then for the other, then for the one after the group.
    assert 3 == process.wire.counts()["task.suspend"]


async def killed(world: World, workflow: Workflow, how: How, seconds: float) -> set[str]:
    """Run the workflow in a process that is killed after so many seconds; give the ids of what had ended by then."""
    process = world.process()
    resonate = knowing(process.resonate, Begun(), workflow)
    async with process:
        await resonate.run("w", workflow, how).spawn()
        await anyio.sleep(seconds)
        finished = {record.id async for record in resonate.promises.search() if record.settled_at is not None}
        process.kill()
    return finished


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_wait_that_was_given_up_is_not_on_record(world: World) -> None:
    """After a crash a plain deadline around a wait finds the call ended, if that has gone on and ended since."""
    await killed(world, asyncio_shield, "run", 8.5)
    process = world.process()
    resonate = knowing(process.resonate, Begun(), asyncio_shield)
    async with process:
        assert ["slow", "after"] == await (await resonate.get("w", list[str]))


async def gives_up_durably(ctx: Context, how: How) -> list[str]:
    """What the case above does, with the durable construct for it."""
    future = await call(ctx, how, slow).spawn()
    index, _ = await ctx.first(future, ctx.sleep(3))
    seen = ["gave up"] if index == 1 else []
    return [*seen, await future, await call(ctx, how, after)]


@both_ways
async def test_a_durable_wait_that_was_given_up_is_on_record(clock: Clock, how: How) -> None:
    """`ctx.first` with a sleep waits with a limit and leaves the call running; after any crash it is the same."""
    for second in range(9):
        world = World(MemoryStore(), clock)
        await killed(world, gives_up_durably, how, second + 0.5)
        process = world.process()
        resonate = knowing(process.resonate, Begun(), gives_up_durably)
        async with process:
            assert ["gave up", "slow", "after"] == await (await resonate.get("w", list[str]))
