"""Addresses: where a call is sent, as users write it and as the protocol has it."""

from __future__ import annotations

from .._errors import InvalidArgument
from .._ids import check_unicode


def address(target: str) -> str:
    """Return the address of `target`. A bare name means any worker of the group with that name.

    Raises:
        InvalidArgument: `target` is empty, or cannot be the name of a group.
    """
    if not isinstance(target, str) or not target or any(c.isspace() for c in target):
        msg = f"target must be the name of a group, or an address such as 'poll://any@group', got {target!r}"
        raise InvalidArgument(msg)
    check_unicode(target, "target")
    return target if "://" in target else any_of(target)


def any_of(group: str) -> str:
    """Return the address of any worker of the group."""
    return f"poll://any@{group}"


def nowhere(group: str) -> str:
    """Return an address at which no worker listens. Servers arm the deadline of a promise only if it has a target."""
    return f"poll://uni@{group}/none"
