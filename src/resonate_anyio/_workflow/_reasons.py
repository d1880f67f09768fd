"""Why a call was cancelled. The reason is recorded, so that a replay cancels the code where the first run did.

A cancellation has a place in the code: an await inside of a scope was interrupted. The behaviour of a replay at that
await depends on which scope it was (docs/semantics.md 3.10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from .._errors import DecodeError
from .._protocol import Promise, Value
from .._values import ValueObject

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
"""The upper limit of instants and durations in milliseconds (see `_time`)."""


@frozen(eq=False, repr=False)
class Reason(ValueObject):
    """Why this package has cancelled a call.

    Attributes:
        by: `scope`: a plain scope around the await was cancelled. `parent`: the function that made the call failed or
            was cancelled. `group`: a durable task group around the await failed or was cancelled. `deadline`: a durable
            scope around the await expired. `choice`: another call was the first of several. `future`: the function that
            started the call cancelled its future. `outside`: the call was cancelled by its id.
        depth: for a group or a deadline, the number of regions around it, by which a replay finds it again.
        instant: for a deadline, the instant at which it expired.
        started: whether the call had begun when it was cancelled.
    """

    by: str
    depth: int | None = None
    instant: int | None = None
    started: bool = True

    def encode(self, codec: Codec) -> Value:
        """Return the reason as it is recorded."""
        return codec.encode(self.fields())

    def fields(self) -> dict[str, object]:
        """Return the reason as JSON; `of` does the opposite."""
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
        """Return the reason that these fields record, or None if they record something else."""
        if not isinstance(fields, dict) or not isinstance(by := fields.get("by"), str):
            return None
        return cls(by, _int(fields, "depth"), _int(fields, "instant"), fields.get("started") is not False)


def reason_of(record: Promise, codec: Codec) -> Reason | None:
    """Return why `record` was cancelled, or None if this package did not cancel it: other programs record any value."""
    try:
        return Reason.of(codec.decode(record.value))
    except DecodeError:
        return None


def _int(fields: dict[str, Any], name: str) -> int | None:
    return count_of(fields.get(name))


def count_of(found: object) -> int | None:
    """Return a recorded number, or None if this package cannot have written it: other programs may write anything."""
    return found if type(found) is int and 0 <= found <= _LARGEST else None
