"""Authorization: bearer tokens, checked as the Resonate Server checks them (docs/protocol.md 4).

The claims of a token say what it allows (`role`, `prefix`) and until when (`exp`). No token is logged or shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, final

import jwt
from attrs import field, frozen

from .._protocol import Envelope
from .._protocol._json import loads
from ..abc import Clock
from ..networks import system_clock
from ._keys import ALGORITHMS, Key, algorithms, load_key

Json: TypeAlias = Mapping[str, Any]

# Milliseconds that clocks of client and server may differ by.
_LEEWAY: Final = 60_000

_BY_ID: Final = {
    *("promise.get", "promise.create", "promise.settle", "schedule.get", "schedule.delete"),
    *("task.get", "task.acquire", "task.release", "task.fulfill", "task.suspend", "task.fence"),
    *("task.halt", "task.continue"),
}
_BY_AWAITED: Final = {"promise.register_callback", "promise.register_listener"}


class _Invalid(Exception):
    """A token is not valid."""


@final
@frozen
class Auth:
    """Accepts requests with a valid token that allows them.

    Args:
        publickey: the path of a public key in PEM (RSA, EC P-256 or P-384, or Ed25519), or `none`: then signatures are
            not checked, and every client can make a token.
        iss: the issuer that tokens must name; None accepts any issuer.
        aud: an audience that tokens must name; None accepts any audience.
        clock: the clock by which tokens expire.

    Raises:
        InvalidArgument: the file is not such a key.
    """

    _key: Key | None = field(alias="publickey", converter=load_key, repr=False)
    _iss: str | None = field(default=None, alias="iss")
    _aud: str | None = field(default=None, alias="aud")
    _clock: Clock = field(default=system_clock, alias="clock")

    def admit(self, envelope: Envelope) -> None:
        """Refuse a request that its token does not allow.

        Raises:
            BadRequest: with 401 if the token is not valid, with 403 if it does not allow this.
        """
        try:
            claims = self._claims(envelope.auth or "")
        except _Invalid:
            raise envelope.refuse(401, "Unauthorized") from None

        if not _allows(claims, envelope):
            raise envelope.refuse(403, "Forbidden")

    def lets_in(self, authorization: str | None) -> bool:
        """Return whether a header `Authorization` has a valid token."""
        scheme, _, token = (authorization or "").partition(" ")
        try:
            self._claims(token)
        except _Invalid:
            return False

        return scheme == "Bearer"

    def _claims(self, token: str) -> Json:
        try:
            claims = loads(self._payload(token))
        except (jwt.PyJWTError, ValueError):
            raise _Invalid from None

        if not isinstance(claims, dict) or not self._in_force(claims):
            raise _Invalid

        return claims

    def _payload(self, token: str) -> bytes:
        signatures = jwt.PyJWS()
        if self._key is not None:
            payload: bytes = signatures.decode(token, self._key, algorithms=algorithms(self._key))
            return payload

        # The text in the place of the signature is not used at all.
        bare = f"{token.rpartition('.')[0]}."
        parts = signatures.decode_complete(bare, options={"verify_signature": False})
        algorithm = parts["header"].get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise _Invalid

        return bytes(parts["payload"])

    def _in_force(self, claims: Json) -> bool:
        expires, audience = claims.get("exp"), claims.get("aud")
        return (
            isinstance(expires, int | float)
            and not isinstance(expires, bool)
            and expires < math.inf
            and expires * 1000 >= self._clock() - _LEEWAY
            and (audience is None or _texts(audience))
            and (self._aud is None or self._aud in (audience or ()))
            and (self._iss is None or self._iss == claims.get("iss"))
        )


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _allows(claims: Json, envelope: Envelope) -> bool:
    role, prefix = claims.get("role"), claims.get("prefix")
    if isinstance(role, str) and role.lower() == "admin":
        return True

    if not isinstance(prefix, str):
        return False

    ids = _subjects(envelope.kind, envelope.data)
    # An id of another type is accepted here: validation refuses the request and says what is wrong with it.
    return prefix == "" or (ids is not None and all(not isinstance(id, str) or id.startswith(prefix) for id in ids))


def _subjects(kind: str, data: Json) -> list[object] | None:
    """Return the ids that a request concerns; None if it concerns all records."""
    if kind in _BY_ID:
        return [data.get("id")]

    if kind in _BY_AWAITED:
        return [data.get("awaited")]

    match kind:
        case "task.create":
            return [_at(data, "action", "data", "id")]
        case "schedule.create":
            return [data.get("promiseId")]
        case "task.heartbeat":
            tasks = data.get("tasks")
            return [_at(task, "id") for task in tasks] if isinstance(tasks, list) else []
        case _:
            return None


def _at(value: object, *names: str) -> object:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None

    return value
