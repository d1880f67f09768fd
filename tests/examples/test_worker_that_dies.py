"""The example of a worker that dies keeps its promise: all arrives, and nothing that was recorded is done again."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from .conftest import EXAMPLES


@pytest.mark.wall(limit=240)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_worker_that_dies(backend: str) -> None:
    """Every parcel goes through every stop, in order; only what was under way at the kill may be seen twice."""
    program = [sys.executable, str(EXAMPLES / "worker_that_dies.py"), "--backend", backend]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=220)

    moves = re.findall(r"worker (\d+): parcel (\d+) is (.*)", done.stdout)
    stops = ["packed", "sent", "at the customs", "in the van", "delivered"]
    for parcel in range(12):
        assert f"parcel {parcel} went through 5 stops" in done.stdout
        seen = [stop for _, number, stop in moves if number == str(parcel)]
        assert stops == sorted(set(seen), key=seen.index)
    again = [count - 1 for count in Counter((number, stop) for _, number, stop in moves).values() if count > 1]
    # One stop of each parcel that the killed worker had was under way.
    assert sum(again) <= 12
    assert 2 == len({worker for worker, _, _ in moves})
    assert "was killed" in done.stdout
