"""How many functions one durable step calls, and in how many modules: what a reader of it has to follow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, TypeAlias

import pytest

from .. import trace
from ..trace import Call, Trace

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each version of Python counts differently")

Bar: TypeAlias = tuple[int, int]

LIVE: Final[Bar] = (240, 28)
"""Calls and modules of a live step."""

LIVE_ABOVE: Final[Bar] = (110, 12)
"""Those above the network."""

REPLAYED: Final[Bar] = (80, 14)
"""Calls and modules of a step that is replayed."""


def within(trace: Trace, bar: Bar) -> bool:
    """Whether a trace has no more calls and no more modules than the bar allows."""
    return len(trace.calls) <= bar[0] and len(trace.modules) <= bar[1]


@pytest.mark.parametrize(
    ("kind", "room", "bar"),
    [
        pytest.param(trace.live, None, LIVE, id="live"),
        pytest.param(trace.live, "networks", LIVE_ABOVE, id="live, above the network"),
        pytest.param(trace.replayed, None, REPLAYED, id="replayed"),
    ],
)
def test_a_step_makes_few_calls(kind: Callable[[], Trace], room: str | None, bar: Bar) -> None:
    """A step can be followed from its beginning to its end."""
    traced = kind() if room is None else kind().above(room)
    assert within(traced, bar), f"{traced}; python -m tests.trace -v lists them"


def requests(trace: Trace) -> int:
    """How many writes the store has been asked for."""
    return sum(call.function == "MemoryStore.transact" for call in trace.calls)


def test_the_trace_is_one_step() -> None:
    """A live step makes one request, and a replayed one none."""
    assert (1, 0) == (requests(trace.live()), requests(trace.replayed()))


def test_rooms_above_are_counted() -> None:
    """Above the network is what is higher in the order of the rooms."""
    rooms = ("_api/_context.py", "_requests/_requester.py", "networks/_local.py", "_codec/_codec.py", "abc.py")
    calls = tuple(Call(module, "f", 1) for module in rooms)
    assert list(rooms[:2]) == [call.module for call in Trace(calls).above("networks").calls]
