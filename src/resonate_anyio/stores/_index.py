"""The containers that the memory store is made of.

Each is written through one method that takes None for "remove"; the table gives back what was there, which is all that
is needed to undo the write. Text is ordered by code point, which is the byte order of its UTF-8 form.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

from attrs import define, field

R = TypeVar("R")

# Below this many stale entries rebuilding a heap is not worth the trouble.
_STALE_ALLOWED: Final = 64


@define
class Table(Generic[R]):
    """Records by id, and their ids in order."""

    _records: dict[str, R] = field(init=False, factory=dict)
    _ids: list[str] = field(init=False, factory=list)

    def get(self, id: str) -> R | None:
        return self._records.get(id)

    def put(self, id: str, record: R | None) -> R | None:
        """Put or (None) remove a record; give back the one that was there."""
        old = self._records.get(id)
        if record is None:
            self._remove(id)
        else:
            self._records[id] = record
            if old is None:
                insort(self._ids, id)

        return old

    def _remove(self, id: str) -> None:
        if self._records.pop(id, None) is not None:
            del self._ids[bisect_left(self._ids, id)]

    def after(self, id: str | None, until: str | None = None) -> Iterator[R]:
        """Give the records whose id is greater, up to that of `until`, in order."""
        end = len(self._ids) if until is None else bisect_right(self._ids, until)
        # Not islice(ids, start): that would walk over everything before the start.
        return (self._records[self._ids[index]] for index in range(self._start(id), end))

    def id_ahead(self, id: str | None, count: int) -> str | None:
        """Give the id that is `count` places after `id`, if there is one."""
        index = self._start(id) + count - 1
        return self._ids[index] if index < len(self._ids) else None

    def _start(self, id: str | None) -> int:
        return 0 if id is None else bisect_right(self._ids, id)


@define
class Groups(Generic[R]):
    """Members by group and key. A group without members takes no room."""

    _groups: dict[str, dict[str, R]] = field(init=False, factory=dict)

    def of(self, group: str) -> list[R]:
        """Give the members of a group in the order of their keys."""
        members = self._groups.get(group)
        return [] if members is None else [members[key] for key in sorted(members)]

    def put(self, group: str, key: str, member: R | None) -> R | None:
        """Put or (None) remove a member; give back the one that was there."""
        members = self._groups.get(group)
        old = None if members is None else members.get(key)
        if member is not None:
            self._groups.setdefault(group, {})[key] = member
        elif members is not None and old is not None:
            del members[key]
            if not members:
                del self._groups[group]

        return old

    def everything(self) -> Iterator[R]:
        """Give every member by group and then by key."""
        return (member for group in sorted(self._groups) for member in self.of(group))


@define
class DueIndex:
    """Which id is due when: a heap whose entries are compared with `_instants` and ignored if they are stale."""

    _instants: dict[str, int] = field(init=False, factory=dict)
    _heap: list[tuple[int, str]] = field(init=False, factory=list)

    def put(self, id: str, instant: int | None) -> None:
        """Make `id` due at an instant, or never."""
        if instant is None:
            self._instants.pop(id, None)
        elif self._instants.get(id) != instant:
            self._instants[id] = instant
            heappush(self._heap, (instant, id))
            self._compact()

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._instants) + _STALE_ALLOWED:
            self._heap = [(instant, id) for id, instant in self._instants.items()]
            heapify(self._heap)

    def _live(self, entry: tuple[int, str]) -> bool:
        instant, id = entry
        return self._instants.get(id) == instant

    def due(self, now: int) -> Iterator[tuple[int, str]]:
        """Give every instant up to `now` with the id that is due then, in order. An id may come twice."""
        # Reading must not change anything: walk down the heap, which is a tree, the earliest branch first.
        coming = [(self._heap[0], 0)] if self._heap else []
        while coming:
            entry, index = heappop(coming)
            if entry[0] > now:
                return

            for child in (2 * index + 1, 2 * index + 2):
                if child < len(self._heap):
                    heappush(coming, (self._heap[child], child))

            if self._live(entry):
                yield entry

    def next(self) -> int | None:
        """Give the earliest instant at which anything is due."""
        while self._heap and not self._live(self._heap[0]):
            heappop(self._heap)

        return self._heap[0][0] if self._heap else None
