"""`TimerPromises`: making promises whose deadline fires although no process may be there (docs/distribution.md 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from attrs import define, evolve, field

from .._protocol import TIMER_PID, Promise, PromiseCreate, PromiseGet, Request, Response, TaskCreate

AskOnce: TypeAlias = Callable[[Request], Awaitable[Response | None]]
"""Carries a request to the server. None if it was not answered."""

_LEASE_MARGIN_MS: Final = 3_600_000
_TARGET: Final = "resonate:target"


@define(eq=False)
class TimerPromises:
    """Knows what the server at hand wants timers to look like.

    Servers arm the deadline of a promise that has a task. The task is born acquired by nobody in particular, for longer
    than the deadline, so that no message is ever sent for it. Servers that follow the specification refuse that for
    timers, and arm those without a task.
    """

    _now: Callable[[], int]
    _have_tasks: bool = field(default=True, init=False)

    async def create(self, ask: AskOnce, create: PromiseCreate) -> Response | None:
        """Make the promise, or find it. None if there was no answer."""
        if self._have_tasks or not _is_timer(create):
            response = await ask(self._with_task(create))
            if response is not None and response.status in {409, 422}:
                return await ask(PromiseGet(id=create.id))
            if response is None or response.status != 400 or not _is_timer(create):
                return response
        tags = {name: value for name, value in create.tags.items() if name != _TARGET}
        response = await ask(evolve(create, tags=tags))
        self._have_tasks = response is None or response.status != 200
        return response

    def fires(self, record: Promise) -> bool:
        """Whether the deadline of `record` fires by itself, on every server that this may be."""
        return record.target is not None or (record.timer and not self._have_tasks)

    def _with_task(self, create: PromiseCreate) -> TaskCreate:
        ttl = max(create.timeout_at - self._now(), 0) + _LEASE_MARGIN_MS
        return TaskCreate(pid=TIMER_PID, ttl=ttl, action=create)


def _is_timer(create: PromiseCreate) -> bool:
    return create.tags.get("resonate:timer") == "true"
