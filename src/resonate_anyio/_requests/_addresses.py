"""Where a call is sent: a group's name as users write it, or an address as the protocol has it."""

from __future__ import annotations

from .._errors import InvalidArgument
from .._ids import check_unicode


def address(target: str) -> str:
    """The address of `target`: a bare name is a group, of which any worker will do.

    Raises:
        InvalidArgument: it is empty, or a bare name that cannot be a group's.
    """
    if not isinstance(target, str) or not target or any(c.isspace() for c in target):
        msg = f"a target is a group's name or an address such as 'poll://any@group', not {target!r}"
        raise InvalidArgument(msg)
    check_unicode(target, "target")
    return target if "://" in target else any_of(target)


def any_of(group: str) -> str:
    """The address of whichever worker of the group is free."""
    return f"poll://any@{group}"


def nowhere(group: str) -> str:
    """An address that no worker ever listens at: a promise needs a target for its deadline to be armed."""
    return f"poll://uni@{group}/none"
