"""What only this package is measured by: `python -m tests.benchmarks.peers.alone WORK COUNT`.

It prints one line of JSON. The floors of this file are measured in the same process, right after what they belong to.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import signal
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Store
from resonate_anyio.stores import MemoryStore, SQLiteStore

from ..bench_group_commit import bare, shared

Figures: TypeAlias = dict[str, float]

_ENTRY: Final = {"name": "a name of some length", "number": 12345, "share": 0.125, "tags": ["one", "two", None, True]}
_REPEATS: Final = 9
_WIDTH: Final = 10


async def leaf(value: object) -> int:
    """Do next to nothing."""
    return 1


async def sequence(ctx: Context, count: int) -> int:
    """Make so many calls, one after the other."""
    for number in range(count):
        await ctx.run(leaf, number)
    return count


async def sequence_and_wait(ctx: Context, count: int) -> int:
    """Make the calls, and wait for a promise."""
    await sequence(ctx, count)
    await ctx.promise().named("go")
    return count


async def children_and_wait(ctx: Context, count: int) -> int:
    """Call 50 sub-workflows of so many steps, and wait for a promise."""
    for _ in range(50):
        await ctx.run(sequence, count)
    await ctx.promise().named("go")
    return count


async def step_wait_step(ctx: Context) -> int:
    """Take a step, wait for a promise, and take another one."""
    before = await ctx.run(leaf, 1)
    await ctx.promise().named("go")
    return before + await ctx.run(leaf, 2)


async def asleep(ctx: Context, seconds: float) -> None:
    """Sleep."""
    await ctx.sleep(seconds)


async def large_result(count: int) -> list[Any]:
    """Return a value of about so many bytes of JSON."""
    return large(count)


async def large_arguments(ctx: Context, count: int) -> None:
    """Make ten calls with an argument of about so many bytes of JSON."""
    value = large(count)
    for _ in range(_WIDTH):
        await ctx.run(leaf, value)


FUNCTIONS: Final = (
    leaf, sequence, sequence_and_wait, children_and_wait, step_wait_step, asleep, large_result, large_arguments,
)  # fmt: skip


def large(count: int) -> list[Any]:
    """Return a value of about so many bytes of JSON."""
    return [{**_ENTRY, "number": number} for number in range(count // len(json.dumps(_ENTRY)))]


def program(store: Store, **settings: Any) -> Resonate:
    """Return a client."""
    resonate = Resonate(store=store, pid="p", grace=0, **settings)
    for function in FUNCTIONS:
        resonate.register(function)
    return resonate


async def taken(work: Awaitable[object]) -> Figures:
    """Return the seconds of real time and of processor time of the work."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await work
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


async def kill(count: int, folder: Path) -> Figures:
    """Seconds from the start of a process until so many suspended executions are done, after SIGKILL to the first."""
    path = folder / "engine.db"
    command = [sys.executable, "-m", "tests.benchmarks.peers.alone", "be-killed", str(count), str(path)]
    died = (await anyio.run_process(command, check=False)).returncode
    assert -signal.SIGKILL == died

    async def resume() -> None:
        async with program(SQLiteStore(path)) as resonate:
            handles = [await resonate.get(f"w{number:05}", int) for number in range(count)]
            for number in range(count):
                await resonate.promises.resolve(f"w{number:05}.go")
            for handle in handles:
                assert 2 == await handle.result()

    return await taken(resume())


async def be_killed(count: int, path: Path) -> None:
    """Suspend the executions, and die."""
    async with program(SQLiteStore(path)) as resonate:
        for number in range(count):
            await resonate.run(f"w{number:05}", step_wait_step).spawn()
        await anyio.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)


async def replayed(function: Callable[[Context, int], Awaitable[int]], count: int, path: Path) -> Figures:
    """What the second life of an execution takes, in which it is replayed and ends."""
    async with program(SQLiteStore(path)) as resonate:
        handle = await resonate.run("w", function, count).spawn()
        while not await exists(resonate, "w.go"):  # noqa: ASYNC110 - a program is not told of it
            await anyio.sleep(0.05)

    async def go_on() -> None:
        async with program(SQLiteStore(path)) as resonate:
            handle = await resonate.get("w", int)
            await resonate.promises.resolve("w.go")
            await handle.result()

    del handle
    return await taken(go_on())


async def exists(resonate: Resonate, id: str) -> bool:
    """Return whether there is a promise with this id."""
    try:
        await resonate.promises.get(id)
    except LookupError:
        return False
    return True


async def replay(count: int, folder: Path) -> Figures:
    """Milliseconds for each of so many finished steps."""
    found = await replayed(sequence_and_wait, count, folder / "engine.db")
    return {name: value * 1000 / count for name, value in found.items()}


async def children(count: int, folder: Path) -> Figures:
    """How many times the replay with sub-workflows of so many steps takes as long as with one step in each."""
    few: list[float] = []
    many: list[float] = []
    for number in range(3):
        few.append((await replayed(children_and_wait, 1, folder / f"few{number}.db"))["cpu"])
        many.append((await replayed(children_and_wait, count, folder / f"many{number}.db"))["cpu"])
    return {"times": median(many) / median(few), "many ms": median(many) * 1000}


def _floor_of_a_value(count: int) -> float:
    value, found = large(count), []
    for _ in range(_REPEATS):
        begun = time.process_time()
        json.loads(base64.b64decode(base64.b64encode(json.dumps(value).encode())))
        found.append(time.process_time() - begun)
    return median(found)


async def _result(store: Store, count: int) -> Figures:
    found: list[float] = []
    floors: list[float] = []
    async with program(store) as resonate:
        await resonate.run("warm", large_result, 10)
        for number in range(_REPEATS):
            # The function itself makes the value.
            begun = time.process_time()
            large(count)
            made = time.process_time() - begun
            found.append((await taken(resonate.run(f"w{number}", large_result, count)))["cpu"] - made)
            floors.append(_floor_of_a_value(count))
    return {"times": median(found) / median(floors), "cpu": median(found) * 1000, "floor": median(floors) * 1000}


async def result_in_memory(count: int, folder: Path) -> Figures:
    """How many times a large result takes as long as JSON and base64, there and back."""
    return await _result(MemoryStore(), count)


async def result_on_sqlite(count: int, folder: Path) -> Figures:
    """Measure the same on a file."""
    return await _result(SQLiteStore(folder / "engine.db"), count)


async def arguments(count: int, folder: Path) -> Figures:
    """Milliseconds of processor time for each call with a large argument."""
    found: list[float] = []
    async with program(MemoryStore()) as resonate:
        await resonate.run("warm", large_arguments, 10)
        for number in range(_REPEATS):
            begun = time.process_time()
            large(count)
            made = time.process_time() - begun
            cpu = (await taken(resonate.run(f"w{number}", large_arguments, count)))["cpu"] - made
            found.append(cpu * 1000 / _WIDTH)
    return {"cpu": median(found)}


async def _bytes_each(count: int, start: Callable[[int], Awaitable[object]], settle: float) -> float:
    # What the first ones take is not taken for each.
    for number in range(count // 4):
        await start(-1 - number)
    await anyio.sleep(settle)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        await start(number)
    await anyio.sleep(settle)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / count


async def _suspended(count: int, folder: Path, **limits: int) -> Figures:
    async with program(SQLiteStore(folder / "engine.db"), **limits) as resonate:

        async def start(number: int) -> None:
            await resonate.run(f"w{number}", step_wait_step).spawn()

        return {"bytes": await _bytes_each(count, start, 5)}


async def parked(count: int, folder: Path) -> Figures:
    """Bytes of each execution that is parked, and of a task of anyio that waits for an event."""
    found = await _suspended(count, folder, hot_limit=1, parked_limit=count + 1)
    async with anyio.create_task_group() as group:
        event = anyio.Event()

        async def start(number: int) -> None:
            group.start_soon(_wait, event)
            await anyio.lowlevel.checkpoint()

        found["floor"] = await _bytes_each(count, start, 0)
        event.set()
    return found


async def _wait(event: anyio.Event) -> None:
    with anyio.CancelScope():
        await event.wait()


async def unloaded(count: int, folder: Path) -> Figures:
    """Bytes of each execution that has left memory."""
    return await _suspended(count, folder, hot_limit=1, parked_limit=1)


async def commits(count: int, folder: Path, flush: float = 0.0) -> Figures:
    """How many times as fast as a bare loop of single transactions the workflows of `bench_group_commit` are."""
    times: list[float] = []
    for number in range(3):
        ours, requests, _ = await shared(folder / f"ours{number}.db", flush, count)
        times.append(await anyio.to_thread.run_sync(bare, folder / f"bare{number}.db", requests, flush) / ours)
    return {"times": median(times)}


async def sleepers(count: int, folder: Path) -> Figures:
    """What it costs to let executions fall asleep, to let them sleep, and to go on with all of them at one instant."""
    async with program(SQLiteStore(folder / "engine.db")) as resonate:
        due = time.time() + 10 + 0.006 * count

        async def start() -> None:
            for number in range(count):
                await resonate.run(f"w{number:05}", asleep, due - time.time()).spawn()

        started = await taken(start())
        assert time.time() < due - 5, "it took too long to start them"
        await anyio.sleep(due - time.time() - 4)
        idle = await taken(anyio.sleep(3))
        handles = [await resonate.get(f"w{number:05}") for number in range(count)]
        cpu = time.process_time()

        async def end() -> None:
            for handle in handles:
                await handle.result()

        await end()
        return {
            "start ms": started["cpu"] * 1000 / count,
            "idle": idle["cpu"] / idle["wall"] * 100,
            "due": time.time() - due,
            "due cpu": time.process_time() - cpu,
        }


WORKS: Final[dict[str, Callable[[int, Path], Awaitable[Figures]]]] = {
    "kill": kill,
    "replay": replay,
    "children": children,
    "result-memory": result_in_memory,
    "result-sqlite": result_on_sqlite,
    "arguments": arguments,
    "parked": parked,
    "unloaded": unloaded,
    "commits": commits,
    "commits-1ms": partial(commits, flush=0.001),
    "sleepers": sleepers,
}


async def _measure(name: str, count: int) -> Figures:
    with TemporaryDirectory() as folder:
        return await WORKS[name](count, Path(folder))


def main() -> None:
    """Measure what the arguments name, and print it."""
    name, count, *path = sys.argv[1:]
    if name == "be-killed":
        asyncio.run(be_killed(int(count), Path(path[0])))
    else:
        sys.stdout.write(f"\n{json.dumps(asyncio.run(_measure(name, int(count))))}\n")


if __name__ == "__main__":
    main()
