"""The same with real processes, a real file and a real `kill -9`, for a sample."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from attrs import define, field

from resonate_anyio.stores import SQLiteStore
from resonate_anyio.testing import run_virtual

from .corpus import CORPUS
from .crashes import Trial
from .lives import Life, Mark, Point
from .states import EMPTY, State
from .verdicts import Past, verdict

pytestmark = [pytest.mark.wall, pytest.mark.embedded("each process has an engine of its own on the file")]


@define(eq=False)
class Machine:
    """Where one program is started again and again, on one file.

    Attributes:
        past: the kills so far.
    """

    name: str
    backend: str
    folder: Path
    past: Past = field(factory=Past, init=False)

    def kill(self, number: int, when: str) -> None:
        """Start the program, which kills itself over its `number`-th request."""
        process = self._start(number, when)
        assert process.returncode == -signal.SIGKILL, process.stderr
        mark = Mark(number, answered=when == "after", request="kill -9")
        point = Point(mark, self._runs(), self._found())
        self.past = Past((*self.past.points, point))

    def let_live(self) -> Life:
        """Start the program and let it come to its end."""
        process = self._start()
        assert process.returncode == 0, process.stderr
        told, final = json.loads(process.stdout), self._found()
        return Life(
            scenario=CORPUS[self.name],
            runs=self._runs(),
            settled=told["settled"],
            begun=EMPTY,
            quiet=final,
            final=final,
            errors=told["errors"],
        )

    def _start(self, *kill: object) -> subprocess.CompletedProcess[str]:
        arguments = [self.name, self.backend, self.folder / "w.db", self.folder / "runs", self._instant(), *kill]
        return subprocess.run(
            [sys.executable, "-m", "tests.crash.program", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(Path.cwd())]))},
            capture_output=True,
            text=True,
            check=False,
        )

    def _found(self) -> State:
        return State.found(SQLiteStore(self.folder / "w.db"), self._instant())

    def _instant(self) -> int:
        """The latest instant on record: time goes on from there."""
        if not (self.folder / "w.db").exists():
            return EMPTY.instant
        promises = State.found(SQLiteStore(self.folder / "w.db"), 0).promises.values()
        return max((promise.settled_at or promise.created_at for promise in promises), default=EMPTY.instant)

    def _runs(self) -> Counter[str]:
        """The leaves that have begun since the last time that this was asked."""
        log = self.folder / "runs"
        lines = log.read_text(encoding="utf-8").split() if log.exists() else []
        log.write_text("", encoding="utf-8")
        return Counter(lines)


KILLS = [(3, "after"), (4, "before"), (7, "after")]
"""Over which request of each life in turn the process dies."""


@pytest.mark.parametrize("name", ["nested", "group_failing", "rpc_to_another_group"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_kill_9(backend: str, name: str, tmp_path: Path) -> None:
    """A program that is killed three times over its requests ends as one does that is not killed."""
    reference = run_virtual(Trial(CORPUS[name]).without_crash, backend=backend)
    machine = Machine(name, backend, tmp_path)
    for number, when in KILLS:
        machine.kill(number, when)

    life = machine.let_live()

    assert [] == verdict(life, machine.past, reference)
