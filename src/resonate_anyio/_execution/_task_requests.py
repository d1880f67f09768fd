"""The requests by which an execution gives its task back, acquires it again, and asks who holds it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from attrs import frozen

from .._errors import ResonateError
from .._protocol import (
    Promise,
    PromiseCreate,
    Request,
    Response,
    TaskAcquire,
    TaskGet,
    TaskHeartbeat,
    TaskRecord,
    TaskRef,
)
from .._requests._requester import Requester
from .._requests._timer_promises import TimerPromises
from .._values import ValueObject
from ..abc import Connection, Identity

logger = logging.getLogger("resonate_anyio")


class Asker(Protocol):
    """The part of a worker that these requests need. `Services` has it."""

    @property
    def identity(self) -> Identity: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def requester(self) -> Requester: ...
    @property
    def timer_promises(self) -> TimerPromises: ...
    @property
    def ttl_ms(self) -> int: ...

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        """Return whether this worker holds the task at that version."""
        ...


@frozen(eq=False, repr=False)
class Grant(ValueObject):
    """A lease that the server has granted, or has said to be held.

    Attributes:
        version: the version of the task.
        records: the local records that came with it.
        sent: when the request was sent, by the clock of leases.
    """

    version: int
    records: tuple[Promise, ...]
    sent: float


async def ask(asker: Asker, id: str, request: Request) -> Response | None:
    """Send one request for the task `id`. Return None if it was not answered."""
    try:
        return await asker.connection.request(request)
    except ResonateError as exc:
        logger.warning("execution.not_parked id=%s kind=%s reason=%r", id, request.kind, exc)
        return None


async def acquire(asker: Asker, id: str, version: int) -> Grant | None:
    """Acquire the task `id` at the version at which it was suspended. Return None if that is refused."""
    request = TaskAcquire(id=id, version=version, pid=asker.identity.holder, ttl=asker.ttl_ms)
    sent = asker.connection.elapsed()
    response = await asker.requester.request_until_answered(request)
    if response is not None and response.status == 200 and response.task is not None:
        return Grant(response.task.version, response.preload, sent)
    # The request may have been sent several times, and the answer that granted the lease may be lost. No attempt was
    # sent before `sent`.
    response = None if response is None else await asker.requester.request_until_answered(TaskGet(id=id))
    task = None if response is None else response.task
    return Grant(version + 1, (), sent) if asker.is_mine(task, version + 1) else None


async def look_who_holds(asker: Asker, id: str, version: int) -> tuple[float, TaskRecord | None] | None:
    """Return when the server was asked about the task `id`, and the task; None if there is no answer.

    If this worker holds the task at `version`, its lease is renewed.
    """
    asked = asker.connection.elapsed()
    beat = await ask(asker, id, TaskHeartbeat(pid=asker.identity.holder, tasks=(TaskRef(id, version),)))
    if beat is None or beat.status != 200:
        return None
    response = await ask(asker, id, TaskGet(id=id))
    return (asked, response.task) if response is not None and response.status in {200, 404} else None


async def make_wake(
    asker: Asker, root: str, id: str, wake_at: int, nowhere: str, lineage: Mapping[str, str]
) -> str | None:
    """Create the wake promise `id` for the task `root`. Return its id; None if it does not exist, or has settled."""
    tags = {"resonate:timer": "true", "resonate:target": nowhere, "resonate:scope": "global", **lineage}
    create = PromiseCreate(id=id, timeout_at=wake_at, tags=tags)
    response = await asker.timer_promises.create(partial(ask, asker, root), create)
    promise = None if response is None else response.promise
    return id if promise is not None and promise.pending else None
