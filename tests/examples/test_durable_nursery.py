"""The example of the durable nursery: all or nothing, also if it is killed while it copies or while it tidies up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import anyio
import pytest

import resonate_anyio

from .conftest import EXAMPLES

Import: TypeAlias = Callable[[str], ModuleType]
Output: TypeAlias = pytest.CaptureFixture[str]

LIMIT = 60
"""Seconds that one run of the program may take on a slow machine."""

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two packages, of which one has a bad file."""
    root = tmp_path / "root"
    for package in ("good", "bad"):
        (root / package).mkdir(parents=True)
        for number in range(9):
            (root / package / f"m{number}.py").write_text(f'"""Number {number} of {package}."""\n')
    (root / "bad" / "m6.py").write_text("import os\n")
    return root


def files(folder: Path) -> dict[str, str]:
    """All files of a folder, and what is in them."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.wall
@both_backends
def test_all(root: Path, tmp_path: Path, example: Import, capsys: Output, backend: str) -> None:
    """If every file is good, all are copied, and a second run does nothing again."""
    program = partial(example("durable_nursery").main, root, {"r": ["good"]}, tmp_path / "jobs.db")

    anyio.run(program, backend=backend)
    assert files(root / "good") == files(tmp_path / "jobs" / "r" / "good")
    target = tmp_path / "jobs" / "r"
    expected = ["r: released, 9 files", "  on record: 9 copied", f"  on disk: 9 files in {target}"]
    assert [*expected, "9 files copied or removed by this run"] == capsys.readouterr().out.splitlines()

    anyio.run(program, backend=backend)
    before = "r: 9 steps are on record from an earlier run"
    assert [before, *expected, "0 files copied or removed by this run"] == capsys.readouterr().out.splitlines()


@pytest.mark.wall
@both_backends
def test_nothing(root: Path, tmp_path: Path, example: Import, capsys: Output, backend: str) -> None:
    """If one is bad, none is left, of the other package either; what was not copied by then never is."""
    releases = {"r": ["good", "bad"]}
    anyio.run(partial(example("durable_nursery").main, root, releases, tmp_path / "jobs.db"), backend=backend)

    assert {} == files(tmp_path / "jobs")
    refused, on_record, *_ = capsys.readouterr().out.splitlines()
    assert "r: refused, bad/m6.py has no docstring" == refused
    counts = {step: int(number) for number, step in re.findall(r"(\d+) (\w+)", on_record)}
    assert 1 == counts["refused"]
    # Those of the good package are removed by it, or by the release, but not by both.
    assert 18 == counts["removed"]
    assert 4 <= counts["copied"] <= 17


def run(database: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    command = [sys.executable, str(EXAMPLES / "durable_nursery.py"), "--database", str(database), *options]
    env = {**os.environ, "PYTHONPATH": str(Path(resonate_anyio.__file__).parents[1])}
    return subprocess.run(
        command, cwd=database.parent, env=env, capture_output=True, encoding="utf-8", timeout=LIMIT, check=False
    )


def number(pattern: str, output: str) -> int:
    """The number that the output has in this place."""
    found = re.search(pattern, output)
    assert found is not None, output
    return int(found[1])


@pytest.mark.wall(limit=2 * LIMIT)
@both_backends
def test_killed_while_it_copies(tmp_path: Path, backend: str) -> None:
    """The next run copies what is not on record, and nothing else."""
    options = ("urllib", "wsgiref", "--backend", backend)
    # Four files of each package at a time: when the tenth is done, others are on record.
    killed = run(tmp_path / "jobs.db", *options, "--crash-after", "10")
    assert -signal.SIGKILL == killed.returncode
    assert "crashing in release-urllib-wsgiref.copy_package-" in killed.stdout

    again = run(tmp_path / "jobs.db", *options)
    assert (0, "") == (again.returncode, again.stderr)
    released = number(r"released, (\d+) files", again.stdout)
    earlier = number(r"(\d+) steps are on record from an earlier run", again.stdout)
    assert 0 < earlier < released
    assert released - earlier == number(r"(\d+) files copied or removed by this run", again.stdout)
    assert released == len(files(tmp_path / "jobs"))


@pytest.mark.wall(limit=2 * LIMIT)
@both_backends
def test_killed_while_it_tidies_up(tmp_path: Path, backend: str) -> None:
    """The next run removes the rest, and the release fails with what had been found before."""
    options = ("email", "--backend", backend)
    killed = run(tmp_path / "jobs.db", *options, "--crash-after", "20")
    assert -signal.SIGKILL == killed.returncode
    assert "crashing in release-email.copy_package-1.remove_copy-" in killed.stdout

    again = run(tmp_path / "jobs.db", *options)
    assert (0, "") == (again.returncode, again.stderr)
    assert "release-email: refused, email/charset.py has no docstring" in again.stdout
    removed = number(r"(\d+) removed", again.stdout)
    assert 0 < number(r"(\d+) files copied or removed by this run", again.stdout) < removed
    assert {} == files(tmp_path / "jobs")
