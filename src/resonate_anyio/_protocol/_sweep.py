"""What happens by itself: deadlines, retries, leases and schedules that are due (protocol 10.1). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ._draft import Draft
from ._messages import Response
from ._pages import all_tasks
from ._records import Task, TaskState
from ._rules import Rules
from ._schedules import fire
from ._settlement import dispatch, settle, timed_out
from ._tasks import renewed
from ._view import Outcome, View

TIMER_PID: Final = "timer"
"""Who holds the tasks of timers and external promises: nobody. Such leases outlive every process on purpose."""


def tick(view: View, now: int, rules: Rules, *, renew: frozenset[str] = frozenset()) -> Outcome:
    """Do everything that is due at `now`.

    Args:
        view: the state.
        now: the instant of the sweep.
        rules: the rules in force.
        renew: the holders that are known to live: their due leases are extended instead of lapsing.
    """
    draft = Draft(view, now, rules)
    _settle_expired(draft)
    for due in view.due_tasks(now):
        _send_again(draft, due.id, renew)

    for schedule in view.due_schedules(now):
        fire(draft, schedule)

    return draft.outcome(Response(status=200))


def recover(view: View, now: int, rules: Rules) -> Outcome:
    """Send for everything that can run, because every holder of a lease is known to be dead.

    For an embedded engine that has just opened a file that nobody else uses. Versions are kept.
    """
    draft = Draft(view, now, rules)
    _settle_expired(draft)
    for stored in _ready_or_held(view):
        # The settlements before may have finished it.
        task = draft.task_of(stored.id)
        if task.state is not TaskState.FULFILLED:
            dispatch(draft, draft.owner(task.id), task.version)

    return draft.outcome(Response(status=200))


def next_due(view: View, rules: Rules) -> int | None:
    """Give the instant at which `tick` next has something to do, or None."""
    return view.next_due(armed=rules.armed)


def _settle_expired(draft: Draft) -> None:
    due = draft.view.due_promises(draft.now, armed=draft.rules.armed)
    settle(draft, map(timed_out, due))


def _send_again(draft: Draft, id: str, renew: frozenset[str]) -> None:
    task = draft.task_of(id)
    if task.pid in renew:
        draft.put_task(renewed(draft, task))
    elif task.state is not TaskState.FULFILLED:
        dispatch(draft, draft.owner(id), task.version)


def _ready_or_held(view: View) -> Iterator[Task]:
    yield from all_tasks(view, TaskState.PENDING)
    yield from (task for task in all_tasks(view, TaskState.ACQUIRED) if task.pid != TIMER_PID)
