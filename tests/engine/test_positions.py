"""Positions: a replay is cancelled where the first run was, also in a plain await between two durable calls.

The first run of each workflow is cancelled in a plain `anyio.sleep`, makes a call after that, and dies. The replay goes
past that sleep, and comes to a call that the first run never made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, TypeAlias

import anyio
import pytest
from anyio import CancelScope
from attrs import define, field

from resonate_anyio import Context
from resonate_anyio._history import POSITION_TAG
from resonate_anyio._workflow._invocation import Invocation
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock

from .harness import Look, Oops, Process, World, settles
from .test_no_search import refuses_searches

Workflow: TypeAlias = Callable[[Context, "Lives"], Awaitable[Any]]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
same_or_other = pytest.mark.parametrize("name", ["step", "undo"])


@define
class Lives:
    """How often the workflow has begun, and what ran."""

    count: int = 0
    ran: list[str] = field(factory=list)

    async def plainly(self, seconds: float = 10, later: float = 0.1) -> None:
        """A plain await that takes long the first time, and not so long in a replay."""
        await anyio.sleep(seconds if self.count == 1 else later)


async def broken(seconds: float = 4) -> None:
    """Fail after a while."""
    await anyio.sleep(seconds)
    msg = "no"
    raise Oops(msg)


@define
class Outcome:
    """What came of a workflow: its result, what is on record, which steps ran and how long the last life took."""

    result: Any
    records: dict[str, str]
    ran: list[str]
    lasted: float
    inserted_at: float


async def lived(
    world: World,
    workflow: Workflow,
    last: str | None = None,
    *,
    refuses: int | None = None,
    sleep: float | None = None,
    downtime: float = 0,
    unpatch: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run `workflow`; until `last` has ended, if that is given, and again in another process.

    Args:
        world: where.
        workflow: what is to run.
        last: the call after which the first process dies.
        refuses: what searches are answered with, if they are not allowed.
        sleep: after so many seconds, the second process dies as well.
        downtime: the seconds until the second process starts.
        unpatch: called between the two.
    """
    lives = Lives()
    inserted_at: list[float] = []

    async def step(value: str, seconds: float = 0) -> str:
        """Note that it runs, and give back the value."""
        lives.ran.append(value)
        await anyio.sleep(seconds)
        return value

    async def undo(value: str) -> str:
        """The same under another name."""
        lives.ran.append(value)
        inserted_at.append(anyio.current_time())
        return value

    async def w(ctx: Context) -> Any:
        lives.count += 1
        return await workflow(ctx, lives)

    global the_step, the_undo
    the_step, the_undo = step, undo
    functions = (w, step, undo, broken)

    def started() -> Process:
        process = world.process(*functions)
        if refuses is not None:
            refuses_searches(process.wire, refuses)
        return process

    if last is not None:
        process = started()
        process.kill_at(settles(f"w.{last}"), answered=True)
        await world.run_until_killed(process, "w", w)
    unpatch()
    await anyio.sleep(downtime)
    restarted = anyio.current_time()
    if sleep is not None:
        async with started() as process:
            await anyio.sleep(sleep)
            process.kill()
    async with started() as process:
        began = anyio.current_time()
        with anyio.fail_after(600):
            result = await (process.resonate.run("w", w) if last is None else await process.resonate.get("w"))
        lasted = anyio.current_time() - began
        states = await Look(process.resonate).states()
    return Outcome(
        result,
        {id: state for id, state in states.items() if "~wake" not in id},
        lives.ran,
        lasted,
        (inserted_at or [restarted])[0] - restarted,
    )


the_step: Any = None
the_undo: Any = None


def function(name: str) -> Any:
    """The function of that name."""
    return the_step if name == "step" else the_undo


async def check_same(world: World, workflow: Workflow, last: str) -> Outcome:
    """Whether it dies or not, the same comes of it: the result, what is on record, what ran, and nothing twice."""
    calm = await lived(World(MemoryStore(), VirtualClock(), world.rules), workflow)
    outcome = await lived(world, workflow, last)
    assert (calm.result, calm.records, sorted(calm.ran)) == (outcome.result, outcome.records, sorted(outcome.ran))
    return outcome


# What is made after the plain await: the first run never comes to that

Made: TypeAlias = Callable[[Context], Awaitable[object]]


async def _run(ctx: Context) -> None:
    await ctx.run(the_step, "body")


async def _spawned(ctx: Context) -> None:
    await (await ctx.run(the_step, "body").spawn())


async def _several(ctx: Context) -> None:
    calls = [ctx.run(the_step, "body") for _ in range(3)]
    for call in calls:
        await call


async def _first(ctx: Context) -> None:
    await ctx.first(ctx.run(the_step, "body"), ctx.run(the_step, "other"))


async def _completed(ctx: Context) -> None:
    async for future in ctx.as_completed(ctx.run(the_step, "body"), ctx.run(the_step, "other")):
        future.result()


async def _gathered(ctx: Context) -> None:
    await ctx.gather(ctx.run(the_step, "body"), ctx.run(the_step, "other"))


async def _mapped_with_limit(ctx: Context) -> None:
    await ctx.map(the_step, ["a", "b", "c"], limit=1)


async def _in_a_group(ctx: Context) -> None:
    async with ctx.task_group() as tg:
        tg.run(the_step, "body")
        future = tg.run(the_step, "other")
        await future


async def _in_a_lane(ctx: Context) -> None:
    async with ctx.task_group() as tg:
        tg.start_soon(_run, ctx)


async def _in_a_task(ctx: Context) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_run, ctx)


async def _in_a_scope(ctx: Context) -> None:
    with ctx.move_on_after(50):
        await ctx.run(the_step, "body")


async def _now(ctx: Context) -> None:
    await ctx.now()
    await ctx.run(the_step, "body")


async def _sleep(ctx: Context) -> None:
    await ctx.sleep(1)


async def _promise(ctx: Context) -> None:
    await ctx.promise()


async def _remote(ctx: Context) -> None:
    await ctx.rpc(the_step, "body")


async def _detached(ctx: Context) -> None:
    await ctx.detached(the_step, "body")


async def _named(ctx: Context) -> None:
    await ctx.run(the_step, "body").named("named")


async def _child(ctx: Context) -> None:
    await ctx.run(child, "body")


async def child(ctx: Context, value: str) -> str:
    """A workflow with a step."""
    return str(await ctx.run(the_step, value))


MADE: dict[str, Made] = {
    made.__name__.removeprefix("_"): made
    for made in (
        _run,
        _spawned,
        _several,
        _first,
        _completed,
        _gathered,
        _mapped_with_limit,
        _in_a_group,
        _in_a_lane,
        _in_a_task,
        _in_a_scope,
        _now,
        _sleep,
        _promise,
        _remote,
        _detached,
        _named,
        _child,
    )
}

each_made = pytest.mark.parametrize("made", MADE.values(), ids=MADE)


# Durable blocks


@each_made
@same_or_other
async def test_group(world: World, made: Made, name: str) -> None:
    """A member fails while the body is in a plain sleep: what comes after that is not made by a replay either."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        try:
            async with ctx.task_group() as tg:
                tg.run(broken)
                await lives.plainly()
                await made(ctx)
        except* Oops:
            pass
        first = await ctx.run(function(name), "cleanup")
        await ctx.sleep(5)
        return str(first + await ctx.run(the_step, " end"))

    outcome = await check_same(world, workflow, f"{name}-1")
    assert ("cleanup end", ["cleanup", " end"]) == (outcome.result, outcome.ran)
    assert outcome.lasted < 6


@each_made
@same_or_other
async def test_group_and_its_compensation(world: World, made: Made, name: str) -> None:
    """The same if what follows is made inside of the group, under a shield."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        done = ""
        try:
            async with ctx.task_group() as tg:
                tg.run(broken)
                try:
                    await lives.plainly()
                    await made(ctx)
                finally:
                    with CancelScope(shield=True):
                        done = await ctx.run(function(name), "cleanup")
                        await ctx.sleep(5)
        except* Oops:
            pass
        return str(done + await ctx.run(the_step, " end"))

    outcome = await check_same(world, workflow, f"{name}-1")
    assert ("cleanup end", ["cleanup", " end"]) == (outcome.result, outcome.ran)
    assert outcome.lasted < 6


@each_made
@pytest.mark.parametrize("cleanup", ["run", "gathered", "in_a_lane", "first", "child"])
async def test_kinds_of_clean_up(world: World, made: Made, cleanup: str) -> None:
    """The same for all that may follow, groups too: one in a row with the first is another one."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        try:
            async with ctx.task_group() as tg:
                tg.start_soon(failing, ctx)
                await lives.plainly()
                await made(ctx)
        except* Oops:
            pass
        await MADE[cleanup](ctx)
        await ctx.run(the_undo, "last")
        await ctx.sleep(5)
        return "end"

    async def failing(ctx: Context) -> None:
        await ctx.run(broken)

    outcome = await check_same(world, workflow, "undo-1")
    assert outcome.lasted < 6


@each_made
@same_or_other
async def test_durable_scope(world: World, made: Made, name: str) -> None:
    """A durable scope expires while its body is in a plain sleep, after a call that carries its instant."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        with ctx.move_on_after(4):
            await ctx.run(the_step, "before")
            await lives.plainly()
            await made(ctx)
        first = await ctx.run(function(name), "cleanup")
        await ctx.sleep(5)
        return str(first + await ctx.run(the_step, " end"))

    outcome = await check_same(world, workflow, "step-2" if name == "step" else "undo-1")
    assert ("cleanup end", ["before", "cleanup", " end"]) == (outcome.result, outcome.ran)
    assert outcome.lasted < 6


@each_made
@same_or_other
async def test_durable_scope_that_nothing_tells_of(world: World, made: Made, name: str) -> None:
    """If no call carries its instant, the scope begins anew, and the call after the sleep waits for that."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        with ctx.move_on_after(4):
            await lives.plainly()
            await made(ctx)
        first = await ctx.run(function(name), "cleanup")
        await ctx.sleep(5)
        return str(first + await ctx.run(the_step, " end"))

    outcome = await check_same(world, workflow, f"{name}-1")
    assert ("cleanup end", ["cleanup", " end"]) == (outcome.result, outcome.ran)
    assert outcome.lasted < 10


@each_made
@pytest.mark.parametrize("after", ["call", "choice"])
async def test_long_scope_that_nothing_tells_of(world: World, made: Made, after: str) -> None:
    """It does not expire while the call waits: the first run had the time for that, and what is on record is outside.

    A choice that comes after it does not say when it was made.
    """

    async def workflow(ctx: Context, lives: Lives) -> str:
        with ctx.move_on_after(50), ctx.move_on_after(5000):
            await lives.plainly(200)
            await made(ctx)
        if after == "choice":
            await ctx.now()
        first = await ctx.run(the_undo, "cleanup")
        await ctx.sleep(5)
        return str(first + await ctx.run(the_step, " end"))

    outcome = await check_same(world, workflow, "undo-1")
    assert ("cleanup end", ["cleanup", " end"]) == (outcome.result, outcome.ran)
    assert outcome.lasted < 40


async def test_scope_without_the_time_to_expire(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A scope that is longer than the first run took is not why that has left it: the code has changed."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        with ctx.move_on_after(50) as scope:
            await anyio.sleep(10)
            if lives.count > 1:
                await ctx.run(the_step, "inserted")
        first = await ctx.run(the_undo, "cleanup")
        await ctx.sleep(5)
        return f"{first}, expired: {scope.cancelled_caught}"

    outcome = await lived(world, workflow, "undo-1")
    assert ("cleanup, expired: False", ["cleanup", "inserted"]) == (outcome.result, outcome.ran)
    assert "replay.differs" in caplog.text


# Plain scopes


async def plain(ctx: Context, kind: str, code: Callable[[], Awaitable[object]]) -> None:
    """Do something for four seconds at most, or until somebody cancels it."""
    if kind == "timeout":
        try:
            async with asyncio.timeout(4):
                await code()
        except TimeoutError:
            pass
        return
    with anyio.move_on_after(4) if kind == "deadline" else CancelScope() as scope:
        async with anyio.create_task_group() if kind == "by hand" else nullcontext() as tasks:
            if tasks is not None:
                tasks.start_soon(_cancel, scope)
            await code()
    assert ctx.id == "w"


async def _cancel(scope: CancelScope) -> None:
    await anyio.sleep(4)
    scope.cancel()


@each_made
@pytest.mark.parametrize(
    ("anyio_backend", "kind"),
    [
        ("asyncio", "deadline"),
        ("trio", "deadline"),
        ("asyncio", "by hand"),
        ("trio", "by hand"),
        ("asyncio", "timeout"),
    ],
    indirect=["anyio_backend"],
)
async def test_plain_scope(world: World, made: Made, kind: str) -> None:
    """A plain deadline fires in a plain sleep: a call that comes to its place sooner waits for it, and is not made."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        async def code() -> None:
            await lives.plainly()
            await made(ctx)

        await plain(ctx, kind, code)
        first = await ctx.run(the_undo, "cleanup")
        await ctx.sleep(5)
        return str(first + await ctx.run(the_step, " end"))

    outcome = await check_same(world, workflow, "undo-1")
    assert ("cleanup end", ["cleanup", " end"]) == (outcome.result, outcome.ran)
    assert outcome.lasted < 10


# What is on record


async def test_positions_on_record(world: World) -> None:
    """Each call and choice has its lane, its number and the blocks around it on record; nothing else has."""

    async def workflow(ctx: Context, lives: Lives) -> None:
        never_made = ctx.run(the_step, "never made")
        never_made.excuse()
        await ctx.run(the_step, "2")
        async with ctx.task_group() as tg:
            tg.run(the_step, "3")
            tg.start_soon(_run, ctx)
            with ctx.move_on_after(5):
                await ctx.run(the_undo, "5").named("five")
        async for _ in ctx.as_completed(ctx.run(the_step, "6"), ctx.sleep(1)):
            pass
        await ctx.now()
        try:
            async with ctx.task_group() as tg:
                tg.run(broken, 0)
                try:
                    await anyio.sleep(1)
                finally:
                    with CancelScope(shield=True):
                        await ctx.run(child, "11")
        except* Oops:
            pass
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run, ctx)
        await ctx.detached(the_step, "detached").timeout(100)
        await lives.plainly(0.1)

    async def w(ctx: Context) -> None:
        global the_step, the_undo
        the_step, the_undo = step, undo
        await workflow(ctx, Lives())

    async def step(_: str) -> None: ...

    async def undo(_: str) -> None: ...

    async with world.process(w, step) as process:
        await process.resonate.run("w", w)
        records = (
            await process.resonate.promises.get("w"),
            *[promise async for promise in process.resonate.promises.search()],
        )
    positions = {
        record.id.removeprefix("w.").partition(".d")[0]: record.tags["resonate-anyio:position"]
        for record in records
        if "resonate-anyio:position" in record.tags
    }
    detached = [positions.pop(id) for id in list(positions) if id.startswith("d")]
    assert ["0/12/"] == detached
    assert {
        "step-2": "0/2/",
        "step-3": "0/3/2",
        "step-1t1": "1@4/1/2",
        "five": "0/5/2.4",
        "step-4": "0/6/",
        "sleep-1": "0/7/",
        "~completed-1-1": "0/8.1/",
        "~completed-1-2": "0/8.2/",
        "~now-1": "0/9/",
        "broken-1": "0/10/9",
        "child-1": "0/11/9!",
        "child-1.step-1": "0/1/!",
        "step-1tp1": "p1/1/",
    } == positions


# Code that has changed


def inserted(*, after: float) -> Workflow:
    """A workflow that makes another call before the second one, from its second life on."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        await ctx.run(the_step, "first")
        if lives.count == 1:
            await anyio.sleep(after)
        else:
            await ctx.run(the_undo, "inserted")
        await ctx.run(the_step, "second")
        await ctx.sleep(500)
        return str(await ctx.run(the_step, "third"))

    return workflow


@pytest.mark.parametrize(("after", "waits"), [(2, 3), (0, 1), (100, 30)])
async def test_a_call_that_nothing_cancels(
    world: World, caplog: pytest.LogCaptureFixture, after: float, waits: float
) -> None:
    """It waits for as long as lay between its neighbours on record, and a second more, 30 s at most; then it is made.

    From there on its function is replayed by ids alone, now and in later replays.
    """
    outcome = await lived(world, inserted(after=after), "step-2", sleep=waits + 1)
    assert "third" == outcome.result
    assert ["first", "second", "inserted", "third"] == outcome.ran
    assert waits == pytest.approx(outcome.inserted_at, abs=0.2)
    assert 1 == caplog.text.count("replay.differs")
    assert "test_positions.py" in caplog.text


async def test_a_function_that_a_version_without_positions_has_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replayed as before: nothing is compared, and nothing waits."""
    tags = Invocation._tags

    def without_position(self: Invocation, own: dict[str, str]) -> dict[str, str]:
        return {tag: text for tag, text in tags(self, own).items() if tag != POSITION_TAG}

    with monkeypatch.context() as patch:
        patch.setattr(Invocation, "_tags", without_position)
        outcome = await lived(world, inserted(after=2), "step-2", unpatch=patch.undo, sleep=3)
    assert ["first", "second", "inserted", "third"] == outcome.ran
    assert 0 == pytest.approx(outcome.inserted_at, abs=0.2)


# Some in particular


@same_or_other
async def test_clean_up_that_is_refused(world: World, name: str) -> None:
    """A call that follows without a shield is cancelled at once, and tells where the group was."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        try:
            async with ctx.task_group() as tg:
                tg.run(broken)
                try:
                    await lives.plainly()
                    await ctx.run(the_step, "body")
                finally:
                    await ctx.run(function(name), "refused")
        except* Oops:
            pass
        await ctx.sleep(5)
        return str(await ctx.run(the_undo, "end"))

    outcome = await lived(world, workflow, f"{name}-1")
    assert ("end", ["end"]) == (outcome.result, outcome.ran)
    assert outcome.lasted < 6


@pytest.mark.parametrize("status", [403, 501])
async def test_history_that_is_partial(world: World, status: int) -> None:
    """A remote call that is looked up is compared like one that was found: it may be that of a later place."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        try:
            async with ctx.task_group() as tg:
                tg.run(broken)
                await lives.plainly()
                await ctx.rpc(the_step, "body")
        except* Oops:
            pass
        first = await ctx.rpc(the_step, "cleanup").returns(str)
        await ctx.sleep(5)
        return first + await ctx.rpc(the_step, " end").returns(str)

    outcome = await lived(world, workflow, "step-1", refuses=status)
    assert ("cleanup end", ["cleanup", " end"]) == (outcome.result, outcome.ran)


@pytest.mark.parametrize("downtime", [0, 40])
async def test_member_whose_turn_has_not_come(world: World, downtime: float) -> None:
    """A member that is never begun keeps its number on a replay, if the code has made calls since it was added."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        with ctx.move_on_after(4):
            async with ctx.task_group(limit=1) as tg:
                tg.run(the_step, "long", 100)
                tg.run(the_undo, "waiting")
                await ctx.run(the_step, "body")
                await lives.plainly()
        await ctx.run(the_undo, "cleanup")
        await ctx.sleep(5)
        return str(await ctx.run(the_undo, "end"))

    outcome = await lived(world, workflow, "undo-2", downtime=downtime)
    # The member and the body begin in any order.
    began, rest = sorted(outcome.ran[:2]), outcome.ran[2:]
    assert ("end", ["body", "long"], ["cleanup", "end"]) == (outcome.result, began, rest)
    assert {"w.undo-2", "w.undo-3"} == {id for id in outcome.records if "undo" in id}


async def test_a_lane_that_is_started_later(world: World) -> None:
    """A lane that the function starts later on does not keep the number of a call that the first run never made."""

    async def workflow(ctx: Context, lives: Lives) -> str:
        try:
            async with ctx.task_group() as tg:
                tg.run(broken, 0)
                await lives.plainly(later=0)
                await ctx.run(the_step, "body")
        except* Oops:
            pass
        first = await ctx.run(the_step, "after")
        async with ctx.task_group() as tg:
            tg.start_soon(_undone, ctx)
        await ctx.sleep(5)
        return str(first + await ctx.run(the_step, " end"))

    outcome = await check_same(world, workflow, "undo-1t1")
    assert ("after end", ["after", "lane", " end"]) == (outcome.result, outcome.ran)


async def _undone(ctx: Context) -> None:
    await ctx.run(the_undo, "lane")


async def test_code_in_lanes_is_not_cut(world: World) -> None:
    """A group is cancelled when all its tasks have come as far as they had the first time, plain awaits included."""

    async def workflow(ctx: Context, _: Lives) -> list[str]:
        done: list[str] = []

        async def member(name: str, steps: int) -> None:
            mine: list[str] = []
            try:
                for number in range(steps):
                    await anyio.sleep(1)
                    mine.append(await ctx.run(the_step, f"{name}{number}"))
                await anyio.sleep(100)
            finally:
                with CancelScope(shield=True):
                    done.extend([await ctx.run(the_step, f"undo {text}") for text in mine])

        try:
            async with ctx.task_group() as tg:
                tg.start_soon(member, "a", 1)
                tg.start_soon(member, "b", 3)
                tg.run(broken)
                await ctx.sleep(100)
        except* Oops:
            pass
        await ctx.run(the_undo, "last")
        await ctx.sleep(5)
        return sorted(done)

    outcome = await check_same(world, workflow, "undo-1")
    assert ["undo a0", "undo b0", "undo b1", "undo b2"] == outcome.result
