"""`kill -9`: two workers, a server and a client, each a process of its own, and one worker dies in the middle."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from attrs import define, field

from resonate_anyio import Resonate
from resonate_anyio.networks import HttpNetwork

from .program import GROUP, REQUEST_TIMEOUT, STEPS, TTL

PROGRAM: Final = Path(__file__).with_name("program.py")
FLOWS: Final = 200
MIDDLE: Final = FLOWS * STEPS // 4
"""How many steps the worker that dies has begun by then: a half of its half."""


@define(eq=False)
class Told:
    """The lines that a process writes to its standard output."""

    process: Process
    _lines: AsyncIterator[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = self._read()

    async def _read(self) -> AsyncIterator[str]:
        assert self.process.stdout is not None
        rest = ""
        async for text in TextReceiveStream(self.process.stdout):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                yield line

    async def until(self, wanted: str) -> str:
        """Read up to a line that contains `wanted`."""
        async for line in self._lines:
            if wanted in line:
                return line
        msg = f"the process ended without saying {wanted!r}"
        raise AssertionError(msg)

    async def skip(self, count: int) -> None:
        """Read so many lines."""
        for _ in range(count):
            await anext(self._lines)

    async def drain(self) -> None:
        """Read what else comes, so that the process need not wait for it."""
        async for _ in self._lines:
            pass


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """What takes longer is ended in order, so that no process is left."""
    with anyio.fail_after(seconds):
        yield


@asynccontextmanager
async def started(*command: object) -> AsyncIterator[Told]:
    """A process that does not outlive the block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
    arguments = [sys.executable, *map(str, command)]
    process = await anyio.open_process(arguments, stdin=subprocess.DEVNULL, stderr=None, env=environment)
    try:
        yield Told(process)
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the file as any SQLite tool would."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


@asynccontextmanager
async def served(file: Path) -> AsyncIterator[str]:
    """A server on the file, on a spare port. Gives its address."""
    async with started("-m", "resonate_anyio", "dev", file, "--port", 0) as server:
        line = await server.until("http://")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.drain)
            yield line[line.index("http://") :].split()[0]
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def worker(backend: str, url: str, log: Path) -> AsyncIterator[Told]:
    """A worker that is ready."""
    async with started(PROGRAM, backend, url, log) as told:
        await told.until("ready")
        yield told


@pytest.fixture
def figures(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Show a line whether or not the test fails."""

    def show(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n    {line}\n")

    return show


@pytest.mark.wall(limit=60)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_kill_9_of_one_of_two_workers(tmp_path: Path, figures: Callable[[str], None]) -> None:
    """All workflows finish, and each step that was on record when its worker was killed has run once.

    The worker that is killed is one of asyncio, and the one that goes on one of trio.
    """
    file, log = tmp_path / "server.db", tmp_path / "steps.log"
    began = time.monotonic()
    async with (
        deadline(50),
        served(file) as url,
        worker("asyncio", url, log) as victim,
        worker("trio", url, log) as survivor,
        Resonate(network=HttpNetwork(url, request_timeout=REQUEST_TIMEOUT), group="client", ttl=TTL) as client,
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
