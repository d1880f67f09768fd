"""What a durable step costs, by backend and store: `python -m tests.benchmarks.bench_engine`.

Prints microseconds for each step of a sequence, each of a fan-out, and each call of a function that does nothing. The
figures depend on the machine and on what else it does: compare within one run only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from resonate_anyio import Context, Resonate

STEPS = 2000
CALLS = 500


async def leaf(number: int) -> int:
    """Do next to nothing."""
    return number


async def sequence(ctx: Context, steps: int) -> None:
    """Make so many calls, one after the other."""
    for number in range(steps):
        await ctx.run(leaf, number)


async def fan_out(ctx: Context, steps: int) -> int:
    """Make so many calls at once."""
    futures = [await ctx.run(leaf, number).spawn() for number in range(steps)]
    return sum([await future for future in futures])


async def timed(count: int, work: Awaitable[object]) -> float:
    """Microseconds for each of `count` parts of the work."""
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) / count * 1e6


async def calls(resonate: Resonate) -> None:
    """Start a function that does nothing again and again."""
    for number in range(CALLS):
        await resonate.run(f"call-{number}", leaf, number)


async def measure(path: Path | None) -> tuple[float, float, float]:
    """Measure on one store."""
    resonate = Resonate.local(path)
    for function in (leaf, sequence, fan_out):
        resonate.register(function)
    async with resonate:
        return (
            await timed(STEPS, resonate.run("sequence", sequence, STEPS)),
            await timed(STEPS, resonate.run("fan-out", fan_out, STEPS)),
            await timed(CALLS, calls(resonate)),
        )


def main() -> None:
    """Measure everything and print a table."""
    sys.stdout.write(f"{'':24}{'step':>10}{'fan-out':>10}{'no-op run':>12}   µs each\n")
    for backend in ("asyncio", "trio"):
        for store in ("memory", "sqlite"):
            with TemporaryDirectory() as folder:
                path = Path(folder, "engine.db") if store == "sqlite" else None
                step, spawned, call = anyio.run(measure, path, backend=backend)
            sys.stdout.write(f"{backend:>12}{store:>12}{step:>10.0f}{spawned:>10.0f}{call:>12.0f}\n")


if __name__ == "__main__":
    main()
