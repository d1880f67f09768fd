"""Promises, tasks and schedules as JSON (docs/protocol.md 5). An absent value is left out, and never null."""

from __future__ import annotations

from typing import Any, Final

from ._json import defaulted, integer, members, one_of, optional, required, text, texts
from ._records import EMPTY, NO_TAGS, Missed, Promise, PromiseState, Schedule, TaskRecord, TaskState, Value

promise_state: Final = one_of(PromiseState)
task_state: Final = one_of(TaskState)
missed: Final = one_of(Missed)


def _present(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def encode_value(value: Value) -> dict[str, Any]:
    headers = None if value.headers is None else dict(value.headers)
    return _present(headers=headers, data=value.data)


def decode_value(document: object) -> Value:
    value = members(document)
    headers, data = optional(value, "headers", texts), optional(value, "data", text)
    return EMPTY if headers is None and data is None else Value(data, headers)


def encode_promise(promise: Promise) -> dict[str, Any]:
    return _present(
        id=promise.id,
        state=promise.state.value,
        param=encode_value(promise.param),
        value=encode_value(promise.value),
        tags=dict(promise.tags),
        timeoutAt=promise.timeout_at,
        createdAt=promise.created_at,
        settledAt=promise.settled_at,
    )


def decode_promise(document: object) -> Promise:
    promise = members(document)
    return Promise(
        id=required(promise, "id", text),
        state=required(promise, "state", promise_state),
        param=defaulted(promise, "param", decode_value, EMPTY),
        value=defaulted(promise, "value", decode_value, EMPTY),
        tags=defaulted(promise, "tags", texts, NO_TAGS),
        timeout_at=required(promise, "timeoutAt", integer),
        created_at=required(promise, "createdAt", integer),
        settled_at=optional(promise, "settledAt", integer),
    )


def encode_task(task: TaskRecord) -> dict[str, Any]:
    return _present(
        id=task.id,
        state=task.state.value,
        version=task.version,
        resumes=task.resumes,
        ttl=task.ttl,
        pid=task.pid,
    )


def decode_task(document: object) -> TaskRecord:
    task = members(document)
    return TaskRecord(
        id=required(task, "id", text),
        state=required(task, "state", task_state),
        version=required(task, "version", integer),
        resumes=defaulted(task, "resumes", integer, 0),
        ttl=optional(task, "ttl", integer),
        pid=optional(task, "pid", text),
    )


def encode_schedule(schedule: Schedule) -> dict[str, Any]:
    return _present(
        id=schedule.id,
        cron=schedule.cron,
        promiseId=schedule.promise_id,
        promiseTimeout=schedule.promise_timeout,
        promiseParam=encode_value(schedule.promise_param),
        promiseTags=dict(schedule.promise_tags),
        createdAt=schedule.created_at,
        nextRunAt=schedule.next_run_at,
        lastRunAt=schedule.last_run_at,
        missed=encode_missed(schedule.missed),
    )


def encode_missed(missed: Missed) -> str | None:
    """Return the value to send. The default is left out, so that other servers and SDKs do not see this addition."""
    return None if missed is Missed.ALL else missed.value


def decode_schedule(document: object) -> Schedule:
    schedule = members(document)
    return Schedule(
        id=required(schedule, "id", text),
        cron=required(schedule, "cron", text),
        promise_id=required(schedule, "promiseId", text),
        promise_timeout=required(schedule, "promiseTimeout", integer),
        promise_param=defaulted(schedule, "promiseParam", decode_value, EMPTY),
        promise_tags=defaulted(schedule, "promiseTags", texts, NO_TAGS),
        created_at=required(schedule, "createdAt", integer),
        next_run_at=required(schedule, "nextRunAt", integer),
        last_run_at=optional(schedule, "lastRunAt", integer),
        missed=defaulted(schedule, "missed", missed, Missed.ALL),
    )
