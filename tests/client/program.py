"""What the tests of crashes and signals run as a process of its own: `python program.py WHAT BACKEND FILE [LOG]`.

It tells what happens on its standard output, a line at a time, so that whoever started it can wait for that.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel

from resonate_anyio import Context, Info, Resonate

FILE = Path(sys.argv[3])
RESULT = [[0, 1, 2], [3, 3, 3, 3], 3]


def tell(text: str) -> None:
    """Say what happens."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(id: str) -> None:
    """Be seen running: in the log, which outlives the process, and by who waits for a line."""
    with Path(sys.argv[4]).open("a", encoding="utf-8") as log:
        log.write(f"{id}\n")
    tell(id)


async def step(info: Info, number: int) -> int:
    """Be seen running, and let others run."""
    note(info.id)
    await anyio.lowlevel.checkpoint()
    return number


async def branch(ctx: Context) -> int:
    """Make some steps one after the other."""
    return sum([await ctx.run(step, number) for number in range(3)])


async def job(ctx: Context) -> list[object]:
    """Steps in a row, then branches beside a sleep and a remote call."""
    row = [await ctx.run(step, number) for number in range(3)]
    branches = [await ctx.run(branch).spawn() for _ in range(4)]
    remote = await ctx.rpc(branch).spawn()
    await ctx.sleep(0.3)
    return [row, [await each for each in branches], await remote]


async def crash() -> None:
    """Run the job, or go on with it."""
    resonate = Resonate.local(FILE)
    resonate.register(job)
    resonate.register(branch)
    async with resonate:
        assert await resonate.run("job", job) == RESULT
    tell("done")


def read_line() -> str:
    """Work for as long as whoever started this wants."""
    tell("working")
    return sys.stdin.readline().strip()


async def rest(ctx: Context) -> None:
    """Wait for longer than the process lives."""
    await ctx.sleep(3600)


async def serve() -> None:
    """Serve until told otherwise, with one function that waits and one that works."""
    resonate = Resonate.local(FILE)
    resonate.register(read_line)
    resonate.register(rest)
    async with resonate:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(resonate.serve)
            while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                await anyio.lowlevel.checkpoint()
            await resonate.run("rest", rest).spawn()
            await resonate.run("work", read_line).spawn()
        tell("served")
    tell("done")


async def host() -> None:
    """Have a client, and work of another kind, until interrupted."""
    resonate = Resonate.local(FILE)
    resonate.register(read_line)
    resonate.register(rest)
    try:
        async with resonate:
            await resonate.run("rest", rest).spawn()
            await resonate.run("work", read_line).spawn()
            while True:  # noqa: ASYNC110 - it is a signal that is waited for
                # A signal that comes just before the event loop goes to sleep is seen when it wakes.
                await anyio.sleep(0.02)
    finally:
        tell("put away")


async def slow() -> None:
    """Work for longer than anybody wants to wait."""
    tell("working")
    try:
        await anyio.sleep_forever()
    finally:
        tell("let go")


async def stubborn(ctx: Context) -> None:
    """Do not end."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep_forever()


async def resist() -> None:
    """Serve with one function that would need a long grace period, and one that does not end at all."""
    resonate = Resonate.local(FILE, grace=3600)
    resonate.register(slow)
    resonate.register(stubborn)
    async with resonate, anyio.create_task_group() as tasks:
        tasks.start_soon(resonate.serve)
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            await anyio.lowlevel.checkpoint()
        await resonate.run("stubborn", stubborn).spawn()
        await resonate.run("slow", slow).spawn()
        running = resonate._running
        while running is not None and not running.worker.draining:  # noqa: ASYNC110 - a signal begins it
            await anyio.sleep(0.01)
        tell("stopping")


async def hold() -> None:
    """Own the file until killed."""
    async with Resonate.local(FILE) as resonate:
        await resonate.promises.create("held", 2_000_000_000_000)
        tell("ready")
        await anyio.sleep_forever()


PROGRAMS: dict[str, Callable[[], Awaitable[None]]] = {
    "crash": crash,
    "serve": serve,
    "resist": resist,
    "host": host,
    "hold": hold,
}

if __name__ == "__main__":
    anyio.run(PROGRAMS[sys.argv[1]], backend=sys.argv[2])
