"""The token that authenticates this client: it is sent with every request and never shown."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Final

from .._errors import InvalidArgument

_HIDDEN: Final = "[token]"
_EXCERPT: Final = 200
# A beginning of the token with fewer characters than this may be shown.
_TELLING: Final = 4


class Token:
    """A token, or the absence of one. Its repr and texts that were passed through `redacted` do not contain it.

    Raises:
        InvalidArgument: the token cannot be sent in a header.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str | None) -> None:
        if text is not None and not (isinstance(text, str) and text.isascii() and text.isprintable() and text.strip()):
            # The text must not be shown.
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
        """The HTTP headers that contain it."""
        return {} if self._text is None else {"Authorization": f"Bearer {self._text}"}

    def redacted(self, text: str) -> str:
        """Return a text without the token. A server may repeat in its answer what it was sent."""
        return text if self._text is None else text.replace(self._text, _HIDDEN)

    def excerpt(self, text: str) -> str:
        """Return the beginning of a text, without the token, so that a reader can recognise the text."""
        # Cut last, because half a token would not be found. A text that broke off may end with half a token.
        text = self._without_beginning(self.redacted(text))
        return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}..."

    def _without_beginning(self, text: str) -> str:
        """Remove a beginning of the token from the end of a text."""
        token = self._text or ""
        shown = next((size for size in range(len(token), _TELLING - 1, -1) if text.endswith(token[:size])), 0)
        return text.removesuffix(token[:shown])

    @property
    def prefix(self) -> str:
        """The prefix of the ids that this token allows, if the token is a JWT that names one (docs/protocol.md 4).

        The claims of the JWT are not verified here. The role of an administrator has no limit.
        """
        claims = {} if self._text is None else _claims(self._text)
        prefix, role = claims.get("prefix"), claims.get("role")
        unlimited = isinstance(role, str) and role.lower() == "admin"
        return prefix if isinstance(prefix, str) and not unlimited else ""


def _claims(token: str) -> Mapping[str, object]:
    """Return the payload of a JWT; an empty mapping for another kind of token."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}
