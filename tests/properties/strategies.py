"""Random plans, and what goes wrong with them.

What is not generated, because its outcome is not determined when a process dies:

- Plain scopes (`anyio.fail_after`, `asyncio.timeout`): their time begins anew in every replay.
- Races against a step whose time begins anew after a crash (`Leaf(work=None)`), or between two events of one instant:
  whatever runs beside something else begins with a wait of a length of its own.
- Synchronous steps: virtual time does not pass in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from .chaos import Effect, Failure, Mishap, Trick
from .graphs import (
    MOST_WAITS,
    Call,
    Completed,
    Detached,
    External,
    Facts,
    Fail,
    First,
    Flow,
    Gather,
    Group,
    Leaf,
    Nursery,
    Pause,
    Plan,
    Scope,
    Sleep,
    Spawn,
    Startable,
    Step,
    Try,
)

T = TypeVar("T")

_DEEPEST: Final = 4
_STATES: Final = ("resolved", "resolved", "resolved", "rejected", "rejected_canceled")


SETTINGS: Final[st.SearchStrategy[dict[str, Any]]] = st.sampled_from(
    (
        {},
        {"hot_for": 1e9},
        {"hot_for": 0},
        {"hot_limit": 1},
        {"hot_for": 0, "parked_limit": 0},
        {"hot_limit": 1, "parked_limit": 1},
    )
)
"""Ways to keep executions that wait: hot, parked or unloaded."""


@st.composite
def plans(draw: st.DrawFn, *, waits: int = MOST_WAITS, interrupted: int = 4) -> Plan:
    """Any plan with so many waits at most; one in `interrupted` begins with a block cancelled in a plain await."""
    return _Author(draw, waits, interrupted).plan()


def failures(most: int) -> st.SearchStrategy[list[Failure]]:
    """What goes wrong, `most` times at most."""
    one = st.builds(
        Failure,
        at=st.integers(0, 199),
        nth=st.sampled_from((0, 0, 0, 1, 2)),
        effect=st.sampled_from(Effect),
        downtime=st.sampled_from((0, 1, 40, 300)),
        again=st.sampled_from(((), (), (), (0,), (1, 2), (3,), (5, 8), (0, 0, 13))),
    )
    return st.lists(one, min_size=1, max_size=most)


def mishaps(most: int) -> st.SearchStrategy[list[Mishap]]:
    """What goes wrong with messages, `most` times at most."""
    one = st.builds(
        Mishap,
        at=st.integers(0, 99),
        nth=st.sampled_from((0, 0, 0, 1)),
        trick=st.sampled_from(Trick),
        # From under way to out of date: the copy of a message may arrive days after it has become untrue.
        delay=st.sampled_from((1, 20, 300)),
    )
    return st.lists(one, min_size=1, max_size=most)


class _Author:
    """Draws one plan. It gives out each exponent once."""

    def __init__(self, draw: st.DrawFn, waits: int, interrupted: int) -> None:
        self._draw: Callable[[st.SearchStrategy[Any]], Any] = draw
        self._exponents = list(range(waits))
        self._of_interrupted = interrupted

    def plan(self) -> Plan:
        flow = self._flow(0, self._opening())
        return Plan(flow=flow, cancelled=self._seldom_exponent())

    def _opening(self) -> tuple[Step, ...]:
        """What a plan may begin with: a block that is cancelled in a plain await, and enough after it to crash in."""
        if len(self._exponents) < 3 or not self._chance(self._of_interrupted):
            return ()
        block = self._interrupted(_DEEPEST - 1)
        return (block, Leaf(), self._sleep(0)) if self._exponents else (block, Leaf())

    def _exponent(self) -> int:
        return self._exponents.pop(self._draw(st.integers(0, len(self._exponents) - 1)))

    def _seldom_exponent(self) -> int | None:
        return self._exponent() if self._exponents and self._chance(8) else None

    def _chance(self, of: int) -> bool:
        """One in `of`; what shrinks is not."""
        return bool(self._draw(st.integers(0, of - 1)) == of - 1)

    def _choose(self, *options: T) -> T:
        chosen: T = self._draw(st.sampled_from(options))
        return chosen

    def _flow(self, depth: int, first: tuple[Step, ...] = ()) -> Flow:
        length = self._draw(st.integers(1 - len(first), 3) if depth else st.integers(2, 6))
        return Flow((*first, *(self._step(depth) for _ in range(length))))

    def _step(self, depth: int) -> Step:
        kinds: list[Callable[[int], Step]] = [self._quick]
        if self._exponents:
            kinds += [self._leaf, self._sleep, self._external, self._pause, self._pause]
        if self._exponents and depth < _DEEPEST:
            kinds += [self._spawn, self._spawn, self._spawn, self._detached, self._scope, self._scope]
            kinds += [self._group, self._group, self._group, self._gather, self._first, self._completed, self._nursery]
        if len(self._exponents) > 1 and depth < _DEEPEST:
            kinds += [self._interrupted]
        if depth < _DEEPEST:
            kinds += [self._try, self._try, self._call]
        return self._choose(*kinds)(depth)

    def _quick(self, _: int) -> Leaf | Fail | Facts:
        if self._chance(6):
            return Fail()
        return Facts() if self._chance(4) else Leaf(failures=self._failures())

    def _failures(self) -> int | None:
        return self._choose(0, 0, 0, 0, 0, 1, 2, None)

    def _leaf(self, _: int) -> Leaf:
        return Leaf(
            work=self._exponent(),
            failures=self._failures(),
            timeout=self._seldom_exponent(),
            cancelled=self._seldom_exponent(),
        )

    def _sleep(self, _: int) -> Sleep:
        return Sleep(length=self._exponent())

    def _pause(self, _: int) -> Pause:
        return Pause(length=None if self._chance(4) else self._exponent())

    def _interrupted(self, depth: int) -> Try:
        """A block that is cancelled while its body waits for something of which nothing is on record."""
        sooner, later = sorted((self._exponent(), self._exponent()))
        body = self._flow(depth + 1, (Pause(length=later), Leaf()))
        if self._chance(3):
            return Try(flow=Flow((Scope(length=sooner, fails=self._chance(2), flow=Flow((Leaf(), *body.steps))),)))
        failing = Leaf(work=sooner, failures=None)
        return Try(flow=Flow((Group(calls=(failing,), body=body, limit=self._limit()),)))

    def _external(self, _: int) -> External:
        wait = self._exponent()
        # One that nobody settles has a deadline of its own: nothing waits to the end of the root's life.
        if self._chance(6):
            return External(settled=None, timeout=wait)
        return External(settled=wait, state=self._choose(*_STATES), timeout=self._seldom_exponent())

    def _call(self, depth: int) -> Call:
        return self._call_of(self._flow(depth + 1))

    def _call_of(self, flow: Flow) -> Call:
        return Call(
            how=self._choose("run", "rpc"),
            flow=flow,
            timeout=self._seldom_exponent(),
            cancelled=self._seldom_exponent(),
        )

    def _led_call(self, depth: int) -> Call:
        first: Sleep | Leaf = self._sleep(depth) if self._chance(2) else self._leaf(depth)
        return self._call_of(self._flow(depth + 1, (first,)))

    def _detached(self, depth: int) -> Detached:
        return Detached(flow=self._flow(depth + 1))

    # What runs beside something else

    def _entrant(self, depth: int) -> Startable:
        kinds: list[Callable[[int], Startable]] = [self._leaf, self._sleep, self._external]
        if depth < _DEEPEST:
            kinds += [self._led_call, self._led_call]
        return self._choose(*kinds)(depth)

    def _entrants(self, depth: int, most: int) -> tuple[Startable, ...]:
        count = self._draw(st.integers(0, most))
        return tuple(self._entrant(depth) for _ in range(count) if self._exponents)

    def _code(self, depth: int) -> Flow:
        # A step, and no sleep: in a plain nursery, a replay tells tasks from each other by what they call first.
        return self._flow(depth + 1, (self._leaf(depth),))

    def _codes(self, depth: int) -> tuple[Flow, ...]:
        count = self._draw(st.integers(0, 2))
        return tuple(self._code(depth) for _ in range(count) if self._exponents)

    def _spawn(self, depth: int) -> Spawn:
        return Spawn(call=self._entrant(depth), awaited=not self._chance(3))

    def _group(self, depth: int) -> Group:
        calls, codes = self._entrants(depth, 3), self._codes(depth)
        return Group(calls=calls, codes=codes, body=self._flow(depth + 1), limit=self._limit())

    def _limit(self) -> int | None:
        return self._choose(None, None, 1, 2)

    def _gather(self, depth: int) -> Gather:
        return Gather(calls=(self._entrant(depth), *self._entrants(depth, 3)), limit=self._limit())

    def _first(self, depth: int) -> First:
        return First(calls=(self._entrant(depth), *self._entrants(depth, 2)), kept=self._entrants(depth, 1))

    def _completed(self, depth: int) -> Completed:
        return Completed(calls=(self._entrant(depth), *self._entrants(depth, 3)), taken=self._choose(9, 9, 1))

    def _nursery(self, depth: int) -> Nursery:
        return Nursery(codes=(self._code(depth), *self._codes(depth)))

    # Blocks

    def _scope(self, depth: int) -> Scope:
        length, fails, flow = self._exponent(), self._chance(2), self._flow(depth + 1)
        if "Pause(" in repr(flow):
            # That a deadline has passed in a plain await is on record if a call follows in the block, and nowhere else.
            flow = Flow((*flow.steps, Leaf()))
        return Scope(length=length, fails=fails, flow=flow)

    def _try(self, depth: int) -> Try:
        return Try(flow=self._flow(depth + 1))
