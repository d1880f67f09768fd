"""Promises that are created, and perhaps settled, by their id before the workflow asks for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from resonate_anyio import (
    Context,
    DurableCancelledError,
    DurableTimeoutError,
    NonDeterminismError,
    Resonate,
)
from resonate_anyio.abc import Clock
from resonate_anyio.stores import MemoryStore

from ..chosen import native, network_on
from .harness import World

HOUR = 3_600_000


async def approved(ctx: Context) -> int:
    """Wait for the approval."""
    promise = ctx.promise(param="please").named("approval").timeout(600).returns(int)
    return await promise


async def late(ctx: Context) -> int:
    """Ask for it after another wait."""
    await ctx.sleep(100)
    return await approved(ctx)


async def below(ctx: Context) -> int:
    """Ask for it in a function that is called."""
    return await ctx.run(approved)


@pytest.fixture
def resonate(clock: Clock) -> Resonate:
    """A client on an engine of its own."""
    resonate = Resonate(network=network_on(MemoryStore(), clock), hot_for=5)
    for func in (approved, late, below):
        resonate.register(func)
    return resonate


async def test_pending_then_settled(resonate: Resonate, clock: Clock) -> None:
    """A promise that was made ahead and is pending is waited for, hot and parked, and what it was made with stands."""
    async with resonate:
        for id, seconds in (("a", 1), ("b", 300)):
            made = await resonate.promises.create(
                native(f"{id}.approval"), clock() + HOUR, {"amount": 1}, {"who": "me"}
            )
            handle = await resonate.run(id, approved).spawn()
            await anyio.sleep(seconds)
            assert not await handle.done()
            began = clock()
            await resonate.promises.resolve(made.id, 42)
            assert await handle == 42
            assert clock() - began <= 1000
            after = await resonate.promises.get(made.id)
            assert (after.param, after.timeout_at, after.tags) == (made.param, made.timeout_at, made.tags)


@pytest.mark.parametrize("func", [approved, late, below])
async def test_settled_before_it_is_asked_for(resonate: Resonate, clock: Clock, func: Any) -> None:
    """One that is settled already gives its value at once."""
    id = native("a.below-1.approval" if func is below else "a.approval").replace("below", "approved")
    async with resonate:
        await resonate.promises.create(id, clock() + HOUR)
        await resonate.promises.resolve(id, 42)
        assert await resonate.run("a", func) == 42


SETTLES: dict[str, tuple[Callable[[Resonate, str], Awaitable[Any]], type[Exception]]] = {
    "rejected": (lambda r, id: r.promises.reject(id, LookupError("no")), LookupError),
    "cancelled": (lambda r, id: r.promises.cancel(id), DurableCancelledError),
    "timed out": (lambda r, id: anyio.sleep(2), DurableTimeoutError),
}


@pytest.mark.parametrize("how", SETTLES)
async def test_ended_without_a_value(resonate: Resonate, clock: Clock, how: str) -> None:
    """One that was rejected, cancelled or has timed out before it is asked for raises that."""
    settle, error = SETTLES[how]
    async with resonate:
        await resonate.promises.create(native("a.approval"), clock() + 1000)
        await settle(resonate, native("a.approval"))
        with pytest.raises(error):
            await resonate.run("a", approved)


@pytest.mark.parametrize("parked", [False, True])
async def test_its_own_deadline_stands(resonate: Resonate, clock: Clock, parked: bool) -> None:
    """The deadline that it was made with ends the wait, whatever the code says, hot and parked."""
    seconds = 400 if parked else 3
    async with resonate:
        began = clock()
        await resonate.promises.create(native("a.approval"), began + seconds * 1000)
        with pytest.raises(DurableTimeoutError):
            await resonate.run("a", approved)
        assert clock() - began == pytest.approx(seconds * 1000, abs=1000)


async def test_what_is_recorded_does_not_fit_the_type(resonate: Resonate, clock: Clock) -> None:
    """What comes from outside is checked against `returns`, as for any other promise."""
    async with resonate:
        await resonate.promises.create(native("a.approval"), clock() + HOUR)
        await resonate.promises.resolve(native("a.approval"), "text")
        with pytest.raises(ValueError, match="int"):
            await resonate.run("a", approved)


@pytest.mark.parametrize("settled_while_dead", [False, True])
async def test_across_a_crash(clock: Clock, settled_while_dead: bool) -> None:
    """A replay finds it on record and takes it again."""
    world = World(MemoryStore(), clock)
    first = world.process(late, approved)
    async with first:
        await first.resonate.promises.create(native("a.approval"), clock() + HOUR)
        handle = await first.resonate.run("a", late).spawn()
        await anyio.sleep(150)
        assert not await handle.done()
        if settled_while_dead:
            first.kill()
    async with world.process(late, approved) as second:
        if settled_while_dead:
            await second.resonate.promises.resolve(native("a.approval"), 42)
        found = await second.resonate.get("a")
        await anyio.sleep(10)
        await second.resonate.promises.resolve(native("a.approval"), 42)
        assert await found == 42
    async with world.process(late, approved) as third:
        assert await (await third.resonate.get("a")) == 42


async def test_made_after_the_start_and_before_it_is_asked_for(clock: Clock) -> None:
    """One that is made while the workflow is asleep, and not running anywhere, is taken when it goes on."""
    world = World(MemoryStore(), clock)
    async with world.process(late, approved) as first:
        await first.resonate.run("a", late).spawn()
        await anyio.sleep(10)
        await first.resonate.promises.create(native("a.approval"), clock() + HOUR)
    async with world.process(late, approved) as second:
        await anyio.sleep(200)
        await second.resonate.promises.resolve(native("a.approval"), 42)
        assert await (await second.resonate.get("a")) == 42


async def limited(ctx: Context) -> str:
    """Wait for an hour at most."""
    with ctx.move_on_after(3600):
        await ctx.promise().named("approval")
        return "approved"
    return "too late"


@pytest.mark.parametrize("killed", [False, True])
async def test_the_deadline_around_it_does_not_move(clock: Clock, killed: bool) -> None:
    """A durable scope around the call ends when it was due, although the promise knows nothing of it."""
    world = World(MemoryStore(), clock)
    began = clock()
    async with world.process(limited) as first:
        await first.resonate.promises.create(native("a.approval"), clock() + 24 * HOUR)
        await first.resonate.run("a", limited).spawn()
        await anyio.sleep(1000)
        if killed:
            first.kill()
    await anyio.sleep(1000)
    for _ in range(2):
        async with world.process(limited) as second:
            handle = await second.resonate.get("a")
            with anyio.move_on_after(500):
                await handle
    async with world.process(limited) as third:
        assert await (await third.resonate.get("a")) == "too late"
        assert (await third.resonate.promises.get(native("a.approval"))).state == "rejected_canceled"
    assert clock() - began == pytest.approx(HOUR, abs=1000)


async def never_asks(ctx: Context) -> str:
    """End without it."""
    await ctx.sleep(100)
    return "done"


async def test_one_that_is_never_asked_for(clock: Clock) -> None:
    """It is nobody's child: the workflow ends without it, replayed or not, and leaves it alone."""
    world = World(MemoryStore(), clock)
    async with world.process(never_asks) as first:
        await first.resonate.promises.create(native("a.approval"), clock() + HOUR)
        await first.resonate.run("a", never_asks).spawn()
        await anyio.sleep(10)
    async with world.process(never_asks) as second:
        assert await (await second.resonate.get("a")) == "done"
        assert (await second.resonate.promises.get(native("a.approval"))).state == "pending"


async def double(number: int) -> int:
    """Double it."""
    return 2 * number


async def calls(ctx: Context, what: str) -> Any:
    """Make a call of some kind under the name."""
    match what:
        case "rpc":
            return await ctx.rpc(double, 1).named("approval")
        case "run":
            return await ctx.run(double, 1).named("approval")
        case _:
            return await ctx.sleep(1).named("approval")


@pytest.mark.parametrize("what", ["rpc", "run", "sleep"])
async def test_another_kind_of_call_does_not_take_it(resonate: Resonate, clock: Clock, what: str) -> None:
    """What is called durably is not settled by hand beforehand: that halts the execution, as ever."""
    resonate.register(calls)
    resonate.register(double)
    async with resonate:
        await resonate.promises.create(native("a.approval"), clock() + HOUR)
        with pytest.raises(NonDeterminismError, match="approval"):
            await resonate.run("a", calls, what)


@pytest.mark.parametrize(
    "tags",
    [
        {"resonate:target": "poll://any@elsewhere"},
        {"resonate:timer": "true"},
        {"resonate:scope": "local"},
        {"resonate:parent": "a"},
    ],
)
async def test_what_is_no_such_promise_is_not_taken(resonate: Resonate, clock: Clock, tags: dict[str, str]) -> None:
    """A promise that a worker runs, a timer, or a call of another kind halts the execution, as ever."""
    async with resonate:
        await resonate.promises.create(native("a.approval"), clock() + HOUR, None, {"resonate:external": "", **tags})
        with pytest.raises(NonDeterminismError, match="approval"):
            await resonate.run("a", approved)
