"""`TimerPromises`: creating promises whose deadline fires even if no process is running (docs/distribution.md 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from attrs import define, evolve, field

from .._protocol import TIMER_PID, Promise, PromiseCreate, PromiseGet, Request, Response, TaskCreate

SendOnce: TypeAlias = Callable[[Request], Awaitable[Response | None]]
"""A function that sends a request to the server and returns the answer, or None if there was none."""

_LEASE_MARGIN_MS: Final = 3_600_000
_TARGET: Final = "resonate:target"


@define(eq=False, repr=False)
class TimerPromises:
    """Creates timers in the form that this server arms.

    Most servers arm the deadline of a promise that has a task. Such a task is created as already acquired, for longer
    than the deadline and by no process, so that no message is ever sent for it. Servers that follow the specification
    refuse a task for a timer, and arm timers without one.
    """

    _now: Callable[[], int]
    _have_tasks: bool = field(default=True, init=False)

    async def create(self, send: SendOnce, create: PromiseCreate) -> Response | None:
        """Create the promise, or find it. Return None if there was no answer."""
        if self._have_tasks or not _is_timer(create):
            response = await send(self._with_task(create))
            if response is not None and response.status in {409, 422}:
                return await send(PromiseGet(id=create.id))
            if response is None or response.status != 400 or not _is_timer(create):
                return response
        tags = {name: value for name, value in create.tags.items() if name != _TARGET}
        response = await send(evolve(create, tags=tags))
        self._have_tasks = response is None or response.status != 200
        return response

    def fires(self, record: Promise) -> bool:
        """Return whether the deadline of `record` fires by itself, on every server that this one may be."""
        return record.target is not None or (record.timer and not self._have_tasks)

    def _with_task(self, create: PromiseCreate) -> TaskCreate:
        ttl = max(create.timeout_at - self._now(), 0) + _LEASE_MARGIN_MS
        return TaskCreate(pid=TIMER_PID, ttl=ttl, action=create)


def _is_timer(create: PromiseCreate) -> bool:
    return create.tags.get("resonate:timer") == "true"
