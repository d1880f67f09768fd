"""What the machine reads and what it asks to be written.

The machine never writes. It reads a `View` and answers with `Change`s, which a store applies all or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from attrs import frozen

from ._messages import Outgoing, Response
from ._records import Armed, Callback, Promise, PromiseState, Schedule, Task, TaskState

Kind: TypeAlias = Literal["promises", "tasks", "schedules"]
"""A sort of records."""


class View(Protocol):
    """Read access to one consistent state. Every list is in ascending byte order of its (first) id."""

    def promise(self, id: str) -> Promise | None: ...

    def task(self, id: str) -> Task | None: ...

    def schedule(self, id: str) -> Schedule | None: ...

    def branch(self, branch: str) -> Sequence[Promise]:
        """Every promise whose tag `resonate:branch` is `branch`."""
        ...

    def awaiters(self, awaited: str) -> Sequence[Callback]:
        """The callbacks, ready or not, that wait for this promise, by awaiter."""
        ...

    def awaited(self, awaiter: str) -> Sequence[Callback]:
        """The callbacks, ready or not, that this task holds, by awaited."""
        ...

    def listeners(self, promise: str) -> Sequence[str]:
        """The addresses that listen to this promise."""
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
        """At most `limit` promises whose id is greater than `after` and not greater than `until`, filtered."""
        ...

    def search_tasks(
        self, *, state: TaskState | None, after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Task]: ...

    def search_schedules(
        self, *, tags: Mapping[str, str], after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Schedule]:
        """`tags` are compared with the schedule's `promise_tags`."""
        ...

    def id_ahead(self, kind: Kind, after: str | None, count: int) -> str | None:
        """The id of the record that is `count` records after `after`, or None if there are not as many."""
        ...

    def due_promises(self, now: int, *, armed: Armed, limit: int | None = None) -> Sequence[Promise]:
        """Pending promises with `timeout_at <= now` that are among these; at most `limit`, those that are due first."""
        ...

    def due_tasks(self, now: int, *, limit: int | None = None) -> Sequence[Task]:
        """Pending or acquired tasks with `due_at <= now`; at most `limit`, those that are due first."""
        ...

    def due_schedules(self, now: int, *, limit: int | None = None) -> Sequence[Schedule]:
        """Schedules with `next_run_at <= now`; at most `limit`, those that are due first."""
        ...

    def next_due(self, *, armed: Armed) -> int | None:
        """The earliest instant at which one of the three lists above gains a member, or None."""
        ...

    def all_callbacks(self) -> Sequence[Callback]:
        """Every callback, by awaiter and then awaited. For debug snapshots only."""
        ...

    def all_listeners(self) -> Sequence[tuple[str, str]]:
        """Every (promise, address). For debug snapshots only."""
        ...


@frozen
class PutPromise:
    promise: Promise


@frozen
class DropPromise:
    id: str


@frozen
class PutTask:
    task: Task


@frozen
class DropTask:
    id: str


@frozen
class PutSchedule:
    schedule: Schedule


@frozen
class DropSchedule:
    id: str


@frozen
class PutCallback:
    callback: Callback


@frozen
class DropCallback:
    awaited: str
    awaiter: str


@frozen
class PutListener:
    promise: str
    address: str


@frozen
class DropListener:
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


@frozen(kw_only=True)
class Outcome:
    """What one step decided: the answer, what to write (in order), what to send once it is written."""

    response: Response
    changes: tuple[Change, ...] = ()
    messages: tuple[Outgoing, ...] = ()


Step: TypeAlias = Callable[[View], Outcome]
"""A pure function of the state; the store gives it a view and writes what it answers."""
