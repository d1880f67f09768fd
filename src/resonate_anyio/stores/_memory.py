"""A store that keeps its state in memory, as long as the object lives."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush, merge
from itertools import islice
from typing import Any, Final, Generic, TypeVar, final

from attrs import define, field

from .._errors import StoreError
from .._protocol import (
    Armed,
    Callback,
    Change,
    DropCallback,
    DropListener,
    DropPromise,
    DropSchedule,
    DropTask,
    Kind,
    Outcome,
    Promise,
    PromiseState,
    PutCallback,
    PutListener,
    PutPromise,
    PutSchedule,
    PutTask,
    Schedule,
    Step,
    Task,
    TaskState,
    View,
)
from ..abc import Store

R = TypeVar("R")

# A heap with at most this many stale entries is not rebuilt.
_STALE_ALLOWED: Final = 64


@define(eq=False, repr=False)
class Table(Generic[R]):
    """Records by id, and their ids in order.

    Attributes:
        records: the records by id, in no order; only `put` changes it.
    """

    records: dict[str, R] = field(init=False, factory=dict)
    _ids: list[str] = field(init=False, factory=list)

    def put(self, id: str, record: R | None) -> R | None:
        """Put or (None) remove a record. Return the record that was there."""
        old = self.records.get(id)
        if record is not None:
            self.records[id] = record
            if old is None:
                insort(self._ids, id)
        elif old is not None:
            del self.records[id]
            del self._ids[bisect_left(self._ids, id)]

        return old

    def after(self, id: str | None, until: str | None = None) -> Iterator[R]:
        """Return the records whose id is greater than `id` and not greater than `until`, in order."""
        end = len(self._ids) if until is None else bisect_right(self._ids, until)
        # Not islice(ids, start): that would walk over everything before the start.
        return (self.records[self._ids[index]] for index in range(self._start(id), end))

    def id_ahead(self, id: str | None, count: int) -> str | None:
        """Return the id that is `count` places after `id`, or None if there is none."""
        index = self._start(id) + count - 1
        return self._ids[index] if index < len(self._ids) else None

    def _start(self, id: str | None) -> int:
        return 0 if id is None else bisect_right(self._ids, id)


@define(eq=False, repr=False)
class Groups(Generic[R]):
    """Members by group and key. A group without members takes no space."""

    _groups: dict[str, dict[str, R]] = field(init=False, factory=dict)

    def of(self, group: str) -> list[R]:
        """Return the members of a group in the order of their keys."""
        members = self._groups.get(group)
        return [] if members is None else [members[key] for key in sorted(members)]

    def put(self, group: str, key: str, member: R | None) -> R | None:
        """Put or (None) remove a member. Return the member that was there."""
        members = self._groups.get(group)
        old = None if members is None else members.get(key)
        if member is not None:
            self._groups.setdefault(group, {})[key] = member
        elif members is not None and old is not None:
            del members[key]
            if not members:
                del self._groups[group]

        return old

    def everything(self) -> Iterator[tuple[str, str, R]]:
        """Return every member with its group and its key, by group and then by key."""
        for group, members in sorted(self._groups.items()):
            for key in sorted(members):
                yield group, key, members[key]


@define(eq=False, repr=False)
class DueIndex:
    """The instant at which each id is due: a heap, of which entries that differ from `_instants` are ignored."""

    _instants: dict[str, int] = field(init=False, factory=dict)
    _heap: list[tuple[int, str]] = field(init=False, factory=list)

    def put(self, id: str, instant: int | None) -> None:
        """Make `id` due at an instant, or (None) never."""
        if instant is None:
            self._instants.pop(id, None)
        elif self._instants.get(id) != instant:
            self._instants[id] = instant
            heappush(self._heap, (instant, id))
            if len(self._heap) > 2 * len(self._instants) + _STALE_ALLOWED:
                self._heap = [(instant, id) for id, instant in self._instants.items()]
                heapify(self._heap)

    def _live(self, entry: tuple[int, str]) -> bool:
        instant, id = entry
        return self._instants.get(id) == instant

    def due(self, now: int) -> Iterator[tuple[int, str]]:
        """Return every instant up to `now` with the id that is due then, in order. An id may come twice."""
        # Reading changes nothing: this walks down the heap, which is a tree, the earliest branch first.
        coming = [(self._heap[0], 0)] if self._heap else []
        while coming:
            entry, index = heappop(coming)
            if entry[0] > now:
                return

            for child in (2 * index + 1, 2 * index + 2):
                if child < len(self._heap):
                    heappush(coming, (self._heap[child], child))

            if self._live(entry):
                yield entry

    def next(self) -> int | None:
        """Return the earliest instant at which an id is due, or None."""
        while self._heap and not self._live(self._heap[0]):
            heappop(self._heap)

        return self._heap[0][0] if self._heap else None


T = TypeVar("T")


@final
class MemoryStore(Store):
    """Keeps the state in memory, as long as the object lives.

    The state is still there after `close()` and `open()`. Use an `SQLiteStore` to keep it longer than the process.
    """

    def __init__(self) -> None:
        self._tables = _Tables()
        self._opened = False

    def open(self) -> None:
        """Make the store ready for use.

        Raises:
            StoreError: it is open already.
        """
        if self._opened:
            msg = "this MemoryStore is open already; one engine uses a store at a time, so share its LocalNetwork"
            raise StoreError(msg)

        self._opened = True

    def close(self) -> None:
        """Close the store. The state stays in memory."""
        self._opened = False

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        """Run the steps and keep all their changes, or none if one of them raises."""
        if not self._opened:
            raise _not_open()

        tables = self._tables
        outcomes: list[Outcome] = []
        undo: list[Change] = []
        try:
            for step in steps:
                outcome = step(tables)
                for change in outcome.changes:
                    # One by one, so that `undo` is complete even if the next change fails.
                    undo.append(_WRITERS[type(change)](tables, change))  # noqa: PERF401

                outcomes.append(outcome)
        except BaseException:
            for change in reversed(undo):
                _WRITERS[type(change)](tables, change)

            raise

        return outcomes

    def read(self, query: Callable[[View], T]) -> T:
        """Call `query` with a view of the present state and return its answer."""
        if not self._opened:
            raise _not_open()

        return query(self._tables)

    def __repr__(self) -> str:
        return f"<MemoryStore {'open' if self._opened else 'closed'}>"


def _not_open() -> StoreError:
    msg = "this MemoryStore is not open; call open() first"
    return StoreError(msg)


@define(eq=False, repr=False)
class _Tables:
    """The records and their indexes: the `View` that steps read, and one method for each kind of change."""

    _promises: Table[Promise] = field(init=False, factory=Table)
    _tasks: Table[Task] = field(init=False, factory=Table)
    _schedules: Table[Schedule] = field(init=False, factory=Table)
    _awaiters: Groups[Callback] = field(init=False, factory=Groups)
    _awaited: Groups[Callback] = field(init=False, factory=Groups)
    _listeners: Groups[str] = field(init=False, factory=Groups)
    _branches: Groups[str] = field(init=False, factory=Groups)
    # One index for each group of promises, because servers differ in the groups whose deadlines they watch.
    _deadlines: dict[Armed, DueIndex] = field(init=False, factory=lambda: {armed: DueIndex() for armed in Armed})
    _due_tasks: DueIndex = field(init=False, factory=DueIndex)
    _due_schedules: DueIndex = field(init=False, factory=DueIndex)

    def promise(self, id: str) -> Promise | None:
        return self._promises.records.get(id)

    def task(self, id: str) -> Task | None:
        return self._tasks.records.get(id)

    def schedule(self, id: str) -> Schedule | None:
        return self._schedules.records.get(id)

    def branch(self, branch: str) -> Sequence[Promise]:
        return _records(self._promises, self._branches.of(branch))

    def awaiters(self, awaited: str) -> Sequence[Callback]:
        return self._awaiters.of(awaited)

    def awaited(self, awaiter: str) -> Sequence[Callback]:
        return self._awaited.of(awaiter)

    def listeners(self, promise: str) -> Sequence[str]:
        return self._listeners.of(promise)

    def search_promises(
        self,
        *,
        state: PromiseState | None,
        tags: Mapping[str, str],
        after: str | None,
        limit: int,
        until: str | None = None,
    ) -> Sequence[Promise]:
        found = (
            promise
            for promise in self._promises.after(after, until)
            if (state is None or promise.state is state) and tags.items() <= promise.tags.items()
        )
        return list(islice(found, limit))

    def search_tasks(
        self, *, state: TaskState | None, after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Task]:
        found = (task for task in self._tasks.after(after, until) if state is None or task.state is state)
        return list(islice(found, limit))

    def search_schedules(
        self, *, tags: Mapping[str, str], after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Schedule]:
        schedules = self._schedules.after(after, until)
        found = (schedule for schedule in schedules if tags.items() <= schedule.promise_tags.items())
        return list(islice(found, limit))

    def id_ahead(self, kind: Kind, after: str | None, count: int) -> str | None:
        match kind:
            case "promises":
                return self._promises.id_ahead(after, count)
            case "tasks":
                return self._tasks.id_ahead(after, count)
            case "schedules":
                return self._schedules.id_ahead(after, count)

    def due_promises(self, now: int, *, armed: Armed, limit: int | None = None) -> Sequence[Promise]:
        return _records(self._promises, _first_due(self._among(armed), now, limit))

    def _among(self, armed: Armed) -> list[DueIndex]:
        return [index for group, index in self._deadlines.items() if group <= armed]

    def due_tasks(self, now: int, *, limit: int | None = None) -> Sequence[Task]:
        return _records(self._tasks, _first_due([self._due_tasks], now, limit))

    def due_schedules(self, now: int, *, limit: int | None = None) -> Sequence[Schedule]:
        return _records(self._schedules, _first_due([self._due_schedules], now, limit))

    def next_due(self, *, armed: Armed) -> int | None:
        indexes = (*self._among(armed), self._due_tasks, self._due_schedules)
        return min((instant for index in indexes if (instant := index.next()) is not None), default=None)

    def all_callbacks(self) -> Sequence[Callback]:
        return [callback for _, _, callback in self._awaited.everything()]

    def all_listeners(self) -> Sequence[tuple[str, str]]:
        return [(promise, address) for promise, address, _ in self._listeners.everything()]

    def put_promise(self, change: PutPromise) -> Change:
        promise = change.promise
        id, old = promise.id, self._promises.put(promise.id, promise)
        moved = old is None or old.branch != promise.branch or old.armed is not promise.armed
        if moved:
            if old is not None:
                self._remove_from_indexes(old)

            if promise.branch is not None:
                self._branches.put(promise.branch, id, id)

        self._deadlines[promise.armed].put(id, promise.timeout_at if promise.pending else None)
        return DropPromise(id) if old is None else PutPromise(old)

    def drop_promise(self, change: DropPromise) -> Change:
        old = self._promises.put(change.id, None)
        if old is None:
            return change

        self._remove_from_indexes(old)
        return PutPromise(old)

    def _remove_from_indexes(self, promise: Promise) -> None:
        self._deadlines[promise.armed].put(promise.id, None)
        if promise.branch is not None:
            self._branches.put(promise.branch, promise.id, None)

    def put_task(self, change: PutTask) -> Change:
        task = change.task
        old = self._tasks.put(task.id, task)
        self._due_tasks.put(task.id, task.due_at if task.state in _TIMED else None)
        return DropTask(task.id) if old is None else PutTask(old)

    def drop_task(self, change: DropTask) -> Change:
        old = self._tasks.put(change.id, None)
        self._due_tasks.put(change.id, None)
        return change if old is None else PutTask(old)

    def put_schedule(self, change: PutSchedule) -> Change:
        schedule = change.schedule
        old = self._schedules.put(schedule.id, schedule)
        self._due_schedules.put(schedule.id, schedule.next_run_at)
        return DropSchedule(schedule.id) if old is None else PutSchedule(old)

    def drop_schedule(self, change: DropSchedule) -> Change:
        old = self._schedules.put(change.id, None)
        self._due_schedules.put(change.id, None)
        return change if old is None else PutSchedule(old)

    def put_callback(self, change: PutCallback) -> Change:
        callback = change.callback
        awaited, awaiter = callback.awaited, callback.awaiter
        old = self._awaiters.put(awaited, awaiter, callback)
        self._awaited.put(awaiter, awaited, callback)
        return DropCallback(awaited, awaiter) if old is None else PutCallback(old)

    def drop_callback(self, change: DropCallback) -> Change:
        old = self._awaiters.put(change.awaited, change.awaiter, None)
        self._awaited.put(change.awaiter, change.awaited, None)
        return change if old is None else PutCallback(old)

    def put_listener(self, change: PutListener) -> Change:
        old = self._listeners.put(change.promise, change.address, change.address)
        return DropListener(change.promise, change.address) if old is None else change

    def drop_listener(self, change: DropListener) -> Change:
        old = self._listeners.put(change.promise, change.address, None)
        return change if old is None else PutListener(change.promise, change.address)


_TIMED: Final = frozenset({TaskState.PENDING, TaskState.ACQUIRED})

_WRITERS: Final[dict[type[Change], Callable[[_Tables, Any], Change]]] = {
    PutPromise: _Tables.put_promise,
    DropPromise: _Tables.drop_promise,
    PutTask: _Tables.put_task,
    DropTask: _Tables.drop_task,
    PutSchedule: _Tables.put_schedule,
    DropSchedule: _Tables.drop_schedule,
    PutCallback: _Tables.put_callback,
    DropCallback: _Tables.drop_callback,
    PutListener: _Tables.put_listener,
    DropListener: _Tables.drop_listener,
}
"""The method that makes each kind of change. It returns the change that undoes this one."""


def _first_due(indexes: Iterable[DueIndex], now: int, limit: int | None) -> list[str]:
    """Return the ids that are due, in their order, or the `limit` ids that are due first."""
    first = islice(merge(*(index.due(now) for index in indexes)), limit)
    return sorted({id for _, id in first})


def _records(table: Table[T], ids: Iterable[str]) -> list[T]:
    return [table.records[id] for id in ids]
