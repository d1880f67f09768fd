"""The containers that the memory store is made of.

Each has one method for writing, in which None means "remove". Tables and groups return what was there before, which is
all that is needed to undo a write. Text is ordered by code point, which is the byte order of its UTF-8 form.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

from attrs import define, field

R = TypeVar("R")

# A heap with at most this many stale entries is not rebuilt.
_STALE_ALLOWED: Final = 64


@define
class Table(Generic[R]):
    """Records by id, and their ids in order.

    Attributes:
        records: the records by id, in no order; only `put` changes it.
    """

    records: dict[str, R] = field(init=False, factory=dict)
    _ids: list[str] = field(init=False, factory=list)

    def put(self, id: str, record: R | None) -> R | None:
        """Put or (None) remove a record. Return the record that was there."""
        old = self.records.get(id)
        if record is not None:
            self.records[id] = record
            if old is None:
                insort(self._ids, id)
        elif old is not None:
            del self.records[id]
            del self._ids[bisect_left(self._ids, id)]

        return old

    def after(self, id: str | None, until: str | None = None) -> Iterator[R]:
        """Return the records whose id is greater than `id` and not greater than `until`, in order."""
        end = len(self._ids) if until is None else bisect_right(self._ids, until)
        # Not islice(ids, start): that would walk over everything before the start.
        return (self.records[self._ids[index]] for index in range(self._start(id), end))

    def id_ahead(self, id: str | None, count: int) -> str | None:
        """Return the id that is `count` places after `id`, or None if there is none."""
        index = self._start(id) + count - 1
        return self._ids[index] if index < len(self._ids) else None

    def _start(self, id: str | None) -> int:
        return 0 if id is None else bisect_right(self._ids, id)


@define
class Groups(Generic[R]):
    """Members by group and key. A group without members takes no space."""

    _groups: dict[str, dict[str, R]] = field(init=False, factory=dict)

    def of(self, group: str) -> list[R]:
        """Return the members of a group in the order of their keys."""
        members = self._groups.get(group)
        return [] if members is None else [members[key] for key in sorted(members)]

    def put(self, group: str, key: str, member: R | None) -> R | None:
        """Put or (None) remove a member. Return the member that was there."""
        members = self._groups.get(group)
        old = None if members is None else members.get(key)
        if member is not None:
            self._groups.setdefault(group, {})[key] = member
        elif members is not None and old is not None:
            del members[key]
            if not members:
                del self._groups[group]

        return old

    def everything(self) -> Iterator[tuple[str, str, R]]:
        """Return every member with its group and its key, by group and then by key."""
        for group, members in sorted(self._groups.items()):
            for key in sorted(members):
                yield group, key, members[key]


@define
class DueIndex:
    """The instant at which each id is due: a heap, of which entries that differ from `_instants` are ignored."""

    _instants: dict[str, int] = field(init=False, factory=dict)
    _heap: list[tuple[int, str]] = field(init=False, factory=list)

    def put(self, id: str, instant: int | None) -> None:
        """Make `id` due at an instant, or (None) never."""
        if instant is None:
            self._instants.pop(id, None)
        elif self._instants.get(id) != instant:
            self._instants[id] = instant
            heappush(self._heap, (instant, id))
            if len(self._heap) > 2 * len(self._instants) + _STALE_ALLOWED:
                self._heap = [(instant, id) for id, instant in self._instants.items()]
                heapify(self._heap)

    def _live(self, entry: tuple[int, str]) -> bool:
        instant, id = entry
        return self._instants.get(id) == instant

    def due(self, now: int) -> Iterator[tuple[int, str]]:
        """Return every instant up to `now` with the id that is due then, in order. An id may come twice."""
        # Reading changes nothing: this walks down the heap, which is a tree, the earliest branch first.
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
        """Return the earliest instant at which an id is due, or None."""
        while self._heap and not self._live(self._heap[0]):
            heappop(self._heap)

        return self._heap[0][0] if self._heap else None
