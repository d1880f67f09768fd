"""Checks of arguments that several calls of the client take, made before anything is sent."""

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
    """Return tags as a dict, which is empty for None.

    Raises:
        InvalidArgument: a name or a value is not a string.
    """
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or not all(isinstance(part, str) for item in tags.items() for part in item):
        msg = f"tags must map str to str, got {tags!r}"
        raise InvalidArgument(msg)
    return dict(tags)


def check_own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a call. A caller may not set tags of the protocol, which say what the promise is.

    Raises:
        InvalidArgument: a name or a value is not a string, or a name is the protocol's.
    """
    checked = check_tags(tags)
    taken = sorted(name for name in checked if name.startswith(_PROTOCOL) and name not in _OPTIONAL)
    if taken:
        prefix = taken[0].partition(":")[0] + ":"
        msg = f"tags that begin with {prefix!r} belong to the protocol; choose another name than {taken[0]!r}"
        raise InvalidArgument(msg)
    return checked


def check_id(id: str, what: str) -> str:
    """Check the id of something that exists, and return it unchanged.

    Raises:
        InvalidId: it is not a string, or it is empty.
    """
    if not isinstance(id, str) or not id:
        msg = f"the id of a {what} must be a non-empty string, got {id!r}"
        raise InvalidId(msg)
    check_unicode(id, f"id of a {what}")
    return id


def check_state(state: str) -> PromiseState:
    """Return a state to search for.

    Raises:
        InvalidArgument: it is not the name of a state.
    """
    if state not in set(PromiseState):
        msg = f"the state of a promise is one of {', '.join(PromiseState)}, got {state!r}"
        raise InvalidArgument(msg)
    return PromiseState(state)


def check_settlement(state: str) -> PromiseState:
    """Return a state to settle a promise in.

    Raises:
        InvalidArgument: it is not a state that a promise can be settled in.
    """
    if state not in _SETTLEMENTS:
        msg = f"a promise is settled as one of {', '.join(_SETTLEMENTS)}, got {state!r}"
        raise InvalidArgument(msg)
    return PromiseState(state)


def check_deadline(timeout_at: datetime | int) -> int:
    """Return the deadline of a promise in milliseconds since the epoch.

    Raises:
        InvalidArgument: it is not an instant, or it lies before 1970.
    """
    instant = instant_ms(timeout_at)
    if instant < 0:
        msg = f"timeout_at must be an instant after 1970, in epoch milliseconds or as a datetime, got {timeout_at!r}"
        raise InvalidArgument(msg)
    return instant
