"""The type checkers agree with `api.py`, line by line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = Path(__file__).with_name("api.py")

CHECKERS = {
    "mypy": ["mypy", "--strict", "--warn-unused-ignores"],
    "basedpyright": ["basedpyright", "--pythonpath", sys.executable],
}


def check(checker: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Run a checker with the project's own settings."""
    command = [sys.executable, "-m", *CHECKERS[checker], *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.wall(limit=180)
@pytest.mark.parametrize("checker", CHECKERS)
def test_types_are_exact_and_wrong_calls_are_errors(checker: str) -> None:
    """Every asserted type is exact, and every line that is to be an error is one."""
    result = check(checker, API)

    assert (0, "") == (result.returncode, result.stderr), result.stdout


@pytest.mark.wall(limit=180)
def test_every_ignored_line_hides_one_error(tmp_path: Path) -> None:
    """Without its ignores the file has an error on just the lines that had one: the ignores prove what they say."""
    text = API.read_text()
    bare = tmp_path / "bare.py"
    bare.write_text(re.sub(r"  # type: ignore\[.*\]", "", text))
    expected = [number for number, line in enumerate(text.splitlines(), 1) if "# type: ignore[" in line]

    result = check("mypy", bare)

    assert expected == sorted({int(line) for line in re.findall(r"bare\.py:(\d+): error", result.stdout)})
