"""Everything of one sort, page by page: for the few who need it all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ._records import NO_TAGS, Promise, Schedule, Task, TaskState
from ._view import View

_PAGE: Final = 1000


def all_promises(view: View) -> Iterator[Promise]:
    """Give every promise, by id."""
    after: str | None = None
    while page := view.search_promises(state=None, tags=NO_TAGS, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def all_tasks(view: View, state: TaskState | None = None) -> Iterator[Task]:
    """Give every task, or those in one state, by id."""
    after: str | None = None
    while page := view.search_tasks(state=state, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def all_schedules(view: View) -> Iterator[Schedule]:
    """Give every schedule, by id."""
    after: str | None = None
    while page := view.search_schedules(tags=NO_TAGS, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id
