"""The token that a server knows this client by: sent with everything, shown nowhere."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Final

from .._errors import InvalidArgument

_HIDDEN: Final = "[token]"
_EXCERPT: Final = 200
# Fewer characters than this are no secret.
_TELLING: Final = 4


class Token:
    """A token, or none. Neither its `repr` nor any text that went through `redacted` tells it.

    Raises:
        InvalidArgument: it cannot be sent in a header.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str | None) -> None:
        if text is not None and not (isinstance(text, str) and text.isascii() and text.isprintable() and text.strip()):
            # what it is must not be told
            msg = "token is sent in a header; it must be printable ASCII in one line, and not empty"
            raise InvalidArgument(msg)
        self._text = None if text is None else text.strip()

    def __repr__(self) -> str:
        return "<no token>" if self._text is None else "<token>"

    @property
    def text(self) -> str | None:
        """The token itself, for the envelope of a request."""
        return self._text

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers that it is sent in."""
        return {} if self._text is None else {"Authorization": f"Bearer {self._text}"}

    def redacted(self, text: str) -> str:
        """Take the token out of a text that came from elsewhere, e.g. from a server that repeats what it was sent."""
        return text if self._text is None else text.replace(self._text, _HIDDEN)

    def excerpt(self, text: str) -> str:
        """The beginning of a text, without the token: enough to recognise what it is."""
        # Cut last: half a token would not be found. Where the text broke off, it may end with half of one.
        text = self._without_beginning(self.redacted(text))
        return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}..."

    def _without_beginning(self, text: str) -> str:
        """Take a beginning of the token off the end of a text."""
        token = self._text or ""
        shown = next((size for size in range(len(token), _TELLING - 1, -1) if text.endswith(token[:size])), 0)
        return text.removesuffix(token[:shown])

    @property
    def prefix(self) -> str:
        """The prefix of the ids that this token allows, as far as it says so itself (docs/protocol.md 4).

        It is read from the claims of a JWT, which nobody has verified here. The role of an administrator has no limit.
        """
        claims = {} if self._text is None else _claims(self._text)
        prefix, role = claims.get("prefix"), claims.get("role")
        unlimited = isinstance(role, str) and role.lower() == "admin"
        return prefix if isinstance(prefix, str) and not unlimited else ""


def _claims(token: str) -> Mapping[str, object]:
    """The payload of a JWT; nothing if it is another kind of token."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}
