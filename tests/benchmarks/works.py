"""The kinds of work that are measured and counted: what a durable function does so many times."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import anyio
from attrs import frozen

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network
from resonate_anyio.testing import VirtualClock

Do: TypeAlias = Callable[[Resonate, int, int], Awaitable[object]]
"""What one process does: with its client, so many times, as the first or the second process."""


async def leaf(number: int) -> int:
    """Return the argument."""
    return number


async def sequence(ctx: Context, count: int) -> None:
    """Make so many calls, one after the other."""
    for number in range(count):
        await ctx.run(leaf, number)


async def sequence_and_wait(ctx: Context, count: int) -> None:
    """Make the calls, and wait for the next process."""
    await sequence(ctx, count)
    await ctx.promise()


async def fan_out(ctx: Context, count: int) -> int:
    """Make so many calls at once."""
    futures = [await ctx.run(leaf, number).spawn() for number in range(count)]
    return sum([await future for future in futures])


async def remote_sequence(ctx: Context, count: int) -> None:
    """Make so many remote calls, one after the other, which this process takes itself."""
    for number in range(count):
        await ctx.rpc(leaf, number)


async def sleeps(ctx: Context, count: int) -> None:
    """Sleep for a second so many times."""
    for _ in range(count):
        await ctx.sleep(1)


async def empty(ctx: Context) -> None:
    """Make no call."""


FUNCTIONS: Final = (leaf, sequence, sequence_and_wait, fan_out, remote_sequence, sleeps, empty)


async def run_sequence(resonate: Resonate, count: int, _: int) -> None:
    """Run a sequence of local calls."""
    await resonate.run("w", sequence, count)


async def run_empty(resonate: Resonate, count: int, _: int) -> None:
    """Run so many executions that do nothing."""
    for number in range(count):
        await resonate.run(f"w{number}", empty)


async def run_fan_out(resonate: Resonate, count: int, _: int) -> None:
    """Run a fan-out."""
    await resonate.run("w", fan_out, count)


async def run_remote(resonate: Resonate, count: int, _: int) -> None:
    """Run a sequence of remote calls."""
    await resonate.run("w", remote_sequence, count)


async def run_sleeps(resonate: Resonate, count: int, _: int) -> None:
    """Run a sequence of sleeps."""
    await resonate.run("w", sleeps, count)


async def replay_sequence(resonate: Resonate, count: int, life: int) -> None:
    """Run a sequence, and leave it while it waits. In the second life, settle the promise, so that it is replayed."""
    handle = await resonate.run("w", sequence_and_wait, count).spawn()
    if life == 1:
        # Virtual time passes when nothing else happens.
        await anyio.sleep(1)
    else:
        await resonate.promises.resolve("w.promise-1", None)
        await handle


@frozen
class Work:
    """One kind of work.

    Attributes:
        do: what a process does.
        lives: how many processes do it, one after the other, on one store.
        without: how many of these processes do not count.
    """

    do: Do
    lives: int = 1
    without: int = 0


WORKS: Final[dict[str, Work]] = {
    "an empty run": Work(run_empty),
    "a step": Work(run_sequence),
    "a replayed step": Work(replay_sequence, lives=2, without=1),
    "a call of a fan-out": Work(run_fan_out),
    "a remote call": Work(run_remote),
    "a sleep": Work(run_sleeps),
}


async def live(work: Work, count: int, lives: int, network: Callable[[VirtualClock], Network]) -> None:
    """Do the work in so many processes."""
    clock = VirtualClock()
    for life in range(1, lives + 1):
        async with Resonate(network=network(clock), pid="p", grace=0) as resonate:
            for function in FUNCTIONS:
                resonate.register(function)
            await work.do(resonate, count, life)
