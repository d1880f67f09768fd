"""What users see of crashes, signals and files that are in use, with real processes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from resonate_anyio import Context, Resonate, StoreInUse

PROGRAM = Path(__file__).with_name("program.py")

Process: TypeAlias = "subprocess.Popen[str]"
Start: TypeAlias = Callable[..., Process]

pytestmark = pytest.mark.wall


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The database file."""
    return tmp_path / "engine.db"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the program; nothing of it outlives the test."""
    started: list[Process] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def start(*arguments: object) -> Process:
        command = [sys.executable, str(PROGRAM), *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines(process: Process) -> Iterator[str]:
    """What it tells, as it comes."""
    assert process.stdout is not None
    return (line.strip() for line in process.stdout)


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the file as any SQLite tool would."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def finished(file: Path) -> set[str]:
    """The ids that are on record as resolved."""
    return {id for (id,) in rows(file, "SELECT id FROM promises WHERE state = 'resolved'")}


def deadlines_of_sleeps(file: Path) -> dict[str, int]:
    """When each sleep is due."""
    return dict(rows(file, "SELECT id, timeout_at FROM promises WHERE id LIKE 'job.sleep%'"))


def late(file: Path) -> list[tuple[str, int]]:
    """How each sleep ended, and how many milliseconds after it was due."""
    return rows(file, "SELECT state, settled_at - timeout_at FROM promises WHERE id LIKE 'job.sleep%'")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_kill_9_at_any_time_loses_nothing(start: Start, file: Path, tmp_path: Path, backend: str, seed: int) -> None:
    """Killed again and again, a workflow goes on each time: what is on record is not run again, sleeps are kept."""
    log = tmp_path / "steps.log"
    rng = random.Random(seed)  # noqa: S311
    done_before: set[str] = set()
    sleeps: dict[str, int] = {}
    for _ in range(3):
        process = start("crash", backend, file, log)
        told = list(islice(lines(process), rng.randint(1, 8)))
        process.kill()
        told += lines(process)

        assert [] == [id for id in told if id in done_before]
        assert sleeps.items() <= deadlines_of_sleeps(file).items()
        done_before, sleeps = finished(file), deadlines_of_sleeps(file)

    process = start("crash", backend, file, log)
    *told, last = lines(process)

    assert last == "done"
    assert process.wait() == 0
    assert [] == [id for id in told if id in done_before]
    steps = log.read_text().split()
    assert set(steps) == {id for id in finished(file) if ".step-" in id}
    assert len(set(steps)) == 18
    # at each crash, each of at most six tasks may have had a step in flight
    assert len(steps) <= 18 + 3 * 6
    assert rows(file, "SELECT state, settled_at - timeout_at FROM promises WHERE id = 'job.sleep-1'") == [
        ("resolved", 0)
    ]
    assert [] == rows(file, "SELECT id FROM promises WHERE state <> 'resolved'")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_sleep_is_not_begun_anew(start: Start, file: Path, tmp_path: Path, backend: str) -> None:
    """A process that is killed while it sleeps leaves an instant on record, at which the next one goes on."""
    log = tmp_path / "steps.log"
    process = start("crash", backend, file, log)
    assert 18 == len(list(islice(lines(process), 18)))
    process.kill()
    process.wait()
    sleeps = deadlines_of_sleeps(file)

    assert list(lines(start("crash", backend, file, log)))[-1:] == ["done"]
    assert len(sleeps) == 1
    assert sleeps == deadlines_of_sleeps(file)
    assert [("resolved", 0)] == rows(
        file, "SELECT state, settled_at - timeout_at FROM promises WHERE id LIKE '%sleep%'"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_signals_end_a_worker_in_order(start: Start, file: Path, backend: str, number: signal.Signals) -> None:
    """A signal ends `serve()`: a leaf at work may finish and is recorded, what waits is kept, the program goes on."""
    process = start("serve", backend, file)
    told = lines(process)
    assert next(told) == "working"

    process.send_signal(number)
    process.stdin.write("the last word\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]

    assert ["served", "done"] == list(told)
    assert process.wait() == 0
    assert {"work": "resolved", "rest": "pending", "rest.sleep-1": "pending"} == dict(
        rows(file, "SELECT id, state FROM promises WHERE id NOT LIKE '%~wake%'")
    )
    # suspended until what it waits for has settled
    assert [("rest", "suspended")] == rows(file, "SELECT id, state FROM tasks WHERE id = 'rest'")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_second_signal_skips_grace_and_waiting(
    start: Start, file: Path, backend: str, number: signal.Signals
) -> None:
    """It ends what was given time and gives its lease back although other code resists; the third is the system's."""
    process = start("resist", backend, file)
    told = lines(process)
    assert next(told) == "working"

    process.send_signal(number)
    assert next(told) == "stopping"
    process.send_signal(number)
    assert next(told) == "let go"
    while rows(file, "SELECT state FROM tasks WHERE id = 'slow'") != [("pending",)]:
        assert process.poll() is None
        time.sleep(0.01)

    assert [("acquired",)] == rows(file, "SELECT state FROM tasks WHERE id = 'stubborn'")
    process.send_signal(signal.SIGTERM)
    assert -signal.SIGTERM == process.wait()
    assert {("pending",)} == set(rows(file, "SELECT state FROM promises WHERE id NOT LIKE '%~stopped-%'"))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupt_ends_a_host_in_order(start: Start, file: Path, backend: str) -> None:
    """Ctrl-C in a program without `serve()` ends its block in the same order, and then the program, as it ends any."""
    process = start("host", backend, file)
    told = lines(process)
    assert next(told) == "working"

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate("the last word\n")

    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0
    assert {"work": "resolved", "rest": "pending", "rest.sleep-1": "pending"} == dict(
        rows(file, "SELECT id, state FROM promises WHERE id NOT LIKE '%~wake%'")
    )
    assert [("rest", "suspended")] == rows(file, "SELECT id, state FROM tasks WHERE id = 'rest'")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_file_has_one_owner_and_any_readers(start: Start, file: Path, backend: str) -> None:
    """A second engine is told who has the file, a reader may read it, and it is free once its owner is killed."""
    owner = start("hold", backend, file)
    assert next(lines(owner)) == "ready"
    second = Resonate.local(file)

    with pytest.raises(StoreInUse) as caught:
        enter(second, backend)
    assert rows(file, "SELECT id, state FROM promises") == [("held", "pending")]
    owner.kill()
    owner.wait()

    assert caught.value.pid == owner.pid
    assert f"process {owner.pid}" in str(caught.value)
    assert str(file) in str(caught.value)
    assert enter(second, backend) == ["held"]


def enter(resonate: Resonate, backend: str) -> list[str]:
    """Start the client and look around."""

    async def main() -> list[str]:
        async with resonate:
            return [promise.id async for promise in resonate.promises.search()]

    return anyio.run(main, backend=backend)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_only_serve_installs_signal_handlers(anyio_backend: str) -> None:
    """A client that runs and calls leaves the program's signals alone."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]

    async def nothing(ctx: Context) -> None:
        await ctx.sleep(0)

    resonate = Resonate.local()
    resonate.register(nothing)
    async with resonate:
        await resonate.run("a", nothing)

        assert before == [signal.getsignal(number) for number in numbers]
