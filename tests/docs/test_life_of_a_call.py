"""The first walk of `docs/life-of-a-call.md` names the modules that a step visits."""

from __future__ import annotations

import re
import sys

import pytest

from tests import trace
from tests.house.source import SOURCE

from .pages import DOCS

PAGE = (DOCS / "life-of-a-call.md").read_text(encoding="utf-8")
_MODULE = re.compile(r"`((?:\w+/)*\w+\.py)`")


def _walk() -> str:
    """The text of the first walk."""
    return PAGE.partition("\n### Describe the call")[2].partition("\n## ")[0]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each version of Python counts differently")
def test_the_walk_names_each_module_that_a_step_visits() -> None:
    """A live step visits the modules that its walk names, each once, in this order; `python -m tests.trace -v`."""
    visited = dict.fromkeys(call.module for call in trace.live().calls)

    assert list(visited) == _MODULE.findall(_walk())


def test_the_named_modules_exist() -> None:
    """Each module that the page names is one of the package or of the tests."""
    named = _MODULE.findall(PAGE)

    assert [] == [name for name in named if not (SOURCE / name).exists() and not (SOURCE.parents[1] / name).exists()]
    assert len(named) > 30
