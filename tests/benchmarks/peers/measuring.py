"""One measurement in a process of its own: `python -m tests.benchmarks.peers.PEER VARIANT WORK COUNT AT_ONCE`.

It prints one line of JSON: the milliseconds of processor time and of real time of one unit, and, for workflows that run
at once, the median and the 99th percentile of how long one takes. Only the standard library is imported, because the
environments of the peers have nothing else in common.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Protocol, TypeAlias


class Peer(Protocol):
    """A durable execution engine that is ready to run workflows. Each one gets a new id."""

    async def steps(self, id: str, count: int) -> None:
        """Run a workflow of so many steps, one after the other. A step returns its argument."""

    async def empty(self, id: str) -> None:
        """Run a workflow that does nothing."""

    async def fan_out(self, id: str, count: int) -> None:
        """Run a workflow that starts so many steps at once, and waits for all of them."""

    async def spawn(self, id: str, count: int) -> None:
        """Run a workflow that starts so many steps, each by a statement of its own, and waits for all of them."""

    async def remote(self, id: str, count: int) -> None:
        """Run a workflow of so many calls, one after the other, which any worker may take. There is one worker."""

    async def remote_fan_out(self, id: str, count: int) -> None:
        """Run a workflow that starts so many of these calls at once, and waits for all of them."""


Make: TypeAlias = Callable[[str, Path], AbstractAsyncContextManager[Peer]]
"""Start the peer in a variant, with a folder for its files."""


async def _runs(run: Callable[[str], Awaitable[None]], count: int, at_once: int) -> list[float]:
    """Run workflows, so many at once, and return how long each has taken."""
    taken: list[float] = []
    numbers = iter(range(count))

    async def run_some() -> None:
        for number in numbers:
            began = time.perf_counter()
            await run(f"w{number}")
            taken.append(time.perf_counter() - began)

    await asyncio.gather(*(run_some() for _ in range(at_once)))
    return taken


async def _do(peer: Peer, work: str, count: int, at_once: int) -> list[float]:
    match work:
        case "empty":
            return await _runs(peer.empty, count, at_once)
        case "runs":
            return await _runs(lambda id: peer.steps(id, 1), count, at_once)
        case _:
            await getattr(peer, work.replace("-", "_"))("w", count)
            return []


async def _measure(make: Make, variant: str, work: str, count: int, at_once: int) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        async with make(variant, Path(folder)) as peer:
            for number in range(3):
                await peer.steps(f"warm{number}", 3)
                await peer.empty(f"warm-empty{number}")
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            taken = await _do(peer, work, count, at_once)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    found = {"cpu": cpu * 1000 / count, "wall": wall * 1000 / count}
    if len(taken) > 1:
        hundredths = quantiles(taken, n=100)
        found |= {"p50": hundredths[49] * 1000, "p99": hundredths[98] * 1000}
    return found


def main(make: Make) -> None:
    """Measure what the arguments name, and print it."""
    variant, work, count, at_once = sys.argv[1:]
    found = asyncio.run(_measure(make, variant, work, int(count), int(at_once)))
    sys.stdout.write(f"\n{json.dumps(found)}\n")
