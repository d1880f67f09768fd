"""Addresses of messages (docs/protocol.md 11.2).

An address is a URL. The servers check it with a WHATWG URL parser, so the checks here accept what such a parser
accepts: white space around the URL is cut off, the scheme is case-insensitive, and `http:host` means `http://host`.
"""

from __future__ import annotations

import re
from typing import Final, Literal, cast

from attrs import frozen

from .._values import ValueObject

_PARTS: Final = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>.*)"
_AROUND: Final = "".join(map(chr, range(0x21)))

_AUTHORITY: Final = r"(?:(?P<user>[^/?#:@]*)(?::[^/?#]*)?@)?"
_HOST: Final = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\x00-\x20#/:<>?@\[\\\]^|\x7f]+)"
_TAIL: Final = r"(?::[0-9]*)?(?P<path>/[^?#]*)?(?:[?#].*)?"

_OPAQUE: Final = rf"//{_AUTHORITY}{_HOST}{_TAIL}"
_WEB: Final = rf"[/\\]*{_AUTHORITY}{_HOST}{_TAIL}"


@frozen(eq=False, repr=False)
class PollAddress(ValueObject):
    """The address of workers that receive messages over an event stream.

    Attributes:
        cast: `uni` addresses only the connection `id`; `any` prefers the connection `id`, and otherwise addresses any
            connection of the group.
        group: the worker group.
        id: the name of one connection of the group, or None.
    """

    cast: Literal["any", "uni"]
    group: str
    id: str | None


def parse_poll(address: str) -> PollAddress | None:
    """Parse a poll address. Return None for any other text."""
    scheme, rest = _split(address)
    match = re.fullmatch(_OPAQUE, rest, re.DOTALL) if scheme == "poll" else None
    if match is None or match["user"] not in {"any", "uni"}:
        return None

    path = (match["path"] or "")[1:]
    return PollAddress(cast("Literal['any', 'uni']", match["user"]), match["host"], path or None)


def valid_address(address: str) -> bool:
    """Return whether the text is a valid address. A valid address may still have no receiver."""
    scheme, rest = _split(address)
    match scheme:
        case "poll":
            return parse_poll(address) is not None
        case "http" | "https":
            return re.fullmatch(_WEB, rest, re.DOTALL) is not None
        case "gcps":
            topic = re.fullmatch(_OPAQUE, rest, re.DOTALL)
            return topic is not None and len(topic["path"] or "") > 1
        case _:
            return scheme == "bash"


def _split(address: str) -> tuple[str, str]:
    match = re.fullmatch(_PARTS, address.strip(_AROUND), re.DOTALL)
    return ("", "") if match is None else (match["scheme"].lower(), match["rest"])
