"""Make the file of this version: `python -m tests.golden.make NAME` writes `NAME.db` and `NAME.json` to this folder.

The file is copied from a program that is in the middle of everything, a minute after its start. It is what `kill -9`
leaves: some executions hold their lease, some are parked. The JSON file tells which leaves had begun by then.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import anyio

from resonate_anyio import Resonate
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import SQLiteStore
from resonate_anyio.testing import VirtualClock, run_virtual

from .program import (
    ENDED_PROMISE,
    OPEN_PROMISE,
    ROOTS,
    SCHEDULE,
    Journal,
    fail,
    fickle,
    fickle_calls,
    program,
    quick,
    step,
    tick,
)

FOLDER: Final = Path(__file__).parent


def make(name: str) -> None:
    """Write the two files."""
    journal, clock = Journal(), VirtualClock()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "live.db"
        run_virtual(_first_life, path, journal, clock)
        run_virtual(_second_life, path, FOLDER / f"{name}.db", journal, clock)
    facts = {"instant": clock(), "runs": dict(sorted(journal.runs.items()))}
    (FOLDER / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def _resonate(path: Path, journal: Journal, clock: VirtualClock) -> Resonate:
    network = LocalNetwork(SQLiteStore(path), clock=clock)
    return program(Resonate(network=network, hot_for=20, grace=0.2, pid="maker"), journal)


async def _first_life(path: Path, journal: Journal, clock: VirtualClock) -> None:
    """What is replayed as something else in the second life."""
    async with _resonate(path, journal, clock) as resonate:
        await resonate.run("fickle", fickle).spawn()
        await anyio.sleep(5)


async def _second_life(path: Path, copy: Path, journal: Journal, clock: VirtualClock) -> None:
    fickle_calls[0] = fail
    async with _resonate(path, journal, clock) as resonate:
        await resonate.schedule(SCHEDULE, "0 * * * *", tick).timeout(600)
        for id, root in ROOTS.items():
            if root.function is not fickle:
                call: Any = resonate.run(id, root.function, *root.args)
                await (call if root.timeout is None else call.timeout(root.timeout)).spawn()
        await anyio.sleep(5)
        await resonate.promises.resolve("people.promise-1", value=7)
        for id in (ENDED_PROMISE, OPEN_PROMISE):
            await resonate.promises.create(id, clock() + 10**9)
        await resonate.promises.reject(ENDED_PROMISE, ValueError("no"))
        handle = await resonate.run("cancelled", ROOTS["sequence"].function).spawn()
        await anyio.sleep(5)
        await handle.cancel()
        await resonate.run("done", quick, "done")
        await anyio.sleep(50)
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    fickle_calls[0] = step


if __name__ == "__main__":
    make(sys.argv[1])
