"""The main example: what it counts, and that a killed run is continued by the next one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import pytest

import resonate_anyio

from .conftest import EXAMPLES

Import: TypeAlias = Callable[[str], ModuleType]

FILES = 40
LIMIT = 60
"""Seconds that one run of the program may take on a slow machine."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small source tree: four packages, one file that is no Python, and folders that are none of its business."""
    root = tmp_path / "tree"
    for number in range(FILES - 1):
        package = root / ["alpha", "beta", "[gamma]", "delta"][number % 4]
        package.mkdir(parents=True, exist_ok=True)
        body = "import os\n\n\nclass A:\n    def f(self):\n        return os\n" + "\n\ndef g():\n    pass\n" * number
        (package / f"m{number}.py").write_text(body)
    (root / "broken.py").write_text("def :\n")
    for folder in (".venv", "site-packages"):
        (root / folder).mkdir()
        (root / folder / "other.py").write_text("import os\n")
    return root


def run(tree: Path, database: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    command = [sys.executable, str(EXAMPLES / "index_source_tree.py"), str(tree), "--database", str(database), *options]
    # found from any folder; as wide as the table needs; and nothing that colours the output
    package = str(Path(resonate_anyio.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": package, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=database.parent, env=env, capture_output=True, encoding="utf-8", timeout=LIMIT, check=False
    )


def table(output: str) -> str:
    """The part of the output that must be the same for every run: from the table to the last line, which has times."""
    return output[output.index("┏") : output.rindex("\n", 0, -1)]


def parsed(output: str) -> tuple[int, int]:
    """How many files this run has parsed, and how many those before it."""
    found = re.search(r"(\d+) files parsed by this run in .* s, (\d+) by those before it", output)
    assert found is not None
    return int(found[1]), int(found[2])


@pytest.mark.wall(limit=4 * LIMIT)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_killed_run_is_continued(tree: Path, tmp_path: Path, backend: str) -> None:
    """After kill -9 the next run parses what was not recorded, and nothing else; its table is that of a whole run."""
    whole = run(tree, tmp_path / "whole.db", "--backend", backend)
    assert (0, "", (FILES, 0)) == (whole.returncode, whole.stderr, parsed(whole.stdout))

    killed = run(tree, tmp_path / "index.db", "--backend", backend, "--crash-after", "10")
    assert -signal.SIGKILL == killed.returncode
    assert "crashing after 10 files" in killed.stdout
    assert "┏" not in killed.stdout

    again = run(tree, tmp_path / "index.db", "--backend", backend)
    here, before = parsed(again.stdout)
    assert (0, "") == (again.returncode, again.stderr)
    assert f"continuing: {before} files were indexed before the crash\n" in again.stdout
    assert FILES == here + before
    assert 10 <= before < FILES
    assert table(whole.stdout) == table(again.stdout)

    recorded = run(tree, tmp_path / "index.db", "--backend", backend)
    assert "was indexed before" in recorded.stdout
    assert (0, FILES) == parsed(recorded.stdout)
    assert table(whole.stdout) == table(recorded.stdout)


@pytest.mark.wall(limit=2 * LIMIT)
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["nowhere"], "there is no directory"),
        (["empty"], "there are no Python files below"),
        (["tree", "--limit", "0"], "a whole number of at least 1, not '0'"),
        (["tree", "--crash-after", "soon"], "a whole number of at least 1, not 'soon'"),
        (["tree", "--database", "nowhere/index.db"], "nowhere/index.db: unable to open database file"),
        (["tree", "--database", "text.db"], "file is not a database"),
    ],
)
def test_wrong_arguments(tree: Path, tmp_path: Path, options: list[str], complaint: str) -> None:
    """What cannot be used is named in one line, without a traceback."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.db").write_text("this is a text and no database\n" * 100)

    result = run(Path(options[0]), tmp_path / "index.db", *options[1:])

    assert 0 != result.returncode
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert tree.exists()


def test_files_are_found(tree: Path, example: Import) -> None:
    """Hidden folders and installed packages are left out; paths are relative and have slashes."""
    files = set(example("index_source_tree").python_files(str(tree)))
    assert FILES == len(files)
    assert {"broken.py", "alpha/m0.py", "[gamma]/m2.py"} <= files


def test_files_are_counted(tmp_path: Path, example: Import) -> None:
    """Statements are counted at every depth; the longest function is named."""
    source = """\
        import os, sys
        from a import b

        class A:
            class B:
                async def short(self): pass

            def long(self):
                try:
                    import c
                except ImportError:
                    def inner():
                        return 1
                else:
                    return 2
        """
    (tmp_path / "m.py").write_text("\n".join(line[8:] for line in source.splitlines()))

    assert {
        "files": 1,
        "lines": 15,
        "classes": 2,
        "functions": 3,
        "imports": 3,
        "longest": 8,
        "longest_name": "m.py:8 long",
    } == example("index_source_tree").count_file(str(tmp_path), "m.py")


@pytest.mark.parametrize("content", [b"def :", b"a = 1\0", b"# coding: nonsense\n", b"\xff = 1", None])
def test_what_is_no_python_is_counted_as_such(tmp_path: Path, example: Import, content: bytes | None) -> None:
    """A file that cannot be parsed, or is gone by now, does not stop the others."""
    if content is not None:
        (tmp_path / "m.py").write_bytes(content)
    assert {"files": 1, "unreadable": 1} == example("index_source_tree").count_file(str(tmp_path), "m.py")


def test_stats_add_up(example: Import) -> None:
    """Numbers are added, and the longest function is the longer one."""
    stats = example("index_source_tree").Stats
    one = stats(files=1, lines=10, functions=2, longest=4, longest_name="a")
    two = stats(files=2, unreadable=1, lines=5, imports=1, longest=5, longest_name="b")
    assert stats(3, 1, 15, 0, 2, 1, 5, "b") == one + two == two + one
