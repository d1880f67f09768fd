"""`kill -9`: two workers, a server and a client, each a process of its own, and one worker dies in the middle."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from resonate_anyio import Resonate
from resonate_anyio.networks import HttpNetwork

from .processes import Told, deadline, served, started
from .program import GROUP, REQUEST_TIMEOUT, STEPS, TTL

PROGRAM: Final = Path(__file__).with_name("program.py")
FLOWS: Final = 50
MIDDLE: Final = FLOWS * STEPS // 4
"""How many steps the worker that dies has begun by then: a half of its half."""


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the file as any SQLite tool would."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


@asynccontextmanager
async def worker(backend: str, url: str, log: Path) -> AsyncIterator[Told]:
    """A worker that is ready."""
    async with started(PROGRAM, "work", backend, url, log) as told:
        await told.until("ready")
        yield told


@pytest.fixture
def figures(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Show a line whether or not the test fails."""

    def show(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n    {line}\n")

    return show


@pytest.mark.wall
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_kill_9_of_one_of_two_workers(tmp_path: Path, figures: Callable[[str], None]) -> None:
    """All workflows finish, and each step that was on record when its worker was killed has run once.

    The worker that is killed is one of asyncio, and the one that goes on one of trio.
    """
    file, log = tmp_path / "server.db", tmp_path / "steps.log"
    began = time.monotonic()
    async with (
        deadline(110),
        served(file) as server,
        worker("asyncio", server.url, log) as victim,
        worker("trio", server.url, log) as survivor,
        Resonate(network=HttpNetwork(server.url, request_timeout=REQUEST_TIMEOUT), group="client", ttl=TTL) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(survivor.drain)
        calls = [client.rpc(f"flow-{number}", "flow", number).target(GROUP).returns(int) for number in range(FLOWS)]
        flows = [await each.spawn() for each in calls]
        await victim.skip(MIDDLE)
        victim.process.kill()
        killed_at = int(time.time() * 1000)
        results = [await flow for flow in flows]
        tasks.cancel_scope.cancel()
    took = time.monotonic() - began

    runs = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    counts = Counter(id for id, _ in runs)
    in_flight = [id for id, count in counts.items() if count > 1]
    dead = str(victim.process.pid)
    figures(f"{took:.1f} s, {len(runs) / took:.0f} steps/s, {len(in_flight)} steps run twice")

    assert [number * STEPS for number in range(FLOWS)] == results
    # nothing lost
    assert {("resolved",)} == set(rows(file, "SELECT DISTINCT state FROM promises"))
    steps = rows(file, "SELECT id, settled_at FROM promises WHERE id LIKE '%.step-%'")
    assert FLOWS * STEPS == len(steps)
    assert {id for id, _ in steps} == set(counts)
    # nothing that was finished has run again
    assert [] == [id for id, settled_at in steps if settled_at < killed_at and counts[id] > 1]
    # what has run twice was in flight when its worker was killed, and then ran elsewhere
    assert all(2 == counts[id] for id in in_flight)
    assert all([dead] == [pid for run, pid in runs if run == id][:1] for id in in_flight)
    assert len(in_flight) <= FLOWS
