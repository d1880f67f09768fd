"""Arguments of several client calls, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from .._errors import InvalidArgument, InvalidId
from .._ids import check_unicode
from .._protocol import PromiseState
from .._time import instant_ms

_PROTOCOL: Final = ("resonate:", "resonate-anyio:")
_OPTIONAL: Final = ("resonate:delay",)
_SETTLEMENTS: Final = (PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.CANCELED)


def check_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Tags, or none.

    Raises:
        InvalidArgument: a name or a value is no string.
    """
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or not all(isinstance(part, str) for item in tags.items() for part in item):
        msg = f"tags are strings by name, not {tags!r}"
        raise InvalidArgument(msg)
    return dict(tags)


def check_own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags for a call. Those of the protocol say what the promise is, which is not the caller's to say.

    Raises:
        InvalidArgument: a name or a value is no string, or a name is the protocol's.
    """
    checked = check_tags(tags)
    taken = sorted(name for name in checked if name.startswith(_PROTOCOL) and name not in _OPTIONAL)
    if taken:
        prefix = taken[0].partition(":")[0] + ":"
        msg = f"tags that begin with {prefix!r} belong to the protocol; choose another name than {taken[0]!r}"
        raise InvalidArgument(msg)
    return checked


def check_id(id: str, what: str) -> str:
    """The id of something that exists, as it is.

    Raises:
        InvalidId: it is no text, or empty.
    """
    if not isinstance(id, str) or not id:
        msg = f"the id of a {what} is a string that is not empty, not {id!r}"
        raise InvalidId(msg)
    check_unicode(id, f"id of a {what}")
    return id


def check_state(state: str) -> PromiseState:
    """A state to search for.

    Raises:
        InvalidArgument: there is no such state.
    """
    if state not in set(PromiseState):
        msg = f"a promise is in one of the states {', '.join(PromiseState)}, not {state!r}"
        raise InvalidArgument(msg)
    return PromiseState(state)


def check_settlement(state: str) -> PromiseState:
    """A state to settle a promise in.

    Raises:
        InvalidArgument: nobody can settle a promise so.
    """
    if state not in _SETTLEMENTS:
        msg = f"a promise is settled as one of {', '.join(_SETTLEMENTS)}, not {state!r}"
        raise InvalidArgument(msg)
    return PromiseState(state)


def check_deadline(timeout_at: datetime | int) -> int:
    """An instant to which a promise may stay pending.

    Raises:
        InvalidArgument: it is no instant, or one before 1970.
    """
    instant = instant_ms(timeout_at)
    if instant < 0:
        msg = f"timeout_at is an instant after 1970, in epoch milliseconds or as a datetime, not {timeout_at!r}"
        raise InvalidArgument(msg)
    return instant
