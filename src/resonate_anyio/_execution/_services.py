"""The port of an execution: the interface of the worker that runs it, and the events that the execution reports."""

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
    """An event that an execution reports."""

    STIRRED = "stirred"
    """One of its tasks has begun to wait."""
    PARKED = "parked"
    """Its task is suspended at the server."""
    NOT_PARKED = "not parked"
    """Its task could not be suspended, and stays leased."""
    RESUMING = "resuming"
    """Its task is being acquired again."""
    RESUMED = "resumed"
    """Its task is leased again."""


class Services(Protocol):
    """The worker, as one of its executions sees it.

    Attributes:
        identity: the worker as the server knows it.
        connection: the connection that sends requests.
        requester: the sender that repeats requests until they are answered.
        subscriptions: the subscriptions to promises in this process.
        timer_promises: the maker of promises whose deadline fires by itself.
        facilities: the objects that all executions of the worker share.
        young: the executions and calls that began a short time ago.
        separator: the separator between the id of a root and the rest of an id.
        ttl_ms: the duration of a lease, in milliseconds.
        draining: whether the worker is stopping, so that durable calls do not start.
        torn_down: whether the event loop is being closed, so that cancellations are ignored.
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
        """Handle an event of an execution."""
        ...

    def falls_asleep(self, execution: Execution, due_ms: int) -> None:
        """Note that a task of an execution is about to sleep until `due_ms`."""
        ...

    def task_snapshot(self) -> TaskSnapshot:
        """Return all tasks of this round of the event loop."""
        ...

    def background(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Run `func` in a background task of the worker."""
        ...

    def acquire(self, id: str, version: int) -> None:
        """Acquire the task `id` at `version`, as soon as admission allows it."""
        ...

    async def release(self, id: str, version: int) -> None:
        """Release a task, if the server can be reached now."""
        ...

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        """Return whether this worker holds the task at that version."""
        ...

    async def register_listener(self, id: str, execution: Execution) -> Promise:
        """Ask the server for a message when `id` settles, and return the record of `id`."""
        ...

    def ask_at_deadline(self, record: Promise) -> None:
        """Read a promise once its deadline has come, unless the server sends a message then."""
        ...

    async def recheck(self, id: str) -> None:
        """Read a promise once more that is waited for."""
        ...

    def cancel_below_later(self, id: str) -> None:
        """Begin a cancel cascade below `id` in the background."""
        ...

    async def cancel_below(self, id: str) -> None:
        """Cancel every pending descendant of `id`."""
        ...

    def settled_here(self, record: Promise) -> None:
        """Note that this process has settled a promise whose function may run in this process."""
        ...
