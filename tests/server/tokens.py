"""Keys and tokens, made anew for every run of the tests."""

from __future__ import annotations

import base64
import hmac
import json
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import jwt
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePrivateKey,
    generate_private_key as ec_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key as rsa_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

HOUR: Final = 3600


@cache
def private_key(kind: str) -> PrivateKey:
    match kind:
        case "rsa":
            return rsa_key(65537, 2048)
        case "p256":
            return ec_key(SECP256R1())
        case "p384":
            return ec_key(SECP384R1())
        case "p521":
            return ec_key(SECP521R1())
        case _:
            return Ed25519PrivateKey.generate()


def write_public_key(folder: Path, kind: str) -> str:
    """Write the public half of a key to a file, and give its path."""
    path = folder / f"{kind}.pem"
    path.write_bytes(public_pem(kind))
    return str(path)


def public_pem(kind: str) -> bytes:
    return private_key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jws(payload: bytes) -> str:
    """A signed token, whatever it says."""
    head = f"{part({'alg': 'RS256'})}.{encoded(payload)}"
    key = private_key("rsa")
    assert isinstance(key, RSAPrivateKey)
    return f"{head}.{encoded(key.sign(head.encode(), PKCS1v15(), SHA256()))}"


def hmac_signed(secret: bytes, claims: dict[str, Any]) -> str:
    """A token signed with a shared secret, which the library would not make out of a public key."""
    text = f"{part({'alg': 'HS256'})}.{part(claims)}"
    signature = hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{encoded(signature)}"


@frozen
class Mint:
    """Makes tokens at the instant `now` (in seconds)."""

    now: int
    kind: str = "rsa"
    algorithm: str = "RS256"

    def claims(self, **claims: Any) -> dict[str, Any]:
        """These claims, valid for an hour. One that is `...` is left out."""
        return {name: value for name, value in {"exp": self.now + HOUR, **claims}.items() if value is not ...}

    def signed(self, algorithm: str | None = None, **claims: Any) -> str:
        return jwt.encode(self.claims(**claims), private_key(self.kind), algorithm or self.algorithm)

    def unsigned(self, algorithm: str, signature: str = "", **claims: Any) -> str:
        """A token whose header names an algorithm, and whose signature is what is given."""
        return ".".join((part({"alg": algorithm, "typ": "JWT"}), part(self.claims(**claims)), signature))


def part(document: object) -> str:
    return encoded(json.dumps(document).encode())


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
