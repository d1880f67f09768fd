"""Workflows of all kinds in a process of their own, by the wall clock, until they have ended or SIGINT comes.

    python -m tests.crash.interrupted BACKEND FILE LOG

It writes `begun` to its standard output before the event loop starts, and at the end what the workflows have returned.
Each leaf that begins is a line in LOG. SIGUSR1 makes it tell where every task of trio's is.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import SQLiteStore

from .corpus.leaves import slow, step, threaded
from .corpus.own_concurrency import native_group, start
from .lives import Journal
from .program import LoggedJournal

LOST: Final = "lost"
"""In the ids of calls that are cancelled in any case."""

_MOMENT: Final = 0.02


async def part(ctx: Context, name: str) -> str:
    """Be a workflow that others call."""
    await anyio.sleep(_MOMENT)
    await ctx.run(slow, _MOMENT, name)
    await ctx.sleep(_MOMENT)
    return await ctx.run(step, name)


# Each is made of short pieces, so that an instant is as likely to be between two of them as inside of one.


async def in_sequence(ctx: Context) -> list[str]:
    results = []
    for number in range(5):
        results.append(await ctx.run(slow, _MOMENT, f"s{number}"))
        await anyio.sleep(_MOMENT)
    return results


async def in_group(ctx: Context) -> list[str]:
    results: list[str] = []

    async def member(name: str) -> None:
        await anyio.sleep(_MOMENT)
        results.append(await ctx.run(part, name))

    async with ctx.task_group() as tg:
        futures = [tg.start(ctx.run(part, name)) for name in "ab"]
        tg.start_soon(member, "c")
        tg.start_soon(member, "d")
        await anyio.sleep(2 * _MOMENT)
        results.append(await ctx.run(step, "body"))
        await anyio.sleep(2 * _MOMENT)
    return sorted([*results, *[await future for future in futures]])


async def _in_plain_group(ctx: Context, group: Any) -> list[str]:
    results: list[str] = []

    async def member(name: str) -> None:
        await anyio.sleep(_MOMENT)
        results.append(await ctx.run(part, name).named(name))

    async with group as tg:
        for name in "abc":
            start(tg, member, name)
        await anyio.sleep(2 * _MOMENT)
        results.append(await ctx.run(step, "body"))
        await anyio.sleep(2 * _MOMENT)
    return sorted(results)


async def in_plain_group(ctx: Context) -> list[str]:
    return await _in_plain_group(ctx, anyio.create_task_group())


async def in_native_group(ctx: Context) -> list[str]:
    return await _in_plain_group(ctx, native_group())


async def in_race(ctx: Context) -> list[str]:
    results = []
    for number in range(3):
        loser = ctx.run(slow, 100, "never").named(f"{LOST}{number}")
        _, value = await ctx.first(ctx.run(slow, _MOMENT, f"r{number}"), loser)
        results.append(value)
    return results


async def in_gather(ctx: Context) -> list[str]:
    first = await ctx.gather(*[ctx.run(slow, _MOMENT, name) for name in "abc"])
    with ctx.fail_after(60):
        second = [await future async for future in ctx.as_completed(*[ctx.run(part, name) for name in "de"])]
    return [*first, *sorted(second)]


async def far_away(ctx: Context) -> list[str]:
    await ctx.detached(part, "detached")
    future = await ctx.rpc(part, "spawned").spawn()
    return [await ctx.rpc(part, "remote"), await ctx.run(threaded, "threaded"), await future]


WORKFLOWS: Final = (in_sequence, in_group, in_plain_group, in_native_group, in_race, in_gather, far_away)

RETURNS: Final = {
    "in_sequence": ["s0", "s1", "s2", "s3", "s4"],
    "in_group": ["a", "b", "body", "c", "d"],
    "in_plain_group": ["a", "b", "body", "c"],
    "in_native_group": ["a", "b", "body", "c"],
    "in_race": ["r0", "r1", "r2"],
    "in_gather": ["a", "b", "c", "d", "e"],
    "far_away": ["remote", "threaded", "spawned"],
}


async def main(file: str, log: str) -> None:
    """Start or continue all of them, and wait for them."""
    results: dict[str, object] = {}
    resonate = Resonate(network=LocalNetwork(SQLiteStore(file)), pid="p", grace=0)
    resonate.with_dependency(LoggedJournal(log=Path(log)), Journal)
    for workflow in (*WORKFLOWS, part):
        resonate.register(workflow)

    async def run(workflow: Any) -> None:
        results[workflow.__name__] = await resonate.run(workflow.__name__, workflow)

    async with resonate, anyio.create_task_group() as tasks:
        for workflow in WORKFLOWS:
            tasks.start_soon(run, workflow)
    sys.stdout.write(json.dumps(results) + "\n")


def tell_tasks(*_: object) -> None:
    """Write where every thread is, and on trio every task."""
    if (trio := sys.modules.get("trio")) is not None:
        _tell(trio.lowlevel.current_root_task())
    faulthandler.dump_traceback()


def _tell(task: Any) -> None:
    sys.stderr.write(f"{task.name}\n")
    for frame, line in task.iter_await_frames():
        sys.stderr.write(f"    {frame.f_code.co_filename}:{line} {frame.f_code.co_name}\n")
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            _tell(child)


if __name__ == "__main__":
    _, backend, *rest = sys.argv
    signal.signal(signal.SIGUSR1, tell_tasks)
    # A shell that starts tests in the background lets them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Nothing of what follows is only an import.
    import_module(f"anyio._backends._{backend}")
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    anyio.run(partial(main, *rest), backend=backend)
