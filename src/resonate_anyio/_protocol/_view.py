"""The interface between the state machine and a store: reads and changes.

The machine does not write. It reads a `View` and returns `Change` values, and the store applies all of them or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from attrs import frozen

from .._values import ValueObject
from ._messages import Outgoing, Response
from ._records import Armed, Callback, Promise, PromiseState, Schedule, Task, TaskState

Kind: TypeAlias = Literal["promises", "tasks", "schedules"]
"""A kind of record."""


class View(Protocol):
    """Read access to one consistent state. Each list is in ascending byte order of the first id of its elements."""

    def promise(self, id: str) -> Promise | None:
        """Return the promise with this id, or None."""
        ...

    def task(self, id: str) -> Task | None:
        """Return the task with this id, or None."""
        ...

    def schedule(self, id: str) -> Schedule | None:
        """Return the schedule with this id, or None."""
        ...

    def branch(self, branch: str) -> Sequence[Promise]:
        """Return every promise whose tag `resonate:branch` is `branch`."""
        ...

    def awaiters(self, awaited: str) -> Sequence[Callback]:
        """Return the callbacks on this promise, ready or not, by awaiter."""
        ...

    def awaited(self, awaiter: str) -> Sequence[Callback]:
        """Return the callbacks of this task, ready or not, by awaited promise."""
        ...

    def listeners(self, promise: str) -> Sequence[str]:
        """Return the addresses of the listeners on this promise."""
        ...

    def search_promises(
        self,
        *,
        state: PromiseState | None,
        tags: Mapping[str, str],
        after: str | None,
        limit: int,
        until: str | None = None,
    ) -> Sequence[Promise]:
        """Return at most `limit` promises that match, with `after` < id <= `until`."""
        ...

    def search_tasks(
        self, *, state: TaskState | None, after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Task]:
        """Return at most `limit` tasks that match, with `after` < id <= `until`."""
        ...

    def search_schedules(
        self, *, tags: Mapping[str, str], after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Schedule]:
        """Return at most `limit` schedules whose `promise_tags` contain `tags`, with `after` < id <= `until`."""
        ...

    def id_ahead(self, kind: Kind, after: str | None, count: int) -> str | None:
        """Return the id of the record `count` places after `after`, or None if there are fewer records."""
        ...

    def due_promises(self, now: int, *, armed: Armed, limit: int | None = None) -> Sequence[Promise]:
        """Return pending promises of the set `armed` with `timeout_at <= now`: at most `limit`, the earliest ones."""
        ...

    def due_tasks(self, now: int, *, limit: int | None = None) -> Sequence[Task]:
        """Return pending and acquired tasks with `due_at <= now`: at most `limit`, the earliest ones."""
        ...

    def due_schedules(self, now: int, *, limit: int | None = None) -> Sequence[Schedule]:
        """Return schedules with `next_run_at <= now`: at most `limit`, the earliest ones."""
        ...

    def next_due(self, *, armed: Armed) -> int | None:
        """Return the earliest instant at which one of the three lists above is not empty, or None."""
        ...

    def all_callbacks(self) -> Sequence[Callback]:
        """Return every callback, by awaiter and then awaited promise. Only debug operations use this."""
        ...

    def all_listeners(self) -> Sequence[tuple[str, str]]:
        """Return every pair of promise and address. Only debug operations use this."""
        ...


@frozen(eq=False, repr=False)
class PutPromise(ValueObject):
    """Insert a promise, or replace the one with its id."""

    promise: Promise


@frozen(eq=False, repr=False)
class DropPromise(ValueObject):
    """Delete a promise, if there is one with this id."""

    id: str


@frozen(eq=False, repr=False)
class PutTask(ValueObject):
    """Insert a task, or replace the one with its id."""

    task: Task


@frozen(eq=False, repr=False)
class DropTask(ValueObject):
    """Delete a task, if there is one with this id."""

    id: str


@frozen(eq=False, repr=False)
class PutSchedule(ValueObject):
    """Insert a schedule, or replace the one with its id."""

    schedule: Schedule


@frozen(eq=False, repr=False)
class DropSchedule(ValueObject):
    """Delete a schedule, if there is one with this id."""

    id: str


@frozen(eq=False, repr=False)
class PutCallback(ValueObject):
    """Insert a callback, or replace the one with its two ids."""

    callback: Callback


@frozen(eq=False, repr=False)
class DropCallback(ValueObject):
    """Delete a callback, if there is one with these two ids."""

    awaited: str
    awaiter: str


@frozen(eq=False, repr=False)
class PutListener(ValueObject):
    """Insert a listener, unless it is there already."""

    promise: str
    address: str


@frozen(eq=False, repr=False)
class DropListener(ValueObject):
    """Delete a listener, if it is there."""

    promise: str
    address: str


Change: TypeAlias = (
    PutPromise
    | DropPromise
    | PutTask
    | DropTask
    | PutSchedule
    | DropSchedule
    | PutCallback
    | DropCallback
    | PutListener
    | DropListener
)


@frozen(kw_only=True, eq=False, repr=False)
class Outcome(ValueObject):
    """The result of one step: the response, the changes in order, and the messages to send after the commit."""

    response: Response
    changes: tuple[Change, ...] = ()
    messages: tuple[Outgoing, ...] = ()


Step: TypeAlias = Callable[[View], Outcome]
"""A pure function of the state. The store calls it with a view, and writes the changes that it returns."""
