"""Words that are not used here any more: a dialect that only its first maintainer could read.

Each has one in the field's language, or in plain English, that says the same: see the glossary in `docs/`.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from .source import SOURCE, TOP

NAMES: Final = {
    "Asked": "Operation",
    "Census": "a word for tasks that are counted",
    "Crew": "Supervisor",
    "Enclosure": "Region",
    "Fact": "RecordedChoice",
    "Intake": "Acquisition, Admission",
    "Ledger": "Journal",
    "Opening": "Invocation",
    "Parking": "Suspension",
    "Sweeps": "CancelCascade",
    "Upkeep": "Residency, Rechecks",
}
"""Names of things, alone or at the end of another, and what these are called now."""

PHRASES: Final = {
    r"anybody": "who exactly, or a passive",
    r"are told(?! apart| from)": "who says what to them",
    r"be told(?! apart| from)": "who says what",
    r"belongs? into": "belongs in",
    r"come to nothing": "fails, is discarded",
    r"everybody": "who exactly",
    r"is told": "gets, receives; who says what to it",
    r"nobody": "who does not, or a passive",
    r"no question that": "may differ",
    r"put away": "unloaded, evicted",
    r"somebody": "who exactly, or a passive",
    r"what is told": "the message, the answer",
    r"whoever": "the caller, the process, the task that",
    r"whosever": "of which process, task or function",
}
"""Phrases, as patterns, and what is said instead."""


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """What is read by people: each file's name, and what is in it."""
    files: list[Path] = [*SOURCE.rglob("*.py"), *(TOP / "docs").rglob("*.md"), *TOP.glob("*.md")]
    read = [path for path in sorted(files) if path.name != "CHANGELOG.md"]
    return tuple((str(path.relative_to(TOP)), path.read_text(encoding="utf-8")) for path in read)


def places(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, str]]:
    """The lines in which a text has it, each with its number; a phrase may go on in the next line."""
    for found in pattern.finditer(text):
        number = text.count("\n", 0, found.start()) + 1
        yield number, text.splitlines()[number - 1].strip()


def as_name(word: str) -> re.Pattern[str]:
    """The word as a name or the end of one."""
    return re.compile(rf"\b_*(?:[A-Z][a-z]+)*{word}s?\b")


def as_phrase(phrase: str) -> re.Pattern[str]:
    """The phrase with any space between its words, in a comment as well."""
    return re.compile(r"\b" + phrase.replace(" ", r"(?:\s|#)+") + r"\b", re.IGNORECASE)


@cache
def names(text: str) -> str:
    """The names in a program, each in its line."""
    lines = [""] * (text.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            lines[token.start[0] - 1] += f"{token.string} "
    return "\n".join(lines)


def found(pattern: re.Pattern[str], *, only_names: bool = False) -> list[str]:
    """Every place of the source and of the documentation that has it."""
    return [
        f"{name}:{number} {line}"
        for name, text in texts()
        if not only_names or name.endswith(".py")
        for number, line in places(pattern, names(text) if only_names else text)
    ]


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (as_name("Opening"), "class LocalOpening:\n    opening = 1\n    Openings\n", [1, 3]),
        (as_name("Fact"), "Factory\nFact\nartifact\n", [2]),
        (as_phrase("put away"), "# it is put\n# away, and Put away again; input away\n", [1, 2]),
        (as_phrase("belongs? into"), "It belongs\n    into this.", [1]),
    ],
)
def test_words_are_found(pattern: re.Pattern[str], text: str, expected: list[int]) -> None:
    """What the tests below look for is found where it is, over the end of a line as well."""
    assert expected == [number for number, _ in places(pattern, text)]


def test_only_names_are_names() -> None:
    """A word in a text or in a comment is not a name of something."""
    text = 'class Crew:\n    """Opening."""\n    fact = "Fact"  # Parking\n'
    assert "class Crew \n\nfact \n\n" == names(text)


@pytest.mark.parametrize("word", [*NAMES])
def test_names_of_the_old_dialect_are_gone(word: str) -> None:
    """Nothing is called by a name that says nothing to a newcomer."""
    assert [] == found(as_name(word), only_names=True)


@pytest.mark.parametrize("phrase", [*PHRASES])
def test_phrases_of_the_old_dialect_are_gone(phrase: str) -> None:
    """No sentence has a subject or an object that has to be guessed."""
    assert [] == found(as_phrase(phrase))
