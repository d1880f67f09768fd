"""Workflows that use concurrency of anyio, asyncio and trio themselves around durable calls."""

from __future__ import annotations

from . import with_anyio, with_asyncio, with_trio
from .cases import CASES, Begun, Case, How, ends, knowing

__all__ = ["CASES", "Begun", "Case", "How", "ends", "knowing", "with_anyio", "with_asyncio", "with_trio"]
