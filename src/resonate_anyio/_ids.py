"""Ids: how durable calls and their promises are named.

An id names the called functions: `crawl-1.fetch-3` is the third call of `fetch` in the execution `crawl-1`. The segment
after each dot is `{name}-{n}`, where n counts the calls of that name in the calling frame. So ids follow the order of
the program, and a replay makes the same ids (docs/semantics.md 2.1).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from attrs import define, field, frozen

from ._errors import InvalidArgument, InvalidId
from ._hashes import blake2b
from ._values import ValueObject

SEPARATOR: Final = "."


# Servers keep ids in indexed columns. With these limits each id fits into the smallest of them.
_MAX_ROOT: Final = 128
_MAX_ID: Final = 180
_MAX_SEGMENT: Final = 48
_KEPT_OF_SEGMENT: Final = 31
_HASH_LENGTH: Final = 22  # base64 of 16 bytes, without its padding

SEPARATORS: Final = frozenset(".:")
"""The separators of all servers and SDKs, between the id of a root and the rest of an id."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")


def hashed(*parts: str) -> str:
    """Return a hash of `parts`: 22 characters of [A-Za-z0-9_-], for 128 bits of BLAKE2."""
    digest = blake2b("\0".join(parts).encode(), digest_size=16).digest()
    return urlsafe_b64encode(digest)[:_HASH_LENGTH].decode()


@lru_cache(1024)
def segment(name: str) -> str:
    """Return `name` as a segment of an id: characters other than [A-Za-z0-9_-] become `_`, long names end in a hash."""
    safe = _UNSAFE.sub("_", name)
    if len(safe) <= _MAX_SEGMENT:
        return safe
    return f"{safe[:_KEPT_OF_SEGMENT]}-{hashed(name)[: _MAX_SEGMENT - _KEPT_OF_SEGMENT - 1]}"


def origin_of(id: str, separator: str = SEPARATOR) -> str:
    """Return the first segment of an id: the id of the root of its lineage.

    Args:
        id: the id.
        separator: the character between the id of a root and the rest of an id; servers differ in it.
    """
    return id.partition(separator)[0]


def below(id: str, separator: str = SEPARATOR) -> str:
    """Return the beginning of all ids below `id`."""
    return id + (SEPARATOR if separator in id else separator)


def is_below(id: str, ancestor: str) -> bool:
    """Return whether `id` is below `ancestor`, with any separator between them."""
    return id.startswith(ancestor) and id[len(ancestor) : len(ancestor) + 1] in SEPARATORS


def check_unicode(text: str, what: str) -> None:
    """Check that a name is valid Unicode, so that it can be stored and sent.

    Raises:
        InvalidId: it is not.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"the {what} {text!r} is not Unicode: it contains half of a surrogate pair"
        raise InvalidId(msg) from None


def check_root_id(id: str, *, prefix: str = "") -> str:
    """Return the full id of a root: with `prefix` before it, unless it begins with that already.

    Raises:
        InvalidId: it is empty or too long, or contains a separator.
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
    """Return the configured prefix of all root ids.

    A final `:` is allowed, since some SDKs put it between the prefix and the id.

    Raises:
        InvalidArgument: it contains a separator in another place.
    """
    if "." in prefix or ":" in prefix.removesuffix(":"):
        proposal = prefix.replace(".", "-").replace(":", "-")
        msg = f"the prefix {prefix!r} contains '.' or ':', which separate ids; use e.g. {proposal!r}"
        raise InvalidArgument(msg)
    return prefix


def prefix_refusal(prefix: str, separator: str) -> InvalidArgument | None:
    """Return the error for a prefix that cannot be used with this separator, or None."""
    if separator not in prefix:
        return None
    msg = (
        f"this server reads the part of an id before its first {separator!r} as the id of the root, so the "
        f"prefix {prefix!r} would make one root of all ids; use e.g. {prefix.replace(separator, '-')!r}"
    )
    return InvalidArgument(msg)


def child_id(parent: str, part: str, *, base: str, separator: str = SEPARATOR) -> str:
    """Return the id of the child `part` of `parent`.

    If the id would be too long, it is a hash below `base`: the branch for a call in the same execution, the origin for
    any other call.
    """
    id = f"{below(parent, separator)}{part}"
    return id if len(id.encode()) <= _MAX_ID else f"{shortened_below(base, separator)}{hashed(parent, part)}"


def shortened_below(base: str, separator: str = SEPARATOR) -> str:
    """Return the beginning of all ids that are shortened to a hash below `base`."""
    return f"{below(base, separator)}~"


def detached_id(origin: str, parent: str, part: str, separator: str = SEPARATOR) -> str:
    """Return the id of a detached call: directly below the origin, since the call does not end with its caller."""
    return f"{below(origin, separator)}d{hashed(parent, part)}"


@frozen(eq=False, repr=False)
class Naming(ValueObject):
    """The rules that give ids to the calls of one execution.

    Attributes:
        id: the id of the execution's root function.
        origin: the id of the root of the lineage.
        separator: the separator between the id of a root and the rest, on this server.
    """

    id: str
    origin: str
    separator: str = SEPARATOR

    def of(self, rule: Literal["local", "remote", "detached"], parent: str, part: str) -> str:
        """Return the id of a call by the rule of its kind."""
        match rule:
            case "local":
                return self.local(parent, part)
            case "remote":
                return self.remote(parent, part)
            case "detached":
                return self.detached(parent, part)

    def local(self, parent: str, part: str) -> str:
        """Return the id of a call that runs in this execution."""
        id = f"{parent}{SEPARATOR if self.separator in parent else self.separator}{part}"
        # A character has at most four bytes.
        return id if 4 * len(id) <= _MAX_ID else child_id(parent, part, base=self.id, separator=self.separator)

    def branch(self, parent: str, id: str) -> str:
        """Return the branch of the call `id` that runs in this execution: its caller, or the root if it is shortened.

        So a finished call is one record to those who take up its caller: what is below it is in branches of its own.
        """
        return parent if is_below(id, parent) else self.id

    def remote(self, parent: str, part: str) -> str:
        """Return the id of a call that is settled elsewhere."""
        return child_id(parent, part, base=self.origin, separator=self.separator)

    def detached(self, parent: str, part: str) -> str:
        """Return the id of a call that does not end with its caller."""
        return detached_id(self.origin, parent, part, separator=self.separator)


@define(eq=False, repr=False)
class Counter:
    """The counters of one lane: of all calls, and of the calls of each name.

    Attributes:
        numbered: the number of calls, choices and lanes that have a number.
        opened: the number of lanes that were opened.
    """

    numbered: int = field(default=0, init=False)
    opened: int = field(default=0, init=False)
    _counts: dict[str, int] = field(factory=dict, init=False)
    _log: list[str] | None = field(default=None, init=False)

    def number(self, name: str) -> str:
        """Return the segment of the next call of `name`. A server's database may ignore case, so counting does too."""
        self.numbered += 1
        part = segment(name)
        key = part.casefold()
        self._counts[key] = n = self._counts.get(key, 0) + 1
        if self._log is not None:
            self._log.append(key)
        return f"{part}-{n}"

    def number_choice(self, name: str) -> str:
        """Return the segment of the next choice of `name`, which is numbered like a call."""
        self.numbered += 1
        return self.number_own(name)

    def number_lane(self) -> int:
        """Return the number of the start of a lane, which has no segment."""
        self.numbered += 1
        return self.numbered

    def open_lane(self) -> int:
        """Count a lane that is opened now, and return the count."""
        self.opened += 1
        return self.opened

    def number_own(self, name: str) -> str:
        """Return the segment of the next record that is not a call: a user's segment never begins with `~`."""
        part = f"~{name}"
        key = part.casefold()
        self._counts[key] = n = self._counts.get(key, 0) + 1
        if self._log is not None:
            self._log.append(key)
        return f"{part}-{n}"

    def mark(self) -> Mark:
        """Return the present counts, to rewind to."""
        if self._log is None:
            self._log = []
        return Mark(self.numbered, self.opened, len(self._log))

    def rewind(self, to: Mark) -> None:
        """Give back all numbers that were taken since `to` was returned by `mark`."""
        self.numbered, self.opened = to.numbered, to.opened
        while self._log is not None and len(self._log) > to.counted:
            self._counts[self._log.pop()] -= 1


class Mark(NamedTuple):
    """The counts of a lane at some place of its code.

    Attributes:
        numbered: the count of calls, choices and lanes that had a number.
        opened: the count of opened lanes.
        counted: the count of names that had been counted.
    """

    numbered: int
    opened: int
    counted: int


def check_name(name: str) -> str:
    """Return the segment that a user chose with `.named()`.

    Raises:
        InvalidId: it is empty, or contains characters that a segment cannot have.
    """
    if not name or segment(name) != name:
        msg = f"{name!r} cannot name a call: 1 to {_MAX_SEGMENT} characters of A-Z a-z 0-9 _ - are allowed" + (
            f", e.g. {segment(name)!r}" if name else ""
        )
        raise InvalidId(msg)
    return name
