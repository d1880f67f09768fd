"""Every Python program in README.md runs, on both backends, and prints what the README says."""

from __future__ import annotations

import re
import runpy
from functools import partial
from pathlib import Path

import anyio
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")

_PROGRAM = re.compile(r"^```python\n(?P<program>.*?)^```\n\n^```text\n(?P<output>.*?)^```\n", re.MULTILINE | re.DOTALL)

PROGRAMS = [
    pytest.param(found["program"], found["output"], id=f"line {README[: found.start()].count(chr(10)) + 1}")
    for found in _PROGRAM.finditer(README)
]


@pytest.mark.wall
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_programs_print_what_is_said(
    program: str,
    output: str,
    backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program of the README, pasted into a file and run in an empty folder, prints the block that follows it."""
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(anyio, "run", partial(anyio.run, backend=backend))

    runpy.run_path(str(path), run_name="__main__")

    assert output == capsys.readouterr().out


def test_every_program_is_run() -> None:
    """No Python block of the README is without the output that the test above compares."""
    assert README.count("```python\n") == len(PROGRAMS) > 0


def test_every_linked_file_exists() -> None:
    """Links to files of this repository lead somewhere, and every small example is linked."""
    root = Path(__file__).parents[2]
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    links = set(re.findall(r"\]\((?!https?:)([^)]+)\)", text))
    assert set() == {link for link in links if not (root / link).exists()}
    small = {f"examples/{path.name}" for path in (root / "examples").glob("*.py")} - {"examples/index_source_tree.py"}
    assert set() == small - links


@pytest.mark.parametrize("marker", ["example", "tests"])
def test_commands_can_be_found(marker: str) -> None:
    """Both commands follow their markers, where `.ci/run` looks for them, in one line each."""
    command = re.search(rf"^<!-- {marker} -->\n```sh\n(.*)\n```$", README, re.MULTILINE)
    assert command is not None
    assert command[1].startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
