"""`State`: everything that a store holds at an instant, to look at and to begin again from.

A process that is killed leaves exactly this behind. So a crash needs no victim: the state is copied at the instant of
the kill, and the next process starts on the copy, while the first runs on in a world of its own, unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, TypeVar

from attrs import define, evolve, field, frozen

from resonate_anyio._finished import as_call
from resonate_anyio._history import DETACHED_TAG, parent_of
from resonate_anyio._protocol import (
    Change,
    Outcome,
    Promise,
    PromiseState,
    PutCallback,
    PutListener,
    PutPromise,
    PutTask,
    Response,
    Step,
    Task,
    TaskState,
    View,
)
from resonate_anyio._protocol._pages import all_promises, all_tasks
from resonate_anyio._protocol._promises import timed_out
from resonate_anyio._protocol._rules import TIMER_PID
from resonate_anyio.abc import Store
from resonate_anyio.testing._virtual_clock import DEFAULT_EPOCH_MS
from tests.chosen import dotted
from tests.engine.harness import is_mark

T = TypeVar("T")

_BY_CODE: Final = frozenset({PromiseState.RESOLVED, PromiseState.REJECTED})


@frozen(slots=False, eq=False)
class State:
    """What a store holds at an instant.

    Attributes:
        instant: the time on the engine's clock, in milliseconds.
        records: what has to be written into an empty store to make it.
    """

    instant: int
    records: tuple[Change, ...] = field(repr=False)

    @classmethod
    def of(cls, store: Store, instant: int) -> State:
        """The present state of an open store."""
        return cls(instant, tuple(store.read(_everything)))

    @classmethod
    def found(cls, store: Store, instant: int) -> State:
        """The state of a store that is not open."""
        store.open()
        try:
            return cls.of(store, instant)
        finally:
            store.close()

    def restore(self, store: Store) -> None:
        """Make an empty store, which is not open, hold this."""
        store.open()
        try:
            store.transact([lambda _: Outcome(response=Response(status=200), changes=self.records)])
        finally:
            store.close()

    @property
    def stored(self) -> Iterator[Promise]:
        """Every promise as it is stored."""
        return (change.promise for change in self.records if isinstance(change, PutPromise))

    @cached_property
    def promises(self) -> Mapping[str, Promise]:
        """Every promise but the marks of lives, as a program that asks for it sees it: a finished step as a call.

        A deadline that has passed has ended its promise, although some rules leave that off the record.
        """
        calls = map(as_call, self.stored)
        return {dotted(call.id): as_told(call, self.instant) for call in calls if not is_mark(call.id)}

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        return {dotted(change.task.id): change.task for change in self.records if isinstance(change, PutTask)}

    def settled(self, id: str) -> bool:
        return id in self.promises and not self.promises[id].pending

    @cached_property
    def pending(self) -> list[str]:
        return [id for id, promise in self.promises.items() if promise.state is PromiseState.PENDING]

    @cached_property
    def leases(self) -> dict[str, str]:
        """Who holds which task. Those of timers are nobody's."""
        held = (task for task in self.tasks.values() if task.state is TaskState.ACQUIRED and task.pid != TIMER_PID)
        return {task.id: task.pid or "" for task in held}

    @cached_property
    def orphans(self) -> list[str]:
        """What is pending below something that has ended by its own code: that ends after all that it has called."""
        return [
            f"{promise.id} is pending although {parent.id} is {parent.state.value}"
            for promise in map(self.promises.__getitem__, self.pending)
            if DETACHED_TAG not in promise.tags
            and (parent := self.promises.get(dotted(parent_of(promise)))) is not None
            and parent.state in _BY_CODE
        ]


def as_told(promise: Promise, now: int) -> Promise:
    """The promise as an answer shows it: one that is past its deadline has ended, whether that is on record or not."""
    told = timed_out(promise) if promise.expired(now) else promise
    return evolve(told, id=dotted(told.id))


def _everything(view: View) -> Iterator[Change]:
    return iter(
        [
            *map(PutPromise, all_promises(view)),
            *map(PutTask, all_tasks(view)),
            *map(PutCallback, view.all_callbacks()),
            *(PutListener(*listener) for listener in view.all_listeners()),
        ]
    )


@define(eq=False)
class Recorder(Store):
    """Another store, whose states are copied: each once, however often it is asked for."""

    _inner: Store
    _latest: State | None = field(default=None, init=False)

    @property
    def blocking(self) -> bool:  # type: ignore[override]
        return self._inner.blocking

    def open(self) -> None:
        self._inner.open()

    def close(self) -> None:
        self._inner.close()

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        outcomes = self._inner.transact(steps)
        if any(outcome.changes for outcome in outcomes):
            self._latest = None
        return outcomes

    def read(self, query: Callable[[View], T]) -> T:
        return self._inner.read(query)

    def state(self, instant: int) -> State:
        """The present state. As long as nothing has changed, time included, it is the same object."""
        if self._latest is None:
            self._latest = State.of(self._inner, instant)
        elif self._latest.instant != instant:
            self._latest = evolve(self._latest, instant=instant)
        return self._latest


EMPTY: Final = State(DEFAULT_EPOCH_MS, ())
"""Before the first process has started."""
