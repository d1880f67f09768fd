"""A program as a process of its own: `python program.py WHAT BACKEND URL [LOG]`.

It tells what happens on its standard output, a line at a time. The log outlives it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio

from resonate_anyio import Context, Info, Resonate, UsageError
from resonate_anyio.networks import HttpNetwork

GROUP: Final = "workers"
STEPS: Final = 20

TTL: Final = 20.0
"""Seconds after which another worker may go on with what a killed one had begun.

A worker that lives must not lose a lease although the machine is busy with something else, so this is long: the test
takes as long after the kill.
"""

REQUEST_TIMEOUT: Final = 5.0


def tell(text: str) -> None:
    """Say what happens."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(log: Path, line: str) -> None:
    """Write a line to the log, whole or not at all, whoever else writes to it."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


async def step(info: Info, number: int) -> int:
    """Be seen running, and let others run."""
    note(info.get_dependency(Path), f"{info.id} {os.getpid()}")
    tell(info.id)
    await anyio.sleep(0.005)
    return number


async def flow(ctx: Context, number: int) -> int:
    """Many steps, one after the other."""
    return sum([await ctx.run(step, number) for _ in range(STEPS)])


async def work() -> None:
    """Say that it is ready, then of each step that it has begun, until killed."""
    url, log = sys.argv[3], Path(sys.argv[4])
    network = HttpNetwork(url, request_timeout=REQUEST_TIMEOUT)
    resonate = Resonate(network=network, group=GROUP, ttl=TTL).with_dependency(log, Path)
    resonate.register(flow)
    async with resonate:
        tell("ready")
        await anyio.sleep_forever()


async def fork() -> None:
    """Ask for something in a child that was forked, and then here."""
    async with Resonate(network=HttpNetwork(sys.argv[3])) as resonate:
        await resonate.promises.create("p", 2_000_000_000_000)
        # In a thread, as programs fork that run an event loop: the child has that thread and no other.
        await anyio.to_thread.run_sync(_fork, resonate)
        tell(f"answered: {(await resonate.promises.get('p')).id}")


def _fork(resonate: Resonate) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        anyio.run(resonate.promises.get, "p", backend=sys.argv[2])
    except UsageError as exc:
        tell(f"refused: {exc}")
    finally:
        os._exit(0)


PROGRAMS: Final[dict[str, Callable[[], Awaitable[None]]]] = {"work": work, "fork": fork}

if __name__ == "__main__":
    anyio.run(PROGRAMS[sys.argv[1]], backend=sys.argv[2])
