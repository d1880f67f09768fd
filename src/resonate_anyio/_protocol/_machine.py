"""The state machine: a pure function from a state and a request to a response and changes (docs/protocol.md 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from . import _promises, _schedules, _search, _tasks
from ._draft import Draft
from ._messages import (
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    RegisterCallback,
    RegisterListener,
    Request,
    Response,
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
from ._rules import Rules
from ._validation import validate
from ._view import Outcome, View

_HANDLERS: Final[dict[type[Request], Callable[[Draft, Any], Response]]] = {
    PromiseGet: _promises.get,
    PromiseCreate: _promises.create,
    PromiseSettle: _promises.settle,
    RegisterCallback: _promises.register_callback,
    RegisterListener: _promises.register_listener,
    PromiseSearch: _search.search,
    TaskGet: _tasks.get,
    TaskCreate: _tasks.create,
    TaskAcquire: _tasks.acquire,
    TaskRelease: _tasks.release,
    TaskFulfill: _tasks.fulfill,
    TaskSuspend: _tasks.suspend,
    TaskFence: _tasks.fence,
    TaskHeartbeat: _tasks.heartbeat,
    TaskHalt: _tasks.halt,
    TaskContinue: _tasks.continue_,
    TaskSearch: _search.search,
    ScheduleGet: _schedules.get,
    ScheduleCreate: _schedules.create,
    ScheduleDelete: _schedules.delete,
    ScheduleSearch: _search.search,
}


def apply(view: View, now: int, request: Request, rules: Rules) -> Outcome:
    """Decide one request at the instant `now`.

    An invalid request (400) changes nothing. Any other request first settles those promises it names whose deadlines
    have passed. That change is kept even if the request is then refused with 404, 409 or 422.
    """
    if wrong := validate(request, rules):
        return Outcome(response=Response(status=400, error=wrong))

    draft = Draft(view, now, rules)
    return draft.outcome(_HANDLERS[type(request)](draft, request))
