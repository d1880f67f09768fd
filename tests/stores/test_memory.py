"""What only the store in memory has."""

from __future__ import annotations

import pytest

from resonate_anyio import StoreError
from resonate_anyio.stores import MemoryStore
from resonate_anyio.stores._memory import DueIndex

from .records import put


def test_use_before_open_is_refused() -> None:
    """A store that is not open says so."""
    with pytest.raises(StoreError, match=r"not open; call open\(\) first"):
        put(MemoryStore(), "a")


def test_moving_an_instant_for_ever_takes_no_room() -> None:
    """A lease that is renewed ten thousand times leaves only a few stale entries, and its last instant counts."""
    index = DueIndex()
    for instant in range(10_000):
        index.put("lease", instant)

    assert (9_999, {(9_999, "lease")}, set()) == (index.next(), set(index.due(9_999)), set(index.due(9_998)))
    assert 100 > len(index._heap)


def test_a_store_says_whether_it_is_open() -> None:
    """The repr tells the state."""
    store = MemoryStore()
    store.open()
    assert "<MemoryStore open>" == repr(store)
    store.close()
    assert "<MemoryStore closed>" == repr(store)
