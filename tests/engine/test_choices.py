"""`ctx.gather`, `map`, `first`, `as_completed`, `now`, `random`, `uuid`: live and after a crash.

The rules are docs/semantics.md 4.11 to 4.13.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

import anyio
import pytest
from anyio import CancelScope

from resonate_anyio import (
    BuilderUsed,
    Context,
    InvalidArgument,
    Resonate,
    UsageError,
    WrongWorld,
)
from resonate_anyio._protocol import PromiseCreate, Request
from tests.crash.corpus.leaves import Oops, fail, slow, step
from tests.crash.scenarios import Outside

from .harness import Look, Wire, World, creates, settles
from .replays import survives

BY_CHOICE = ("rejected_canceled", {"by": "choice"})


async def nap(seconds: float = 100, value: str = "done") -> str:
    await anyio.sleep(seconds)
    return value


async def broken(seconds: float = 1, text: str = "no") -> str:
    await anyio.sleep(seconds)
    raise Oops(text)


def passed(since: float) -> float:
    return round(anyio.current_time() - since, 1)


# gather and map


async def test_gather() -> None:
    """Results come in the order of the calls, whatever kind they are and whenever they end."""

    async def outside(world: Outside) -> None:
        await world.exists("w.promise-1")
        await world.resolve("w.promise-1", "p")

    async def workflow(ctx: Context) -> object:
        return await ctx.gather(
            ctx.run(slow, 3, "a"), ctx.promise().returns(str), ctx.sleep(2), ctx.run(slow, 1, "b").named("b")
        )

    await survives(workflow, returns=["a", "p", None, "b"], outside=outside)


async def test_gather_is_a_tuple_and_map_a_list(resonate: Resonate) -> None:
    """Of nothing they are empty, and cost nothing."""

    async def workflow(ctx: Context) -> list[str]:
        results = [
            await ctx.gather(ctx.run(nap, 1), ctx.run(nap, 1)),
            await ctx.gather(),
            await ctx.map(nap, [1, 2]),
            await ctx.map(nap, ()),
        ]
        return [repr(result) for result in results]

    resonate.register(workflow)
    async with resonate:
        assert ["('done', 'done')", "()", "['done', 'done']", "[]"] == await resonate.run("w", workflow)


async def test_gather_fails_as_a_group() -> None:
    """The first failure cancels the rest; it arrives in a group, with what failed in the clean-up, in order."""

    async def cleanup(ctx: Context) -> None:
        try:
            await ctx.sleep(50)
        finally:
            raise Oops(ctx.id)

    async def workflow(ctx: Context) -> list[str]:
        try:
            await ctx.gather(ctx.run(cleanup), ctx.run(slow, 50, None), ctx.run(fail, "no", 1))
        except ExceptionGroup as caught:
            return [str(error) for error in caught.exceptions]
        return []

    endings = await survives(workflow, returns=["w.cleanup-1", "no"])
    assert ("rejected_canceled", {"by": "group", "depth": 0}) == endings["slow-1"]


async def test_map_with_a_limit() -> None:
    """`map` calls a function for each item, at most so many at once, and keeps the order."""

    async def item(ctx: Context, n: int) -> int:
        return await ctx.run(slow, 5 - n, n * n)

    async def workflow(ctx: Context) -> list[int]:
        return await ctx.map(item, range(5), limit=2)

    await survives(workflow, returns=[0, 1, 4, 9, 16])


@pytest.mark.parametrize(("limit", "seconds"), [(None, 10), (4, 10), (3, 20), (1, 40)])
async def test_how_long_a_limit_takes(resonate: Resonate, limit: int | None, seconds: float) -> None:
    """With a limit, calls begin as others end."""

    async def workflow(ctx: Context) -> float:
        begun = anyio.current_time()
        assert ["done"] * 4 == await ctx.map(nap, [10] * 4, limit=limit)
        assert ("done",) * 4 == await ctx.gather(*(ctx.run(nap, 10) for _ in range(4)), limit=limit)
        return passed(begun)

    resonate.register(workflow)
    async with resonate:
        assert 2 * seconds == await resonate.run("w", workflow)


async def test_gather_of_gathers() -> None:
    """In a call of its own, a gather can be gathered."""

    async def row(ctx: Context, n: int) -> list[int]:
        return list(await ctx.gather(ctx.run(slow, 1, n), ctx.run(slow, 2, n + 1)))

    async def workflow(ctx: Context) -> list[list[int]]:
        return await ctx.map(row, [0, 10])

    await survives(workflow, returns=[[0, 1], [10, 11]])


async def test_wrong_gathers(resonate: Resonate) -> None:
    """Futures, coroutines and other things are no calls; so is what an item cannot be given to."""

    async def workflow(ctx: Context) -> None:
        future = await ctx.sleep(1).spawn()
        for wrong in (future, nap, 3):
            # The call beside it is not expected to be made any more: no warning says that it was forgotten.
            with pytest.raises(UsageError, match=r"ctx\.gather\(\) takes calls"):
                ctx.gather(ctx.sleep(1), wrong)  # type: ignore[call-overload]
        with pytest.raises(InvalidArgument):
            ctx.map(nothing, [1])  # type: ignore[arg-type]
        gather = ctx.gather(ctx.sleep(1))
        await gather
        with pytest.raises(BuilderUsed):
            await gather

    async def nothing() -> None:
        pass

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


# first


async def test_first() -> None:
    """The first to end is given with its place; the others are cancelled, and recorded so."""

    async def child(ctx: Context) -> str:
        try:
            return await ctx.run(slow, 50, "never")
        finally:
            with anyio.CancelScope(shield=True):
                await ctx.run(step, "undone").named("undo")

    async def workflow(ctx: Context) -> list[object]:
        index, value = await ctx.first(
            ctx.run(slow, 9, "late"),
            ctx.run(child),
            ctx.run(slow, 2, "won"),
            ctx.sleep(20),
            ctx.promise(),
            ctx.rpc("nobody").target("elsewhere"),
        )
        return [index, value, await ctx.run(step, "end")]

    endings = await survives(workflow, returns=[2, "won", "end"])
    assert [BY_CHOICE] * 5 == [endings[id] for id in ("slow-1", "child-1", "sleep-1", "promise-1", "nobody-1")]
    assert ("resolved", "undone") == endings["child-1.undo"]


async def test_first_of_futures_keeps_them() -> None:
    """Futures that were made before go on, and can be awaited after it, or raced again."""

    async def workflow(ctx: Context) -> list[object]:
        futures = [await ctx.run(slow, n, f"{n}").spawn() for n in (5, 2, 8)]
        got: list[object] = [await ctx.first(*futures)]
        got.append(await ctx.first(futures[0], futures[2]))
        return [*got, [await future for future in futures]]

    endings = await survives(workflow, returns=[[1, "2"], [0, "5"], ["5", "2", "8"]])
    assert {"resolved"} == {state for state, _ in endings.values()}


async def test_first_as_a_limit_that_keeps_the_call() -> None:
    """`ctx.first(future, ctx.sleep(n))` waits for so long at most and leaves the call alone."""

    async def workflow(ctx: Context) -> list[object]:
        future = await ctx.run(slow, 10, "late").spawn()
        index, _ = await ctx.first(future, ctx.sleep(3))
        return [index, await future]

    await survives(workflow, returns=[1, "late"])


async def test_first_that_failed() -> None:
    """If the first has failed, its failure is raised; a timeout is a failure, too."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        for winner in (ctx.run(fail, "no", 2), ctx.run(slow, 50, None).timeout(2), ctx.promise().timeout(2)):
            try:
                await ctx.first(ctx.run(slow, 20, None).named(f"loser-{len(got)}"), winner)
            except Exception as exc:  # noqa: BLE001 - whatever it is
                got.append(type(exc).__name__)
        return got

    endings = await survives(workflow, returns=["Oops", "DurableTimeoutError", "DurableTimeoutError"])
    assert [BY_CHOICE] * 3 == [endings[f"loser-{n}"] for n in range(3)]


async def test_first_of_several_at_the_same_instant() -> None:
    """Of several that end together one is chosen, and stays chosen."""

    async def workflow(ctx: Context) -> list[object]:
        index, value = await ctx.first(*(ctx.run(slow, 2, n) for n in range(3)))
        assert index == value
        futures = [await ctx.run(step, n).spawn() for n in range(3)]
        for future in futures:
            await future
        again, _ = await ctx.first(*futures)
        return [0 <= index < 3, 0 <= again < 3, await ctx.run(step, "end")]

    await survives(workflow, returns=[True, True, "end"], varies=("w.slow-*",))


async def test_first_chooses_the_same_again(world: World) -> None:
    """A crash between win and record may change the winner; one after the record, or while losers end, does not."""
    for id, wanted, answered in (("w1", creates("w1.~first-1"), True), ("w2", settles("w2.nap-1"), False)):

        async def workflow(ctx: Context) -> list[object]:
            index, value = await ctx.first(ctx.run(nap, 10, "a"), ctx.promise())
            await ctx.run(nap, 1)
            return [index, value]

        process = world.process(workflow)
        process.kill_at(wanted, answered=answered)

        async def outside(process: Any, id: str) -> None:
            await anyio.sleep(5)
            await process.resonate.promises.resolve(f"{id}.promise-1", "b")

        async with anyio.create_task_group() as tasks, process:
            await process.resonate.run(id, workflow).spawn()
            tasks.start_soon(outside, process, id)
            await process.killed.wait()
        await anyio.sleep(1000)
        async with world.process(workflow) as process:
            assert [1, "b"] == await (await process.resonate.get(id))
            look = Look(process.resonate)
            assert "rejected_canceled" == (await look.promise(f"{id}.nap-1")).state


async def test_first_of_one_and_of_the_same_twice() -> None:
    """A race may have one entrant, or one future twice: the first place counts."""

    async def workflow(ctx: Context) -> list[object]:
        future = await ctx.run(slow, 1, "x").spawn()
        return [await ctx.first(ctx.run(slow, 1, "a")), await ctx.first(future, future), await ctx.run(step, "end")]

    await survives(workflow, returns=[[0, "a"], [0, "x"], "end"])


async def test_first_in_members_of_a_group() -> None:
    """Futures of a group can be raced inside of it; the group goes on with all of them."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as tg:
            futures = [tg.run(slow, n, f"{n}") for n in (4, 2)]
            first = await ctx.first(*futures)
        return [list(first), [future.result() for future in futures]]

    await survives(workflow, returns=[[1, "2"], ["4", "2"]])


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "plain"])
async def test_cancelled_first(*, durable: bool) -> None:
    """A scope around a race cancels what the race has started, and a replay is cancelled there again."""

    async def workflow(ctx: Context) -> list[object]:
        scope = ctx.move_on_after(3) if durable else anyio.move_on_after(3)
        with scope:
            await ctx.first(ctx.run(slow, 50, None), ctx.sleep(20), ctx.promise())
            return ["not reached"]
        return [await ctx.run(slow, 2, "after")]

    await survives(workflow, returns=["after"])


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "plain"])
async def test_cancelled_first_of_futures(*, durable: bool) -> None:
    """A race of futures that a scope has ended is ended there again, though its entrants have gone on and ended."""

    async def workflow(ctx: Context) -> list[object]:
        futures = [await ctx.run(slow, n, n).spawn() for n in (5, 6)]
        scope = ctx.move_on_after(3) if durable else anyio.move_on_after(3)
        with scope:
            await ctx.run(step, "fixes the instant")
            await ctx.first(*futures)
            return ["not reached"]
        return [await ctx.run(slow, 4, "after"), *[await future for future in futures]]

    await survives(workflow, returns=["after", 5, 6])


async def test_wrong_races(resonate: Resonate) -> None:
    """Nothing, and something else than calls and futures, is refused; so is a call that was started already."""

    async def workflow(ctx: Context) -> None:
        for what in (ctx.first, ctx.as_completed):
            with pytest.raises(UsageError, match="needs at least one"):
                what()
            with pytest.raises(UsageError, match="takes calls such as"):
                what(ctx.sleep(1), nap)  # type: ignore[arg-type]
        call = ctx.sleep(1)
        race = ctx.first(call)
        await race
        with pytest.raises(BuilderUsed):
            await race
        with pytest.raises(BuilderUsed):
            await ctx.first(call)

        async def child(_: Context) -> None:
            with pytest.raises(WrongWorld):
                ctx.first(call)
            with pytest.raises(WrongWorld):
                ctx.as_completed(call)
            for make in (ctx.now, ctx.random, ctx.uuid):
                with pytest.raises(WrongWorld):
                    make()

        await ctx.run(child)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


# as_completed


async def test_as_completed() -> None:
    """Futures come as they end, each with its result at once; the order is on record."""

    async def workflow(ctx: Context) -> list[object]:
        # A leaf that is cut by a crash begins anew, and takes twice as long in the worst case.
        known = await ctx.run(slow, 3, "3").spawn()
        calls = (ctx.run(slow, 7, "7"), known, ctx.run(slow, 1, "1"), ctx.sleep(15))
        got: list[object] = [future.result() async for future in ctx.as_completed(*calls)]
        return [*got, await ctx.run(step, "end")]

    await survives(workflow, returns=["1", "3", "7", None, "end"])


async def test_as_completed_with_work_between() -> None:
    """The body of the loop may take long and make calls: what has ended meanwhile comes in its order."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        async for future in ctx.as_completed(*(ctx.run(slow, n, n) for n in (4, 1, 2, 3))):
            got.append(future.result())
            got.append(await ctx.run(slow, 6, f"work {len(got)}"))
        return got

    await survives(workflow, returns=[1, "work 1", 2, "work 3", 3, "work 5", 4, "work 7"], varies=("w.slow-[1234]",))


async def test_as_completed_that_is_left() -> None:
    """What is left over when the loop is left goes on, and is joined by the function."""

    async def workflow(ctx: Context) -> list[object]:
        rest, quick = await ctx.run(slow, 5, "rest").spawn(), "nothing"
        async for future in ctx.as_completed(ctx.run(slow, 9, "late"), ctx.run(slow, 1, "quick"), rest):
            quick = future.result()
            break
        return [quick, await rest]

    endings = await survives(workflow, returns=["quick", "rest"])
    assert {"resolved"} == {state for state, _ in endings.values()}


async def test_as_completed_with_failures() -> None:
    """A failure is in its future, and nobody else's."""

    async def workflow(ctx: Context) -> list[object]:
        calls = (ctx.run(fail, "no", 2), ctx.run(slow, 4, "ok"), ctx.promise().timeout(1))
        return [str(future.exception() or await future) async for future in ctx.as_completed(*calls)]

    await survives(workflow, returns=["the deadline of 'w.promise-1' passed before it was settled", "no", "ok"])


async def test_as_completed_whose_failures_nobody_sees() -> None:
    """A future whose outcome was not asked for fails the function in the end, like any other."""

    async def workflow(ctx: Context) -> str:
        async for _ in ctx.as_completed(ctx.run(fail, "no", 1)):
            pass
        return "returned"

    await survives(workflow, fails="ExceptionGroup: 1 of the children of 'w' failed, and no code awaited them*")


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "plain"])
async def test_cancelled_as_completed(*, durable: bool) -> None:
    """A scope that ends the loop leaves the calls alone; a replay leaves the loop at the same place."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        futures = [await ctx.run(slow, n, n).spawn() for n in (1, 5, 6)]
        scope = ctx.move_on_after(3) if durable else anyio.move_on_after(3)
        with scope:
            await ctx.run(step, "fixes the instant")
            async for future in ctx.as_completed(*futures):
                result = future.result()
                got.append(result)
        got.append(await ctx.run(slow, 4, "after"))
        return [*got, *[await future for future in futures]]

    await survives(workflow, returns=[1, "after", 1, 5, 6])


# now, random, uuid


async def test_now() -> None:
    """`now` is an instant in UTC; a replay gets the same, whatever time it is by then."""
    seen: list[datetime] = []

    async def workflow(ctx: Context) -> list[object]:
        first = await ctx.now()
        seen.append(first)
        await ctx.run(slow, 5, None)
        second = await ctx.now()
        assert first.tzinfo is UTC
        return [(second - first).total_seconds() >= 5, await ctx.run(step, "end")]

    await survives(workflow, returns=[True, "end"])


async def test_now_after_a_crash(world: World) -> None:
    """It is the instant of the first time, to the millisecond."""
    seen: list[datetime] = []

    async def workflow(ctx: Context) -> str:
        seen.append(await ctx.now())
        return str(await ctx.promise())

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        process.kill()
    await anyio.sleep(1000)
    async with world.process(workflow) as process:
        await anyio.sleep(1)
        await process.resonate.promises.resolve("w.promise-1", "x")
        assert "x" == await (await process.resonate.get("w"))
    assert 2 == len(seen)
    assert seen[0] == seen[1]


async def in_a_plain_scope(ctx: Context) -> list[str]:
    seen: list[str] = []
    with CancelScope() as scope:
        scope.cancel()
        await ctx.now()
        seen.append("now")
    await ctx.sleep(9).named("last")
    return seen


async def in_a_durable_scope(ctx: Context) -> list[str]:
    seen: list[str] = []
    with ctx.move_on_after(0):
        await ctx.now()
        seen.append("now")
    await ctx.sleep(9).named("last")
    return seen


async def in_a_group(ctx: Context) -> list[str]:
    seen: list[str] = []

    async def code() -> None:
        with CancelScope(shield=True):
            await ctx.sleep(2)
        await ctx.now()
        seen.append("now")

    async with ctx.task_group() as tg:
        tg.start_soon(code)
        await ctx.sleep(1)
        tg.cancel_scope.cancel()
    await ctx.sleep(9).named("last")
    return seen


@pytest.mark.parametrize("workflow", [in_a_plain_scope, in_a_durable_scope, in_a_group])
async def test_fact_in_a_cancelled_scope(world: World, workflow: object) -> None:
    """A fact that was reached in a cancelled scope is no fact: a replay is cancelled there as the first run was."""
    assert callable(workflow)
    process = world.process(workflow)
    process.kill_at(creates("w.last"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        assert [] == await process.resonate.run("w", workflow)


async def hurried(ctx: Context) -> list[str]:
    seen: list[str] = []
    with anyio.move_on_after(5):
        await ctx.now()
        seen.append("now")
    await ctx.sleep(9).named("last")
    return seen


@pytest.mark.parametrize("dies", [False, True])
async def test_fact_that_is_interrupted(world: World, *, dies: bool) -> None:
    """A fact whose recording is interrupted was not seen by the code, and a replay does not see it either."""
    process = world.process(hurried)
    if dies:
        process.kill_at(creates("w.last"), answered=True)
    inner = process.wire.before

    async def slowly(request: Request) -> None:
        if isinstance(request, PromiseCreate) and request.id == "w.~now-1":
            await anyio.sleep(10)
        await inner(request)

    process.wire.before = slowly
    if dies:
        await world.run_until_killed(process, "w", hurried)
        process = world.process(hurried)
    async with process:
        assert [] == await process.resonate.run("w", hurried)


async def test_random_and_uuid_are_the_same_on_a_replay(world: World) -> None:
    """They follow from where they are asked for: the same again, different in each place and each execution."""
    seen: list[list[object]] = []

    async def workflow(ctx: Context) -> str:
        values: list[object] = [ctx.random().random(), ctx.random().random(), ctx.uuid(), ctx.uuid()]

        async def plain() -> None:
            values.append(ctx.uuid())
            await ctx.run(nap, 1)
            values.append(ctx.random().random())

        async with ctx.task_group() as tg:
            tg.start_soon(plain)
        seen.append(values)
        return str(await ctx.promise())

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await process.resonate.run("v", workflow).spawn()
        await anyio.sleep(5)
        process.kill()
    async with world.process(workflow) as process:
        await anyio.sleep(5)
        for id in ("w", "v"):
            await process.resonate.promises.resolve(f"{id}.promise-1", "x")
            assert "x" == await (await process.resonate.get(id))
    first, second = seen[:2]
    assert sorted(map(str, [*first, *second])) == sorted(map(str, [*seen[2], *seen[3]]))
    assert 12 == len({str(value) for value in [*first, *second]})
    assert {4} == {value.version for value in first if isinstance(value, UUID)}
    assert all(isinstance(value, UUID) or 0 <= value < 1 for value in first)  # type: ignore[operator]


# What it costs


async def test_one_request_for_each_fact(resonate: Resonate, wire: Wire) -> None:
    """`now` and each choice cost one request; random numbers and UUIDs cost none."""

    async def workflow(ctx: Context) -> None:
        futures = [await ctx.run(nap, n).spawn() for n in (0.1, 0.2)]
        for future in futures:
            await future
        wire.forget()
        await ctx.now()
        assert isinstance(ctx.random(), Random)
        assert isinstance(ctx.uuid(), UUID)
        await ctx.first(*futures)
        async for future in ctx.as_completed(*futures):
            future.result()

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        assert {"promise.create": 4, "task.fulfill": 1} == wire.counts()
        assert ["w.~now-1", "w.~first-1", "w.~completed-1-1", "w.~completed-1-2"] == wire.created()


async def test_facts_are_born_settled(resonate: Resonate) -> None:
    """A fact is resolved from the beginning, so nothing has to wait for it or sweep it."""

    async def workflow(ctx: Context) -> str:
        return (await ctx.now()).isoformat()

    resonate.register(workflow)
    async with resonate:
        now = datetime.fromisoformat(await resonate.run("w", workflow))
        promise = await resonate.promises.get("w.~now-1")
    assert ("resolved", "ctx.now", int(now.timestamp() * 1000)) == (
        promise.state,
        promise.param["fact"],
        promise.param["value"],
    )


async def test_dropped_choices_warn(resonate: Resonate) -> None:
    """A race, a gather or a `now` that is never awaited warns, like any other call."""

    async def workflow(ctx: Context) -> None:
        makes: list[Callable[[], object]] = [ctx.now, lambda: ctx.gather(limit=1), lambda: ctx.map(nap, [])]
        for make in makes:
            with pytest.warns(RuntimeWarning, match="was never awaited"):
                make()

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
