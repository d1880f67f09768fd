"""Finding out how a server reads ids, without a trace (docs/distribution.md 6).

Servers that speak one protocol version differ in what joins a root and its children, and all but the oldest refuse a
heartbeat for tasks of several roots. So each of two heartbeats names two tasks that do not exist: of one root if a dot
joins, and of one root if a colon joins. Whether it is refused says what the server takes them for.
"""

from __future__ import annotations

import logging
from typing import Final

from .._ids import SEPARATORS
from .._protocol import Response, TaskHeartbeat, TaskRef
from ..abc import Dialect

_logger: Final = logging.getLogger("resonate_anyio")

CAREFUL: Final = Dialect(separator=".", origins_mix=False)
"""What goes on every server but the one with colons, which no server known so far is without being probed."""


def probes(holder: str, prefix: str) -> tuple[TaskHeartbeat, TaskHeartbeat]:
    """The two heartbeats: joined by dots, and by colons.

    Args:
        holder: the name that leases are taken in.
        prefix: what the ids have to start with that the server lets this client name.
    """
    return _heartbeat(holder, f"{prefix}a."), _heartbeat(holder, f"{prefix}a:")


def _heartbeat(holder: str, start: str) -> TaskHeartbeat:
    return TaskHeartbeat(pid=holder, tasks=(TaskRef(f"{start}x", 0), TaskRef(f"{start}y", 0)))


def dialect_of(dots: Response, colons: Response, prefix: str) -> Dialect | None:
    """What the answers to the two heartbeats say; None if they are answers to something else."""
    match dots.status, colons.status:
        case 200, 200:
            # A separator in the prefix makes one root of all four ids: then this says nothing about mixing.
            return Dialect(separator=".", origins_mix=True) if SEPARATORS.isdisjoint(prefix) else CAREFUL
        case 200, 400:
            return CAREFUL
        case 400, 200:
            return Dialect(separator=":", origins_mix=False)
        case 400, 400:
            _logger.warning("probe.unclear reason=%r", f"both heartbeats were refused: {dots.error}; {colons.error}")
            return CAREFUL
        case 403, _:
            # The token is limited to a prefix that it does not tell.
            return CAREFUL
        case _:
            return None
