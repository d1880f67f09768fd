"""The debug operations that read a server's state, delete it, or advance its clock (docs/protocol.md 13)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ._draft import Draft
from ._json import integer, required
from ._messages import Outgoing, Response
from ._outbox import Outbox
from ._pages import all_promises, all_schedules, all_tasks
from ._promises import task_record
from ._records import Promise, TaskState
from ._rules import Rules
from ._view import Change, DropCallback, DropListener, DropPromise, DropSchedule, DropTask, Outcome, View
from ._wire import Envelope, encode_message
from ._wire_records import encode_promise, encode_task

_TIMER_TYPES: Final = {TaskState.PENDING: 0, TaskState.ACQUIRED: 1}


def tick_time(envelope: Envelope, rules: Rules) -> int:
    """Return the instant that a `debug.tick` request names.

    Raises:
        BadRequest: the request names no instant, or two different ones.
    """
    try:
        time = required(envelope.data, "time", integer)
    except ValueError:
        raise envelope.refuse(400, "Missing or invalid 'time' field") from None

    if rules.tick_matches_head and envelope.debug_time not in {None, time}:
        raise envelope.refuse(400, "resonate:debug_time must equal data.time")

    return time


def reset(view: View) -> Outcome:
    """Delete everything. This is the step of `debug.reset`."""
    return Outcome(response=Response(status=200), changes=tuple(_drops(view)))


def _drops(view: View) -> Iterator[Change]:
    yield from (DropPromise(promise.id) for promise in all_promises(view))
    yield from (DropTask(task.id) for task in all_tasks(view))
    yield from (DropSchedule(schedule.id) for schedule in all_schedules(view))
    yield from (DropCallback(callback.awaited, callback.awaiter) for callback in view.all_callbacks())
    yield from (DropListener(promise, address) for promise, address in view.all_listeners())


def snapshot(view: View, outbox: Outbox, rules: Rules) -> dict[str, Any]:
    """Return the whole state as JSON, without schedules. This is the answer to `debug.snap`."""
    draft = Draft(view, 0, rules)
    promises, tasks = list(all_promises(view)), list(all_tasks(view))
    return {
        "promises": [encode_promise(promise) for promise in promises],
        "promiseTimeouts": [{"id": p.id, "timeout": p.timeout_at} for p in promises if _armed(p, rules)],
        "callbacks": [{"awaiter": c.awaiter, "awaited": c.awaited} for c in view.all_callbacks() if not c.ready],
        "listeners": [{"id": id, "address": address} for id, address in view.all_listeners()],
        "tasks": [encode_task(task_record(draft, task)) for task in tasks],
        "taskTimeouts": [
            {"id": task.id, "type": _TIMER_TYPES[task.state], "timeout": task.due_at}
            for task in tasks
            if task.due_at is not None
        ],
        "messages": [_message(outgoing) for outgoing in outbox.messages()],
    }


def _armed(promise: Promise, rules: Rules) -> bool:
    return promise.pending and promise.armed <= rules.armed


def _message(outgoing: Outgoing) -> dict[str, Any]:
    return {"address": outgoing.address, "message": encode_message(outgoing.message)}
