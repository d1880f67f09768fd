"""The addresses that messages can be sent to (protocol 11.2).

An address is a URL. The checks follow what a URL parser of the web accepts, since the servers use one: white space
around it is cut off, schemes have no case, and `http:host` is as good as `http://host`.
"""

from __future__ import annotations

import re
from typing import Final, Literal, cast

from attrs import frozen

_PARTS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>.*)", re.DOTALL)
_AROUND: Final = "".join(map(chr, range(0x21)))

_AUTHORITY: Final = r"(?:(?P<user>[^/?#:@]*)(?::[^/?#]*)?@)?"
_HOST: Final = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\x00-\x20#/:<>?@\[\\\]^|\x7f]+)"
_TAIL: Final = r"(?::[0-9]*)?(?P<path>/[^?#]*)?(?:[?#].*)?"

_OPAQUE: Final = re.compile(rf"//{_AUTHORITY}{_HOST}{_TAIL}", re.DOTALL)
_WEB: Final = re.compile(rf"[/\\]*{_AUTHORITY}{_HOST}{_TAIL}", re.DOTALL)


@frozen
class PollAddress:
    """An address of workers that hold a message stream.

    Attributes:
        cast: `uni` for the connection `id` and no other, `any` for `id` if it is there and else any of the group.
        group: the worker group.
        id: one connection of the group, or None.
    """

    cast: Literal["any", "uni"]
    group: str
    id: str | None


def parse_poll(address: str) -> PollAddress | None:
    """Read a poll address; None if it is another kind of address or none at all."""
    scheme, rest = _split(address)
    match = _OPAQUE.fullmatch(rest) if scheme == "poll" else None
    if match is None or match["user"] not in {"any", "uni"}:
        return None

    path = (match["path"] or "")[1:]
    return PollAddress(cast("Literal['any', 'uni']", match["user"]), match["host"], path or None)


def valid_address(address: str) -> bool:
    """Whether messages may be addressed like this. Whether anybody ever receives them is another question."""
    scheme, rest = _split(address)
    match scheme:
        case "poll":
            return parse_poll(address) is not None
        case "http" | "https":
            return _WEB.fullmatch(rest) is not None
        case "gcps":
            topic = _OPAQUE.fullmatch(rest)
            return topic is not None and len(topic["path"] or "") > 1
        case _:
            return scheme == "bash"


def _split(address: str) -> tuple[str, str]:
    match = _PARTS.fullmatch(address.strip(_AROUND))
    return ("", "") if match is None else (match["scheme"].lower(), match["rest"])
