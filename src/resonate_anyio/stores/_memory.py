"""A store that keeps its state in memory: fast, and gone with the object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import islice
from typing import TypeAlias, TypeVar, final

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
from ._index import DueIndex, Groups, Table

T = TypeVar("T")

Undo: TypeAlias = Callable[[], object]


@final
class MemoryStore(Store):
    """Keeps everything in memory, for as long as the object lives.

    What was written is still there after `close()` and `open()`. Use an `SQLiteStore` to survive the process.
    """

    def __init__(self) -> None:
        self._tables = _Tables()
        self._opened = False

    def open(self) -> None:
        """Make ready for use.

        Raises:
            StoreError: it is open already.
        """
        if self._opened:
            msg = "this MemoryStore is open already; one engine uses a store at a time, so share its LocalNetwork"
            raise StoreError(msg)

        self._opened = True

    def close(self) -> None:
        """End the use; what was written stays."""
        self._opened = False

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        """Run the steps and keep all their changes, or none if one of them raises."""
        tables = self._used()
        log: list[Undo] = []
        try:
            return [_take(step, tables, log) for step in steps]
        except BaseException:
            for undo in reversed(log):
                undo()

            raise

    def read(self, query: Callable[[View], T]) -> T:
        """Give `query` a view of the present state and return its answer."""
        return query(self._used())

    def _used(self) -> _Tables:
        if not self._opened:
            msg = "this MemoryStore is not open; call open() first"
            raise StoreError(msg)

        return self._tables

    def __repr__(self) -> str:
        return f"<MemoryStore {'open' if self._opened else 'closed'}>"


def _take(step: Step, tables: _Tables, log: list[Undo]) -> Outcome:
    outcome = step(tables)
    # One by one, so that the log holds what was done even if a later change fails.
    log.extend(tables.write(change) for change in outcome.changes)

    return outcome


@define
class _Tables:
    """The state and its indexes: what a step reads (a `View`) and the one way to change it (`write`)."""

    _promises: Table[Promise] = field(init=False, factory=Table)
    _tasks: Table[Task] = field(init=False, factory=Table)
    _schedules: Table[Schedule] = field(init=False, factory=Table)
    _awaiters: Groups[Callback] = field(init=False, factory=Groups)
    _awaited: Groups[Callback] = field(init=False, factory=Groups)
    _listeners: Groups[tuple[str, str]] = field(init=False, factory=Groups)
    _branches: Groups[str] = field(init=False, factory=Groups)
    # Deadlines are filed apart, because servers differ in which promises they sweep.
    _deadlines: dict[Armed, DueIndex] = field(init=False, factory=lambda: {armed: DueIndex() for armed in Armed})
    _due_tasks: DueIndex = field(init=False, factory=DueIndex)
    _due_schedules: DueIndex = field(init=False, factory=DueIndex)

    def promise(self, id: str) -> Promise | None:
        return self._promises.get(id)

    def task(self, id: str) -> Task | None:
        return self._tasks.get(id)

    def schedule(self, id: str) -> Schedule | None:
        return self._schedules.get(id)

    def branch(self, branch: str) -> Sequence[Promise]:
        return list(_known(self._promises, self._branches.of(branch)))

    def awaiters(self, awaited: str) -> Sequence[Callback]:
        return self._awaiters.of(awaited)

    def awaited(self, awaiter: str) -> Sequence[Callback]:
        return self._awaited.of(awaiter)

    def listeners(self, promise: str) -> Sequence[str]:
        return [address for _, address in self._listeners.of(promise)]

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
        return list(_known(self._promises, _first_due(self._among(armed), now, limit)))

    def _among(self, armed: Armed) -> Iterator[DueIndex]:
        return (index for filed, index in self._deadlines.items() if filed <= armed)

    def due_tasks(self, now: int, *, limit: int | None = None) -> Sequence[Task]:
        return list(_known(self._tasks, _first_due([self._due_tasks], now, limit)))

    def due_schedules(self, now: int, *, limit: int | None = None) -> Sequence[Schedule]:
        return list(_known(self._schedules, _first_due([self._due_schedules], now, limit)))

    def next_due(self, *, armed: Armed) -> int | None:
        indexes = (*self._among(armed), self._due_tasks, self._due_schedules)
        return min((instant for index in indexes if (instant := index.next()) is not None), default=None)

    def all_callbacks(self) -> Sequence[Callback]:
        return list(self._awaited.everything())

    def all_listeners(self) -> Sequence[tuple[str, str]]:
        return list(self._listeners.everything())

    def write(self, change: Change) -> Undo:  # noqa: C901, PLR0911 - one for each kind of change
        """Make one change, and give what takes it back."""
        match change:
            case PutPromise(promise):
                return partial(self._set_promise, promise.id, self._set_promise(promise.id, promise))
            case DropPromise(id):
                return partial(self._set_promise, id, self._set_promise(id, None))
            case PutTask(task):
                return partial(self._set_task, task.id, self._set_task(task.id, task))
            case DropTask(id):
                return partial(self._set_task, id, self._set_task(id, None))
            case PutSchedule(schedule):
                return partial(self._set_schedule, schedule.id, self._set_schedule(schedule.id, schedule))
            case DropSchedule(id):
                return partial(self._set_schedule, id, self._set_schedule(id, None))
            case PutCallback(callback):
                return self._write_callback(callback.awaited, callback.awaiter, callback)
            case DropCallback(awaited, awaiter):
                return self._write_callback(awaited, awaiter, None)
            case PutListener(promise_id, address):
                old = self._listeners.put(promise_id, address, (promise_id, address))
                return partial(self._listeners.put, promise_id, address, old)
            case DropListener(promise_id, address):
                old = self._listeners.put(promise_id, address, None)
                return partial(self._listeners.put, promise_id, address, old)

    def _write_callback(self, awaited: str, awaiter: str, callback: Callback | None) -> Undo:
        return partial(self._set_callback, awaited, awaiter, self._set_callback(awaited, awaiter, callback))

    def _set_promise(self, id: str, promise: Promise | None) -> Promise | None:
        old = self._promises.put(id, promise)
        self._file_branch(id, old, promise)
        due = promise.timeout_at if promise is not None and promise.pending else None
        filed = Armed.ALL if promise is None else promise.armed
        for armed, index in self._deadlines.items():
            index.put(id, due if armed is filed else None)

        return old

    def _file_branch(self, id: str, old: Promise | None, new: Promise | None) -> None:
        before = None if old is None else old.branch
        after = None if new is None else new.branch
        if before != after:
            if before is not None:
                self._branches.put(before, id, None)

            if after is not None:
                self._branches.put(after, id, id)

    def _set_task(self, id: str, task: Task | None) -> Task | None:
        timed = task is not None and task.state in {TaskState.PENDING, TaskState.ACQUIRED}
        self._due_tasks.put(id, task.due_at if task is not None and timed else None)
        return self._tasks.put(id, task)

    def _set_schedule(self, id: str, schedule: Schedule | None) -> Schedule | None:
        self._due_schedules.put(id, None if schedule is None else schedule.next_run_at)
        return self._schedules.put(id, schedule)

    def _set_callback(self, awaited: str, awaiter: str, callback: Callback | None) -> Callback | None:
        self._awaited.put(awaiter, awaited, callback)
        return self._awaiters.put(awaited, awaiter, callback)


def _first_due(indexes: Iterable[DueIndex], now: int, limit: int | None) -> list[str]:
    """Give the ids that are due, in their order, or those `limit` of them that are due first."""
    first = islice(merge(*(index.due(now) for index in indexes)), limit)
    return sorted({id for _, id in first})


def _known(table: Table[T], ids: Iterable[str]) -> Iterator[T]:
    return (record for id in ids if (record := table.get(id)) is not None)
