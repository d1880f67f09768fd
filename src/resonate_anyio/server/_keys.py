"""Public keys that verify tokens, and the algorithms for each kind of key."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .._errors import InvalidArgument

Key: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {SECP256R1.name: "ES256", SECP384R1.name: "ES384"}

ALGORITHMS: Final = {*_RSA, *_CURVES.values(), "EdDSA", "HS256", "HS384", "HS512"}
"""Algorithms that a token may name if its signature is not checked."""


def load_key(path: str) -> Key | None:
    """Read a public key in PEM; None for `none`.

    Raises:
        InvalidArgument: the file is not such a key.
    """
    if path == "none":
        return None

    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except OSError as error:
        msg = f"the public key {path} cannot be read: {error.strerror}"
        raise InvalidArgument(msg) from None
    except (ValueError, UnsupportedAlgorithm):
        msg = f"{path} is not a public key in PEM, which begins with -----BEGIN PUBLIC KEY-----"
        raise InvalidArgument(msg) from None

    if not isinstance(key, Key) or not algorithms(key):
        msg = f"{path} is a key of a kind that signs no tokens here; use RSA, EC P-256, EC P-384 or Ed25519"
        raise InvalidArgument(msg)

    return key


def algorithms(key: Key) -> list[str]:
    """Return the algorithms by which tokens for this key may be signed: never one with a shared secret."""
    if isinstance(key, RSAPublicKey):
        return list(_RSA)

    if isinstance(key, EllipticCurvePublicKey):
        return [algorithm for curve, algorithm in _CURVES.items() if curve == key.curve.name]

    return ["EdDSA"]
