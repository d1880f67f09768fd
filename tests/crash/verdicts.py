"""What has to hold in every life, and after every crash. Each check gives what is wrong, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from attrs import frozen

from resonate_anyio._graph import DETACHED_TAG, parent_of
from resonate_anyio._protocol import Promise, PromiseState

from .corpus.leaves import LEAVES
from .lives import Life, Point
from .scenarios import ROOT, Scenario, ending_of
from .states import State

_BY_CODE = {PromiseState.RESOLVED, PromiseState.REJECTED}


@frozen
class Past:
    """What was before a life: the crashes that led to it.

    Attributes:
        points: where the processes before it died, in order.
    """

    points: tuple[Point, ...] = ()

    @property
    def runs(self) -> Counter[str]:
        """How often each leaf had begun."""
        return sum((point.runs for point in self.points), Counter[str]())

    @property
    def cut(self) -> Counter[str]:
        """How often each leaf was running, or its result not on record yet, at a kill."""
        return Counter(id for point in self.points for id in point.runs if not point.state.settled(id))

    def __str__(self) -> str:
        return ", then ".join(map(str, self.points))


def verdict(scenario: Scenario, life: Life, past: Past, reference: Life | None) -> list[str]:
    """Everything that is wrong with a life, given the crashes before it.

    Without a reference, outcomes may differ: time has passed while nobody lived.
    """
    return [
        *life.errors,
        *(_settled(life) if reference is None else _endings(scenario, life, reference)),
        *_runs(life, past),
        *_left_behind(life),
        *(complaint for point in life.points for complaint in structure(point.state)),
    ]


def _settled(life: Life) -> Iterator[str]:
    if not life.settled:
        yield f"the root never settled; pending: {life.final.pending}"


def _endings(scenario: Scenario, life: Life, reference: Life) -> Iterator[str]:
    yield from _settled(life)
    if life.settled and not scenario.ends_as(ending := ending_of(life.final.promises[ROOT])):
        yield f"the root ended as {ending}, not as {scenario.ending}"
    expected, actual = scenario.endings(reference.final), scenario.endings(life.final)
    for id in sorted(expected.keys() | actual.keys()):
        if expected.get(id) != actual.get(id):
            yield f"{id} ended as {actual.get(id)}; without a crash: {expected.get(id)}"


def _runs(life: Life, past: Past) -> Iterator[str]:
    on_record = past.points[-1].state if past.points else None
    cut, total = past.cut, past.runs + life.journal.runs
    for id, count in life.journal.runs.items():
        if on_record is not None and on_record.settled(id):
            yield f"{id} ran again although its outcome was on record"
        if total[id] > 1 + cut[id]:
            yield f"{id} ran {total[id]} times, {count} of them in this life; in flight at {cut[id]} kills"
    for id, promise in life.final.promises.items():
        if _is_leaf(promise) and promise.state is PromiseState.RESOLVED and not total[id]:
            yield f"{id} was resolved but never ran"


def _is_leaf(promise: Promise) -> bool:
    # A leaf is called by its name, which is in its id.
    return promise.id.rpartition(".")[2].partition("-")[0] in LEAVES


def _left_behind(life: Life) -> Iterator[str]:
    if life.final.pending:
        yield f"still pending when all is quiet: {life.final.pending}"
    for state in (life.quiet, life.final):
        if state.leases:
            yield f"leases left: {state.leases}"
    yield from structure(life.final)


def structure(state: State) -> Iterator[str]:
    """At any instant: what has ended by its own code has ended after everything that it called."""
    for promise in state.promises.values():
        parent = state.promises.get(parent_of(promise))
        if promise.pending and DETACHED_TAG not in promise.tags and parent is not None and parent.state in _BY_CODE:
            yield f"{promise.id} is pending although {parent.id} is {parent.state.value}"
