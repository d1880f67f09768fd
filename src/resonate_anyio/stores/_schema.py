"""The layout of the SQLite file, and the conversion of records to rows and back.

Texts are compared as bytes of UTF-8 (SQLite's BINARY collation), which is the order of ids everywhere. Tags and headers
are JSON objects. Tags that have an index are stored in columns of their own as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from .._protocol import EMPTY, Callback, Missed, Promise, PromiseState, Schedule, Task, TaskState, Value

APPLICATION_ID: Final = 0x52736E61
"""`Rsna`: marks the file, in its header, as a file of this package."""

VERSION: Final = 1
"""The layout's version, in the file's header (`user_version`)."""

INDEXES: Final = """
CREATE INDEX IF NOT EXISTS promises_by_state ON promises (state, id) WHERE state <> 'resolved';
"""
"""Indexes that older files of this layout may lack. Older versions of this package keep them up to date."""

COLUMNS: Final = {"schedules": {"missed": "TEXT"}}
"""Columns that older files of this layout may lack, by table. Older versions name the columns that they use."""

SCHEMA: Final = f"""
CREATE TABLE promises (
    id TEXT PRIMARY KEY NOT NULL,
    state TEXT NOT NULL,
    param_data TEXT,
    param_headers TEXT,
    value_data TEXT,
    value_headers TEXT,
    tags TEXT NOT NULL,
    timeout_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    settled_at INTEGER,
    target TEXT,
    branch TEXT
);
CREATE INDEX promises_by_branch ON promises (branch, id) WHERE branch IS NOT NULL;
CREATE INDEX promises_by_deadline ON promises (timeout_at) WHERE state = 'pending';

CREATE TABLE tasks (
    id TEXT PRIMARY KEY NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    ttl INTEGER,
    pid TEXT,
    due_at INTEGER
) WITHOUT ROWID;
CREATE INDEX tasks_by_state ON tasks (state, id) WHERE state <> 'fulfilled';
CREATE INDEX tasks_by_due ON tasks (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE schedules (
    id TEXT PRIMARY KEY NOT NULL,
    cron TEXT NOT NULL,
    promise_id TEXT NOT NULL,
    promise_timeout INTEGER NOT NULL,
    promise_param_data TEXT,
    promise_param_headers TEXT,
    promise_tags TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    next_run_at INTEGER NOT NULL,
    last_run_at INTEGER,
    missed TEXT
) WITHOUT ROWID;
CREATE INDEX schedules_by_next_run ON schedules (next_run_at);

CREATE TABLE callbacks (
    awaited TEXT NOT NULL,
    awaiter TEXT NOT NULL,
    ready INTEGER NOT NULL,
    PRIMARY KEY (awaited, awaiter)
) WITHOUT ROWID;
CREATE INDEX callbacks_by_awaiter ON callbacks (awaiter, awaited);

CREATE TABLE listeners (
    promise TEXT NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (promise, address)
) WITHOUT ROWID;

CREATE TABLE owner (only INTEGER PRIMARY KEY CHECK (only = 1), pid INTEGER NOT NULL);
{INDEXES}
"""

Row: TypeAlias = tuple[Any, ...]

PROMISE: Final = (
    "SELECT id, state, param_data, param_headers, value_data, value_headers, tags, timeout_at, created_at, settled_at "
    "FROM promises"
)
TASK: Final = "SELECT id, state, version, ttl, pid, due_at FROM tasks"
SCHEDULE: Final = (
    "SELECT id, cron, promise_id, promise_timeout, promise_param_data, promise_param_headers, promise_tags, "
    "created_at, next_run_at, last_run_at, missed FROM schedules"
)
CALLBACK: Final = "SELECT awaited, awaiter, ready FROM callbacks"

_PROMISE_STATES: Final[Mapping[str, PromiseState]] = {str(state): state for state in PromiseState}
_TASK_STATES: Final[Mapping[str, TaskState]] = {str(state): state for state in TaskState}

dumps: Final[Callable[[object], str]] = json.JSONEncoder(separators=(",", ":")).encode
"""Encodes tags and headers. Searches for tags rely on its format."""


def load_promise(row: Row) -> Promise:
    id, state, param_data, param_headers, value_data, value_headers, tags, timeout_at, created_at, settled_at = row
    return Promise(
        id=id,
        state=_PROMISE_STATES[state],
        param=_load_value(param_data, param_headers),
        value=_load_value(value_data, value_headers),
        tags=json.loads(tags),
        timeout_at=timeout_at,
        created_at=created_at,
        settled_at=settled_at,
    )


def load_task(row: Row) -> Task:
    id, state, version, ttl, pid, due_at = row
    return Task(id=id, state=_TASK_STATES[state], version=version, ttl=ttl, pid=pid, due_at=due_at)


def load_schedule(row: Row) -> Schedule:
    id, cron, promise_id, timeout, param_data, param_headers, tags, created_at, next_run_at, last_run_at, missed = row
    return Schedule(
        id=id,
        cron=cron,
        promise_id=promise_id,
        promise_timeout=timeout,
        promise_param=_load_value(param_data, param_headers),
        promise_tags=json.loads(tags),
        created_at=created_at,
        next_run_at=next_run_at,
        last_run_at=last_run_at,
        missed=Missed.ALL if missed is None else Missed(missed),
    )


def load_callback(row: Row) -> Callback:
    awaited, awaiter, ready = row
    return Callback(awaited, awaiter, bool(ready))


def dump_promise(promise: Promise) -> Row:
    """Return all columns of the table `promises`."""
    return (
        promise.id,
        promise.state,
        *_dump_value(promise.param),
        *_dump_value(promise.value),
        dumps(dict(promise.tags)),
        promise.timeout_at,
        promise.created_at,
        promise.settled_at,
        promise.target,
        promise.branch,
    )


def dump_task(task: Task) -> Row:
    """Return all columns of the table `tasks`."""
    return (task.id, task.state, task.version, task.ttl, task.pid, task.due_at)


def dump_schedule(schedule: Schedule) -> Row:
    """Return all columns of the table `schedules`."""
    return (
        schedule.id,
        schedule.cron,
        schedule.promise_id,
        schedule.promise_timeout,
        *_dump_value(schedule.promise_param),
        dumps(dict(schedule.promise_tags)),
        schedule.created_at,
        schedule.next_run_at,
        schedule.last_run_at,
        None if schedule.missed is Missed.ALL else schedule.missed,
    )


def _load_value(data: str | None, headers: str | None) -> Value:
    if headers is not None:
        return Value(data, json.loads(headers))

    return EMPTY if data is None else Value(data)


def _dump_value(value: Value) -> tuple[str | None, str | None]:
    return value.data, None if value.headers is None else dumps(dict(value.headers))
