"""A store that is watched: after every commit the call graph in it has to be sound.

What must hold at every instant that anybody can observe: when a function's promise has settled, nothing below it is
pending. Two exceptions, because their rule is to settle from the top down (docs/semantics.md 8): what somebody outside
has cancelled, and the executions below a remote call that was cancelled. There, what is below has to follow soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from attrs import define, field

from resonate_anyio._codec import Codec
from resonate_anyio._finished import as_call
from resonate_anyio._history import DETACHED_TAG, parent_of
from resonate_anyio._protocol import Outcome, Promise, PromiseState, PutPromise, PutTask, Step, Task, TaskState, View
from resonate_anyio.abc import Clock, Store
from resonate_anyio.stores import MemoryStore

from .graphs import UNIT

T = TypeVar("T")

CODEC: Final = Codec()

SOON_MS: Final = round(UNIT * 500)
"""Half a unit: what goes wrong in an example delays things by less, and events of different times are further apart."""

_FINISHED: Final = {PromiseState.RESOLVED, PromiseState.REJECTED}


@define(eq=False)
class Ledger(Store):
    """A memory store, and what has been seen in it.

    Attributes:
        promises: every promise as it is now.
        tasks: every task as it is now.
        faults: what was unsound, in words, in the order in which it was seen.
        on_create: is called with each new promise.
        on_commit: is called after each commit that changed a promise.
    """

    clock: Clock
    promises: dict[str, Promise] = field(factory=dict, init=False)
    tasks: dict[str, Task] = field(factory=dict, init=False)
    faults: list[str] = field(factory=list, init=False)
    on_create: Callable[[Promise], None] = field(default=lambda _: None, init=False)
    on_commit: Callable[[], None] = field(default=lambda: None, init=False)
    _inner: MemoryStore = field(factory=MemoryStore, init=False)
    _children: dict[str, list[str]] = field(factory=dict, init=False)
    _pending: set[str] = field(factory=set, init=False)

    def open(self) -> None:
        self._inner.open()

    def close(self) -> None:
        self._inner.close()

    def read(self, query: Callable[[View], T]) -> T:
        return self._inner.read(query)

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        outcomes = self._inner.transact(steps)
        before = {promise.id: self.promises.get(promise.id) for promise in self._take(outcomes)}
        for id in before:
            self._check(self.promises[id])
        for id, old in before.items():
            if old is None:
                self.on_create(self.promises[id])
        if before:
            self.on_commit()
        return outcomes

    def _take(self, outcomes: Sequence[Outcome]) -> Iterator[Promise]:
        for change in (change for outcome in outcomes for change in outcome.changes):
            match change:
                case PutPromise(record):
                    promise = as_call(record)
                    yield promise
                    self._put(promise)
                case PutTask(task):
                    self.tasks[task.id] = task
                case _:
                    pass

    def _put(self, promise: Promise) -> None:
        old = self.promises.get(promise.id)
        if old is None:
            self._children.setdefault(self.parent(promise), []).append(promise.id)
        elif not old.pending:
            self.faults.append(f"{promise.id} was {old.state} and became {promise.state}")
        self.promises[promise.id] = promise
        (self._pending.add if promise.pending else self._pending.discard)(promise.id)

    # What must hold

    def _check(self, promise: Promise) -> None:
        if not promise.pending:
            self._check_promptness(promise)
        if self._excused(promise.id):
            return
        now = self.clock()
        if promise.pending and not promise.expired(now):
            parent = self.promises.get(self.parent(promise))
            if parent is not None and not parent.pending:
                self.faults.append(f"{promise.id} was created below {parent.id}, which was {parent.state}")
        if not promise.pending:
            pending = [id for id in self._children.get(promise.id, ()) if self._is_pending(id, now)]
            self.faults += [f"{id} was pending when {promise.id} became {promise.state}" for id in pending]

    def _check_promptness(self, promise: Promise) -> None:
        assert promise.settled_at is not None
        late = promise.settled_at - (self.settled_above(promise.id) or promise.settled_at)
        if late > SOON_MS:
            self.faults.append(f"{promise.id} was pending for {late / 1000} s below what had settled")

    def _is_pending(self, id: str, now: int) -> bool:
        promise = self.promises[id]
        return promise.pending and not promise.expired(now)

    def _excused(self, id: str) -> bool:
        """Whether a settlement from the top down has reached `id`, or something above it."""
        calls = (self.promises[id], *self.above(id))
        cancelled = [call for call in calls if call.state is PromiseState.CANCELED]
        return any(call.branch == call.id or _from_outside(call) for call in cancelled)

    @staticmethod
    def parent(promise: Promise) -> str:
        """The call that it belongs to: none for a root, and none for what is detached."""
        parent = parent_of(promise)
        return "" if parent == promise.id or DETACHED_TAG in promise.tags else parent

    # What can be asked

    def above(self, id: str) -> Iterator[Promise]:
        """The calls that `id` belongs to, its own caller first."""
        promise = self.promises.get(id)
        while promise is not None and (promise := self.promises.get(self.parent(promise))) is not None:
            yield promise

    def settled_above(self, id: str) -> int | None:
        """When the first of the calls that `id` belongs to settled, if one has."""
        return min((call.settled_at for call in self.above(id) if call.settled_at is not None), default=None)

    @property
    def quiet(self) -> bool:
        """Whether there is something, and nothing of it is pending."""
        return bool(self.promises) and not self.pending

    @property
    def pending(self) -> list[str]:
        """What is pending."""
        now = self.clock()
        return sorted(id for id in self._pending if self._is_pending(id, now))

    def unfinished_tasks(self) -> list[str]:
        """The tasks that somebody may still work on, each with its state."""
        return sorted(
            f"{task.id}: {task.state}" for task in self.tasks.values() if task.state is not TaskState.FULFILLED
        )

    def finished(self, id: str) -> bool:
        """Whether `id` has an outcome that its own function gave."""
        return id in self.promises and self.promises[id].state in _FINISHED


def _from_outside(promise: Promise) -> bool:
    """Whether somebody outside has cancelled it: the engine itself records why it does."""
    value = CODEC.decode(promise.value)
    return not isinstance(value, dict) or value.get("by", "outside") == "outside"
