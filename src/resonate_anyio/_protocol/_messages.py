"""What can be said: requests, responses, and the messages that go out to workers.

Requests are typed and frozen; `kind` is the wire name of the operation (protocol 8). `_wire` turns JSON into these and
back; the in-process network never makes JSON of an envelope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias

from attrs import field, frozen

from ._records import EMPTY, NO_TAGS, Missed, Promise, PromiseState, Schedule, TaskRecord, TaskState, Value


@frozen(kw_only=True)
class PromiseGet:
    kind: ClassVar[str] = "promise.get"
    id: str


@frozen(kw_only=True)
class PromiseCreate:
    kind: ClassVar[str] = "promise.create"
    id: str
    timeout_at: int
    param: Value = EMPTY
    tags: Mapping[str, str] = field(default=NO_TAGS)


@frozen(kw_only=True)
class PromiseSettle:
    """`state` is one of resolved, rejected, rejected_canceled."""

    kind: ClassVar[str] = "promise.settle"
    id: str
    state: PromiseState
    value: Value = EMPTY


@frozen(kw_only=True)
class RegisterCallback:
    kind: ClassVar[str] = "promise.register_callback"
    awaited: str
    awaiter: str


@frozen(kw_only=True)
class RegisterListener:
    kind: ClassVar[str] = "promise.register_listener"
    awaited: str
    address: str


@frozen(kw_only=True)
class PromiseSearch:
    kind: ClassVar[str] = "promise.search"
    state: PromiseState | None = None
    tags: Mapping[str, str] = field(default=NO_TAGS)
    limit: int = 100
    cursor: str | None = None


@frozen(kw_only=True)
class TaskGet:
    kind: ClassVar[str] = "task.get"
    id: str


@frozen(kw_only=True)
class TaskCreate:
    kind: ClassVar[str] = "task.create"
    pid: str
    ttl: int
    action: PromiseCreate


@frozen(kw_only=True)
class TaskAcquire:
    kind: ClassVar[str] = "task.acquire"
    id: str
    version: int
    pid: str
    ttl: int


@frozen(kw_only=True)
class TaskRelease:
    kind: ClassVar[str] = "task.release"
    id: str
    version: int


@frozen(kw_only=True)
class TaskFulfill:
    kind: ClassVar[str] = "task.fulfill"
    id: str
    version: int
    action: PromiseSettle


@frozen(kw_only=True)
class TaskSuspend:
    """`awaited` are the promises of its actions; `awaiters` the awaiter named in each (normally all `id`)."""

    kind: ClassVar[str] = "task.suspend"
    id: str
    version: int
    awaited: tuple[str, ...]
    awaiters: tuple[str, ...]


@frozen(kw_only=True)
class TaskFence:
    """`action` None stands for an inner operation that does not decode; `action_error` says why (protocol 8.13)."""

    kind: ClassVar[str] = "task.fence"
    id: str
    version: int
    action: PromiseCreate | PromiseSettle | None
    action_id: str
    action_error: str | None = None


@frozen
class TaskRef:
    """One entry of a heartbeat."""

    id: str
    version: int


@frozen(kw_only=True)
class TaskHeartbeat:
    kind: ClassVar[str] = "task.heartbeat"
    pid: str
    tasks: tuple[TaskRef, ...]


@frozen(kw_only=True)
class TaskHalt:
    kind: ClassVar[str] = "task.halt"
    id: str


@frozen(kw_only=True)
class TaskContinue:
    kind: ClassVar[str] = "task.continue"
    id: str


@frozen(kw_only=True)
class TaskSearch:
    kind: ClassVar[str] = "task.search"
    state: TaskState | None = None
    limit: int = 100
    cursor: str | None = None


@frozen(kw_only=True)
class ScheduleGet:
    kind: ClassVar[str] = "schedule.get"
    id: str


@frozen(kw_only=True)
class ScheduleCreate:
    kind: ClassVar[str] = "schedule.create"
    id: str
    cron: str
    promise_id: str
    promise_timeout: int
    promise_param: Value = EMPTY
    promise_tags: Mapping[str, str] = field(default=NO_TAGS)
    missed: Missed = Missed.ALL


@frozen(kw_only=True)
class ScheduleDelete:
    kind: ClassVar[str] = "schedule.delete"
    id: str


@frozen(kw_only=True)
class ScheduleSearch:
    kind: ClassVar[str] = "schedule.search"
    tags: Mapping[str, str] = field(default=NO_TAGS)
    limit: int = 10
    cursor: str | None = None


Request: TypeAlias = (
    PromiseGet
    | PromiseCreate
    | PromiseSettle
    | RegisterCallback
    | RegisterListener
    | PromiseSearch
    | TaskGet
    | TaskCreate
    | TaskAcquire
    | TaskRelease
    | TaskFulfill
    | TaskSuspend
    | TaskFence
    | TaskHeartbeat
    | TaskHalt
    | TaskContinue
    | TaskSearch
    | ScheduleGet
    | ScheduleCreate
    | ScheduleDelete
    | ScheduleSearch
)

Status: TypeAlias = Literal[200, 300, 400, 401, 403, 404, 409, 422, 500, 501]


@frozen(kw_only=True)
class Response:
    """The answer to one request; which members are set depends on the operation (protocol 8).

    `error` is the text of an answer that is neither 200 nor 300. `action` is the inner answer of a fence.
    """

    status: int
    promise: Promise | None = None
    task: TaskRecord | None = None
    schedule: Schedule | None = None
    preload: tuple[Promise, ...] = ()
    promises: tuple[Promise, ...] = ()
    tasks: tuple[TaskRecord, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    cursor: str | None = None
    action: Response | None = None
    error: str | None = None


@frozen
class Execute:
    """A task is ready: acquire it at `version` and run it."""

    task_id: str
    version: int


@frozen
class Unblock:
    """A promise that this address listens to has settled."""

    promise: Promise


Message: TypeAlias = Execute | Unblock


@frozen
class Outgoing:
    """A message and the address that it is for.

    Attributes:
        address: where it goes.
        message: what goes there.
        given_back: its task was held by a worker that has released it or let its lease run out. It says nothing to the
            receiver, and is no part of what is compared.
    """

    address: str
    message: Message
    given_back: bool = field(default=False, eq=False, kw_only=True)
