"""Lanes: calls of several tasks find their records again, and cancellations come again (docs/semantics.md 2 and 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest

from resonate_anyio import Context, DurableCancelledError, NonDeterminismError, Resonate, durable
from resonate_anyio._codec import Codec
from resonate_anyio._protocol import Request, Response
from tests.crash.corpus.leaves import Oops, fail, slow, step

from .harness import Look, Wire, World, creates, settles
from .replays import survives

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


async def nap(seconds: float = 100, value: str = "done") -> str:
    await anyio.sleep(seconds)
    return value


def group(kind: str) -> AbstractAsyncContextManager[Any]:
    """A task group of anyio, or the backend's own."""
    if kind == "anyio":
        return anyio.create_task_group()
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.TaskGroup()
    import trio  # noqa: PLC0415 - only on trio

    return trio.open_nursery()


def start(tasks: Any, func: Callable[..., Awaitable[object]], *args: object) -> None:
    """Start a task in any of them."""
    if isinstance(tasks, asyncio.TaskGroup):
        tasks.create_task(func(*args))  # type: ignore[arg-type]
    else:
        tasks.start_soon(func, *args)


kinds = pytest.mark.parametrize("kind", ["anyio", "native"])


# Finding the records again


@kinds
async def test_several_calls_in_each_task(kind: str) -> None:
    """Each task of a plain group counts by itself; after a crash each finds its own records."""

    async def workflow(ctx: Context) -> list[list[object]]:
        rows: dict[int, list[object]] = {}

        async def row(n: int) -> None:
            first = await ctx.run(slow, 1 + n, 10 * n)
            await ctx.sleep(1)
            second = await ctx.run(slow, 1, 10 * n + 1)
            rows[n] = [first, second, await ctx.run(step, 10 * n + 2)]

        before = await ctx.run(slow, 1, "before")
        async with group(kind) as tasks:
            for n in range(3):
                start(tasks, row, n)
            body = await ctx.run(slow, 2, "body")
        return [[before, body], *(rows[n] for n in range(3))]

    endings = await survives(workflow, returns=[["before", "body"], [0, 1, 2], [10, 11, 12], [20, 21, 22]])
    lanes = [[f"sleep-1tp{n}", f"slow-1tp{n}", f"slow-2tp{n}", f"step-1tp{n}"] for n in (1, 2, 3)]
    assert sorted(["slow-1", "slow-2", *lanes[0], *lanes[1], *lanes[2]]) == sorted(endings)


@kinds
async def test_different_first_calls(kind: str) -> None:
    """Tasks that begin with different functions take their lanes by that, whoever comes first."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def by_sleep() -> None:
            await ctx.sleep(1)
            got.append(await ctx.run(step, "s"))

        async def by_promise() -> None:
            with anyio.move_on_after(0):
                await ctx.promise()
            got.append(await ctx.run(step, "p"))

        async def by_run() -> None:
            got.append(await ctx.run(step, "r"))
            got.append(await ctx.run(step, "r2"))

        async with group(kind) as tasks:
            for func in (by_sleep, by_promise, by_run):
                start(tasks, func)
        return sorted(got)  # type: ignore[type-var]

    await survives(workflow, returns=["p", "r", "r2", "s"])


@kinds
async def test_equal_first_calls(kind: str) -> None:
    """Tasks that begin with equal calls may swap their lanes, which nobody can tell if they do the same."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def same() -> None:
            got.append(await ctx.run(slow, 1, "a"))
            got.append(await ctx.run(slow, 1, "b"))

        async with group(kind) as tasks:
            for _ in range(3):
                start(tasks, same)
        return sorted(got)  # type: ignore[type-var]

    endings = await survives(workflow, returns=["a", "a", "a", "b", "b", "b"])
    assert 6 == len(endings)


def many(n: int) -> list[int]:
    """Large arguments that differ in one place, which no sample has."""
    return [0] * 1_000 + [n] + [0] * 999


@kinds
async def test_large_equal_looking_first_calls(kind: str) -> None:
    """Lanes are told apart by the whole arguments of their first calls, even if these are large."""

    async def workflow(ctx: Context) -> list[list[object]]:
        rows: dict[int, list[object]] = {}

        async def row(n: int) -> None:
            first = await ctx.run(slow, 1, many(n))
            rows[n] = [sum(first), await ctx.run(step, n)]

        async with group(kind) as tasks:
            for n in range(4):
                start(tasks, row, n)
        return [rows[n] for n in range(4)]

    await survives(workflow, returns=[[0, 0], [1, 1], [2, 2], [3, 3]])


async def test_large_arguments_that_an_earlier_version_recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records with digests of whole large arguments, as of version 0.1.0, match the calls of this version."""
    sampled, ran = Codec.encode_identity, 0

    async def count(_: list[int]) -> int:
        nonlocal ran
        ran += 1
        return ran

    @durable(name="workflow")
    async def workflow(ctx: Context) -> list[int]:
        rows = [await ctx.run(count, many(0))]

        async def task() -> None:
            rows.extend([await ctx.run(count, many(1)), await ctx.run(count, many(2))])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
        await ctx.sleep(10).named("end")
        return rows

    monkeypatch.setattr(Codec, "encode_identity", lambda *call, whole: sampled(*call, whole=True))
    await record(world, workflow, creates("w.end"))
    monkeypatch.undo()
    async with world.process(workflow) as process:
        assert [1, 2, 3] == await (await process.resonate.get("w"))
        params = [(await process.resonate.promises.get(f"w.{id}")).param for id in ("count-1", "count-2tp1")]
    assert [22, 22] == [len(param["digest"]) for param in params]
    assert 3 == ran


@kinds
async def test_nested_tasks(kind: str) -> None:
    """Tasks of tasks are lanes, too."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def inner(n: int, m: int) -> None:
            got.append(await ctx.run(slow, 1, [n, m, 1]))
            got.append(await ctx.run(slow, 1, [n, m, 2]))

        async def outer(n: int) -> None:
            got.append(await ctx.run(slow, 1, [n]))
            async with group(kind) as tasks:
                for m in range(2):
                    start(tasks, inner, n, m)
            got.append(await ctx.run(step, [n, "end"]))

        async with group(kind) as tasks:
            for n in range(2):
                start(tasks, outer, n)
        return sorted(got, key=repr)

    expected = sorted(
        [
            *([n] for n in range(2)),
            *([n, "end"] for n in range(2)),
            *([n, m, k] for n in range(2) for m in range(2) for k in (1, 2)),
        ],
        key=repr,
    )
    await survives(workflow, returns=expected)


@kinds
async def test_named_calls_need_no_lane(kind: str) -> None:
    """A name says it all: the id of a named call does not show the task."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def one(n: int) -> None:
            got.append(await ctx.run(slow, 1, n).named(f"a{n}"))
            got.append(await ctx.run(slow, 1, n).named(f"b{n}"))

        async with group(kind) as tasks:
            for n in range(3):
                start(tasks, one, n)
        return sorted(got)  # type: ignore[type-var]

    endings = await survives(workflow, returns=[0, 0, 1, 1, 2, 2])
    assert ["a0", "a1", "a2", "b0", "b1", "b2"] == sorted(endings)


@kinds
async def test_failure_in_a_task_of_several_calls(kind: str) -> None:
    """A failure in one lane cancels the calls of the others, durably, and a replay does the same."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def failing() -> None:
            await ctx.run(slow, 1, "ok")
            await ctx.run(fail, "no", 2)

        async def other(n: int) -> None:
            await ctx.run(slow, 0.5 + n / 10, n)
            try:
                await ctx.run(slow, 50, None)
            finally:
                with anyio.CancelScope(shield=True):
                    got.append(await ctx.run(step, f"undone {n}").named(f"undo-{n}"))

        try:
            async with group(kind) as tasks:
                start(tasks, failing)
                start(tasks, other, 1)
                start(tasks, other, 2)
        except* Oops:
            pass
        return [*sorted(got), await ctx.run(step, "end")]  # type: ignore[type-var]

    await survives(workflow, returns=["undone 1", "undone 2", "end"])


async def test_lanes_of_start_soon_are_numbered_by_the_text() -> None:
    """In a durable group lanes are numbered where they are started, so equal first calls are told apart."""

    async def workflow(ctx: Context) -> list[object]:
        rows: dict[str, object] = {}

        async def leaf(name: str) -> None:
            rows[name] = [await ctx.run(slow, 1, "same"), await ctx.run(step, name)]

        async def branch(name: str) -> None:
            async with ctx.task_group() as own:
                own.start_soon(leaf, f"{name}1")
                own.start_soon(leaf, f"{name}2")
            await leaf(name)

        async with ctx.task_group() as tg:
            tg.start_soon(branch, "a")
            tg.start_soon(branch, "b")
            tg.start_soon(leaf, "c")
        return [[name, rows[name][1]] for name in sorted(rows)]  # type: ignore[index]

    names = ["a", "a1", "a2", "b", "b1", "b2", "c"]
    endings = await survives(workflow, returns=[[name, name] for name in names])
    lanes = ["1", "1-1", "1-2", "2", "2-1", "2-2", "3"]
    assert sorted([f"{call}-1t{lane}" for lane in lanes for call in ("slow", "step")]) == sorted(endings)
    assert [("resolved", name) for name in names] == [endings[f"step-1t{lane}"] for lane in lanes]


async def test_start_soon_in_a_task_of_a_plain_group() -> None:
    """A durable group in a task of a plain group works, before the task's first call and after it."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def call(name: str) -> None:
            got.append(await ctx.run(slow, 1, name))
            got.append(await ctx.run(step, name))

        async def after() -> None:
            await ctx.run(slow, 1, "first")
            async with ctx.task_group() as tg:
                tg.start_soon(call, "x")
                tg.start_soon(call, "y")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(after)
            tasks.start_soon(call, "z")
        return sorted(got)  # type: ignore[type-var]

    await survives(workflow, returns=["x", "x", "y", "y", "z", "z"])


@on_asyncio
async def test_builders_in_gather_and_wait_for() -> None:
    """`asyncio.gather`, `wait_for` and `ensure_future` take builders; their numbers are those of who made them."""

    async def workflow(ctx: Context) -> list[object]:
        both = await asyncio.gather(ctx.run(slow, 2, "a"), ctx.run(slow, 1, "b"), ctx.sleep(1))
        one = await asyncio.wait_for(ctx.run(slow, 1, "c"), 50)
        future = asyncio.ensure_future(ctx.run(slow, 1, "d"))
        return [*both, one, await future, await ctx.run(step, "end")]

    endings = await survives(workflow, returns=["a", "b", None, "c", "d", "end"])
    assert ["sleep-1", "slow-1", "slow-2", "slow-3", "slow-4", "step-1"] == sorted(endings)


@on_asyncio
async def test_wait_for_that_times_out() -> None:
    """`asyncio.wait_for` on a builder cancels the call when its time is up, and does so again on a replay."""

    async def workflow(ctx: Context) -> list[object]:
        try:
            await asyncio.wait_for(ctx.run(slow, 50, None), 3)
        except TimeoutError:
            return ["timeout", await ctx.run(slow, 4, "after")]
        return []

    endings = await survives(workflow, returns=["timeout", "after"])
    assert ("rejected_canceled", {"by": "scope"}) == endings["slow-1"]


# Where lanes cannot be told apart


async def record(world: World, workflow: Callable[..., Any], at: Callable[[Request], bool]) -> None:
    process = world.process(workflow)
    process.kill_at(at, answered=True)
    await world.run_until_killed(process, "w", workflow)


def lanes_of(calls: list[list[Callable[[Context], Awaitable[object]]]]) -> Callable[..., Any]:
    """A workflow with a plain task for each row of calls, which then waits."""

    @durable(name="workflow")
    async def workflow(ctx: Context) -> str:
        async def task(row: list[Callable[[Context], Awaitable[object]]]) -> None:
            for call in row:
                await call(ctx)

        async with anyio.create_task_group() as tasks:
            for row in calls:
                tasks.start_soon(task, row)
        await ctx.sleep(10).named("end")
        return "done"

    return workflow


async def other() -> None:
    pass


async def test_second_call_of_a_lane_that_is_another(world: World) -> None:
    """A lane whose second call is another than on record is non-deterministic; the error shows both and a way out."""
    await record(world, lanes_of([[lambda c: c.run(nap, 1), lambda c: c.run(nap, 2).named("x")]]), creates("w.end"))
    changed = lanes_of([[lambda c: c.run(nap, 1), lambda c: c.run(other).named("x")]])
    async with world.process(changed) as process:
        with pytest.raises(NonDeterminismError) as caught:
            await (await process.resonate.get("w"))
    assert "ctx.run(nap, version 1)" in caught.value.recorded
    assert "ctx.run(other, version 1)" in caught.value.requested


async def test_unnumbered_second_call_that_is_another(world: World) -> None:
    """A counted call of another name is a new one, and what was recorded is left over and ended."""
    await record(world, lanes_of([[lambda c: c.run(nap, 1), lambda c: c.run(nap, 2)]]), settles("w.nap-1tp1"))
    changed = lanes_of([[lambda c: c.run(nap, 1), lambda c: c.run(other)]])
    async with world.process(changed) as process:
        assert "done" == await (await process.resonate.get("w"))
        found = await Look(process.resonate).states()
    assert {"w": "resolved", "w.nap-1tp1": "resolved", "w.other-1tp1": "resolved", "w.end": "resolved"} == {
        id: state for id, state in found.items() if "~" not in id
    }


async def test_lane_that_is_new_on_a_replay(world: World) -> None:
    """A task that begins with a call nobody has recorded gets a lane of a new number."""
    await record(world, lanes_of([[lambda c: c.run(nap, 1)]]), settles("w.nap-1tp1"))
    changed = lanes_of([[lambda c: c.run(other)], [lambda c: c.run(nap, 1)]])
    async with world.process(changed) as process:
        assert "done" == await (await process.resonate.get("w"))
        found = sorted(id for id in await Look(process.resonate).states() if "~" not in id)
    assert ["w", "w.end", "w.nap-1tp1", "w.other-1tp2"] == found


# A cancellation that meets an outcome (docs/semantics.md 3.3)


def late(id: str, seconds: float) -> Callable[[Request, Response], Awaitable[None]]:
    """The answer to the settling of `id` takes a while."""

    async def after(request: Request, _: Response) -> None:
        if settles(id)(request):
            await anyio.sleep(seconds)

    return after


@on_asyncio
async def test_timeout_of_asyncio_around_two_calls(resonate: Resonate, wire: Wire) -> None:
    """An outcome that has won is returned although `asyncio.timeout` fired meanwhile; the next call is cancelled."""
    got: list[str] = []

    async def workflow(ctx: Context) -> str:
        try:
            async with asyncio.timeout(5):
                got.append(await ctx.run(nap, 4, "won"))
                await ctx.run(nap, 50)
                got.append("not reached")
        except TimeoutError:
            return "timeout"
        return "no timeout"

    resonate.register(workflow)
    wire.after = late("w.nap-1", 3)
    async with resonate:
        assert "timeout" == await resonate.run("w", workflow)
        assert "rejected_canceled" == (await resonate.promises.get("w.nap-2")).state
    assert ["won"] == got


@kinds
async def test_failing_group_while_an_outcome_wins(resonate: Resonate, wire: Wire, kind: str) -> None:
    """A task whose call has won when its group fails gets the outcome and is cancelled at the next; nothing hangs."""
    got: list[str] = []

    async def workflow(ctx: Context) -> str:
        async def winning() -> None:
            got.append(await ctx.run(nap, 4, "won").named("winner"))
            await ctx.run(nap, 50)
            got.append("not reached")

        async def failing() -> None:
            await ctx.run(nap, 5)
            raise Oops

        try:
            async with group(kind) as tasks:
                start(tasks, winning)
                start(tasks, failing)
        except* Oops:
            got.append("failed")
        return await ctx.run(nap, 1, "after").named("after")

    resonate.register(workflow)
    wire.after = late("w.winner", 3)
    async with resonate:
        with anyio.fail_after(30):
            assert "after" == await resonate.run("w", workflow)
    assert ["won", "failed"] == got


@on_asyncio
async def test_cancellation_that_was_taken_back(resonate: Resonate, wire: Wire) -> None:
    """A cancellation that is owed and taken back with `uncancel` is not raised any more."""

    async def workflow(ctx: Context) -> list[str]:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(5, task.cancel)
        first = await ctx.run(nap, 4, "won")
        assert 1 == task.cancelling()
        task.uncancel()
        return [first, await ctx.run(nap, 1, "went on")]

    resonate.register(workflow)
    wire.after = late("w.nap-1", 3)
    async with resonate:
        assert ["won", "went on"] == await resonate.run("w", workflow)


# A new call in a cancelled scope (docs/semantics.md 3.4)


@pytest.mark.parametrize("kind", ["run", "rpc", "sleep", "promise", "spawn"])
async def test_new_call_in_a_cancelled_scope(kind: str) -> None:
    """It is recorded as cancelled before it raises, and on a replay the code is cancelled there again."""

    def call(ctx: Context) -> Awaitable[object]:
        match kind:
            case "run":
                return ctx.run(slow, 5, None).named("late")
            case "rpc":
                return ctx.rpc("nobody").target("elsewhere").named("late")
            case "sleep":
                return ctx.sleep(5).named("late")
            case "promise":
                return ctx.promise().named("late")
            case _:
                return ctx.run(slow, 5, None).named("late").spawn()

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            await call(ctx)
            got.append("not reached")
        got.append(await ctx.run(step, "after"))
        return got

    endings = await survives(workflow, returns=["after"])
    assert {"late": ("rejected_canceled", {"by": "scope"}), "step-1": ("resolved", "after")} == endings


async def test_replay_waits_for_the_scope_of_a_refused_call(world: World) -> None:
    """A call that was recorded as cancelled before it began does not begin on a replay, which waits for its scope."""
    runs: list[str] = []

    async def leaf() -> None:
        runs.append("ran")

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(5):
            try:
                await anyio.sleep_forever()
            finally:
                await ctx.run(leaf)
        await ctx.sleep(10)
        return "moved on"

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(8)
        process.kill()
    async with world.process(workflow) as process:
        begun = anyio.current_time()
        assert "moved on" == await (await process.resonate.get("w"))
        assert 7 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert [] == runs


async def test_refused_call_whose_scope_is_gone(world: World) -> None:
    """If nothing cancels the code there any more, the replay stops as non-deterministic."""

    def program(*, cancelled: bool) -> Callable[..., Any]:
        @durable(name="workflow")
        async def workflow(ctx: Context) -> str:
            with anyio.CancelScope() as scope:
                if cancelled:
                    scope.cancel()
                await ctx.run(nap, 1)
            await ctx.sleep(10)
            return "done"

        return workflow

    await record(world, program(cancelled=True), creates("w.sleep-1"))
    async with world.process(program(cancelled=False)) as process:
        with pytest.raises(NonDeterminismError, match=r"w\.nap-1.*a scope around it had cancelled"):
            await (await process.resonate.get("w"))


async def test_future_of_a_refused_call(resonate: Resonate) -> None:
    """A call that was refused is cancelled for whoever else waits for it."""

    async def workflow(ctx: Context) -> str | None:
        async with ctx.task_group(limit=1) as tg:
            tg.run(nap, 5)
            future = tg.run(nap, 5)
            with anyio.move_on_after(1):
                await future
            with pytest.raises(DurableCancelledError) as caught:
                await future
        return caught.value.by

    resonate.register(workflow)
    async with resonate:
        assert "scope" == await resonate.run("w", workflow)
