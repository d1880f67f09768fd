"""History: what is on record below a root when a replay begins.

The records are the server's promises. Tags say which call of which frame each of them belongs to, and where in the code
that call stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from attrs import Factory, define, field, frozen

from ._ids import origin_of
from ._protocol import Promise

PARENT_TAG: Final = "resonate-anyio:parent"
"""The real parent of a promise whose id had to be shortened; servers demand that `resonate:parent` is a prefix."""
DETACHED_TAG: Final = "resonate-anyio:detached"
"""Marks the root of a subtree that does not end with its caller."""
LANE_TAG: Final = "resonate-anyio:lane"
"""`{number}/{identity}` on every record of the lane of a plain task: the number of the lane, and what the first call of
the lane was. Records of the first version have the number alone, on the first call of the lane only (see
docs/semantics.md 2.3)."""
ORDER_TAG: Final = "resonate-anyio:order"
"""Where a call of a function with several tasks stands in the order in which they run: see `Numbered`."""
POSITION_TAG: Final = "resonate-anyio:position"
"""Where the call stands in the code of its caller: see `Position`."""

_LAST_SEGMENT: Final = re.compile(r"[^.:]*$")
_LAST_PART: Final = re.compile(r"(^|[.:])[^.:]*$")
_CHOICES: Final = ("~first-", "~completed-", "~now-")
_ORDER: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))? ([a-z0-9-]+)((?: [a-z0-9-]+\.[0-9]{1,9})*)", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,9}(?=[- ])", re.ASCII)


def parent_of(record: Promise) -> str:
    """The id of the call that made this one, as far as it can be known."""
    tags = record.tags
    return tags.get(PARENT_TAG) or tags.get("resonate:parent") or _LAST_PART.sub("", record.id)


def origin_of_root(record: Promise, separator: str) -> str:
    """Return the origin of a root that was handed to this worker: from its tag; else, from the shape of its id."""
    origin = record.tags.get("resonate:origin") or ""
    return origin if origin and separator not in origin else origin_of(record.id, separator)


def is_made_by_hand(record: Promise) -> bool:
    """Whether it is a plain promise that was created by its id, and no call: nobody runs it, and no code has asked."""
    tags = record.tags
    if PARENT_TAG in tags or "resonate:parent" in tags or tags.get("resonate:scope") == "local":
        return False
    return record.target is None and not record.timer


def descendants_of(id: str, records: Iterable[Promise]) -> list[Promise]:
    """Those of `records` that `id` has called, directly or not, in id order, but for detached subtrees."""
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
    """Where a call stands in the code of its caller (`POSITION_TAG`): `{lane}/{number}/{blocks}`.

    Attributes:
        lane: the label of its lane as ids show it, `0` for the caller's own code. For a lane that `start_soon` has
            opened, the number follows that this has in the lane that opened it: `2@7`.
        number: counts the calls and choices of the lane, from 1, in the order in which their builders are made. The
            items of one `as_completed` share a number: `7.1`, `7.2`. What `start_soon` opens has a number, too, and no
            record.
        blocks: the durable blocks (groups, scopes) of the caller that are around it, the outermost first, joined by
            dots. Each is named by how many numbers its lane had given out when it was entered, so that two blocks in a
            row differ if there is a call between their beginnings.
            `!` follows a block that had been cancelled already, and comes first if the caller
            itself or something around it had been: such a call is made under a shield, to clean up.
    """

    lane: str
    number: str
    blocks: str

    def encode(self) -> str:
        """As it is recorded."""
        return f"{self.lane}/{self.number}/{self.blocks}"

    @classmethod
    def of(cls, record: Promise) -> Position | None:
        """The position of a record, if it has one."""
        lane, _, rest = record.tags.get(POSITION_TAG, "").partition("/")
        number, _, blocks = rest.partition("/")
        return cls(lane, number, blocks) if number.replace(".", "", 1).isdecimal() else None

    @property
    def label(self) -> str:
        """The label of its lane."""
        return self.lane.partition("@")[0]

    @property
    def start(self) -> Position | None:
        """Where the lane was opened that it is in, if it was by `start_soon`; its blocks are those of the call."""
        label, _, number = self.lane.partition("@")
        return Position(label.rpartition("-")[0] or "0", number, self.blocks) if number else None

    @property
    def main(self) -> int:
        """The number, which the items of one `as_completed` share."""
        return int(self.number.partition(".")[0])

    @property
    def cancelled(self) -> bool:
        """Whether the caller itself, or something around it, had been cancelled."""
        return self.blocks.startswith("!")

    @property
    def path(self) -> list[tuple[str, bool]]:
        """The blocks, the outermost first: the name of each, and whether it had been cancelled."""
        blocks = self.blocks.removeprefix("!")
        return [(block.removesuffix("!"), block.endswith("!")) for block in blocks.split(".")] if blocks else []


class Placed(NamedTuple):
    """What is on record at one position.

    Attributes:
        id: the id of the promise.
        position: where.
        created_at: when it was made, in milliseconds.
        settled_at: when it was settled, or None.
    """

    id: str
    position: Position
    created_at: int
    settled_at: int | None


def lane_id(label: str) -> str:
    """What stands for a lane where something else would have its id."""
    return f"~lane {label}"


def _made(placed: Placed) -> int:
    return placed.created_at


def lane_tag(number: int, identity: str) -> str:
    """What a record carries of the lane of a plain task: see `LANE_TAG`."""
    return f"{number}/{identity}"


@define
class RecordedLane:
    """A lane of a plain task, as it is on record.

    Attributes:
        identity: what its first call was; None if no record says so.
        first: its first call, as far as records of the first version tell.
    """

    identity: str | None = None
    first: Promise | None = None


@frozen
class Numbered:
    """A call of a function with several tasks, as it stands in the order of the tasks.

    Attributes:
        number: counts these calls of the function, from 1.
        lane: the lane that made it; `0` is the function's own code.
        returns: which calls had returned to which lanes since the number before `since`: lane, and how many it had by
            then.
        made_at: when it was put on record, in milliseconds.
        since: the number of the first call whose returns are listed here, too, because it may have been lost.
    """

    number: int
    lane: str
    returns: tuple[tuple[str, int], ...]
    made_at: int
    since: int

    @staticmethod
    def number_of(record: Promise) -> int | None:
        """The number alone, which is cheaper to read."""
        match = _NUMBER.match(record.tags.get(ORDER_TAG, ""))
        return None if match is None else int(match[0])

    @classmethod
    def of(cls, record: Promise) -> Numbered | None:
        """What the tag of a record says; None if it has none, or one of another shape."""
        match = _ORDER.fullmatch(record.tags.get(ORDER_TAG, ""))
        if match is None:
            return None
        number, since, lane, texts = match.groups()
        split = (text.rpartition(".") for text in texts.split())
        returns = tuple((other, int(count)) for other, _, count in split)
        return cls(int(number), lane, returns, record.created_at, int(since or number))

    @staticmethod
    def encode(number: int, lane: str, returns: Iterable[tuple[str, int]], since: int) -> str:
        """The tag."""
        numbers = str(number) if since == number else f"{number}-{since}"
        return " ".join((numbers, lane, *(f"{lane}.{count}" for lane, count in returns)))


@define
class History:
    """The records below one root. A promise that is not in here does not exist.

    Attributes:
        local: how many of them came with the lease, because they share the branch.
        records: those that no call of this run has asked for yet, by id.
        unplaced: the calls of which some records have no position.
        partial: whether there may be others after all, of what does not run in the execution itself.
    """

    local: int
    records: dict[str, Promise] = Factory(dict)
    partial: bool = False
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
                # The lane itself has no record: its calls tell where it was opened.
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
    def of(cls, local: Sequence[Promise], remote: Iterable[Promise] | None = ()) -> History:
        """What came with the lease, and what was found below the root besides; None if nobody could look."""
        return cls(len(local), {record.id: record for record in (*(remote or ()), *local)}, partial=remote is None)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def last_change(self) -> int:
        """The latest instant at which something of it was made or settled, in milliseconds; 0 if there is nothing."""
        return max((record.settled_at or record.created_at for record in self.records.values()), default=0)

    def has_pending_below(self, id: str) -> bool:
        """Whether something below `id` was unfinished when this was read."""
        return any(record.pending for record in descendants_of(id, self.records.values()))

    def look(self, id: str) -> Promise | None:
        """The record of `id`, or None, without asking for it."""
        return self.records.get(id)

    def add(self, record: Promise) -> None:
        """One was looked up, since not all are known."""
        self.records[record.id] = record
        if is_made_by_hand(record):
            return
        parent = parent_of(record)
        self._unasked[parent] = self._unasked.get(parent, 0) + 1
        self._place(parent, record)

    def take(self, id: str) -> Promise | None:
        """The record of `id`, or None. It is forgotten: each call of a replay asks once."""
        record = self.records.pop(id, None)
        if record is not None and not is_made_by_hand(record):
            self._unasked[parent_of(record)] -= 1
        return record

    def has_unasked(self, parent: str) -> bool:
        """Whether a replay of `parent` has not asked yet for all that was recorded below it."""
        return self._unasked.get(parent, 0) > 0

    def forgotten(self, parent: str) -> list[Promise]:
        """What is unfinished below `parent` and was not asked for, the deepest first; detached subtrees left out."""
        below = descendants_of(parent, self.records.values())
        return [record for record in reversed(below) if record.pending and not is_made_by_hand(record)]

    # Positions

    def is_placed(self, parent: str) -> bool:
        """Whether every recorded call and choice of `parent` has a position."""
        return parent not in self.unplaced

    def unplace(self, parent: str) -> None:
        """A call of `parent` is on record without a position: do not compare those of the others."""
        self.unplaced.add(parent)

    @staticmethod
    def place_of(record: Promise) -> Placed | None:
        """Where a record stands, if it says so."""
        position = Position.of(record)
        return None if position is None else Placed(record.id, position, record.created_at, record.settled_at)

    def placed(self, parent: str) -> Mapping[tuple[str, str], Placed]:
        """What is on record of `parent` at which position, by lane and number."""
        return self._placed.get(parent, {})

    def unasked(self, parent: str) -> Iterator[tuple[Promise, Position]]:
        """What is on record of `parent` at some position, and was not asked for yet."""
        for placed in self.placed(parent).values():
            record = self.records.get(placed.id)
            if record is not None:
                yield record, placed.position

    def numbers(self, parent: str, lane: str) -> list[int]:
        """The numbers in a lane of `parent` that something is on record at."""
        return [placed.position.main for placed in self.placed(parent).values() if placed.position.label == lane]

    def next_unasked(self, parent: str, lane: str, after: int) -> Placed | None:
        """What is on record at the first number above `after` of a lane and was not asked for yet."""
        ahead = (
            placed
            for placed in self.placed(parent).values()
            if placed.position.label == lane and placed.position.main > after and placed.id in self.records
        )
        return min(ahead, key=lambda placed: placed.position.main, default=None)

    def last_before(self, parent: str, placed: Placed) -> int | None:
        """When what comes before `placed` in its lane was last made or settled before that was made, or None."""
        lane, number = placed.position.label, placed.position.main
        lane_before = (
            other
            for other in self.placed(parent).values()
            if other is not placed and other.position.label == lane and other.position.main <= number
        )
        instants = (at for other in lane_before for at in (other.created_at, other.settled_at))
        return max((at for at in instants if at is not None and at <= placed.created_at), default=None)

    def numbered(self, parent: str) -> list[Numbered]:
        """The calls of `parent` whose order is on record, in that order."""
        return sorted(self._numbered.get(parent, ()), key=lambda call: call.number)

    # Lanes of plain tasks

    def lanes(self, parent: str) -> dict[int, RecordedLane]:
        """The recorded lanes of `parent` that no task has taken, by number."""
        return dict(sorted(self._lanes.get(parent, {}).items()))

    def take_lane(self, parent: str, number: int) -> RecordedLane:
        """Give a recorded lane to a task of this run."""
        return self._lanes[parent].pop(number)

    def return_lane(self, parent: str, number: int, lane: RecordedLane) -> None:
        """Take it back: the task has not made the call that it was told by."""
        self._lanes[parent][number] = lane


def is_made_by_code(record: Promise) -> bool:
    """Whether it is a call or a choice of a durable function, and nothing that the engine has made for itself."""
    if is_made_by_hand(record) or "resonate:parent" not in record.tags:
        return False
    segment = _LAST_SEGMENT.findall(record.id)[0]
    return PARENT_TAG in record.tags or not segment.startswith("~") or is_choice(record.id)


def is_choice(id: str) -> bool:
    """Whether it is the id of what a durable function has chosen: which call came first, or what time it is."""
    return bool(_LAST_SEGMENT.findall(id)[0].startswith(_CHOICES))
