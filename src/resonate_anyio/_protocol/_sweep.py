"""The sweep: deadlines, retries, leases and schedules that are due (docs/protocol.md 10.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ._draft import Draft
from ._messages import Response
from ._promises import dispatch, put_settled, timed_out
from ._records import Promise, Task, TaskState
from ._rules import LAST_INSTANT, TIMER_PID, Rules
from ._schedules import fire
from ._tasks import renewed
from ._view import Outcome, View

_EXPIRED: Final = "expired"
_NEXT_STAGE: Final = {_EXPIRED: "pending", "pending": "acquired", "acquired": None}


def tick(
    view: View, now: int, rules: Rules, *, renew: frozenset[str] = frozenset(), limit: int | None = None
) -> Outcome:
    """Do everything that is due at `now`, or a part of it.

    Args:
        view: the state.
        now: the instant of the sweep.
        rules: the server's rules.
        renew: pids of holders that are known to be alive. Their leases that are due are extended instead of ended.
        limit: the maximum number of promises, tasks and firings of schedules, in total. `next_due` shows whether more
            is due.
    """
    draft = Draft(view, now, rules)
    left = _less(limit, len(_settle_expired(draft, limit)))
    tasks = view.due_tasks(now, limit=left)
    for due in tasks:
        _send_again(draft, due.id, renew)

    left = _less(left, len(tasks))
    schedules = view.due_schedules(now, limit=left)
    for schedule in schedules:
        # Each schedule gets an equal share, so that one with many missed occurrences does not delay the others.
        fire(draft, schedule, None if left is None else left // len(schedules))

    return draft.outcome(Response(status=200))


def recover(view: View, now: int, rules: Rules, *, cursor: str | None = None, limit: int = LAST_INSTANT) -> Outcome:
    """Dispatch a part of all pending and acquired tasks, because every holder of a lease is known to be dead.

    The embedded engine does this when it has opened a store that no other process uses. Versions do not change.

    Args:
        view: the state.
        now: the instant.
        rules: the server's rules.
        cursor: the cursor from the response to the previous part; None for the first part.
        limit: the maximum number of records. The response has a cursor if there is a next part.
    """
    draft = Draft(view, now, rules)
    stage, _, after = (cursor or _EXPIRED).partition(" ")
    while limit > 0:
        # Expired promises come first, because settling them fulfills their tasks.
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
    """Return the instant at which something is due next, or None."""
    return view.next_due(armed=rules.armed)


def _settle_expired(draft: Draft, limit: int | None) -> Sequence[Promise]:
    due = draft.view.due_promises(draft.now, armed=draft.rules.armed, limit=limit)
    put_settled(draft, [timed_out(promise) for promise in due])
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
