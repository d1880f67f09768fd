"""The records of the state machine: promises, tasks, schedules and callbacks (docs/protocol.md 5).

All are frozen values. Instants and durations are integers in milliseconds; instants count from the Unix epoch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

from attrs import field, frozen

from .._values import ValueObject

_DELAY: Final = re.compile(r"\+?[0-9]{1,30}", re.ASCII)

NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})


class PromiseState(StrEnum):
    """The states of a promise: `pending`, and four final ones."""

    PENDING = "pending"
    RESOLVED = "resolved"
    REJECTED = "rejected"
    CANCELED = "rejected_canceled"
    TIMEDOUT = "rejected_timedout"


class TaskState(StrEnum):
    """The states of a task (docs/protocol.md 9.1)."""

    PENDING = "pending"
    ACQUIRED = "acquired"
    SUSPENDED = "suspended"
    HALTED = "halted"
    FULFILLED = "fulfilled"


class Missed(StrEnum):
    """What a schedule does with occurrences that did not fire in time. It is an addition to docs/protocol.md 5.4."""

    ALL = "all"
    """Every one of them fires late. This is the default."""
    LATEST = "latest"
    """Only the latest one that is due fires."""
    NONE = "none"
    """None of them fires."""


class Armed(IntEnum):
    """Sets of promises whose deadlines fire without a request. Each set includes the one before it."""

    TARGETED = 1
    """Promises with a target."""
    EXTERNAL = 2
    """Also timers, and promises tagged `resonate:external=true`."""
    ALL = 3
    """All promises."""


# Every step compares two of these, so attrs writes its methods.
@frozen
class Value:
    """A payload that the server does not interpret. By convention `data` is base64 of JSON. None means absent."""

    data: str | None = None
    headers: Mapping[str, str] | None = None


EMPTY: Final = Value()


def parse_delay(text: str | None) -> int | None:
    """Parse a `resonate:delay` tag: decimal milliseconds since the epoch. Return None if it is absent or invalid."""
    if text is None or not _DELAY.fullmatch(text):
        return None

    return instant if (instant := int(text)) < 2**63 else None


# Sets an attribute of a frozen value, in its constructor.
_set: Final = object.__setattr__


@frozen(kw_only=True, eq=False, repr=False)
class Promise(ValueObject):
    """A durable promise as stored (docs/protocol.md 5.2).

    The attributes described here follow from the others. They are computed once, because every request reads them.
    Equality and the repr ignore them.

    Attributes:
        pending: whether the stored state is pending. The deadline may have passed nevertheless: see `expired`.
        target: the address for the `execute` messages of its task, or None if it has no task.
        branch: the branch; promises of one branch are preloaded together (docs/protocol.md 8.0).
        armed: the smallest of these sets that contains the promise.
    """

    id: str
    state: PromiseState = PromiseState.PENDING
    param: Value = EMPTY
    value: Value = EMPTY
    tags: Mapping[str, str] = field(default=NO_TAGS)
    timeout_at: int
    created_at: int
    settled_at: int | None = None
    pending: bool = field(init=False, eq=False, repr=False)
    target: str | None = field(init=False, eq=False, repr=False)
    branch: str | None = field(init=False, eq=False, repr=False)
    armed: Armed = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        tag = self.tags.get
        target = tag("resonate:target")
        if target is not None:
            armed = Armed.TARGETED
        elif tag("resonate:timer") == "true" or tag("resonate:external") == "true":
            armed = Armed.EXTERNAL
        else:
            armed = Armed.ALL

        _set(self, "pending", self.state is PromiseState.PENDING)
        _set(self, "target", target)
        _set(self, "branch", tag("resonate:branch"))
        _set(self, "armed", armed)

    def expired(self, now: int) -> bool:
        """Return whether the stored state is pending although the deadline has passed at `now`."""
        return self.pending and self.timeout_at <= now

    def with_outcome(self, state: PromiseState, value: Value, at: int) -> Promise:
        """Return the promise as settled at the instant `at`."""
        return Promise(
            id=self.id,
            state=state,
            param=self.param,
            value=value,
            tags=self.tags,
            timeout_at=self.timeout_at,
            created_at=self.created_at,
            settled_at=at,
        )

    @property
    def timer(self) -> bool:
        """Whether the promise is resolved at its deadline, instead of rejected."""
        return self.tags.get("resonate:timer") == "true"

    @property
    def awaitable(self) -> bool:
        """Whether the promise may be awaited and listened to on servers with the rule `awaits_external`."""
        return self.armed is not Armed.ALL or self.tags.get("resonate:scope") == "global"

    @property
    def delay(self) -> int | None:
        """The instant before which no `execute` should be sent for its task, or None."""
        return parse_delay(self.tags.get("resonate:delay"))


@frozen(kw_only=True, eq=False, repr=False)
class Task(ValueObject):
    """A task as stored. Its promise has the same id.

    `due_at` is the instant of the next retry while the task is pending, the end of the lease while it is acquired, and
    otherwise None.
    """

    id: str
    state: TaskState
    version: int = 0
    ttl: int | None = None
    pid: str | None = None
    due_at: int | None = None


@frozen(kw_only=True, eq=False, repr=False)
class TaskRecord(ValueObject):
    """A task in a response (docs/protocol.md 5.3). `resumes` is the number of its ready callbacks."""

    id: str
    state: TaskState
    version: int
    resumes: int
    ttl: int | None = None
    pid: str | None = None


@frozen(kw_only=True, eq=False, repr=False)
class Schedule(ValueObject):
    """A schedule, as stored and in a response (docs/protocol.md 5.4)."""

    id: str
    cron: str
    promise_id: str
    promise_timeout: int
    promise_param: Value = EMPTY
    promise_tags: Mapping[str, str] = field(default=NO_TAGS)
    created_at: int
    next_run_at: int
    last_run_at: int | None = None
    missed: Missed = Missed.ALL


@frozen(eq=False, repr=False)
class Callback(ValueObject):
    """The task `awaiter` waits for the promise `awaited`. `ready` means that the promise has settled."""

    awaited: str
    awaiter: str
    ready: bool = False
