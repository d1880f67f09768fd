"""Validation of requests, independent of the state (docs/protocol.md 3.3).

There are two rounds. The first checks single fields, and all violations are reported together. The second relates
fields to each other; it takes place only if the first finds no violation, and reports the first violation. A request
that fails either round changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final, TypeAlias

from ._addresses import valid_address
from ._cron import parse_cron
from ._messages import (
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    RegisterCallback,
    RegisterListener,
    Request,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    ScheduleSearch,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRelease,
    TaskSearch,
    TaskSuspend,
)
from ._records import PromiseState, parse_delay
from ._rules import Rules

Verdict: TypeAlias = str | None
"""The text of the violation, or None."""

_MAX_LIMIT: Final = 1000


_Check: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], object], str]
"""How to read a field, a condition on its value, and the error message of the servers."""

# Every request is checked, so the conditions are methods of built-in objects, which cost less than functions.
_not_empty: Final = bool
_not_negative: Final = (0).__le__
_positive: Final = (0).__lt__
_without_null_bytes: Final = re.compile(r"[^\0]*").fullmatch
_settling: Final = frozenset({PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.CANCELED}).__contains__
_page_size: Final = range(1, _MAX_LIMIT + 1).__contains__


def _check(field: str, holds: Callable[[Any], object], text: str) -> _Check:
    return attrgetter(field), holds, text


def _required(field: str, what: str) -> _Check:
    return _check(field, _not_empty, f"{what} is required")


def _integer(field: str, what: str) -> _Check:
    return _check(field, _not_negative, f"{what} must be a non-negative integer")


def _creating(prefix: str = "") -> tuple[_Check, ...]:
    return (
        _required(f"{prefix}id", "Promise ID"),
        _check(f"{prefix}id", _without_null_bytes, "Promise ID must not contain null bytes"),
        _integer(f"{prefix}timeout_at", "TimeoutAt"),
    )


def _ending(prefix: str = "") -> tuple[_Check, ...]:
    return (
        _required(f"{prefix}id", "Promise ID"),
        _check(f"{prefix}state", _settling, "State must be resolved, rejected or rejected_canceled"),
    )


_TASK_ID: Final = _required("id", "Task ID")
_PROMISE_ID: Final = _required("id", "Promise ID")
_SCHEDULE_ID: Final = _required("id", "Schedule ID")
_PID: Final = _required("pid", "Process ID")
_VERSION: Final = _integer("version", "Version")
_TTL: Final = _check("ttl", _positive, "TTL must be a positive integer")
_PAGE: Final = _check("limit", _page_size, "Invalid 'limit' — must be between 1 and 1000")

_FIELDS: Final[Mapping[type[Request], tuple[_Check, ...]]] = {
    PromiseGet: (_PROMISE_ID,),
    PromiseCreate: _creating(),
    PromiseSettle: _ending(),
    RegisterCallback: (_required("awaited", "Awaited promise ID"), _required("awaiter", "Awaiter promise ID")),
    RegisterListener: (_required("awaited", "Awaited promise ID"), _required("address", "Address")),
    PromiseSearch: (_PAGE,),
    TaskGet: (_TASK_ID,),
    TaskCreate: (_PID, _TTL, *_creating("action.")),
    TaskAcquire: (_TASK_ID, _VERSION, _PID, _TTL),
    TaskRelease: (_TASK_ID, _VERSION),
    TaskFulfill: (_TASK_ID, _VERSION, *_ending("action.")),
    TaskSuspend: (
        _TASK_ID,
        _VERSION,
        _check("awaited", _not_empty, "Actions array cannot be empty"),
        _check("awaited", all, "Awaited promise ID is required"),
        _check("awaiters", all, "Awaiter promise ID is required"),
    ),
    TaskFence: (_TASK_ID, _VERSION),
    TaskHeartbeat: (_PID,),
    TaskHalt: (_TASK_ID,),
    TaskContinue: (_TASK_ID,),
    TaskSearch: (_PAGE,),
    ScheduleGet: (_SCHEDULE_ID,),
    ScheduleCreate: (
        _SCHEDULE_ID,
        _required("cron", "Cron expression"),
        _required("promise_id", "Promise ID template"),
        _integer("promise_timeout", "Promise timeout"),
    ),
    ScheduleDelete: (_SCHEDULE_ID,),
    ScheduleSearch: (_PAGE,),
}


def validate(request: Request, rules: Rules) -> Verdict:
    """Return the violations of the request, or None if it is valid."""
    wrong: list[str] = []
    for read, holds, text in _FIELDS[type(request)]:
        if not holds(read(request)):
            wrong.append(text)

    if wrong:
        return "; ".join(wrong)

    relate = _RELATIONS.get(type(request))
    return None if relate is None else relate(request, rules)


def _promise_create(request: PromiseCreate, rules: Rules) -> Verdict:
    tags = request.tags
    if rules.checks_lineage and (wrong := _lineage(request, rules.separator)):
        return wrong

    if rules.checks_delay and (wrong := _delay(request)):
        return wrong

    if rules.refuses_targeted_timers and (wrong := _timer(tags)):
        return wrong

    target = tags.get("resonate:target")
    return None if target is None or valid_address(target) else "Invalid resonate:target address"


def _lineage(request: PromiseCreate, separator: str) -> Verdict:
    tags = request.tags
    if separator in tags.get("resonate:origin", ""):
        return f"resonate:origin must not contain '{separator}'"

    for name in ("resonate:origin", "resonate:branch", "resonate:parent"):
        # The separator joins only a root and its children; deeper segments are joined by dots.
        tag = tags.get(name, request.id)
        if request.id != tag and not request.id.startswith((tag + separator, f"{tag}.")):
            return f"Promise ID must be prefixed by {name}"

    return f"resonate:prefix must not contain '{separator}'" if separator in tags.get("resonate:prefix", "") else None


def _timer(tags: Mapping[str, str]) -> Verdict:
    refused = tags.get("resonate:timer") == "true" and "resonate:target" in tags
    return "A timer must not have a resonate:target tag" if refused else None


def _delay(request: PromiseCreate) -> Verdict:
    text = request.tags.get("resonate:delay")
    if text is None:
        return None

    delay = parse_delay(text)
    if delay is None:
        return "resonate:delay must be a non-negative integer"

    if delay >= request.timeout_at:
        return "resonate:delay must be less than timeoutAt"

    return None if "resonate:target" in request.tags else "resonate:delay requires a resonate:target tag"


def _register_callback(request: RegisterCallback, rules: Rules) -> Verdict:
    return _await(request.awaited, request.awaiter, rules)


def _await(awaited: str, awaiter: str, rules: Rules) -> Verdict:
    if awaited == awaiter:
        return "Awaited and awaiter must be different promises"

    if rules.awaits_within_origin and not _one_origin((awaited, awaiter), rules):
        return "Awaiter and awaited must belong to the same origin"

    return None


def _one_origin(ids: Iterable[str], rules: Rules) -> bool:
    return len({id.partition(rules.separator)[0] for id in ids}) == 1


def _register_listener(request: RegisterListener, rules: Rules) -> Verdict:  # noqa: ARG001 - one signature for all
    return None if valid_address(request.address) else "Invalid listener address"


def _task_create(request: TaskCreate, rules: Rules) -> Verdict:
    tags = request.action.tags
    if "resonate:target" not in tags:
        return "Action must have a resonate:target tag"

    if rules.checks_delay and "resonate:delay" in tags:
        return "Action must not have a resonate:delay tag"

    return _promise_create(request.action, rules)


def _task_fulfill(request: TaskFulfill, rules: Rules) -> Verdict:  # noqa: ARG001 - one signature for all
    return None if request.action.id == request.id else "Action ID must match the task ID"


def _task_suspend(request: TaskSuspend, rules: Rules) -> Verdict:
    for awaited, awaiter in zip(request.awaited, request.awaiters, strict=True):
        if wrong := _await(awaited, awaiter, rules):
            return wrong

    if any(awaiter != request.id for awaiter in request.awaiters):
        return "All action awaiter IDs must match the task ID"

    return None


def _task_fence(request: TaskFence, rules: Rules) -> Verdict:  # noqa: ARG001 - one signature for all
    # The handler validates the inner operation, after it has settled expired promises.
    return "Action ID must not equal the task ID" if request.action_id == request.id else None


def _task_heartbeat(request: TaskHeartbeat, rules: Rules) -> Verdict:
    if not rules.heartbeats_within_origin:
        return None

    if not request.tasks:
        return "Tasks array must not be empty"

    if not _one_origin((task.id for task in request.tasks), rules):
        return "All tasks must belong to the same origin"

    return None


def _schedule_create(request: ScheduleCreate, rules: Rules) -> Verdict:
    if rules.checks_schedules and rules.separator in request.id:
        return f"Schedule ID must not contain '{rules.separator}'"

    if rules.checks_schedules and "resonate:target" not in request.promise_tags:
        return "promiseTags must include a resonate:target tag"

    if rules.refuses_targeted_timers and (wrong := _timer(request.promise_tags)):
        return wrong

    try:
        parse_cron(request.cron)
    except ValueError:
        return "Invalid cron expression"

    return None


_RELATIONS: Final[dict[type[Request], Callable[[Any, Rules], Verdict]]] = {
    PromiseCreate: _promise_create,
    RegisterCallback: _register_callback,
    RegisterListener: _register_listener,
    TaskCreate: _task_create,
    TaskFulfill: _task_fulfill,
    TaskSuspend: _task_suspend,
    TaskFence: _task_fence,
    TaskHeartbeat: _task_heartbeat,
    ScheduleCreate: _schedule_create,
}
