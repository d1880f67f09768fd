"""History: the records below a root function that existed when a replay begins.

The records are promises of the server. Their tags say which call of which frame each of them belongs to, and where in
the code that call stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from attrs import Factory, define, field, frozen

from ._finished import as_call
from ._ids import origin_of
from ._protocol import Promise
from ._values import ValueObject

PARENT_TAG: Final = "resonate-anyio:parent"
"""The id of the caller of a promise with a shortened id. (Servers demand that `resonate:parent` is a prefix.)"""
DETACHED_TAG: Final = "resonate-anyio:detached"
"""A mark on the root of a subtree that does not end with its caller."""
LANE_TAG: Final = "resonate-anyio:lane"
"""`{number}/{identity}` on every record of the lane of a plain task: the number of the lane, and the identity of its
first call. Records of version 0.1.0 have the number alone, on the first call of the lane only (see docs/semantics.md
2.3)."""
ORDER_TAG: Final = "resonate-anyio:order"
"""The place of a call in the order of the tasks of a function with several tasks: see `Numbered`."""
POSITION_TAG: Final = "resonate-anyio:position"
"""The place of the call in the code of its caller: see `Position`."""

_LAST_SEGMENT: Final = re.compile(r"[^.:]*$")
_LAST_PART: Final = re.compile(r"(^|[.:])[^.:]*$")
_LANE_START: Final = "~lane "
_CHOICES: Final = ("~first-", "~completed-", "~now-")
_ORDER: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))? ([a-z0-9-]+)((?: [a-z0-9-]+\.[0-9]{1,9})*)", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,9}(?=[- ])", re.ASCII)


def parent_of(record: Promise) -> str:
    """Return the id of the call that made this one, as far as it can be known."""
    tags = record.tags
    return tags.get(PARENT_TAG) or tags.get("resonate:parent") or _LAST_PART.sub("", record.id)


def origin_of_root(record: Promise, separator: str) -> str:
    """Return the origin of a root that was handed to this worker: from its tag; else, from the shape of its id."""
    origin = record.tags.get("resonate:origin") or ""
    return origin if origin and separator not in origin else origin_of(record.id, separator)


def is_made_by_hand(record: Promise) -> bool:
    """Return whether `record` is a plain promise that was created by its id: it is not a call of a function."""
    tags = record.tags
    if PARENT_TAG in tags or "resonate:parent" in tags or tags.get("resonate:scope") == "local":
        return False
    return record.target is None and not record.timer


def descendants_of(id: str, records: Iterable[Promise]) -> list[Promise]:
    """Return those of `records` that `id` has called, directly or not, in id order, without detached subtrees."""
    children: dict[str, list[Promise]] = {}
    for record in {record.id: record for record in records}.values():
        if DETACHED_TAG not in record.tags:
            children.setdefault(parent_of(record), []).append(record)
    found: list[Promise] = []
    parents = [id]
    while parents:
        below = children.pop(parents.pop(), [])
        found += below
        parents += [record.id for record in below]
    return sorted(found, key=lambda record: record.id)


class Position(NamedTuple):
    """The place of a call in the code of its caller (`POSITION_TAG`): `{lane}/{number}/{blocks}`.

    Attributes:
        lane: the label of its lane as in ids, or `0` for the caller's own code. For a lane that `start_soon` has
            opened, `@` and the number of that `start_soon` in the opening lane follow: `2@7`.
        number: the number of the call among the calls and choices of the lane, from 1, in the order in which their
            builders are made. The items of one `as_completed` share a number: `7.1`, `7.2`. A `start_soon` has a number
            too, and no record.
        blocks: the regions of the caller that are around the call, the outermost first, joined by dots. Each is named
            by the count of numbers that its lane had given out when it was entered; so two regions in a row differ if a
            call lies between their beginnings. `!` behind a region says that it had been cancelled already, and `!` at
            the front that the caller or something around it had been: such a call is made under a shield, to clean up.
    """

    lane: str
    number: str
    blocks: str

    def encode(self) -> str:
        """Return the position as it is recorded."""
        return f"{self.lane}/{self.number}/{self.blocks}"

    @classmethod
    def of(cls, record: Promise) -> Position | None:
        """Return the position of a record, or None."""
        lane, _, rest = record.tags.get(POSITION_TAG, "").partition("/")
        number, _, blocks = rest.partition("/")
        return cls(lane, number, blocks) if number.replace(".", "", 1).isdecimal() else None

    @property
    def label(self) -> str:
        """The label of the lane."""
        return self.lane.partition("@")[0]

    @property
    def start(self) -> Position | None:
        """The position of the `start_soon` that opened the lane, or None. Its blocks are those of the call."""
        label, _, number = self.lane.partition("@")
        return Position(label.rpartition("-")[0] or "0", number, self.blocks) if number else None

    @property
    def main(self) -> int:
        """The number, without that of an item of `as_completed`."""
        return int(self.number.partition(".")[0])

    @property
    def cancelled(self) -> bool:
        """Whether the caller itself, or something around it, had been cancelled."""
        return self.blocks.startswith("!")

    @property
    def path(self) -> list[tuple[str, bool]]:
        """The regions, the outermost first: the name of each, and whether it had been cancelled."""
        blocks = self.blocks.removeprefix("!")
        return [(block.removesuffix("!"), block.endswith("!")) for block in blocks.split(".")] if blocks else []


class Placed(NamedTuple):
    """The record at one position.

    Attributes:
        id: the id of the promise.
        position: the position.
        created_at: the instant of its creation, in milliseconds.
        settled_at: the instant of its settlement, or None.
    """

    id: str
    position: Position
    created_at: int
    settled_at: int | None


def lane_id(label: str) -> str:
    """Return the id that stands for the start of a lane, which has no record."""
    return f"{_LANE_START}{label}"


def _made(placed: Placed) -> int:
    return placed.created_at


def lane_tag(number: int, identity: str) -> str:
    """Return the lane tag for the lane of a plain task: see `LANE_TAG`."""
    return f"{number}/{identity}"


@define(eq=False, repr=False)
class RecordedLane:
    """The lane of a plain task, as it is on record.

    Attributes:
        identity: the identity of its first call; None in records of version 0.1.0.
        first: its first call, in records of version 0.1.0.
    """

    identity: str | None = None
    first: Promise | None = None


@frozen(eq=False, repr=False)
class Numbered(ValueObject):
    """A call of a function with several tasks, in the order of these tasks.

    Attributes:
        number: the number of the call among such calls of the function, from 1.
        lane: the lane that made it; `0` is the function's own code.
        returns: the returns since the number before `since`: the lane of each, and the number of its returns up to this
            one.
        made_at: the instant at which it was recorded, in milliseconds.
        since: the number of the first call whose returns are listed here as well, because it may have been lost.
    """

    number: int
    lane: str
    returns: tuple[tuple[str, int], ...]
    made_at: int
    since: int

    @staticmethod
    def number_of(record: Promise) -> int | None:
        """Return the number alone, which is faster to read."""
        match = _NUMBER.match(record.tags.get(ORDER_TAG, ""))
        return None if match is None else int(match[0])

    @classmethod
    def of(cls, record: Promise) -> Numbered | None:
        """Return the content of a record's order tag, or None if it has none, or one of another shape."""
        match = _ORDER.fullmatch(record.tags.get(ORDER_TAG, ""))
        if match is None:
            return None
        number, since, lane, texts = match.groups()
        split = (text.rpartition(".") for text in texts.split())
        returns = tuple((other, int(count)) for other, _, count in split)
        return cls(int(number), lane, returns, record.created_at, int(since or number))

    @staticmethod
    def encode(number: int, lane: str, returns: Iterable[tuple[str, int]], since: int) -> str:
        """Return the order tag."""
        numbers = str(number) if since == number else f"{number}-{since}"
        return " ".join((numbers, lane, *(f"{lane}.{count}" for lane, count in returns)))


@define(eq=False, repr=False)
class History:
    """The records below one root function. A promise that is not among them does not exist, unless they are partial.

    Attributes:
        local: the number of records that came with the lease, because they are in the branch.
        records: the records that no call of this run has asked for yet, by id.
        unplaced: the ids of frames with a record that has no position.
        crashes: the instants at which earlier lives of the execution began that follow a crash, in milliseconds.
        follows_crash: whether the present life follows a crash, or a lost lease.
        partial: whether records may be missing that did not come with the lease.
    """

    local: int
    records: dict[str, Promise] = Factory(dict)
    partial: bool = False
    crashes: tuple[int, ...] = ()
    follows_crash: bool = False
    _reopened: set[str] = field(factory=set, init=False)
    _unasked: dict[str, int] = field(factory=dict, init=False)
    _lanes: dict[str, dict[int, RecordedLane]] = field(factory=dict, init=False)
    _numbered: dict[str, list[Numbered]] = field(factory=dict, init=False)
    _placed: dict[str, dict[tuple[str, str], Placed]] = field(factory=dict, init=False)
    unplaced: set[str] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        for record in self.records.values():
            if is_made_by_hand(record):
                continue
            parent = parent_of(record)
            self._unasked[parent] = self._unasked.get(parent, 0) + 1
            self._place(parent, record)
            self._count_lane(parent, record.tags.get(LANE_TAG, ""), record)
            if (numbered := Numbered.of(record)) is not None:
                self._numbered.setdefault(parent, []).append(numbered)

    def _place(self, parent: str, record: Promise) -> None:
        placed = self.place_of(record)
        if placed is not None:
            position, there = placed.position, self._placed.setdefault(parent, {})
            there[position.label, position.number] = placed
            if (start := position.start) is not None:
                # The start of the lane has no record: the calls of the lane say where it was opened.
                lane = Placed(lane_id(position.label), start, record.created_at, None)
                there[start.label, start.number] = min(lane, there.get((start.label, start.number), lane), key=_made)
        elif is_made_by_code(record):
            self.unplaced.add(parent)

    def _count_lane(self, parent: str, tag: str, record: Promise) -> None:
        number, _, identity = tag.partition("/")
        if not number.isdecimal():
            return
        lane = self._lanes.setdefault(parent, {}).setdefault(int(number), RecordedLane())
        if identity:
            lane.identity = identity
        else:
            lane.first = record

    @classmethod
    def of(cls, records: Iterable[Promise], local: int = 0, **known: Any) -> History:
        """Return the history of the records below a root.

        Args:
            records: the records, as the server has them.
            local: the number of those that came with the lease.
            known: further attributes.
        """
        return cls(local, {record.id: as_call(record) for record in records}, **known)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def last_change(self) -> int:
        """The latest instant of a creation or settlement among the records, in milliseconds; 0 if there are none."""
        return max((record.settled_at or record.created_at for record in self.records.values()), default=0)

    def lives_since(self, record: Promise) -> int:
        """Return how many lives have begun after a crash since `record` was made, which is older than this life."""
        return sum(at > record.created_at for at in self.crashes) + self.follows_crash

    def has_pending_below(self, id: str) -> bool:
        """Return whether a call below `id` was pending when the history was read."""
        return any(record.pending for record in descendants_of(id, self.records.values()))

    def look(self, id: str) -> Promise | None:
        """Return the record of `id`, or None, and keep it."""
        return self.records.get(id)

    def add(self, record: Promise) -> None:
        """Add a record that was looked up, since the history is partial."""
        self.records[record.id] = record
        if is_made_by_hand(record):
            return
        parent = parent_of(record)
        self._unasked[parent] = self._unasked.get(parent, 0) + 1
        self._place(parent, record)

    def take(self, id: str) -> Promise | None:
        """Return the record of `id`, or None, and forget it: each call of a replay asks once."""
        record = self.records.pop(id, None)
        if record is not None and not is_made_by_hand(record):
            self._unasked[parent_of(record)] -= 1
            if self.partial and record.pending:
                self._reopened.add(id)
        return record

    def may_lack(self, parent: str, scope: Literal["local", "global"]) -> bool:
        """Return whether a call of `parent` with that scope may be on record although it is not in this history.

        Only calls of the root that run here come with the lease. A call that this run has begun has none on record.
        """
        return self.partial and (scope == "global" or parent in self._reopened)

    def has_unasked(self, parent: str) -> bool:
        """Return whether a replay of `parent` has not asked yet for all records below it."""
        return self._unasked.get(parent, 0) > 0

    def forgotten(self, parent: str) -> list[Promise]:
        """Return the pending records below `parent` that no call has asked for, the deepest first.

        Detached subtrees are left out.
        """
        below = descendants_of(parent, self.records.values())
        return [record for record in reversed(below) if record.pending and not is_made_by_hand(record)]

    # Positions

    def is_placed(self, parent: str) -> bool:
        """Return whether every recorded call and choice of `parent` has a position."""
        return parent not in self.unplaced

    def unplace(self, parent: str) -> None:
        """Note that a call of `parent` has no position: the positions of its other calls are not compared any more."""
        self.unplaced.add(parent)

    @staticmethod
    def place_of(record: Promise) -> Placed | None:
        """Return the record with its position, or None if it has none."""
        position = Position.of(record)
        return None if position is None else Placed(record.id, position, record.created_at, record.settled_at)

    def placed(self, parent: str) -> Mapping[tuple[str, str], Placed]:
        """Return the records of `parent` by lane and number."""
        return self._placed.get(parent, {})

    def unasked(self, parent: str) -> Iterator[tuple[Promise, Position]]:
        """Yield the records of `parent` that have a position and were not asked for yet."""
        for placed in self.placed(parent).values():
            record = self.records.get(placed.id)
            if record is not None:
                yield record, placed.position

    def numbers(self, parent: str, lane: str) -> list[int]:
        """Return the numbers of the records in a lane of `parent`."""
        return [placed.position.main for placed in self.placed(parent).values() if placed.position.label == lane]

    def is_asked_above(self, parent: str, lane: str, number: int) -> bool:
        """Return whether a record of a lane above `number` was asked for. The start of a lane has no record."""
        above = (
            placed.id
            for placed in self.placed(parent).values()
            if placed.position.label == lane and placed.position.main > number
        )
        return any(id not in self.records and not id.startswith(_LANE_START) for id in above)

    def next_unasked(self, parent: str, lane: str, after: int) -> Placed | None:
        """Return the first record of a lane above the number `after` that was not asked for yet, or None."""
        ahead = (
            placed
            for placed in self.placed(parent).values()
            if placed.position.label == lane and placed.position.main > after and placed.id in self.records
        )
        return min(ahead, key=lambda placed: placed.position.main, default=None)

    def last_before(self, parent: str, placed: Placed) -> int | None:
        """Return when an earlier record of the lane was last made or settled before `placed` was made, or None."""
        lane, number = placed.position.label, placed.position.main
        lane_before = (
            other
            for other in self.placed(parent).values()
            if other is not placed and other.position.label == lane and other.position.main <= number
        )
        instants = (at for other in lane_before for at in (other.created_at, other.settled_at))
        return max((at for at in instants if at is not None and at <= placed.created_at), default=None)

    def numbered(self, parent: str) -> list[Numbered]:
        """Return the calls of `parent` whose order is on record, in that order."""
        return sorted(self._numbered.get(parent, ()), key=lambda call: call.number)

    # Lanes of plain tasks

    def lanes(self, parent: str) -> dict[int, RecordedLane]:
        """Return the recorded lanes of `parent` that no task has taken, by number."""
        return dict(sorted(self._lanes.get(parent, {}).items()))

    def take_lane(self, parent: str, number: int) -> RecordedLane:
        """Return a recorded lane, which a task of this run takes."""
        return self._lanes[parent].pop(number)

    def return_lane(self, parent: str, number: int, lane: RecordedLane) -> None:
        """Take a lane back: the call that identified the task is void."""
        self._lanes[parent][number] = lane


def is_made_by_code(record: Promise) -> bool:
    """Return whether `record` is a call or a choice of a durable function, and not a record of this package's own."""
    if is_made_by_hand(record) or "resonate:parent" not in record.tags:
        return False
    segment = _LAST_SEGMENT.findall(record.id)[0]
    return PARENT_TAG in record.tags or not segment.startswith("~") or is_choice(record.id)


def is_choice(id: str) -> bool:
    """Return whether `id` is the id of a recorded choice."""
    return bool(_LAST_SEGMENT.findall(id)[0].startswith(_CHOICES))
