"""The call graph as pure data: how promises are named, and what is known about one execution's history.

Ids say what they run: `crawl-1.fetch-3` is the third call of `fetch` in the execution `crawl-1`. The segment after each
dot is `{name}-{n}`, n counting the calls of that name within the frame that makes them, so that ids follow program
order and a replay mints the same ones (semantics 2).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from attrs import Factory, define, field

from ._errors import DuplicateId, InvalidArgument, InvalidId
from ._protocol import Promise

SEPARATOR: Final = "."

PARENT_TAG: Final = "resonate-anyio:parent"
"""The real parent of a promise whose id had to be shortened; servers demand that `resonate:parent` is a prefix."""
DETACHED_TAG: Final = "resonate-anyio:detached"
"""Marks the root of a subtree that does not end with its caller."""
LANE_TAG: Final = "resonate-anyio:lane"
"""The number of a lane, on the first call that was put on record in it (semantics 2)."""

# Servers keep ids in indexed columns: with these limits every id stays below the smallest of them.
_MAX_ROOT: Final = 128
_MAX_ID: Final = 180
_MAX_SEGMENT: Final = 48
_KEPT_OF_SEGMENT: Final = 31
_HASH_LENGTH: Final = 22  # base64 of 16 bytes, without its padding

SEPARATORS: Final = frozenset(".:")
"""What may join the id of a root and what is below it; servers and SDKs differ in that."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
_LAST_PART: Final = re.compile(r"(^|[.:])[^.:]*$")


def hashed(*parts: str) -> str:
    """22 characters of [A-Za-z0-9_-] that stand for `parts` (128 bits of BLAKE2)."""
    digest = blake2b("\0".join(parts).encode(), digest_size=16).digest()
    return urlsafe_b64encode(digest)[:_HASH_LENGTH].decode()


def segment(name: str) -> str:
    """`name` as it may stand in an id: other characters than [A-Za-z0-9_-] become `_`, long names end in a hash."""
    safe = _UNSAFE.sub("_", name)
    if len(safe) <= _MAX_SEGMENT:
        return safe
    return f"{safe[:_KEPT_OF_SEGMENT]}-{hashed(name)[: _MAX_SEGMENT - _KEPT_OF_SEGMENT - 1]}"


def origin_of(id: str, separator: str = SEPARATOR) -> str:
    """The first segment of an id: the root of the lineage that it belongs to.

    Args:
        id: the id.
        separator: what joins the id of a root and what is below it; servers differ in that.
    """
    return id.partition(separator)[0]


def below(id: str, separator: str = SEPARATOR) -> str:
    """What the ids below `id` begin with."""
    return id + (SEPARATOR if separator in id else separator)


def is_below(id: str, ancestor: str) -> bool:
    """Whether the name `id` continues that of `ancestor`, whatever joins them."""
    return id.startswith(ancestor) and id[len(ancestor) : len(ancestor) + 1] in SEPARATORS


def check_unicode(text: str, what: str) -> None:
    """See that a name can be kept and sent.

    Raises:
        InvalidId: it cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"the {what} {text!r} is not Unicode: it has half of a surrogate pair in it"
        raise InvalidId(msg) from None


def check_root_id(id: str, *, prefix: str = "") -> str:
    """The full id of a root: `prefix` goes before it unless it is there already.

    Raises:
        InvalidId: it is empty, too long, or has a character that separates ids.
    """
    if not isinstance(id, str):
        found = f"{type(id).__name__}: {id!r}"
        hint = "; the id comes first, then the function: run('some-id', func, ...)" if callable(id) else ""
        msg = f"an id is a string, not {found}{hint}"
        raise InvalidId(msg)
    if not id:
        msg = "an id must not be empty"
        raise InvalidId(msg)
    check_unicode(id, "id")
    full = id if id.startswith(prefix) else prefix + id
    for separator in sorted(SEPARATORS):
        if separator in full.removeprefix(prefix):
            proposal = id.replace(".", "-").replace(":", "-")
            msg = (
                f"the id {id!r} contains {separator!r}, which separates a call from its children; "
                f"use another character, e.g. {proposal!r}"
            )
            raise InvalidId(msg)
    if "\0" in full:
        msg = f"the id {id!r} contains a null character"
        raise InvalidId(msg)
    if len(full.encode()) > _MAX_ROOT:
        msg = f"the id {full[:40]!r}... has {len(full.encode())} bytes; {_MAX_ROOT} are allowed, prefix included"
        raise InvalidId(msg)
    return full


def check_prefix(prefix: str) -> str:
    """The prefix of all root ids, as configured.

    A final `:` is let through for peers that join with it.

    Raises:
        InvalidArgument: it contains a character that separates ids.
    """
    if "." in prefix or ":" in prefix.removesuffix(":"):
        proposal = prefix.replace(".", "-").replace(":", "-")
        msg = f"the prefix {prefix!r} contains '.' or ':', which separate ids; use e.g. {proposal!r}"
        raise InvalidArgument(msg)
    return prefix


def prefix_refusal(prefix: str, separator: str) -> InvalidArgument | None:
    """Why a server with this separator cannot have the prefix, if it cannot."""
    if separator not in prefix:
        return None
    msg = (
        f"this server reads what stands before the first {separator!r} of an id as the id of its root, so the "
        f"prefix {prefix!r} would make one root of all; use e.g. {prefix.replace(separator, '-')!r}"
    )
    return InvalidArgument(msg)


def child_id(parent: str, part: str, *, base: str, separator: str = SEPARATOR) -> str:
    """The id of the child `part` of `parent`.

    An id that would get too long becomes a hash below `base`: the branch for what runs in this execution, the origin
    for what does not.
    """
    id = f"{below(parent, separator)}{part}"
    return id if len(id.encode()) <= _MAX_ID else f"{shortened_below(base, separator)}{hashed(parent, part)}"


def shortened_below(base: str, separator: str = SEPARATOR) -> str:
    """What the ids begin with that were shortened to a hash below `base`."""
    return f"{below(base, separator)}~"


def parent_of(record: Promise) -> str:
    """The id of the call that made this one, as far as it can be known."""
    tags = record.tags
    return tags.get(PARENT_TAG) or tags.get("resonate:parent") or _LAST_PART.sub("", record.id)


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


def detached_id(origin: str, parent: str, part: str, separator: str = SEPARATOR) -> str:
    """The id of a detached call: directly below the origin, since it does not end with its caller."""
    return f"{below(origin, separator)}d{hashed(parent, part)}"


@define
class Counter:
    """Counts the calls of one lane by what they call."""

    _counts: dict[str, int] = field(factory=dict, init=False)

    def number(self, name: str) -> str:
        """The segment of the next call of `name`. A server's database may ignore case, so counting does too."""
        return self._next(segment(name))

    def number_own(self, name: str) -> str:
        """The segment of the next thing of the engine's own: no user's segment begins with `~`."""
        return self._next(f"~{name}")

    def _next(self, part: str) -> str:
        key = part.casefold()
        self._counts[key] = n = self._counts.get(key, 0) + 1
        return f"{part}-{n}"


@define
class Names:
    """The segments that are taken below one frame."""

    _frame: str
    _used: set[str] = field(factory=set, init=False)

    def claim(self, part: str) -> None:
        """Take `part` for a call that starts now.

        Raises:
            DuplicateId: another call of this frame has it.
        """
        key = part.casefold()
        if key in self._used:
            msg = f"{self._frame!r} already has a child {part!r}; give one of the two calls another name with .named()"
            raise DuplicateId(msg)
        self._used.add(key)


def check_name(name: str) -> str:
    """A segment chosen by the user with `.named()`.

    Raises:
        InvalidId: it is empty or is not a segment as it stands.
    """
    if not name or segment(name) != name:
        msg = f"{name!r} cannot name a call: 1 to {_MAX_SEGMENT} characters of A-Z a-z 0-9 _ - are allowed" + (
            f", e.g. {segment(name)!r}" if name else ""
        )
        raise InvalidId(msg)
    return name


@define
class History:
    """The records below one root. A promise that is not in here does not exist.

    Attributes:
        local: how many of them came with the lease, because they share the branch.
        partial: whether there may be others after all, of what does not run in the execution itself.
    """

    local: int
    _records: dict[str, Promise] = Factory(dict)
    partial: bool = False
    _unasked: dict[str, int] = field(factory=dict, init=False)
    _lanes: dict[str, dict[int, Promise]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for record in self._records.values():
            if is_made_by_hand(record):
                continue
            parent = parent_of(record)
            self._unasked[parent] = self._unasked.get(parent, 0) + 1
            if (lane := record.tags.get(LANE_TAG, "")).isdecimal():
                self._lanes.setdefault(parent, {})[int(lane)] = record

    @classmethod
    def of(cls, local: Sequence[Promise], remote: Iterable[Promise] | None = ()) -> History:
        """What came with the lease, and what was found below the root besides; None if nobody could look."""
        return cls(len(local), {record.id: record for record in (*(remote or ()), *local)}, partial=remote is None)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def last_change(self) -> int:
        """The latest instant at which something of it was made or settled, in milliseconds; 0 if there is nothing."""
        return max((record.settled_at or record.created_at for record in self._records.values()), default=0)

    def has_pending_below(self, id: str) -> bool:
        """Whether something below `id` was unfinished when this was read."""
        return any(record.pending for record in descendants_of(id, self._records.values()))

    def take(self, id: str) -> Promise | None:
        """The record of `id`, or None. It is forgotten: each call of a replay asks once."""
        record = self._records.pop(id, None)
        if record is not None and not is_made_by_hand(record):
            self._unasked[parent_of(record)] -= 1
        return record

    def has_unasked(self, parent: str) -> bool:
        """Whether a replay of `parent` has not asked yet for all that was recorded below it."""
        return self._unasked.get(parent, 0) > 0

    def forgotten(self, parent: str) -> list[Promise]:
        """What is unfinished below `parent` and was not asked for, the deepest first; detached subtrees left out."""
        below = descendants_of(parent, self._records.values())
        return [record for record in reversed(below) if record.pending and not is_made_by_hand(record)]

    def lanes(self, parent: str) -> dict[int, Promise]:
        """The recorded lanes of `parent`, each with its first call. Whoever takes one removes it."""
        return dict(sorted(self._lanes.get(parent, {}).items()))

    def take_lane(self, parent: str, number: int) -> None:
        """Give a recorded lane to a task of this run."""
        del self._lanes[parent][number]
