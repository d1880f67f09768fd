"""The state in the SQLite file: the `View` that steps read, and the method that writes changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Final, TypeAlias, TypeVar

from attrs import Factory, define, frozen

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
    Promise,
    PromiseState,
    PutCallback,
    PutListener,
    PutPromise,
    PutSchedule,
    PutTask,
    Schedule,
    Task,
    TaskState,
)
from .._values import ValueObject
from ._schema import (
    CALLBACK,
    PROMISE,
    SCHEDULE,
    TASK,
    Row,
    dump_promise,
    dump_schedule,
    dump_task,
    dumps,
    load_callback,
    load_promise,
    load_schedule,
    load_task,
)

R = TypeVar("R")


def _put(table: str, key: Sequence[str], columns: Sequence[str]) -> str:
    marks = ", ".join("?" * (len(key) + len(columns)))
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns)
    # An upsert, not INSERT OR REPLACE: that would delete and insert again, in every index.
    return (
        f"INSERT INTO {table} ({', '.join((*key, *columns))}) VALUES ({marks}) "  # noqa: S608 - our own names
        f"ON CONFLICT ({', '.join(key)}) DO " + (f"UPDATE SET {updates}" if columns else "NOTHING")
    )


_PUT_PROMISE: Final = _put(
    "promises",
    ["id"],
    [
        "state",
        "param_data",
        "param_headers",
        "value_data",
        "value_headers",
        "tags",
        "timeout_at",
        "created_at",
        "settled_at",
        "target",
        "branch",
    ],
)
_PUT_TASK: Final = _put("tasks", ["id"], ["state", "version", "ttl", "pid", "due_at"])
_PUT_SCHEDULE: Final = _put(
    "schedules",
    ["id"],
    [
        "cron",
        "promise_id",
        "promise_timeout",
        "promise_param_data",
        "promise_param_headers",
        "promise_tags",
        "created_at",
        "next_run_at",
        "last_run_at",
        "missed",
    ],
)
_PUT_CALLBACK: Final = _put("callbacks", ["awaited", "awaiter"], ["ready"])
_PUT_LISTENER: Final = _put("listeners", ["promise", "address"], [])

_LINKS: Final = (
    "SELECT 'awaiter', awaiter AS other, ready FROM callbacks WHERE awaited = :id UNION ALL "
    "SELECT 'awaited', awaited, ready FROM callbacks WHERE awaiter = :id UNION ALL "
    "SELECT 'listener', address, 0 FROM listeners WHERE promise = :id ORDER BY other"
)

_ARMED: Final = {
    Armed.TARGETED: " AND target IS NOT NULL",
    Armed.EXTERNAL: (
        """ AND (target IS NOT NULL OR 'true' IN (json_extract(tags, '$."resonate:timer"'),"""
        """ json_extract(tags, '$."resonate:external"')))"""
    ),
    Armed.ALL: "",
}
_TIMED: Final = " AND state IN ('pending', 'acquired')"


@define(eq=False, repr=False)
class _Links:
    """The callbacks and listeners of one promise.

    Attributes:
        awaiters: the callbacks that wait for it, in the order of the awaiters.
        awaited: the callbacks of its own task, in the order of the awaited promises.
        listeners: the addresses to which its settlement is sent, in order.
    """

    awaiters: list[Callback] = Factory(list)
    awaited: list[Callback] = Factory(list)
    listeners: list[str] = Factory(list)


@frozen(eq=False, repr=False)
class Tables(ValueObject):
    """The tables of one database, through one connection.

    What a step has read is kept until something is written, because the rules of a request may read a record twice.
    No other program writes meanwhile: a transaction has the lock of the file, and `forget` is called before each.
    """

    _connection: sqlite3.Connection
    _promises: dict[str, Promise | None] = Factory(dict)
    _tasks: dict[str, Task | None] = Factory(dict)
    _links: dict[str, _Links] = Factory(dict)

    def forget(self) -> None:
        """Forget what was read."""
        self._promises.clear()
        self._tasks.clear()
        self._links.clear()

    def promise(self, id: str) -> Promise | None:
        if id not in self._promises:
            self._promises[id] = self._one(load_promise, f"{PROMISE} WHERE id = ?", id)

        return self._promises[id]

    def task(self, id: str) -> Task | None:
        if id not in self._tasks:
            self._tasks[id] = self._one(load_task, f"{TASK} WHERE id = ?", id)

        return self._tasks[id]

    def schedule(self, id: str) -> Schedule | None:
        return self._one(load_schedule, f"{SCHEDULE} WHERE id = ?", id)

    def branch(self, branch: str) -> Sequence[Promise]:
        return self._all(load_promise, f"{PROMISE} WHERE branch = ? ORDER BY id", branch)

    def awaiters(self, awaited: str) -> Sequence[Callback]:
        return self._links_of(awaited).awaiters

    def awaited(self, awaiter: str) -> Sequence[Callback]:
        return self._links_of(awaiter).awaited

    def listeners(self, promise: str) -> Sequence[str]:
        return self._links_of(promise).listeners

    def _links_of(self, id: str) -> _Links:
        """Return what refers to a promise. A settlement needs all of it, so it is read by one statement."""
        links = self._links.get(id)
        if links is None:
            links = self._links[id] = _Links()
            for kind, other, ready in self._connection.execute(_LINKS, {"id": id}):
                if kind == "awaiter":
                    links.awaiters.append(load_callback((id, other, ready)))
                elif kind == "awaited":
                    links.awaited.append(load_callback((other, id, ready)))
                else:
                    links.listeners.append(other)

        return links

    def search_promises(
        self,
        *,
        state: PromiseState | None,
        tags: Mapping[str, str],
        after: str | None,
        limit: int,
        until: str | None = None,
    ) -> Sequence[Promise]:
        clauses = _among(after, until, state) + _likely("tags", tags)
        if state is not None and state is not PromiseState.RESOLVED:
            # The condition of the index, repeated so that SQLite uses the index.
            clauses.append(("state <> 'resolved'", None))
        if (branch := tags.get("resonate:branch")) is not None:
            clauses.append(("branch = ?", branch))

        return self._search(load_promise, PROMISE, clauses, limit, lambda promise: tags.items() <= promise.tags.items())

    def search_tasks(
        self, *, state: TaskState | None, after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Task]:
        return self._search(load_task, TASK, _among(after, until, state), limit)

    def search_schedules(
        self, *, tags: Mapping[str, str], after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Schedule]:
        clauses = _among(after, until) + _likely("promise_tags", tags)
        return self._search(
            load_schedule, SCHEDULE, clauses, limit, lambda found: tags.items() <= found.promise_tags.items()
        )

    def id_ahead(self, kind: Kind, after: str | None, count: int) -> str | None:
        sql = f"SELECT id FROM {kind} WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?"  # noqa: S608 - our own names
        # The empty text is the smallest text, and may be an id.
        above = sql if after is not None else sql.replace(" > ", " >= ")
        row = self._connection.execute(above, (after or "", count - 1)).fetchone()
        return None if row is None else row[0]

    def due_promises(self, now: int, *, armed: Armed, limit: int | None = None) -> Sequence[Promise]:
        where = f"state = 'pending' AND timeout_at <= ?{_ARMED[armed]}"
        return self._due(load_promise, PROMISE, where, "timeout_at", now, limit)

    def due_tasks(self, now: int, *, limit: int | None = None) -> Sequence[Task]:
        return self._due(load_task, TASK, f"due_at <= ?{_TIMED}", "due_at", now, limit)

    def due_schedules(self, now: int, *, limit: int | None = None) -> Sequence[Schedule]:
        return self._due(load_schedule, SCHEDULE, "next_run_at <= ?", "next_run_at", now, limit)

    def _due(
        self, load: Callable[[Row], R], select: str, where: str, instant: str, now: int, limit: int | None
    ) -> list[R]:
        if limit is None:
            return self._all(load, f"{select} WHERE {where} ORDER BY id", now)

        first = f"SELECT * FROM ({select} WHERE {where} ORDER BY {instant} LIMIT ?) ORDER BY id"  # noqa: S608
        return self._all(load, first, now, limit)

    def next_due(self, *, armed: Armed) -> int | None:
        queries = (
            f"SELECT timeout_at FROM promises WHERE state = 'pending'{_ARMED[armed]} ORDER BY timeout_at LIMIT 1",  # noqa: S608
            f"SELECT due_at FROM tasks WHERE due_at IS NOT NULL{_TIMED} ORDER BY due_at LIMIT 1",  # noqa: S608
            "SELECT next_run_at FROM schedules ORDER BY next_run_at LIMIT 1",
        )
        return min((instant for sql in queries for (instant,) in self._connection.execute(sql)), default=None)

    def all_callbacks(self) -> Sequence[Callback]:
        return self._all(load_callback, f"{CALLBACK} ORDER BY awaiter, awaited")

    def all_listeners(self) -> Sequence[tuple[str, str]]:
        return list(self._connection.execute("SELECT promise, address FROM listeners ORDER BY promise, address"))

    def write(self, change: Change) -> None:  # noqa: C901 - one case for each kind of change
        """Make one change."""
        self.forget()
        execute = self._connection.execute
        match change:
            case PutPromise(promise):
                execute(_PUT_PROMISE, dump_promise(promise))
            case DropPromise(id):
                execute("DELETE FROM promises WHERE id = ?", (id,))
            case PutTask(task):
                execute(_PUT_TASK, dump_task(task))
            case DropTask(id):
                execute("DELETE FROM tasks WHERE id = ?", (id,))
            case PutSchedule(schedule):
                execute(_PUT_SCHEDULE, dump_schedule(schedule))
            case DropSchedule(id):
                execute("DELETE FROM schedules WHERE id = ?", (id,))
            case PutCallback(callback):
                execute(_PUT_CALLBACK, (callback.awaited, callback.awaiter, callback.ready))
            case DropCallback(awaited, awaiter):
                execute("DELETE FROM callbacks WHERE awaited = ? AND awaiter = ?", (awaited, awaiter))
            case PutListener(promise_id, address):
                execute(_PUT_LISTENER, (promise_id, address))
            case DropListener(promise_id, address):
                execute("DELETE FROM listeners WHERE promise = ? AND address = ?", (promise_id, address))

    def _one(self, load: Callable[[Row], R], sql: str, *parameters: str) -> R | None:
        row = self._connection.execute(sql, parameters).fetchone()
        return None if row is None else load(row)

    def _all(self, load: Callable[[Row], R], sql: str, *parameters: str | int) -> list[R]:
        return [load(row) for row in self._connection.execute(sql, parameters)]

    def _search(
        self,
        load: Callable[[Row], R],
        select: str,
        clauses: Sequence[_Clause],
        limit: int,
        wanted: Callable[[R], bool] = lambda _: True,
    ) -> list[R]:
        where = f" WHERE {' AND '.join(clause for clause, _ in clauses)}" if clauses else ""
        parameters = tuple(value for _, value in clauses if value is not None)
        with closing(self._connection.execute(f"{select}{where} ORDER BY id", parameters)) as rows:
            # The remaining conditions are checked here and not in SQL: the cursor stops when the page is full.
            return list(islice(filter(wanted, map(load, rows)), limit))


_Clause: TypeAlias = tuple[str, str | None]


def _among(after: str | None, until: str | None, state: str | None = None) -> list[_Clause]:
    clauses = (("id > ?", after), ("id <= ?", until), ("state = ?", state))
    return [(clause, value) for clause, value in clauses if value is not None]


def _likely(column: str, tags: Mapping[str, str]) -> list[_Clause]:
    """Return clauses that exclude most rows without these tags, by the text of the column."""
    # In the format in which tags are written. The caller excludes rows that only contain the same text.
    return [(f"instr({column}, ?)", f"{dumps(name)}:{dumps(value)}") for name, value in tags.items()]
