"""`blake2b`, without OpenSSL: `hashlib` loads that library, which takes longer than any module of this package."""

from __future__ import annotations

try:
    # `hashlib` takes it from here as well.
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

__all__ = ("blake2b",)
