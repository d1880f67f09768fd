"""What happens by itself: deadlines, retries, leases and schedules that are due (protocol 10.1). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ._draft import Draft
from ._messages import Response
from ._records import Promise, Task, TaskState
from ._rules import LAST_INSTANT, Rules
from ._schedules import fire
from ._settlement import dispatch, settle, timed_out
from ._tasks import renewed
from ._view import Outcome, View

TIMER_PID: Final = "timer"
"""Who holds the tasks of timers and external promises: nobody. Such leases outlive every process on purpose."""

_EXPIRED: Final = "expired"
_NEXT_STAGE: Final = {_EXPIRED: "pending", "pending": "acquired", "acquired": None}


def tick(
    view: View, now: int, rules: Rules, *, renew: frozenset[str] = frozenset(), limit: int | None = None
) -> Outcome:
    """Do everything that is due at `now`, or a part of it.

    Args:
        view: the state.
        now: the instant of the sweep.
        rules: the rules in force.
        renew: the holders that are known to live: their due leases are extended instead of lapsing.
        limit: how many promises, tasks and firings of schedules to see to at most, in all. `next_due` tells whether
            something is left.
    """
    draft = Draft(view, now, rules)
    left = _less(limit, len(_settle_expired(draft, limit)))
    tasks = view.due_tasks(now, limit=left)
    for due in tasks:
        _send_again(draft, due.id, renew)

    left = _less(left, len(tasks))
    schedules = view.due_schedules(now, limit=left)
    for schedule in schedules:
        # Each its share: one that has missed much does not hold up the others.
        fire(draft, schedule, None if left is None else left // len(schedules))

    return draft.outcome(Response(status=200))


def recover(view: View, now: int, rules: Rules, *, cursor: str | None = None, limit: int = LAST_INSTANT) -> Outcome:
    """Send for everything that can run, because every holder of a lease is known to be dead: one part of that.

    For an embedded engine that has just opened a file that nobody else uses. Versions are kept.

    Args:
        view: the state.
        now: the instant.
        rules: the rules in force.
        cursor: what the part before was answered with; None for the first part.
        limit: how many records to see to. The answer has a cursor if there is a next part.
    """
    draft = Draft(view, now, rules)
    stage, _, after = (cursor or _EXPIRED).partition(" ")
    while limit > 0:
        # First what has expired, because that may finish some of the tasks.
        seen = _settle_expired(draft, limit) if stage == _EXPIRED else _free(draft, TaskState(stage), after, limit)
        if len(seen) < limit:
            following = _NEXT_STAGE[stage]
            if following is None:
                return draft.outcome(Response(status=200))

            stage, after = following, ""
        else:
            after = seen[-1].id

        limit -= len(seen)

    return draft.outcome(Response(status=200, cursor=f"{stage} {after}"))


def next_due(view: View, rules: Rules) -> int | None:
    """Give the instant at which `tick` next has something to do, or None."""
    return view.next_due(armed=rules.armed)


def _settle_expired(draft: Draft, limit: int | None) -> Sequence[Promise]:
    due = draft.view.due_promises(draft.now, armed=draft.rules.armed, limit=limit)
    settle(draft, map(timed_out, due))
    return due


def _free(draft: Draft, state: TaskState, after: str, limit: int) -> Sequence[Task]:
    stored = draft.view.search_tasks(state=state, after=after or None, limit=limit)
    for task in map(draft.task_of, [found.id for found in stored]):
        if task.state is TaskState.PENDING or (task.state is TaskState.ACQUIRED and task.pid != TIMER_PID):
            dispatch(draft, draft.owner(task.id), task.version)

    return stored


def _less(limit: int | None, done: int) -> int | None:
    return None if limit is None else limit - done


def _send_again(draft: Draft, id: str, renew: frozenset[str]) -> None:
    task = draft.task_of(id)
    if task.pid in renew:
        draft.put_task(renewed(draft, task))
    elif task.state is not TaskState.FULFILLED:
        dispatch(draft, draft.owner(id), task.version, given_back=task.state is TaskState.ACQUIRED)
