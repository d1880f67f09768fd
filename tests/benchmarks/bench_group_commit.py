"""What sharing transactions gains: `python -m tests.benchmarks.bench_group_commit [BACKEND]`.

200 workflows run at once on a file that waits for the disk, and a bare loop makes as many transactions as they make
requests, of one insert each, with the same settings of SQLite. Printed is how many times as fast the workflows are, on
the disk as it is and with a pause after each commit, as on a disk whose flush takes so long. The two are measured in
turns; compare within one run only.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio._protocol import Outcome, Step
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import SQLiteStore

WORKFLOWS = 200
STEPS = 5
ROUNDS = 3
FLUSHES = (0.0, 0.001, 0.003)


async def leaf(number: int) -> int:
    """Do next to nothing."""
    return number


async def workflow(ctx: Context) -> int:
    """Take some steps."""
    return sum([await ctx.run(leaf, number) for number in range(STEPS)])


def bare(path: Path, count: int, flush: float) -> float:
    """Seconds that so many transactions take one after the other."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE records (id TEXT PRIMARY KEY, content TEXT)")
        begun = time.perf_counter()
        for number in range(count):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO records VALUES (?, ?)", (f"w{number:06}", "x" * 400))
            connection.execute("COMMIT")
            if flush:
                time.sleep(flush)

        return time.perf_counter() - begun


async def shared(path: Path, flush: float, workflows: int = WORKFLOWS) -> tuple[float, int, int]:
    """Seconds that the workflows take, and how many requests and transactions they make."""
    store = SQLiteStore(path, durability="power")
    transact, batches = store.transact, list[int]()

    def counted(steps: Sequence[Step]) -> list[Outcome]:
        batches.append(len(steps))
        outcomes = transact(steps)
        if flush:
            time.sleep(flush)

        return outcomes

    store.transact = counted  # type: ignore[method-assign]
    resonate = Resonate(network=LocalNetwork(store), pid="p")
    resonate.register(leaf)
    resonate.register(workflow)
    async with resonate:
        await resonate.run("warm", workflow)
        batches.clear()
        begun = time.perf_counter()

        async def run(id: str) -> None:
            await resonate.run(id, workflow)

        async with anyio.create_task_group() as group:
            for number in range(workflows):
                group.start_soon(run, f"w{number}")

        return time.perf_counter() - begun, sum(batches), len(batches)


def main(backend: str = "asyncio") -> None:
    """Print a table."""
    sys.stdout.write(f"{backend}, {WORKFLOWS} workflows of {STEPS} steps\n")
    sys.stdout.write(f"{'flush ms':>10}{'requests':>10}{'commits':>10}{'bare s':>10}{'ours s':>10}{'times':>10}\n")
    for _ in range(ROUNDS):
        for flush in FLUSHES:
            with TemporaryDirectory(dir=Path.cwd()) as directory:
                ours, requests, commits = anyio.run(shared, Path(directory, "ours.db"), flush, backend=backend)
                single = bare(Path(directory, "bare.db"), requests, flush)

            row = f"{flush * 1000:>10.0f}{requests:>10}{commits:>10}{single:>10.2f}{ours:>10.2f}{single / ours:>10.2f}"
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
