"""Ctrl-C at a random instant ends a process, in order or as a crash would, and the next one goes on.

The signal is a real one, and so are the process, the file and the clock. `--campaigns all` takes some hundred lives;
otherwise there are a few, whose instants are chosen by `--seed`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from attrs import define

from resonate_anyio._protocol import PromiseState
from resonate_anyio.stores import SQLiteStore

from ..chosen import CHOSEN
from .interrupted import LOST, RETURNS
from .states import EMPTY, State

LIVES = 120 if CHOSEN.whole else 5

LIMIT = 10.0
"""Seconds from the signal to the end of the process. It takes some hundredths of a second where nothing else runs."""

STARTS = 5
"""On a machine that is busy, it may take as long as so many starts of the process."""

PATIENCE = 50.0
"""Seconds that the next life may take. It takes one where nothing else runs."""

LONGEST = 0.6
"""Seconds after which the workflows have ended, where nothing else runs; else, about as long as a start takes."""

pytestmark = [
    pytest.mark.wall(limit=80),
    pytest.mark.embedded("each process has an engine of its own on the file"),
]


@define(eq=False)
class Machine:
    """Where the program is started again and again, on one file."""

    backend: str
    folder: Path

    def interrupt(self, chance: float) -> float:
        """Start the program, and send it a signal after that part of its life. It ends soon. Returns after how long."""
        started = time.monotonic()
        with self._start() as process:
            assert process.stdout is not None
            assert "begun\n" == process.stdout.readline()
            start = time.monotonic() - started
            after, limit = chance * max(LONGEST, start), max(LIMIT, STARTS * start)
            time.sleep(after)
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                pytest.fail(f"the process did not end\n{self._stacks(process)}")
        return after

    def let_live(self) -> object:
        """Start the program and let it come to its end. Returns what its workflows have returned."""
        with self._start() as process:
            try:
                told, errors = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                pytest.fail(f"the next process did not end\n{self._stacks(process)}")
        assert process.returncode == 0, errors
        return json.loads(told.splitlines()[-1])

    def found(self) -> State:
        """What is on record."""
        file = self.folder / "w.db"
        return State.found(SQLiteStore(file), 0) if file.exists() else EMPTY

    def runs(self) -> Counter[str]:
        """The leaves that have begun since the last time that this was asked."""
        log = self.folder / "runs"
        lines = log.read_text(encoding="utf-8").split() if log.exists() else []
        log.write_text("", encoding="utf-8")
        return Counter(lines)

    def _start(self) -> subprocess.Popen[str]:
        arguments = [self.backend, str(self.folder / "w.db"), str(self.folder / "runs")]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash.interrupted", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(Path.cwd())]))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def _stacks(process: subprocess.Popen[str]) -> str:
        process.send_signal(signal.SIGUSR1)
        try:
            process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.communicate()[1]


@pytest.mark.parametrize("life", range(LIVES))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_sigint(backend: str, life: int, tmp_path: Path) -> None:
    """The process ends soon, with nothing on record that the signal has caused; no finished leaf runs again."""
    machine = Machine(backend, tmp_path)
    after = machine.interrupt(CHOSEN.chance().random())

    left, before = machine.found(), machine.runs()
    results, again = machine.let_live(), machine.runs()

    story = f"SIGINT after {after:.3f} s"
    assert [] == _odd(left), story
    assert {} == left.leases, story
    assert results == RETURNS, story
    assert [] == [id for id in again if left.settled(id)], story
    assert [] == [id for id in before if before[id] > 1], story


def _odd(state: State) -> list[str]:
    """What has ended in a way in which it would not have ended without a signal."""
    ended = (promise for promise in state.promises.values() if not promise.pending and LOST not in promise.id)
    return [f"{promise.id} is {promise.state.value}" for promise in ended if promise.state is not PromiseState.RESOLVED]
