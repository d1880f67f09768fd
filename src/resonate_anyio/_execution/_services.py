"""The port of an execution: what it needs of the process that runs it, and the events that it reports."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._concurrency._tasks import TaskSnapshot
    from .._protocol import Promise, TaskRecord
    from .._requests._requester import Requester
    from .._requests._subscriptions import Subscriptions
    from .._requests._timer_promises import TimerPromises
    from .._workflow._host import Facilities
    from .._workflow._presence import Young
    from ..abc import Connection, Identity
    from ._execution import Execution


class Event(Enum):
    """What an execution reports of itself."""

    STIRRED = "stirred"
    """A task of it has begun to wait."""
    PARKED = "parked"
    """Its task is suspended at the server."""
    NOT_PARKED = "not parked"
    """Its task could not be suspended, and stays leased."""
    RESUMING = "resuming"
    """Its task is being taken back."""
    RESUMED = "resumed"
    """Its task is leased again."""


class Services(Protocol):
    """The worker, as one of its executions sees it.

    Attributes:
        identity: the worker at the server.
        connection: sends requests.
        requester: sends requests again until they are answered.
        subscriptions: what is waited for in this process.
        timer_promises: makes promises whose deadline fires by itself.
        facilities: what runs of functions use.
        young: executions and calls that have begun not long ago.
        separator: what joins the id of a root and what is below it.
        ttl_ms: how long a lease lasts.
        draining: whether the worker is stopping: no durable call starts.
        torn_down: whether the event loop is being taken down, so that a cancellation means nothing.
    """

    @property
    def identity(self) -> Identity: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def requester(self) -> Requester: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def timer_promises(self) -> TimerPromises: ...
    @property
    def facilities(self) -> Facilities: ...
    @property
    def young(self) -> Young: ...
    @property
    def separator(self) -> str: ...
    @property
    def ttl_ms(self) -> int: ...
    @property
    def draining(self) -> bool: ...
    @property
    def torn_down(self) -> bool: ...

    def report(self, event: Event, execution: Execution) -> None:
        """Take note of an event of an execution."""
        ...

    def falls_asleep(self, execution: Execution, due_ms: int) -> None:
        """A task of an execution is about to sleep until `due_ms`."""
        ...

    def task_snapshot(self) -> TaskSnapshot:
        """Return all tasks, as of this round of the event loop."""
        ...

    def background(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Run `func` in a task of the worker's own."""
        ...

    def acquire(self, id: str, version: int) -> None:
        """Acquire the task `id` at `version`, when there is room for it."""
        ...

    async def release(self, id: str, version: int) -> None:
        """Release a task, if that can be done now."""
        ...

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        """Return whether this worker holds the task at that version."""
        ...

    async def register_listener(self, id: str, execution: Execution) -> Promise:
        """Ask the server for a message when `id` settles; its record tells whether it has already."""
        ...

    def ask_at_deadline(self, record: Promise) -> None:
        """Ask for a promise once its deadline has come, unless the server sends a message then."""
        ...

    async def recheck(self, id: str) -> None:
        """Ask once more for a promise that is waited for."""
        ...

    def cancel_below_later(self, id: str) -> None:
        """Begin a cancel cascade below `id`."""
        ...

    async def cancel_below(self, id: str) -> None:
        """Cancel every pending descendant of `id`."""
        ...

    def settled_here(self, record: Promise) -> None:
        """Note what a promise was settled with from here, if its function runs in this process."""
        ...
