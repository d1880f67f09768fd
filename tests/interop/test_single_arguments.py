"""Arguments by themselves, as Rust and Go record them (docs/interop.md 1), between clients, workflows and workers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from resonate_anyio import Context, InvalidArgument, Resonate, durable
from resonate_anyio._protocol import PromiseCreate, TaskFence
from resonate_anyio.abc import Clock
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore

from ..engine.harness import Wire, World, creates
from .wire_fixtures import content


@durable(single_arg=True)
def total(numbers: list[int]) -> int:
    return sum(numbers)


def describe(*args: object) -> list[object]:
    return list(args)


@pytest.fixture
def wire(clock: Clock) -> Wire:
    """An engine in memory that is seen through."""
    return Wire(LocalNetwork(MemoryStore(), clock=clock, safety_sweep=math.inf))


@pytest.fixture
def resonate(wire: Wire) -> Resonate:
    """A client that knows both functions."""
    resonate = Resonate(network=wire)
    resonate.register(total)
    resonate.register(describe)
    return resonate


def recorded(wire: Wire) -> Iterator[Any]:
    """The arguments of all calls that were recorded for other workers, in order."""
    for exchange in wire.exchanges:
        match exchange.request:
            case PromiseCreate() as create if "resonate:target" in create.tags:
                yield content(create.param)["args"]
            case TaskFence(action=PromiseCreate() as create):
                yield content(create.param)["args"]
            case _:
                pass


async def test_a_function_with_a_single_argument_is_called_as_it_wants_to_be(wire: Wire, resonate: Resonate) -> None:
    """Given the function, every kind of call records its argument by itself; it is an array here."""

    @resonate.register
    async def flow(ctx: Context) -> list[int]:
        async with ctx.task_group() as tasks:
            future = tasks.rpc(total, [1, 2])
        await ctx.detached(total, [3])
        return [await ctx.rpc(total, [4, 5]), await ctx.run(total, [6, 7]), future.result()]

    async with resonate:
        assert 3 == await resonate.rpc("1", total, [1, 2])
        assert [9, 13, 3] == await resonate.rpc("2", flow)

    assert [[1, 2], [], [1, 2], [3], [4, 5]] == list(recorded(wire))


async def test_a_root_with_a_single_argument_recovers_it(clock: Clock) -> None:
    """`resonate.run` records it in the same way, and a replay reads it."""
    world = World(MemoryStore(), clock)

    async def flow(ctx: Context, numbers: list[int]) -> int:
        await ctx.sleep(10)
        return await ctx.run(total, numbers)

    flow = durable(single_arg=True)(flow)
    process = world.process(flow)
    process.kill_at(creates("w.sleep-1"), answered=True)
    await world.run_until_killed(process, "w", flow, [1, 2, 3])

    async with world.process(flow) as again:
        assert 6 == await again.resonate.run("w", flow, [1, 2, 3])


async def test_bare_arguments_can_be_asked_for_by_name(wire: Wire, resonate: Resonate) -> None:
    """A call by name knows nothing of the function: its builder is told, whichever kind of call it is."""

    @resonate.register
    async def flow(ctx: Context) -> list[Any]:
        async with ctx.task_group() as tasks:
            future = tasks.start(ctx.rpc("total", [3]).bare_args())
        await ctx.detached("total", [4]).bare_args()
        nothing, text = ctx.rpc("describe").bare_args(), ctx.rpc("describe", "a").bare_args()
        return [*await ctx.gather(nothing, text), future.result()]

    async with resonate:
        assert 3 == await resonate.rpc("1", "total", [1, 2]).bare_args()
        assert [[], ["a"], 3] == await resonate.run("2", flow)

    assert sorted([[1, 2], [3], [4], None, "a"], key=repr) == sorted(recorded(wire), key=repr)


async def test_schedules_record_bare_arguments(resonate: Resonate) -> None:
    """What a schedule fires is called as asked for."""
    async with resonate:
        schedule = await resonate.schedule("s", "0 0 1 1 *", "total", [1, 2]).bare_args()

    assert {"func": "total", "args": [1, 2], "version": 1} == schedule.param


async def test_keywords_are_refused_where_they_would_be_lost(resonate: Resonate) -> None:
    """Nothing is sent."""
    async with resonate:
        with pytest.raises(InvalidArgument, match="no keywords"):
            await resonate.rpc("1", "total", numbers=[1]).bare_args()


async def test_the_same_call_joins_however_its_argument_is_recorded(resonate: Resonate) -> None:
    """An argument by itself, and in an array of its own, is the same argument."""
    async with resonate:
        assert [5] == await resonate.rpc("1", "describe", 5)
        assert [5] == await resonate.rpc("1", "describe", 5).bare_args()
