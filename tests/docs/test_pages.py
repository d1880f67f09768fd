"""Every Python program in README.md and in docs/ runs, on both backends, and prints what its page says."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import pytest
from attrs import frozen

ROOT: Final = Path(__file__).parents[2]

_BLOCK: Final = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_OUTPUT: Final = re.compile(r"\n\n```text\n(?P<output>.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN: Final = re.compile(r"^<!-- not run: \S.* -->\n\Z", re.MULTILINE)
_LINK: Final = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
_HEADING: Final = re.compile(r"^#+ (.*)$", re.MULTILINE)


@frozen
class Program:
    """One block of Python.

    Attributes:
        place: the page and the line at which it begins.
        text: the program.
        output: the text block that follows it directly, or None.
        excused: whether the line above it says why it is not run.
    """

    place: str
    text: str
    output: str | None
    excused: bool


@frozen
class Page:
    """One page of the documentation."""

    path: Path

    @property
    def text(self) -> str:
        """The page as it is written."""
        return self.path.read_text(encoding="utf-8")

    @property
    def name(self) -> str:
        """The path below the root of the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def prose(self) -> str:
        """The page without its blocks of code."""
        return _BLOCK.sub("", self.text)

    @property
    def programs(self) -> Iterator[Program]:
        """All blocks of Python, run or not."""
        for block in _BLOCK.finditer(self.text):
            if block["language"] in {"py", "python", "python3", "pycon"}:
                output = _OUTPUT.match(self.text, block.end())
                yield Program(
                    f"{self.name} line {self.text[: block.start()].count(chr(10)) + 1}",
                    block["body"],
                    None if output is None else output["output"],
                    _NOT_RUN.search(self.text[: block.start()]) is not None,
                )

    @property
    def links(self) -> set[tuple[str, str]]:
        """The paths that it links to, as they are written, each with the part after `#`."""
        return set(_LINK.findall(self.prose))

    @property
    def headings(self) -> set[str]:
        """The headings, as links name them."""
        plain = (re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in _HEADING.findall(self.prose))
        return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


README: Final = Page(ROOT / "README.md")
INDEX: Final = Page(ROOT / "docs" / "README.md")
PAGES: Final = [README, Page(ROOT / "CONTRIBUTING.md"), *map(Page, sorted((ROOT / "docs").rglob("*.md")))]
PROGRAMS: Final = [program for page in PAGES for program in page.programs]

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


@pytest.mark.wall
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("program", "output"),
    [pytest.param(each.text, each.output, id=each.place) for each in PROGRAMS if each.output is not None],
)
def test_programs_print_what_is_said(
    program: str,
    output: str,
    backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program of a page, pasted into a file and run in an empty folder, prints the block that follows it."""
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(anyio, "run", partial(anyio.run, backend=backend))

    runpy.run_path(str(path), run_name="__main__")

    assert output == capsys.readouterr().out


@each_page
def test_every_program_is_run(page: Page) -> None:
    """A block of Python has the output that the test above compares, or a comment before it says why it is not run."""
    assert [] == [each.place for each in page.programs if (each.output is None) is not each.excused]


def test_pages_have_programs() -> None:
    """The blocks of Python are found."""
    assert {"README.md", "docs/guide.md", "docs/operations.md"} <= {each.place.split()[0] for each in PROGRAMS}


@each_page
def test_every_link_leads_somewhere(page: Page) -> None:
    """Links inside of this repository lead to a file, and to a heading of it if they name one."""
    lost = set()
    for target, heading in page.links:
        path = (page.path.parent / target).resolve() if target else page.path
        if not path.exists() or (heading and heading not in Page(path).headings):
            lost.add((target, heading))
    assert set() == lost


def test_every_small_example_is_linked() -> None:
    """README.md names every small example."""
    small = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")} - {"examples/index_source_tree.py"}
    assert set() == small - {target for target, _ in README.links}


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links to every other page of its folder."""
    pages = {path.relative_to(INDEX.path.parent).as_posix() for path in INDEX.path.parent.rglob("*.md")}
    assert set() == pages - {target for target, _ in INDEX.links} - {"README.md"}


def test_readme_is_short() -> None:
    """README.md has at most 250 lines: what is longer belongs on a page of docs/."""
    assert README.text.count("\n") <= 250


@pytest.mark.parametrize("marker", ["example", "tests"])
def test_commands_can_be_found(marker: str) -> None:
    """Both commands follow their markers, where `.ci/run` looks for them, in one line each."""
    command = re.search(rf"^<!-- {marker} -->\n```sh\n(.*)\n```$", README.text, re.MULTILINE)
    assert command is not None
    assert command[1].startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
