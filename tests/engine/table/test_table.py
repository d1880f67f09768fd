"""The table "What happens to unfinished calls" in docs/guide.md: each of its cells is a test, named in its source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Final

from attrs import frozen

ROWS: Final = ("success", "failure", "timeout", "cancel", "crash", "shutdown")
COLUMNS: Final = ("local", "remote", "sleep", "promise", "detached")

_PAGE: Final = Path(__file__).parents[3] / "docs" / "guide.md"
_SECTION: Final = re.compile(r"^## What happens to unfinished calls\n(.*?)^#", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r"<!-- (.*?) -->")


@frozen
class Cell:
    """One cell of the table: its text, and the names of the tests that show it."""

    phrase: str
    tests: Sequence[str]


def table() -> dict[tuple[str, str], Cell]:
    """The cells by row and column, from the source of the page."""
    section = _SECTION.search(_PAGE.read_text(encoding="utf-8"))
    assert section is not None
    _head, _rule, *lines = [line for line in section[1].splitlines() if line.startswith("|")]
    texts = [text for line in lines for text in line.strip("|").split("|")[1:]]
    return dict(zip(product(ROWS, COLUMNS), map(_cell, texts), strict=True))


def _cell(text: str) -> Cell:
    names = _COMMENT.findall(text)
    return Cell(_COMMENT.sub("", text).strip(), " ".join(names).split())


def in_file(row: str) -> list[str]:
    """The names of the tests of a row, in their order."""
    return [name for name in vars(import_module(f"{__package__}.test_{row}")) if name.startswith("test_")]


def test_each_cell_has_its_tests() -> None:
    """Every cell says something and names tests: one that is called after the cell, and variants of it."""
    for (row, column), cell in table().items():
        name = f"test_{row}_{column}"
        assert "" != cell.phrase, name
        assert [name] == cell.tests[:1]
        assert [] == [test for test in cell.tests[1:] if not test.startswith(f"{name}_")]


def test_each_test_has_its_cell() -> None:
    """The tests that the table names exist, and no test of a row is missing from it."""
    for row in ROWS:
        assert in_file(row) == [name for column in COLUMNS for name in table()[row, column].tests]


def test_each_file_is_a_row() -> None:
    """No test of this folder is without a row."""
    here = Path(__file__)
    assert {f"test_{row}.py" for row in ROWS} == {path.name for path in here.parent.glob("test_*.py")} - {here.name}
