"""The records that the state machine keeps: promises, tasks, schedules, callbacks.

All are frozen values. Instants and durations are integers in milliseconds; instants count from the Unix epoch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

from attrs import field, frozen

_DELAY: Final = re.compile(r"\+?[0-9]{1,30}", re.ASCII)

NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})


class PromiseState(StrEnum):
    """The life of a promise: pending, then one of the four others for ever."""

    PENDING = "pending"
    RESOLVED = "resolved"
    REJECTED = "rejected"
    CANCELED = "rejected_canceled"
    TIMEDOUT = "rejected_timedout"


class TaskState(StrEnum):
    """The life of a task (protocol 9.1)."""

    PENDING = "pending"
    ACQUIRED = "acquired"
    SUSPENDED = "suspended"
    HALTED = "halted"
    FULFILLED = "fulfilled"


class Missed(StrEnum):
    """What a schedule does about occurrences that it could not fire in time (an addition to the protocol)."""

    ALL = "all"
    """Each is fired, late: what a schedule does that says nothing."""
    LATEST = "latest"
    """If the schedule is late, one is fired: the latest that is due."""
    NONE = "none"
    """None is fired."""


class Armed(IntEnum):
    """Which promises end by themselves at their deadlines. Each of these includes those before it."""

    TARGETED = 1
    """Those with a target."""
    EXTERNAL = 2
    """Also timers and those tagged `resonate:external`."""
    ALL = 3


@frozen
class Value:
    """An opaque payload. `data` is base64 of a JSON document by convention; None means absent."""

    data: str | None = None
    headers: Mapping[str, str] | None = None


EMPTY: Final = Value()


def parse_delay(text: str | None) -> int | None:
    """Read a `resonate:delay` tag: decimal milliseconds since the epoch, a leading `+` allowed."""
    if text is None or not _DELAY.fullmatch(text):
        return None

    return instant if (instant := int(text)) < 2**63 else None


@frozen(kw_only=True)
class Promise:
    """A durable promise as stored (protocol 5.2)."""

    id: str
    state: PromiseState = PromiseState.PENDING
    param: Value = EMPTY
    value: Value = EMPTY
    tags: Mapping[str, str] = field(default=NO_TAGS)
    timeout_at: int
    created_at: int
    settled_at: int | None = None

    @property
    def pending(self) -> bool:
        """Whether it is stored as pending; it may be past its deadline all the same (see `expired`)."""
        return self.state is PromiseState.PENDING

    def expired(self, now: int) -> bool:
        """Whether it is stored as pending although its deadline has passed at `now`."""
        return self.pending and self.timeout_at <= now

    @property
    def target(self) -> str | None:
        """The address that its task is sent to, or None if it has no task."""
        return self.tags.get("resonate:target")

    @property
    def branch(self) -> str | None:
        """The branch that it is preloaded with (protocol 8.0)."""
        return self.tags.get("resonate:branch")

    @property
    def timer(self) -> bool:
        """Whether its deadline resolves it instead of rejecting it."""
        return self.tags.get("resonate:timer") == "true"

    @property
    def armed(self) -> Armed:
        """The smallest of these that it is among."""
        if self.target is not None:
            return Armed.TARGETED

        return Armed.EXTERNAL if self.timer or self.tags.get("resonate:external") == "true" else Armed.ALL

    @property
    def awaitable(self) -> bool:
        """Whether it is meant to be waited for by others than the function that made it."""
        return self.armed is not Armed.ALL or self.tags.get("resonate:scope") == "global"

    @property
    def delay(self) -> int | None:
        """The instant before which its task should not be sent for, if its tag `resonate:delay` is one."""
        return parse_delay(self.tags.get("resonate:delay"))


@frozen(kw_only=True)
class Task:
    """A task as stored. Its promise has the same id.

    `due_at` is the instant of its next retry while pending, the end of its lease while acquired, else None.
    """

    id: str
    state: TaskState
    version: int = 0
    ttl: int | None = None
    pid: str | None = None
    due_at: int | None = None


@frozen(kw_only=True)
class TaskRecord:
    """A task as answered on the wire (protocol 5.3): `resumes` counts its ready callbacks."""

    id: str
    state: TaskState
    version: int
    resumes: int
    ttl: int | None = None
    pid: str | None = None


@frozen(kw_only=True)
class Schedule:
    """A schedule as stored and as answered (protocol 5.4)."""

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


@frozen
class Callback:
    """`awaiter`'s task waits for the promise `awaited`; `ready` once that one has settled."""

    awaited: str
    awaiter: str
    ready: bool = False
