"""A worker as a process of its own: `python program.py BACKEND URL LOG`.

It tells on its standard output that it is ready, and then of each step that it has begun, a line at a time. The log
outlives it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import anyio

from resonate_anyio import Context, Info, Resonate
from resonate_anyio.networks import HttpNetwork

GROUP: Final = "workers"
STEPS: Final = 20

TTL: Final = 6.0
"""Seconds after which somebody else may go on with what a killed worker had begun."""

REQUEST_TIMEOUT: Final = 1.5


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


async def work(url: str, log: Path) -> None:
    """Work until killed."""
    network = HttpNetwork(url, request_timeout=REQUEST_TIMEOUT)
    resonate = Resonate(network=network, group=GROUP, ttl=TTL).with_dependency(log, Path)
    resonate.register(flow)
    async with resonate:
        tell("ready")
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(work, sys.argv[2], Path(sys.argv[3]), backend=sys.argv[1])
