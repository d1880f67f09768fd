"""Iteration over all records of one kind, one page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ._records import NO_TAGS, Promise, Schedule, Task, TaskState
from ._view import View

_PAGE: Final = 1000


def all_promises(view: View) -> Iterator[Promise]:
    """Yield every promise, by id."""
    after: str | None = None
    while page := view.search_promises(state=None, tags=NO_TAGS, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def all_tasks(view: View, state: TaskState | None = None) -> Iterator[Task]:
    """Yield every task, or every task in one state, by id."""
    after: str | None = None
    while page := view.search_tasks(state=state, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def all_schedules(view: View) -> Iterator[Schedule]:
    """Yield every schedule, by id."""
    after: str | None = None
    while page := view.search_schedules(tags=NO_TAGS, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id
