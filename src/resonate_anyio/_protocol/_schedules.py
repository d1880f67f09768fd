"""The operations on schedules (docs/protocol.md 8.18 to 8.20), and their firing (docs/protocol.md 10.5)."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from ._cron import Cron, last_before, next_after, occurrences, parse_cron
from ._draft import Draft
from ._messages import Response, ScheduleCreate, ScheduleDelete, ScheduleGet
from ._promises import timed_out
from ._records import Missed, Promise, Schedule, Task, TaskState
from ._rules import LAST_INSTANT

LATE_AFTER: Final = 10_000
"""Milliseconds after which an occurrence that has not fired counts as missed."""

_NOT_FOUND = Response(status=404, error="Schedule not found")


def get(draft: Draft, request: ScheduleGet) -> Response:
    schedule = draft.schedule(request.id)
    return _NOT_FOUND if schedule is None else Response(status=200, schedule=schedule)


def create(draft: Draft, request: ScheduleCreate) -> Response:
    schedule = draft.schedule(request.id)
    if schedule is None:
        schedule = Schedule(
            id=request.id,
            cron=request.cron,
            promise_id=request.promise_id,
            promise_timeout=request.promise_timeout,
            promise_param=request.promise_param,
            promise_tags=request.promise_tags,
            missed=request.missed,
            created_at=draft.now,
            next_run_at=next_after(parse_cron(request.cron), draft.now),
        )
        draft.put_schedule(schedule)

    return Response(status=200, schedule=schedule)


def delete(draft: Draft, request: ScheduleDelete) -> Response:
    if draft.schedule(request.id) is None:
        return _NOT_FOUND

    draft.drop_schedule(request.id)
    return Response(status=200)


def fire(draft: Draft, schedule: Schedule, most: int | None = None) -> None:
    """Fire the occurrences that are due, oldest first: at most `most`, and at most as many as the rules allow."""
    cron = parse_cron(schedule.cron)
    schedule = _without_missed(schedule, cron, draft.now)
    limits = [limit for limit in (most, draft.rules.firings_per_sweep) if limit is not None]
    coming = occurrences(cron, schedule.next_run_at)
    last, instant = None, next(coming)
    left = min(limits, default=None)
    while instant <= draft.now and left != 0:
        left = None if left is None else left - 1
        _fire_once(draft, schedule, instant)
        last, instant = instant, next(coming)

    if last is not None:
        schedule = evolve(schedule, last_run_at=last, next_run_at=instant)

    draft.put_schedule(schedule)


def _without_missed(schedule: Schedule, cron: Cron, now: int) -> Schedule:
    """Return the schedule without the missed occurrences that its `missed` says not to fire."""
    late = now - LATE_AFTER
    if schedule.missed is Missed.ALL or schedule.next_run_at > late:
        return schedule

    in_time = next_after(cron, late)
    if schedule.missed is Missed.LATEST and in_time > now:
        return evolve(schedule, next_run_at=last_before(cron, in_time, schedule.next_run_at))

    return evolve(schedule, next_run_at=in_time)


def _fire_once(draft: Draft, schedule: Schedule, at: int) -> None:
    promise = _occurrence(schedule, at)
    if draft.promise(promise.id) is not None:
        return

    if promise.expired(draft.now):
        promise = timed_out(promise)

    draft.put_promise(promise)
    if promise.target is not None:
        _start(draft, promise)


def _occurrence(schedule: Schedule, at: int) -> Promise:
    id = schedule.promise_id.replace("{{.id}}", schedule.id).replace("{{.timestamp}}", str(at))
    lineage = dict.fromkeys(("resonate:origin", "resonate:branch", "resonate:parent", "resonate:prefix"), id)
    return Promise(
        id=id,
        param=schedule.promise_param,
        tags={**schedule.promise_tags, "resonate:schedule": schedule.id, **lineage},
        timeout_at=min(at + schedule.promise_timeout, LAST_INSTANT),
        created_at=at,
    )


def _start(draft: Draft, promise: Promise) -> None:
    """Create the task of a promise that a schedule created. Unlike `dispatch`, this ignores a `resonate:delay`."""
    if not promise.pending:
        draft.put_task(Task(id=promise.id, state=TaskState.FULFILLED))
        return

    start = promise.created_at if draft.rules.fired_retry_from_occurrence else draft.now
    draft.put_task(
        Task(id=promise.id, state=TaskState.PENDING, due_at=min(start + draft.rules.retry_timeout, LAST_INSTANT))
    )
    draft.send_execute(promise, 0)
