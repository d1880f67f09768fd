"""Requests, responses, and the messages that are sent to workers.

Requests are frozen values; `kind` is the name of the operation on the wire (docs/protocol.md 8). `_wire` converts them
from and to JSON. The network inside this process passes them on as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias

from attrs import field, frozen

from .._values import ValueObject
from ._records import EMPTY, NO_TAGS, Missed, Promise, PromiseState, Schedule, TaskRecord, TaskState, Value


@frozen(kw_only=True, eq=False, repr=False)
class PromiseGet(ValueObject):
    """A request for the promise `id`."""

    kind: ClassVar[str] = "promise.get"
    id: str


@frozen(kw_only=True, eq=False, repr=False)
class PromiseCreate(ValueObject):
    """A request to create a promise, or to return the one that has the id already."""

    kind: ClassVar[str] = "promise.create"
    id: str
    timeout_at: int
    param: Value = EMPTY
    tags: Mapping[str, str] = field(default=NO_TAGS)


@frozen(kw_only=True, eq=False, repr=False)
class PromiseSettle(ValueObject):
    """A request to settle a promise. `state` is `resolved`, `rejected` or `rejected_canceled`."""

    kind: ClassVar[str] = "promise.settle"
    id: str
    state: PromiseState
    value: Value = EMPTY


@frozen(kw_only=True, eq=False, repr=False)
class RegisterCallback(ValueObject):
    """A request to resume the task `awaiter` when the promise `awaited` settles."""

    kind: ClassVar[str] = "promise.register_callback"
    awaited: str
    awaiter: str


@frozen(kw_only=True, eq=False, repr=False)
class RegisterListener(ValueObject):
    """A request to send an `Unblock` to `address` when the promise `awaited` settles."""

    kind: ClassVar[str] = "promise.register_listener"
    awaited: str
    address: str


@frozen(kw_only=True, eq=False, repr=False)
class PromiseSearch(ValueObject):
    """A request for a page of the promises in a state, or with all of some tags."""

    kind: ClassVar[str] = "promise.search"
    state: PromiseState | None = None
    tags: Mapping[str, str] = field(default=NO_TAGS)
    limit: int = 100
    cursor: str | None = None


@frozen(kw_only=True, eq=False, repr=False)
class TaskGet(ValueObject):
    """A request for the task `id`."""

    kind: ClassVar[str] = "task.get"
    id: str


@frozen(kw_only=True, eq=False, repr=False)
class TaskCreate(ValueObject):
    """A request to create a promise together with its task, which the caller then holds."""

    kind: ClassVar[str] = "task.create"
    pid: str
    ttl: int
    action: PromiseCreate


@frozen(kw_only=True, eq=False, repr=False)
class TaskAcquire(ValueObject):
    """A request for the lease of a pending task, at its `version`."""

    kind: ClassVar[str] = "task.acquire"
    id: str
    version: int
    pid: str
    ttl: int


@frozen(kw_only=True, eq=False, repr=False)
class TaskRelease(ValueObject):
    """A request to give the lease of a task back; the task is sent for again."""

    kind: ClassVar[str] = "task.release"
    id: str
    version: int


@frozen(kw_only=True, eq=False, repr=False)
class TaskFulfill(ValueObject):
    """A request to settle the promise of a task that the caller holds, and to end the task."""

    kind: ClassVar[str] = "task.fulfill"
    id: str
    version: int
    action: PromiseSettle


@frozen(kw_only=True, eq=False, repr=False)
class TaskSuspend(ValueObject):
    """A request to suspend a task until one of several promises settles.

    Attributes:
        id: the task.
        version: the version at which the task is held.
        awaited: the awaited promise of each action.
        awaiters: the awaiter of each action. A valid request names `id` in every action.
    """

    kind: ClassVar[str] = "task.suspend"
    id: str
    version: int
    awaited: tuple[str, ...]
    awaiters: tuple[str, ...]


@frozen(kw_only=True, eq=False, repr=False)
class TaskFence(ValueObject):
    """A request for an operation on a promise, on condition that the task is held (docs/protocol.md 8.13).

    Attributes:
        id: the task.
        version: the version at which the task is held.
        action: the inner operation, or None if it could not be decoded.
        action_id: the id that the inner operation names; empty if it names none.
        action_error: why the inner operation could not be decoded.
    """

    kind: ClassVar[str] = "task.fence"
    id: str
    version: int
    action: PromiseCreate | PromiseSettle | None
    action_id: str
    action_error: str | None = None


@frozen(eq=False, repr=False)
class TaskRef(ValueObject):
    """One entry of a heartbeat: a task, and the version at which it is held."""

    id: str
    version: int


@frozen(kw_only=True, eq=False, repr=False)
class TaskHeartbeat(ValueObject):
    """A request to renew the leases of the tasks that `pid` holds."""

    kind: ClassVar[str] = "task.heartbeat"
    pid: str
    tasks: tuple[TaskRef, ...]


@frozen(kw_only=True, eq=False, repr=False)
class TaskHalt(ValueObject):
    """A request to stop a task: it is not sent for until it is continued."""

    kind: ClassVar[str] = "task.halt"
    id: str


@frozen(kw_only=True, eq=False, repr=False)
class TaskContinue(ValueObject):
    """A request to send for a halted task again."""

    kind: ClassVar[str] = "task.continue"
    id: str


@frozen(kw_only=True, eq=False, repr=False)
class TaskSearch(ValueObject):
    """A request for a page of the tasks in a state."""

    kind: ClassVar[str] = "task.search"
    state: TaskState | None = None
    limit: int = 100
    cursor: str | None = None


@frozen(kw_only=True, eq=False, repr=False)
class ScheduleGet(ValueObject):
    """A request for the schedule `id`."""

    kind: ClassVar[str] = "schedule.get"
    id: str


@frozen(kw_only=True, eq=False, repr=False)
class ScheduleCreate(ValueObject):
    """A request to create a schedule, or to return the one that has the id already."""

    kind: ClassVar[str] = "schedule.create"
    id: str
    cron: str
    promise_id: str
    promise_timeout: int
    promise_param: Value = EMPTY
    promise_tags: Mapping[str, str] = field(default=NO_TAGS)
    missed: Missed = Missed.ALL


@frozen(kw_only=True, eq=False, repr=False)
class ScheduleDelete(ValueObject):
    """A request to delete a schedule."""

    kind: ClassVar[str] = "schedule.delete"
    id: str


@frozen(kw_only=True, eq=False, repr=False)
class ScheduleSearch(ValueObject):
    """A request for a page of the schedules whose promises have all of some tags."""

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


def subject_of(request: Request) -> str:
    """Return the id that a request is about; empty if it is about none or several."""
    match request:
        case TaskCreate(action=action):
            return action.id
        case RegisterCallback(awaited=awaited) | RegisterListener(awaited=awaited):
            return awaited
        case _:
            return getattr(request, "id", "")


Status: TypeAlias = Literal[200, 300, 400, 401, 403, 404, 409, 422, 500, 501]


@frozen(kw_only=True, eq=False, repr=False)
class Response(ValueObject):
    """The response to one request. Which attributes are set depends on the operation (docs/protocol.md 8).

    `error` is the text of a response whose status is neither 200 nor 300. `action` is the inner response of a fence.
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


@frozen(eq=False, repr=False)
class Execute(ValueObject):
    """The message that a task is ready: its receiver acquires it at `version` and runs it."""

    task_id: str
    version: int


@frozen(eq=False, repr=False)
class Unblock(ValueObject):
    """The message that a promise has settled on which its receiver has a listener."""

    promise: Promise


Message: TypeAlias = Execute | Unblock


@frozen(eq=False, repr=False)
class Outgoing(ValueObject):
    """A message and its address.

    Attributes:
        address: the address.
        message: the message.
        given_back: whether the message is sent because a worker released the task or its lease ended. It is not sent,
            and it is ignored when messages are compared.
    """

    address: str
    message: Message
    given_back: bool = field(default=False, eq=False, kw_only=True)
