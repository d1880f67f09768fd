"""What has to hold in every life, and after every crash. Each check gives what is wrong, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from attrs import frozen

from resonate_anyio._protocol import Promise, PromiseState

from .corpus.leaves import LEAVES
from .lives import Life, Point
from .scenarios import ROOT, ending_of
from .states import EMPTY, State


@frozen
class Past:
    """What was before a life: the crashes that led to it.

    Attributes:
        points: where the processes before it died, in order.
    """

    points: tuple[Point, ...] = ()

    @property
    def left(self) -> State:
        """What the last of them left behind."""
        return self.points[-1].state if self.points else EMPTY

    @property
    def runs(self) -> Counter[str]:
        """How often each leaf had begun."""
        return sum((point.runs for point in self.points), Counter[str]())

    @property
    def cut(self) -> Counter[str]:
        """How often each leaf was running, or its result not on record yet, at a kill."""
        return Counter(id for point in self.points for id in point.runs if not point.state.settled(id))

    def __str__(self) -> str:
        return ", then ".join(map(str, self.points)) or "not killed"


def verdict(life: Life, past: Past, reference: Life | None) -> list[str]:
    """Everything that is wrong with a life, given the crashes before it.

    Without a reference, outcomes may differ: time has passed while nobody lived.
    """
    return [
        *life.errors,
        *(_settled(life) if reference is None else _endings(life, reference)),
        *_runs(life, past),
        *_left_behind(life),
        *_of_the_dead(life, past, at_once=reference is not None),
        *life.orphans,
    ]


def stop_verdict(life: Life) -> list[str]:
    """Everything that is wrong with a life that was ended in order."""
    return [*life.errors, *_leases(life), *life.orphans]


def _settled(life: Life) -> Iterator[str]:
    if not life.settled:
        yield f"the root never settled; pending: {life.final.pending}"


def _endings(life: Life, reference: Life) -> Iterator[str]:
    yield from _settled(life)
    if life.settled and not life.scenario.ends_as(ending := ending_of(life.final.promises[ROOT])):
        yield f"the root ended as {ending}, not as {life.scenario.ending}"
    expected, actual = reference.endings, life.endings
    for id in sorted(expected.keys() | actual.keys()):
        if expected.get(id) != actual.get(id):
            yield f"{id} ended as {actual.get(id)}; without a crash: {expected.get(id)}"


def _runs(life: Life, past: Past) -> Iterator[str]:
    cut, total = past.cut, past.runs + life.runs
    for id, count in life.runs.items():
        if past.left.settled(id):
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
    yield from _leases(life)


def _leases(life: Life) -> Iterator[str]:
    if life.final.leases:
        yield f"still leased when the process has stopped: {life.final.leases}"


def _of_the_dead(life: Life, past: Past, *, at_once: bool) -> Iterator[str]:
    """Leases that the dead have left: they are gone when the process has started, or at least in the end."""
    dead = set(past.left.leases.values())
    state = life.begun if at_once else life.quiet
    if kept := {id: holder for id, holder in state.leases.items() if holder in dead}:
        yield f"still leased to the dead: {kept}"
