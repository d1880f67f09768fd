"""Why a call was cancelled: what is recorded with it, so that a replay does to the code what was done the first time.

A cancellation has a place in the code: an await inside of some scope was interrupted. What a replay has to do at that
await depends on whose scope it was (docs/semantics.md 3.10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from .._errors import DecodeError
from .._protocol import Promise, Value

if TYPE_CHECKING:
    from .._codec import Codec

SCOPE: Final = "scope"
PARENT: Final = "parent"
GROUP: Final = "group"
DEADLINE: Final = "deadline"
CHOICE: Final = "choice"
FUTURE: Final = "future"
OUTSIDE: Final = "outside"

_LARGEST: Final = 2**53
"""Instants and durations in milliseconds are below it (see `_time`)."""


@frozen
class Reason:
    """Why this SDK has cancelled a call.

    Attributes:
        by: `scope`: a scope of the user's around the await was cancelled. `parent`: the function that made the call
            ended, or was ended. `group`: a task group around the await failed or was cancelled. `deadline`: a durable
            scope around the await expired. `choice`: another call was the first of several. `future`: the function
            that had started it cancelled its future. `outside`: it was cancelled by its id.
        depth: for a group or a deadline, how many others are around it: a replay finds it by that.
        instant: for a deadline, when it expired.
        started: whether the call had begun when it was cancelled.
    """

    by: str
    depth: int | None = None
    instant: int | None = None
    started: bool = True

    def encode(self, codec: Codec) -> Value:
        """As it is recorded."""
        return codec.encode(self.fields())

    def fields(self) -> dict[str, object]:
        """As JSON; `of` is the way back."""
        fields: dict[str, object] = {"by": self.by}
        if self.depth is not None:
            fields["depth"] = self.depth
        if self.instant is not None:
            fields["instant"] = self.instant
        if not self.started:
            fields["started"] = False
        return fields

    @classmethod
    def of(cls, fields: object) -> Reason | None:
        """The reason that was recorded so, or None if it was something else."""
        if not isinstance(fields, dict) or not isinstance(by := fields.get("by"), str):
            return None
        return cls(by, _int(fields, "depth"), _int(fields, "instant"), fields.get("started") is not False)


def reason_of(record: Promise, codec: Codec) -> Reason | None:
    """Why `record` was cancelled, if this SDK did it. Whoever else cancels records what he likes."""
    try:
        return Reason.of(codec.decode(record.value))
    except DecodeError:
        return None


def _int(fields: dict[str, Any], name: str) -> int | None:
    return count_of(fields.get(name))


def count_of(found: object) -> int | None:
    """A recorded number if it can be one of this SDK's: whoever may write to the promise may write anything."""
    return found if type(found) is int and 0 <= found <= _LARGEST else None
