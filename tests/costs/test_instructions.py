"""How many instructions work takes. valgrind counts them, so that another load of the machine does not change them."""

from __future__ import annotations

import shutil
import sys
from functools import cache
from typing import Final

import pytest

from ..benchmarks.bench_instructions import per_unit, per_yardstick
from .table import INSTRUCTIONS, YARDSTICK

pytestmark = [
    pytest.mark.slow,
    # A run under valgrind takes some fifty times as long as one without.
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each version of Python has other numbers"),
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed"),
]

TOLERANCE: Final = 1.05


@cache
def same_build() -> bool:
    """Return whether this Python takes as many instructions for the same code as the one that gave the numbers."""
    return 0.99 <= per_yardstick() / YARDSTICK <= 1.01


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions(name: str) -> None:
    """One unit of work takes as many instructions as the table says, within a twentieth."""
    if not same_build():
        pytest.skip("this build of Python takes another number of instructions for the same code")

    taken = per_unit(name)
    assert INSTRUCTIONS[name] / TOLERANCE <= taken <= INSTRUCTIONS[name] * TOLERANCE, f"{taken:,.0f}"
