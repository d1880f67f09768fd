"""References to the pages under `docs/` lead somewhere, wherever they stand.

In code, and in Markdown outside of `docs/`, a rule is named by its page and number: `docs/semantics.md 3.4`, or several
of one page: `docs/semantics.md 3.2, 3.4 and 5`. Within `docs/` the folder is left out, and a page names its own rules
by the number in parentheses: (3.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

from .pages import DOCS, TOP, anchors, numbers, prose

PAGES: Final = sorted(DOCS.glob("*.md"))
RULES: Final = DOCS / "semantics.md"
"""The page whose rules `records.md` names by number alone."""
CODE: Final = sorted(
    path
    for folder in ("src", "tests", "examples")
    for pattern in ("*.py", "*.mjs", "*.md", "*.html")
    for path in (TOP / folder).rglob(pattern)
    if "node_modules" not in path.parts and path != Path(__file__)
)
TEXTS: Final = [*sorted(TOP.glob("*.md")), TOP / "pyproject.toml", TOP / ".ci" / "run"]

_NUMBER: Final = r"\d+(?:\.\d+)*"
_SEVERAL: Final = rf"{_NUMBER}(?:(?:, and|, to|,| and| to| or) {_NUMBER})*"
_IN_CODE: Final = re.compile(rf"docs/([\w-]+)\.md(?: ({_SEVERAL}))?")
_IN_DOCS: Final = re.compile(rf"(?:docs/)?\b([\w-]+)\.md\)?(?: ({_SEVERAL}))?")
_OWN: Final = re.compile(rf"\((?!\d{{3}})({_SEVERAL})\)")
_LINK: Final = re.compile(r"\]\(([^()\s]+)\)")

# How pages outside of this repository were referred to before they were taken over.
_BARE: Final = re.compile(
    rf"\b(?:semantics|distribution|interop|protocol|trust|defects|design|style|house|channels|operate|speed)"
    rf"(?:\.md)? {_NUMBER}(?![\w%])|(?<!\w)(?:\.\./)?shared/\w+\.md"
)


def _flat(path: Path) -> str:
    """The text of a file on one line: a reference may be broken between two lines, of comments as well."""
    return re.sub(r"\s*\n\s*(?:#:? +)?", " ", path.read_text(encoding="utf-8"))


def _named(found: re.Match[str]) -> Iterator[str]:
    return iter(re.findall(_NUMBER, found[2] or ""))


def _wrong(path: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    """The references in a file that lead nowhere."""
    for found in pattern.finditer(_flat(path)):
        page = DOCS / f"{found[1]}.md"
        if not page.exists():
            # In Markdown a name alone may be that of another file.
            if found[2] is not None or found[0].startswith("docs/"):
                yield f"{path.relative_to(TOP)}: {found[0]}"
            continue
        known = numbers(page.read_text(encoding="utf-8"))
        for number in _named(found):
            if number not in known:
                yield f"{path.relative_to(TOP)}: docs/{page.name} {number}"


def test_references_in_code() -> None:
    """Each reference in source, tests and examples names a page of `docs/`, and headings of that page."""
    assert [] == list(chain.from_iterable(_wrong(path, _IN_CODE) for path in [*CODE, *TEXTS]))


def test_references_are_many() -> None:
    """The rule above is applied to something: the code does name pages and rules."""
    found = [match for path in CODE for match in _IN_CODE.finditer(_flat(path)) if match[2] is not None]
    assert len(found) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_references_in_docs(page: Path) -> None:
    """Each reference of a page to another page, or to a rule of its own, names a heading."""
    wrong = list(_wrong(page, _IN_DOCS))
    text = page.read_text(encoding="utf-8")
    known = numbers(RULES.read_text(encoding="utf-8") if page.name == "records.md" else text)
    # A page without numbered headings has no rules of its own: a number in it is a number.
    for line in prose(text) if known else ():
        for found in _OWN.finditer(line):
            wrong += [f"{page.name}: ({each})" for each in re.findall(_NUMBER, found[1]) if each not in known]
    assert [] == wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_of_headings(page: Path) -> None:
    """No two headings of a page have one number, so that a reference means one rule."""
    found = numbers(page.read_text(encoding="utf-8"))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("path", [*PAGES, *sorted(TOP.glob("*.md"))], ids=lambda path: path.name)
def test_links(path: Path) -> None:
    """Each link of a page to a file of the repository leads to a file, and to a heading if it names one."""
    broken: list[str] = []
    for target in chain.from_iterable(_LINK.findall(line) for line in prose(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert [] == broken


def test_no_other_pages() -> None:
    """No text refers to a page that is not in the repository: rules are named as `docs/page.md 3.4`."""
    assert [] == [
        f"{path.relative_to(TOP)}: {found[0]}"
        for path in [*CODE, *TEXTS, *PAGES]
        for found in _BARE.finditer(re.sub(r"\b(?:docs/)?[\w-]+\.md\)? (?=\d)", "", _flat(path)))
    ]
