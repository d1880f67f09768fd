"""What work costs in requests, transactions, turns of the event loop, cancel scopes and tasks: exact numbers."""

from __future__ import annotations

import pytest

from ..benchmarks.works import WORKS
from .counting import costs_per_unit
from .table import COSTS, INSTRUCTIONS


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", WORKS)
def test_costs(name: str, backend: str) -> None:
    """One unit of work costs what the table says, no more and no less. The numbers are those of today's anyio."""
    assert COSTS[name, backend] == costs_per_unit(WORKS[name], backend)


def test_the_table_has_each_kind_of_work() -> None:
    """The table has the costs of each kind of work on both backends, and its instructions."""
    assert {(name, backend) for name in WORKS for backend in ("asyncio", "trio")} == set(COSTS)
    assert set(WORKS) == set(INSTRUCTIONS)
