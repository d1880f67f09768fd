"""Who may do what: bearer tokens (protocol 4)."""

from __future__ import annotations

from attrs import define

from .._protocol import Envelope


@define
class Auth:
    """Checks tokens."""

    def admit(self, envelope: Envelope) -> None:
        """Refuse a request that its token does not allow.

        Raises:
            BadRequest: with 401 or 403.
        """

    def lets_in(self, authorization: str | None) -> bool:
        """Whether the header `Authorization` of a poll has a valid token."""
        return authorization is not None
