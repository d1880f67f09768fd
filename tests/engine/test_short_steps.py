"""Short steps: a leaf that returns within 50 ms is recorded once, after it has run (docs/semantics.md 7.5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import anyio
import pytest
from anyio import CancelScope

from resonate_anyio import (
    Constant,
    Context,
    DurableCancelledError,
    DurableTimeoutError,
    NetworkError,
    NotFound,
    RequestError,
    Resonate,
    TooLarge,
    durable,
)
from resonate_anyio._finished import FINISHED_TAG, Finished
from resonate_anyio._protocol import Promise, PromiseCreate, PromiseGet, PromiseState, Request, Response, TaskAcquire
from resonate_anyio.abc import Network

from ..inside import worker_of
from .harness import Oops, Wire, World, creates, settles

Body: TypeAlias = Callable[[Context], Awaitable[object]]


@pytest.fixture
def resonate(wire: Wire) -> Resonate:
    """An object that records short steps once, on any network."""
    return Resonate(network=wire, pid="p", one_request=True)


async def leaf(value: int = 1, seconds: float = 0) -> int:
    await anyio.sleep(seconds)
    return value


async def broken(seconds: float = 0) -> None:
    await anyio.sleep(seconds)
    raise Oops


def in_a_thread(value: int) -> int:
    return value


async def inner(ctx: Context) -> int:
    return await ctx.run(leaf)


async def _in_place(ctx: Context) -> None:
    for number in range(4):
        await ctx.run(leaf, number)


async def _in_a_group(ctx: Context) -> None:
    async with ctx.task_group() as tg:
        for number in range(4):
            tg.run(leaf, number)


async def _in_lanes(ctx: Context) -> None:
    async with ctx.task_group() as tg:
        for number in range(4):
            tg.start_soon(_once, ctx, number)


async def _in_plain_tasks(ctx: Context) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(_once, ctx, number)


async def _once(ctx: Context, number: int) -> None:
    await ctx.run(leaf, number)


async def _gathered(ctx: Context) -> None:
    await ctx.gather(*(ctx.run(leaf, number) for number in range(4)))


async def _mapped(ctx: Context) -> None:
    await ctx.map(leaf, range(4), limit=2)


async def _nearly_long(ctx: Context) -> None:
    for number in range(4):
        await ctx.run(leaf, number, 0.049)


async def _in_a_scope(ctx: Context) -> None:
    with ctx.move_on_after(10):
        await _in_place(ctx)


async def _named(ctx: Context) -> None:
    for number in range(4):
        await ctx.run(leaf, number).named(f"name-{number}").timeout(5)


async def _long(ctx: Context) -> None:
    for number in range(4):
        await ctx.run(leaf, number, 0.051)


async def _spawned(ctx: Context) -> None:
    for future in [await ctx.run(leaf, number).spawn() for number in range(4)]:
        await future


async def _first(ctx: Context) -> None:
    for number in range(2):
        await ctx.first(ctx.run(leaf, number), ctx.run(leaf, 100, 0.02))


async def _completed(ctx: Context) -> None:
    async for _ in ctx.as_completed(*(ctx.run(leaf, number) for number in range(4))):
        pass


async def _failing(ctx: Context) -> None:
    for _ in range(4):
        with pytest.raises(Oops):
            await ctx.run(broken)


async def _retried(ctx: Context) -> None:
    for number in range(4):
        await ctx.run(_fails_once, number, []).retry(Constant(delay=0.001, attempts=2))


async def _fails_once(number: int, failures: list[int]) -> int:
    if not failures:
        failures.append(number)
        raise Oops
    return number


async def _cancelled(ctx: Context) -> None:
    for number in range(4):
        with anyio.move_on_after(0.01):
            await ctx.run(leaf, number, 0.02)


async def _workflows(ctx: Context) -> None:
    for _ in range(4):
        await ctx.run(inner)


SHAPES: Final[dict[str, tuple[Body, int, int]]] = {
    "in place": (_in_place, 4, 0),
    "in a durable group": (_in_a_group, 4, 0),
    "in lanes of a durable group": (_in_lanes, 4, 0),
    "in plain tasks": (_in_plain_tasks, 4, 0),
    "gather": (_gathered, 4, 0),
    "map": (_mapped, 4, 0),
    "49 ms": (_nearly_long, 4, 0),
    "in a durable scope": (_in_a_scope, 4, 0),
    "with options": (_named, 4, 0),
    "51 ms": (_long, 4, 4),
    "spawned": (_spawned, 4, 4),
    # With one choice each.
    "first": (_first, 6, 4),
    "as completed": (_completed, 8, 4),
    "failing": (_failing, 4, 4),
    "at the second attempt": (_retried, 4, 4),
    "cancelled": (_cancelled, 4, 4),
    # Their leaves are short.
    "workflows": (_workflows, 8, 4),
}
"""For each shape of four calls, how many requests create and how many settle."""


@pytest.mark.parametrize(("body", "created", "settled"), SHAPES.values(), ids=SHAPES)
async def test_requests(resonate: Resonate, wire: Wire, body: Body, created: int, settled: int) -> None:
    """A short step takes one request wherever it is made; what is not short, or is awaited otherwise, takes two."""

    async def flow(ctx: Context) -> None:
        await body(ctx)

    resonate.register(flow)
    async with resonate:
        await resonate.run("w", flow)
        counts = wire.counts()
    assert (created, settled) == (counts.get("promise.create", 0), counts.get("promise.settle", 0))


async def test_in_a_thread(resonate: Resonate, wire: Wire) -> None:
    """A leaf without async takes one request too, unless its thread takes long to get a turn."""

    async def flow(ctx: Context) -> int:
        return await ctx.run(in_a_thread, 7)

    resonate.register(flow)
    async with resonate:
        assert 7 == await resonate.run("w", flow)
    assert wire.created().count("w.in_a_thread-1") == 1


async def test_record(resonate: Resonate) -> None:
    """What is stored is born resolved and has all else in a tag; whoever reads it sees a call that was settled."""

    async def flow(ctx: Context) -> int:
        return await ctx.run(leaf, 7, 0.02).timeout(60)

    resonate.register(flow)
    async with resonate:
        began = worker_of(resonate).connection.now()
        await resonate.run("w", flow)
        stored = (await worker_of(resonate).connection.request(PromiseGet(id="w.leaf-1"))).promise
        read = await resonate.promises.get("w.leaf-1")
        [found] = [each async for each in resonate.promises.search() if each.id == "w.leaf-1"]
        value = await (await resonate.get("w.leaf-1", int))
    assert isinstance(stored, Promise)
    assert ("resolved", "true") == (stored.state, stored.tags["resonate:timer"])
    assert stored.settled_at == stored.timeout_at <= began
    finished = Finished.of(stored)
    assert finished is not None
    assert (began + 20, began + 60_000, 1, "p") == (
        finished.ended_at,
        finished.timeout_at,
        finished.attempts,
        finished.pid,
    )
    assert (began, began + 20) == (finished.started_at, finished.ended_at)
    assert 7 == read.value == value
    assert read == found
    assert (FINISHED_TAG in read.tags, "resonate:timer" in read.tags) == (False, False)
    assert (began + 60_000) / 1000 == read.timeout_at.timestamp()


async def test_it_is_unknown_at_first(resonate: Resonate) -> None:
    """In its first 50 ms a step is not on record; after that it is pending, and can be cancelled by its id."""

    async def flow(ctx: Context) -> str:
        try:
            await ctx.run(leaf, 1, 10)
        except DurableCancelledError:
            return "cancelled"
        return "not cancelled"

    resonate.register(flow)
    async with resonate:
        handle = await resonate.run("w", flow).spawn()
        await anyio.sleep(0.04)
        with pytest.raises(NotFound):
            await resonate.promises.get("w.leaf-1")
        await anyio.sleep(0.02)
        assert "pending" == (await resonate.promises.get("w.leaf-1")).state
        await resonate.promises.cancel("w.leaf-1")
        with anyio.fail_after(5):
            assert "cancelled" == await handle


@pytest.mark.parametrize("seconds", [0.001, 0.049, 0.051, 5])
async def test_killed_between_end_and_record(world: World, seconds: float) -> None:
    """A step whose process dies before its end is on record runs again, and its result is what the second run gives."""
    runs: list[int] = []

    async def step() -> int:
        await anyio.sleep(seconds)
        runs.append(len(runs))
        return len(runs)

    async def flow(ctx: Context) -> list[int]:
        return [await ctx.run(step), await ctx.run(step)]

    process = world.process(flow, one_request=True)
    process.kill_at(settles("w.step-2"), answered=False)
    await world.run_until_killed(process, "w", flow)
    assert 2 == len(runs)
    async with world.process(flow, one_request=True) as process:
        assert [1, 3] == await (await process.resonate.get("w", list[int]))
    assert 3 == len(runs)


@pytest.mark.parametrize("seconds", [0, 0.049, 0.051])
async def test_lanes_of_plain_tasks_keep_their_results(world: World, seconds: float) -> None:
    """Plain tasks whose first steps were in flight at a kill do not get each other's results."""

    async def step(value: str, takes: float) -> str:
        await anyio.sleep(takes)
        return value

    async def flow(ctx: Context) -> list[str]:
        found: dict[str, str] = {}

        async def task(name: str, takes: float) -> None:
            found[name] = await ctx.run(step, f"{name}1", takes) + await ctx.run(step, f"{name}2", takes)

        async with anyio.create_task_group() as tasks:
            for number, name in enumerate("abc"):
                tasks.start_soon(task, name, seconds * number)
        return [found[name] for name in "abc"]

    for count in range(1, 6):
        id = f"w{count}"
        process = world.process(flow, one_request=True)
        process.kill_at(_nth_of_steps(count), answered=False)
        await world.run_until_killed(process, id, flow)
        async with world.process(flow, one_request=True) as process:
            assert ["a1a2", "b1b2", "c1c2"] == await (await process.resonate.get(id, list[str]))


def _nth_of_steps(count: int) -> Callable[[Request], bool]:
    """Whether a request is the `count`-th about a step."""
    left = iter(range(count))
    return lambda request: "step" in str(getattr(request, "id", "")) and next(left, count) == count - 1


# The answer decides


async def test_another_outcome_is_on_record(resonate: Resonate, wire: Wire) -> None:
    """If the answer shows another outcome, that one is delivered."""
    await _answered_first(resonate, wire, pending=False)
    async with resonate:
        assert 100 == await resonate.run("w", "flow")


async def test_it_is_on_record_and_pending(resonate: Resonate, wire: Wire) -> None:
    """If the answer shows a pending promise, the step settles that."""
    await _answered_first(resonate, wire, pending=True)
    async with resonate:
        assert 1 == await resonate.run("w", "flow")
    assert ("w.leaf-1", "resolved") in wire.settled()
    assert 1 == wire.counts()["promise.settle"]


async def _answered_first(resonate: Resonate, wire: Wire, *, pending: bool) -> None:
    """Have another holder of the task record the step just before this worker does."""

    async def flow(ctx: Context) -> int:
        return await ctx.run(leaf)

    async def interfere(request: Request) -> None:
        if isinstance(request, PromiseCreate) and FINISHED_TAG in request.tags:
            wire.before = _nothing
            finished = Finished.of(Promise(id="x", tags=request.tags, timeout_at=0, created_at=0))
            assert finished is not None
            tags = {tag: text for tag, text in request.tags.items() if tag not in {FINISHED_TAG, "resonate:timer"}}
            value = resonate._codec.encode(100)
            other = (
                PromiseCreate(id=request.id, timeout_at=finished.timeout_at, param=_param(finished), tags=tags)
                if pending
                else PromiseCreate(id=request.id, timeout_at=request.timeout_at, param=value, tags=request.tags)
            )
            await worker_of(resonate).connection.request(other)

    wire.before = interfere
    resonate.register(flow)


async def _nothing(request: Request) -> None:
    del request


def _param(finished: Finished) -> Any:
    return PromiseCreate(id="x", timeout_at=0).param.__class__(finished.param)


async def test_a_lease_that_lapses(network: Network) -> None:
    """A step that ends when the lease may be lost is not recorded by its worker; it runs again in the next one."""
    first, second = Wire(network, lapsing=True), Wire(network, lapsing=True)
    ran: list[str] = []

    def worker(name: str, wire: Wire) -> Resonate:
        resonate = Resonate(network=wire, pid=name, ttl=60, one_request=True)

        async def step() -> str:
            ran.append(name)
            if name == "first":
                first.before = away
                # The server is away, and the lease lapses meanwhile.
                with CancelScope(shield=True):
                    await taken.wait()
            return name

        async def flow(ctx: Context) -> str:
            return await ctx.run(step) + await ctx.run(step).named("next")

        resonate.register(flow)
        resonate.register(step)
        return resonate

    taken = anyio.Event()

    async def away(request: Request) -> None:
        raise NetworkError(request.kind, "", "the server is away")

    async def note(request: Request, response: Response) -> None:
        if isinstance(request, TaskAcquire) and response.status == 200:
            taken.set()

    second.after = note
    async with worker("first", first) as one:
        await one.rpc("w", "flow").spawn()
        await anyio.sleep(0.01)
        try:
            async with worker("second", second) as two:
                with anyio.fail_after(3600):
                    assert "secondsecond" == await (await two.get("w", str))
        finally:
            taken.set()
            first.before = _nothing
        await anyio.sleep(1)
    assert ["first", "second", "second"] == ran
    assert [] == [id for id, _ in first.settled()]


# What ends otherwise


async def test_deadline_while_it_runs(resonate: Resonate, wire: Wire) -> None:
    """A step whose deadline passes while it runs is recorded as timed out, by the one request that creates it."""

    async def deaf() -> str:
        with CancelScope(shield=True):
            await anyio.sleep(0.04)
        return "late"

    async def flow(ctx: Context) -> str:
        with pytest.raises(DurableTimeoutError):
            await ctx.run(deaf).timeout(0.02)
        return "went on"

    resonate.register(flow)
    async with resonate:
        assert "went on" == await resonate.run("w", flow)
        record = await resonate.promises.get("w.deaf-1")
    assert "rejected_timedout" == record.state
    assert wire.created().count("w.deaf-1") == 1
    assert "promise.settle" not in wire.counts()


async def test_a_value_that_the_server_refuses(resonate: Resonate, wire: Wire) -> None:
    """A value that is too large is a failure of the step, which is recorded with two more requests."""
    runs: list[int] = []

    async def large() -> str:
        runs.append(1)
        return "x" * 1000

    async def flow(ctx: Context) -> str:
        with pytest.raises(TooLarge):
            await ctx.run(large)
        return "went on"

    async def refuse(request: Request) -> None:
        if isinstance(request, PromiseCreate) and FINISHED_TAG in request.tags:
            raise TooLarge(request.kind, request.id, 1000)

    wire.before = refuse
    resonate.register(flow)
    async with resonate:
        assert "went on" == await resonate.run("w", flow)
        assert "rejected" == (await resonate.promises.get("w.large-1")).state
    assert [1] == runs


async def test_a_call_that_the_server_refuses_while_it_runs(resonate: Resonate, wire: Wire) -> None:
    """A long step that cannot be put on record fails when it has ended."""

    async def flow(ctx: Context) -> str:
        with pytest.raises(RequestError, match="too odd"):
            await ctx.run(leaf, 1, 1)
        return "went on"

    wire.answer = lambda request: Response(status=400, error="too odd") if creates("w.leaf-1")(request) else None
    resonate.register(flow)
    async with resonate:
        assert "went on" == await resonate.run("w", flow)


async def test_cancelled_before_it_begins(resonate: Resonate, wire: Wire) -> None:
    """In a cancelled scope the step does not run, and is recorded as not begun, by two requests."""
    ran: list[int] = []

    async def step() -> None:
        ran.append(1)

    async def flow(ctx: Context) -> None:
        with CancelScope() as scope:
            scope.cancel()
            await ctx.run(step)

    resonate.register(flow)
    async with resonate:
        await resonate.run("w", flow)
        assert "rejected_canceled" == (await resonate.promises.get("w.step-1")).state
    assert [] == ran
    assert [("w.step-1", "rejected_canceled"), ("w", "resolved")] == wire.settled()


async def test_a_worker_that_stops(world: World) -> None:
    """A step that is running when the worker begins to stop is recorded within the grace, and does not run again."""
    runs: list[int] = []

    async def step(seconds: float) -> float:
        runs.append(1)
        await anyio.sleep(seconds)
        return seconds

    async def flow(ctx: Context, seconds: float) -> float:
        return await ctx.run(step, seconds)

    for seconds in (0.04, 2):
        runs.clear()
        async with world.process(flow, one_request=True, grace=10) as process:
            await process.resonate.run(f"w{int(seconds)}", flow, seconds).spawn()
            await anyio.sleep(0.02)
        async with world.process(flow, one_request=True) as process:
            assert seconds == await (await process.resonate.get(f"w{int(seconds)}", float))
        assert [1] == runs


@durable
async def unregistered(ctx: Context) -> int:
    return await ctx.run(leaf, 5)


async def test_off(wire: Wire) -> None:
    """Without the setting each step is recorded before it runs; such records are read with the setting, and reverse."""
    async with Resonate(network=wire, one_request=False) as resonate:
        resonate.register(unregistered)
        assert 5 == await resonate.run("w", unregistered)
    assert ("w.leaf-1", PromiseState.RESOLVED.value) in wire.settled()
    assert 1 == wire.counts()["promise.settle"]
