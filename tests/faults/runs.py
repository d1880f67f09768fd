"""`Runs`: which steps were started and which came to their end, by id, compared with what is on record."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from anyio import current_time
from attrs import define, field, frozen

from resonate_anyio._protocol import Promise, PromiseState, Task, TaskState, View
from resonate_anyio.abc import Store

_ALL: Final = 100_000


@frozen(kw_only=True)
class Run:
    """One start of a step.

    Attributes:
        id: the step's.
        who: the pid of the worker that started it.
        at: when, in seconds of the loop's clock.
    """

    id: str
    who: str
    at: float


@define(eq=False)
class Runs:
    """Every run of every step, and what was wrong with it.

    A step that is on record as finished must not be started: it is looked up in the store at the very moment of each
    start, past all networks. The worker cannot know better than its last answer, so what was settled by somebody else
    while that answer was under way is forgiven (`blind`); as long as nobody loses a lease there is nobody else.

    Attributes:
        blind: how many seconds old the answer may be that made a worker start a step.
        started: each start, in order.
        ended: how often each step came to its end.
        faults: what must not have happened, in words.
    """

    _store: Store
    blind: float = 0
    started: list[Run] = field(factory=list, init=False)
    ended: Counter[str] = field(factory=Counter, init=False)
    faults: list[str] = field(factory=list, init=False)

    @asynccontextmanager
    async def run(self, id: str, who: str) -> AsyncIterator[None]:
        """A step runs while the block does."""
        self._check(id, who)
        self.started.append(Run(id=id, who=who, at=current_time()))
        yield
        self.ended[id] += 1

    def _check(self, id: str, who: str) -> None:
        record = self._store.read(lambda view: view.promise(id))
        if record is None:
            self.faults.append(f"{who} started {id}, which is not on record")
        elif not record.pending:
            self.faults.append(f"{who} started {id}, which was {record.state.value}")

    @property
    def counts(self) -> Counter[str]:
        """How often each step was started."""
        return Counter(run.id for run in self.started)

    def repeated(self) -> dict[str, int]:
        """The steps that were started more than once."""
        return {id: count for id, count in self.counts.items() if count > 1}


def promises(store: Store) -> dict[str, Promise]:
    """Everything on record."""

    def read(view: View) -> Sequence[Promise]:
        return view.search_promises(state=None, tags={}, after=None, limit=_ALL)

    return {promise.id: promise for promise in store.read(read)}


def pending(store: Store) -> list[str]:
    """What is on record without an outcome."""
    return [promise.id for promise in promises(store).values() if promise.state is PromiseState.PENDING]


def unfinished(store: Store) -> list[str]:
    """The tasks that somebody may still work on, each with its state."""

    def read(view: View) -> Sequence[Task]:
        return view.search_tasks(state=None, after=None, limit=_ALL)

    tasks = store.read(read)
    return [f"{task.id}: {task.state.value}" for task in tasks if task.state is not TaskState.FULFILLED]
