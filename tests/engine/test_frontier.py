"""A replay reads the live frontier: of a call that has ended its outcome alone, and not what is below it."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any, Final

import anyio
import pytest

from resonate_anyio import Context, DurableCancelledError
from resonate_anyio._ids import Naming
from resonate_anyio._protocol import (
    ANNOUNCED,
    SNAPSHOT,
    Promise,
    PromiseGet,
    PromiseSearch,
    PromiseState,
    RegisterListener,
    Request,
    Response,
    TaskAcquire,
    TaskState,
)
from resonate_anyio._requests import _queries
from resonate_anyio._requests._queries import frontier, scan
from resonate_anyio._worker import _acquisition

from .harness import Look, Process, Wire, World, is_mark, settles

SEPARATORS: Final = pytest.mark.parametrize(
    ("rules", "separator"), [pytest.param(SNAPSHOT, ".", id="dot"), pytest.param(ANNOUNCED, ":", id="colon")]
)
STEPS: Final = 60

RAN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """No step of a test has run."""
    RAN.clear()


async def step(name: str) -> str:
    RAN.append(name)
    return name


async def sub(ctx: Context, name: str, steps: int) -> int:
    return len([await ctx.run(step, f"{name}.{number}") for number in range(steps)])


async def flow(ctx: Context, subs: int, steps: int) -> int:
    done = sum([await ctx.run(sub, str(number), steps) for number in range(subs)])
    await ctx.promise().named("go")
    return done


def records_read(wire: Wire) -> int:
    """How many records came with acquires and searches."""
    answers = [one.response for one in wire.exchanges if isinstance(one.request, (TaskAcquire, PromiseSearch))]
    return sum(len(answer.promises) + len(answer.preload) for answer in answers)


def cursors(wire: Wire) -> list[str | None]:
    """Where the pages of searches began."""
    return [one.request.cursor for one in wire.exchanges if isinstance(one.request, PromiseSearch)]


def asked_for(wire: Wire) -> set[str]:
    """The promises that were asked for one by one."""
    return {one.request.id for one in wire.exchanges if isinstance(one.request, PromiseGet)}


async def replayed(world: World, separator: str, subs: int, steps: int) -> Wire:
    """Run `flow` in a process that is killed while it waits, and end it in the next one; return what that has said."""
    async with world.process(flow) as process:
        await process.resonate.run("w", flow, subs, steps).spawn()
        await anyio.sleep(10)
        process.kill()
    async with world.process(flow) as process:
        await process.resonate.promises.resolve(f"w{separator}go")
        assert subs * steps == await (await process.resonate.get("w", int))
        assert [] == [id for id in process.wire.created() if not is_mark(id)]
        return process.wire


@SEPARATORS
async def test_finished_calls_are_one_record(world: World, rules: Any, separator: str) -> None:
    """What is below finished calls is not read, and a page that ends there is followed by one behind it."""
    world.rules = rules
    wire = await replayed(world, separator, 12, STEPS)
    assert len(RAN) == len(set(RAN)) == 12 * STEPS
    # Each sub-workflow comes with the lease and once more in a page of 8, the first of which has 12 more.
    assert records_read(wire) < 12 * 12
    assert f"w{separator}sub-1/" in cursors(wire)


async def test_small_calls_are_read_over(world: World) -> None:
    """Below calls with few steps a page goes on: that is cheaper than a request for each call."""
    wire = await replayed(world, ".", 40, 2)
    assert 4 >= len(cursors(wire))


@SEPARATORS
async def test_unfinished_calls_are_read(world: World, rules: Any, separator: str) -> None:
    """Of calls that have not ended everything is read, at any depth."""
    world.rules = rules

    async def leafy(ctx: Context, name: str) -> None:
        await ctx.run(sub, f"{name}.done", STEPS)
        await ctx.run(step, f"{name}.before")
        await ctx.sleep(10)
        await ctx.run(step, f"{name}.after")

    async def middle(ctx: Context, name: str) -> None:
        async with ctx.task_group() as tg:
            tg.run(leafy, f"{name}.a")
            tg.run(leafy, f"{name}.b")

    async def top(ctx: Context) -> None:
        async with ctx.task_group() as tg:
            tg.run(middle, "c")
            tg.run(middle, "d")

    async with world.process(top) as process:
        await process.resonate.run("w", top).spawn()
        await anyio.sleep(5)
        process.kill()
    async with world.process(top) as process:
        assert await (await process.resonate.get("w")) is None
        assert not [id for id in process.wire.created() if "before" in id or "sleep" in id]
        assert records_read(process.wire) < 150
    assert len(RAN) == len(set(RAN)) == 4 * (STEPS + 2)


async def test_branches(world: World) -> None:
    """The branch of a local call is its caller, at any depth; calls and choices come with it."""

    async def deep(ctx: Context) -> None:
        await ctx.first(ctx.run(step, "x"), ctx.run(step, "y"))

    async def middle(ctx: Context) -> None:
        await ctx.run(deep)

    async def top(ctx: Context) -> None:
        await ctx.run(middle)

    async with world.process(top) as process:
        await process.resonate.run("w", top)
        rows = {one.id: one.tags["resonate:branch"] async for one in process.resonate.promises.search()}
    assert {
        "w": "w",
        "w.middle-1": "w",
        "w.middle-1.deep-1": "w.middle-1",
        "w.middle-1.deep-1.step-1": "w.middle-1.deep-1",
        "w.middle-1.deep-1.step-2": "w.middle-1.deep-1",
        "w.middle-1.deep-1.~first-1": "w.middle-1.deep-1",
    } == rows


# Calls that were settled from outside


async def inner(ctx: Context) -> None:
    await ctx.promise().named("inner")


async def outer(ctx: Context) -> str:
    future = await ctx.run(inner).spawn()
    await ctx.promise().named("outer")
    with pytest.raises(DurableCancelledError):
        await future
    return "went on"


async def nested(ctx: Context, count: int) -> list[str]:
    async with ctx.task_group() as tg:
        calls = [tg.run(outer) for _ in range(count)]
    return [call.result() for call in calls]


@pytest.mark.parametrize("searches", [True, False])
@pytest.mark.parametrize("count", [1, 12])
async def test_cancelled_while_parked(world: World, count: int, *, searches: bool) -> None:
    """A nested call that was cancelled meanwhile is seen to be when the task is taken back, without a message."""
    process = world.process(nested, hot_for=0)
    pending = Promise(id="", timeout_at=10**15, created_at=0)

    def answer(request: Request) -> Response | None:
        if isinstance(request, RegisterListener) and request.awaited.endswith("inner-1"):
            return Response(status=200, promise=pending)
        if isinstance(request, PromiseSearch) and not searches:
            return Response(status=403, error="Forbidden")
        return None

    process.wire.answer = answer
    async with process:
        handle = await process.resonate.run("w", nested, count).spawn()
        await anyio.sleep(60)
        look = Look(process.resonate)
        assert TaskState.SUSPENDED is (await look.task("w")).state
        for number in range(1, count + 1):
            await look.settle(f"w.outer-{number}.inner-1", None, process.resonate, PromiseState.CANCELED.value)
        await anyio.sleep(10)
        process.wire.forget()
        for number in range(1, count + 1):
            await process.resonate.promises.resolve(f"w.outer-{number}.outer")
        assert ["went on"] * count == await handle
        gets = asked_for(process.wire)
        assert (count > 8) == ("promise.search" in process.wire.kinds)
        assert (count <= 8 or not searches) == any(id.endswith("inner-1") for id in gets)
        assert "pending" not in (await look.states()).values()


async def test_cancelled_while_unloaded(world: World) -> None:
    """A nested call that was cancelled while no process ran it has that outcome."""
    async with world.process(nested) as process:
        await process.resonate.run("w", nested, 1).spawn()
        await anyio.sleep(10)
        process.kill()
    async with world.process() as process:
        await process.resonate.promises.cancel("w.outer-1.inner-1")
        await process.resonate.promises.resolve("w.outer-1.outer")
    async with world.process(nested) as process:
        assert ["went on"] == await (await process.resonate.get("w"))
        assert "pending" not in (await Look(process.resonate).states()).values()


async def test_settled_between_lease_and_scan(world: World) -> None:
    """A call that was settled after the records had come with the lease has that outcome: the scan is later."""
    async with world.process(nested) as process:
        await process.resonate.run("w", nested, 1).spawn()
        await anyio.sleep(10)
        process.kill()
    process = world.process(nested)

    async def settle(request: Request) -> None:
        if isinstance(request, PromiseSearch):
            process.wire.before = _nothing
            await Look(process.resonate).settle("w.outer-1", "from outside", process.resonate)

    process.wire.before = settle
    async with process:
        assert ["from outside"] == await (await process.resonate.get("w"))


async def _nothing(_: Request) -> None: ...


# Records of the version before


def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give all local calls the root's branch, and read everything below it, as the version before did."""
    monkeypatch.setattr(Naming, "branch", lambda self, _parent, _id: self.id)
    monkeypatch.setattr(_acquisition, "frontier", scan)


async def pair(ctx: Context, name: str) -> str:
    first = await ctx.run(step, f"{name}.first")
    await ctx.sleep(10)
    return first + await ctx.run(step, f"{name}.second")


async def pairs(ctx: Context) -> list[str]:
    done = await ctx.run(pair, "a")
    async with ctx.task_group() as tg:
        both = [tg.run(pair, "b"), tg.run(pair, "c")]
    return [done, *[each.result() for each in both], await ctx.run(pair, "d")]


@pytest.mark.parametrize("order", ["old new", "new old", "old new old", "new old new"])
async def test_versions_in_turn(world: World, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    """An execution that two versions work on in turn runs each step once, whichever of them began it."""
    for number, version in enumerate(order.split()):
        with monkeypatch.context() as patch:
            if version == "old":
                as_before(patch)
            async with world.process(pairs) as process:
                if number == 0:
                    await process.resonate.run("w", pairs).spawn()
                await anyio.sleep(15)
                process.kill()
    async with world.process(pairs) as process:
        result = await (await process.resonate.get("w", list[str]))
    assert [f"{name}.first{name}.second" for name in "abcd"] == result
    assert sorted(f"{name}.{which}" for name in "abcd" for which in ("first", "second")) == sorted(RAN)


# Without searches


async def choosing(ctx: Context) -> int:
    first = await ctx.run(step, "before")
    with ctx.fail_after(1000):
        await ctx.promise().named("made")
    index, _ = await ctx.first(ctx.run(step, "x"), ctx.sleep(50))
    await ctx.run(step, "after")
    return len(first) + index


async def chooser(ctx: Context) -> int:
    return await ctx.run(choosing) + await ctx.run(sub, "sub", 3)


@pytest.mark.parametrize("instant", ["choosing-1.step-3", "sub-1.step-2", "sub-1"])
async def test_without_searches(world: World, instant: str) -> None:
    """Each call of a nested workflow is asked for by its id; none is made anew, and new frames cost no look."""

    def process() -> Process:
        process = world.process(chooser)
        refused = Response(status=403, error="Forbidden")
        process.wire.answer = lambda request: refused if isinstance(request, PromiseSearch) else None
        return process

    first = process()
    first.kill_at(settles(f"w.{instant}"), answered=True)
    async with first:
        await first.resonate.promises.create("w.choosing-1.made", 10**15)
        await first.resonate.run("w", chooser).spawn()
        await anyio.sleep(1)
        await first.resonate.promises.resolve("w.choosing-1.made")
        await first.killed.wait()
    ran = list(RAN)
    async with process() as second:
        assert 9 == await (await second.resonate.get("w", int))
        asked = asked_for(second.wire)
        created = second.wire.created()
    assert len(set(RAN)) == len(RAN), (ran, RAN)
    assert not {f"w.{instant}", "w.choosing-1.~first-1", "w.choosing-1.step-1"} & set(created)
    assert ("w.choosing-1.~first-1" in asked) == instant.startswith("choosing")
    # A frame that this run has begun has nothing on record.
    assert (instant == "sub-1.step-2") == any(id.startswith("w.sub-1.") for id in asked)


# The scan itself


class Server:
    """Answers searches out of a list of records, sorted by `key`."""

    def __init__(self, records: Iterable[Promise], key: Callable[[str], Any] = str.encode) -> None:
        self.key = key
        self.records = sorted(records, key=lambda record: key(record.id))
        self.ids = [key(record.id) for record in self.records]
        self.read = 0

    async def request(self, request: Request) -> Response:
        assert isinstance(request, PromiseSearch)
        assert request.cursor is not None
        assert request.limit is not None
        begin = bisect_right(self.ids, self.key(request.cursor))
        page = self.records[begin : begin + request.limit]
        self.read += len(page)
        more = begin + request.limit < len(self.records)
        return Response(status=200, promises=tuple(page), cursor=page[-1].id if more else None)


STATES: Final = [PromiseState.PENDING, PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.CANCELED]
SEGMENTS: Final = ["a-1", "a-1-2", "a-10", "a-1t2-1", "~first-1", "~wake-1", "B-1", "_-1", "z"]


def tree(chance: random.Random, id: str, depth: int) -> list[Promise]:
    """Records below an id."""
    found: list[Promise] = []
    for segment in chance.sample(SEGMENTS, chance.randrange(len(SEGMENTS) + 1) if depth else 0):
        separator = ":" if ":" not in id and chance.random() < 0.05 else "."
        child = f"{id}{separator}{segment}"
        elsewhere = {"resonate:target": "poll://any@g"} if chance.random() < 0.2 else {}
        found.append(Promise(id=child, state=chance.choice(STATES), tags=elsewhere, timeout_at=1, created_at=1))
        found += tree(chance, child, depth - 1)
    return found


def wanted(records: list[Promise], start: str) -> set[str]:
    """What a replay can ask for: what is below no closed call."""
    closed = {
        record.id
        for record in records
        if (record.target is not None if record.pending else record.state is not PromiseState.CANCELED)
    }
    return {
        record.id
        for record in records
        if record.id.startswith(start)
        and not any(record.id.startswith(f"{each}.") and each.startswith(start) for each in closed)
    }


@pytest.mark.parametrize("number", range(60))
async def test_any_tree(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan finds exactly what is below no call that has ended or runs elsewhere, whatever the pages are."""
    chance = random.Random(number)  # noqa: S311 - nothing here is secret
    monkeypatch.setattr(_queries, "_FIRST_PAGE", chance.choice([1, 2, 8]))
    records = [*tree(chance, "w", 4), *tree(chance, "w1", 2), *tree(chance, "v", 2)]
    server = Server(records)
    found = [record.id async for record in frontier(server.request, "w.", chance.choice([0, 3, 40]))]
    assert len(set(found)) == len(found)
    assert wanted(records, "w.") == set(found)


async def test_server_with_another_order() -> None:
    """On a server that does not sort by bytes the scan ends, and finds the same."""
    order = "./-_:" + "0123456789abcdefghijklmnopqrstuvwxyz~"
    reverse = order.replace("./", "/.")
    records = tree(random.Random(7), "w", 4)  # noqa: S311 - nothing here is secret
    server = Server(records, key=lambda id: [reverse.find(char) for char in id.lower()])
    found = [record.id async for record in frontier(server.request, "w.")]
    assert wanted(records, "w.") <= set(found)


async def test_old_worker_reads_the_new_shape(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of the version before reads all records of the new shape: it runs no step again."""
    async with world.process(flow) as process:
        await process.resonate.run("w", flow, 3, 5).spawn()
        await anyio.sleep(10)
        process.kill()
    as_before(monkeypatch)
    async with world.process(flow) as process:
        await process.resonate.promises.resolve("w.go")
        assert 15 == await (await process.resonate.get("w", int))
        assert [] == [id for id in process.wire.created() if "wake" not in id and not is_mark(id)]
    assert 15 == len(RAN)


async def test_resume_reads_less(world: World) -> None:
    """A parked execution is resumed with the records of its root's level, and not with those of nested calls."""
    async with world.process(flow, hot_for=1) as process:
        handle = await process.resonate.run("w", flow, 3, STEPS).spawn()
        await anyio.sleep(10)
        process.wire.forget()
        await process.resonate.promises.resolve("w.go")
        assert 3 * STEPS == await handle
        assert 3 == records_read(process.wire)
        assert "promise.get" not in process.wire.kinds


async def test_cancelled_call_is_looked_below(world: World) -> None:
    """Below a remote call whose canceller died before it cancelled the rest, the rest is found and cancelled."""

    async def far(ctx: Context) -> None:
        await ctx.run(deep)

    async def deep(ctx: Context) -> None:
        await ctx.promise().named("stays")

    async def caller(ctx: Context) -> str:
        future = await ctx.rpc(far).spawn()
        await ctx.promise().named("go")
        with pytest.raises(DurableCancelledError):
            await future
        return "done"

    async with world.process(caller, far) as process:
        await process.resonate.run("w", caller).spawn()
        await anyio.sleep(10)
        process.kill()
    async with world.process() as process:
        look = Look(process.resonate)
        for id in ("w.far-1", "w.far-1.deep-1"):
            await look.settle(id, None, process.resonate, PromiseState.CANCELED.value)
        await process.resonate.promises.resolve("w.go")
    async with world.process(caller, far) as process:
        assert "done" == await (await process.resonate.get("w"))
        assert "rejected_canceled" == (await process.resonate.promises.get("w.far-1.deep-1.stays")).state
