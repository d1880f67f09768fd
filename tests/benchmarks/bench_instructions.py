"""How many instructions a durable call takes: `python -m tests.benchmarks.bench_instructions`, which needs valgrind.

Each figure is the difference of two runs that make another number of calls, so neither imports nor start and end are
in it: of a step of a sequence, of an execution that does nothing, of a step that a replay takes from the history, and
of a call of a fan-out. Time is virtual, the store is in memory, and strings have the same hashes each time: what
differs from run to run is less than 0.1 %. It takes five minutes.
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock, run_virtual

COUNTS: Final = (100, 500)
"""Of how many calls the two runs are."""

Work: TypeAlias = Callable[[Resonate, int, int], Awaitable[object]]
"""What one process does: with its client, for so many calls, as the first or the second one."""


async def leaf(number: int) -> int:
    """Do next to nothing."""
    return number


async def sequence(ctx: Context, steps: int) -> None:
    """Make so many calls, one after the other."""
    for number in range(steps):
        await ctx.run(leaf, number)


async def sequence_and_wait(ctx: Context, steps: int) -> None:
    """Do the same, and be there for the next process."""
    await sequence(ctx, steps)
    await ctx.promise()


async def fan_out(ctx: Context, steps: int) -> int:
    """Make so many calls at once."""
    futures = [await ctx.run(leaf, number).spawn() for number in range(steps)]
    return sum([await future for future in futures])


async def empty(ctx: Context) -> None:
    """Make none."""


async def steps(resonate: Resonate, count: int, _: int) -> None:
    """Run a sequence."""
    await resonate.run("w", sequence, count)


async def empty_runs(resonate: Resonate, count: int, _: int) -> None:
    """Run many executions that do nothing."""
    for number in range(count):
        await resonate.run(f"w{number}", empty)


async def at_once(resonate: Resonate, count: int, _: int) -> None:
    """Run a fan-out."""
    await resonate.run("w", fan_out, count)


async def in_two_lives(resonate: Resonate, count: int, life: int) -> None:
    """Run a sequence, and leave it when it waits; in the second life settle what it waits for, so that it replays."""
    handle = await resonate.run("w", sequence_and_wait, count).spawn()
    if life == 1:
        # Virtual time passes when nothing else happens.
        await anyio.sleep(1)
    else:
        await resonate.promises.resolve("w.promise-1", None)
        await handle


WORKS: Final[dict[str, tuple[Work, int, int]]] = {
    "a step": (steps, 1, 0),
    "an empty run": (empty_runs, 1, 0),
    "a call of a fan-out": (at_once, 1, 0),
    # Its first life is in the run of the same name without a second one.
    "a replayed step": (in_two_lives, 2, 1),
}
"""What is measured, in how many lives, and in how many lives what is to be taken away from it."""


async def live(work: Work, count: int, lives: int) -> None:
    """Do the work in processes that follow each other on one store."""
    store, clock = MemoryStore(), VirtualClock()
    for life in range(1, lives + 1):
        async with Resonate(network=LocalNetwork(store, clock=clock), pid="p", grace=0) as resonate:
            for function in (leaf, sequence, sequence_and_wait, fan_out, empty):
                resonate.register(function)
            await work(resonate, count, life)


def instructions(name: str, count: int, lives: int) -> int:
    """How many a process of its own takes for it."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", sys.executable]
    work = ["-m", "tests.benchmarks.bench_instructions", name, str(count), str(lives)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    told = subprocess.run([*command, *work], env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", told.stderr)
    assert found is not None, told.stderr
    return int(found[1].replace(",", ""))


def per_call(name: str) -> float:
    """The figure."""
    _, lives, before = WORKS[name]
    few, many = COUNTS
    taken = instructions(name, many, lives) - instructions(name, few, lives)
    if before:
        taken -= instructions(name, many, before) - instructions(name, few, before)
    return taken / (many - few)


def main() -> None:
    """Print them, or be one of the processes that are measured."""
    match sys.argv[1:]:
        case [name, count, lives]:
            gc.freeze()
            run_virtual(partial(live, WORKS[name][0], int(count), int(lives)))
        case _:
            for name in WORKS:
                sys.stdout.write(f"{name:20} {per_call(name):12,.0f} instructions\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
