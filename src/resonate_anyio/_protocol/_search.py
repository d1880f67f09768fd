"""Searches (docs/protocol.md 8.0), from one look at the state or from several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from attrs import define, field

from ._draft import Draft
from ._messages import PromiseSearch, Response, ScheduleSearch, TaskSearch
from ._promises import task_record
from ._records import Promise, Schedule, TaskRecord
from ._view import Kind, View

Search: TypeAlias = PromiseSearch | TaskSearch | ScheduleSearch

_Found: TypeAlias = Sequence[Promise] | Sequence[TaskRecord] | Sequence[Schedule]

_KINDS: Final[dict[type[Search], Kind]] = {
    PromiseSearch: "promises",
    TaskSearch: "tasks",
    ScheduleSearch: "schedules",
}


def search(draft: Draft, request: Search) -> Response:
    """Answer a search from one look at the state."""
    searching = Searching(request)
    searching.look(draft.view)
    return searching.response()


@define(eq=False, repr=False)
class Searching:
    """A search that takes several looks at the state, each of which reads a part of the records.

    If the state does not change in between, the result equals that of a single look.
    """

    _request: Search
    #: The maximum number of records that one look reads, including those that do not match.
    _at_once: int | None = None
    _after: str | None = field(init=False)
    _found: list[Promise | TaskRecord | Schedule] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self._after = self._request.cursor

    def look(self, view: View) -> bool:
        """Read the next records. Return whether this was the last look."""
        until = None
        if self._at_once is not None:
            until = view.id_ahead(_KINDS[type(self._request)], self._after, self._at_once)

        self._found += self._among(view, until)
        self._after = until
        return until is None or len(self._found) > self._request.limit

    def _among(self, view: View, until: str | None) -> _Found:
        # One record more than the page holds shows that there is a next page.
        request, after = self._request, self._after
        limit = request.limit + 1 - len(self._found)
        match request:
            case PromiseSearch(state=state, tags=tags):
                return view.search_promises(state=state, tags=tags, after=after, until=until, limit=limit)
            case TaskSearch(state=state):
                tasks = view.search_tasks(state=state, after=after, until=until, limit=limit)
                return [task_record(view, task) for task in tasks]
            case _:
                return view.search_schedules(tags=request.tags, after=after, until=until, limit=limit)

    def response(self) -> Response:
        """Return the response."""
        page = tuple(self._found[: self._request.limit])
        return Response(
            status=200,
            promises=tuple(found for found in page if isinstance(found, Promise)),
            tasks=tuple(found for found in page if isinstance(found, TaskRecord)),
            schedules=tuple(found for found in page if isinstance(found, Schedule)),
            cursor=page[-1].id if len(self._found) > len(page) else None,
        )
