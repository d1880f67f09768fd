"""Find out how a server reads ids, without leaving a record (docs/distribution.md 6).

Servers of one protocol version differ in the separator between a root and its children, and all but the oldest refuse a
heartbeat for tasks of several roots. So two heartbeats are sent, each for two tasks that do not exist. In the first,
both tasks are of one root if the separator is a dot, in the second if it is a colon. The server refuses the other one.
"""

from __future__ import annotations

import logging
from typing import Final

from .._ids import SEPARATORS
from .._protocol import Response, TaskHeartbeat, TaskRef
from ..abc import Dialect

logger: Final = logging.getLogger("resonate_anyio")

CAREFUL: Final = Dialect(separator=".", origins_mix=False)
"""Works on every server that does not use colons. Every known server that uses colons answers the probes."""


def probes(holder: str, prefix: str) -> tuple[TaskHeartbeat, TaskHeartbeat]:
    """Return the two heartbeats: with dots and with colons.

    Args:
        holder: the name in which leases are taken.
        prefix: the prefix of the ids that the server allows to this client.
    """
    return _heartbeat(holder, f"{prefix}a."), _heartbeat(holder, f"{prefix}a:")


def _heartbeat(holder: str, start: str) -> TaskHeartbeat:
    return TaskHeartbeat(pid=holder, tasks=(TaskRef(f"{start}x", 0), TaskRef(f"{start}y", 0)))


def dialect_of(dots: Response, colons: Response, prefix: str) -> Dialect | None:
    """Return the dialect that the answers to the two heartbeats show; None if they show none."""
    match dots.status, colons.status:
        case 200, 200:
            # If the prefix contains a separator, all four ids are of one root, and nothing is known about mixing.
            return Dialect(separator=".", origins_mix=True) if SEPARATORS.isdisjoint(prefix) else CAREFUL
        case 200, 400:
            return CAREFUL
        case 400, 200:
            return Dialect(separator=":", origins_mix=False)
        case 400, 400:
            logger.warning("probe.unclear reason=%r", f"both heartbeats were refused: {dots.error}; {colons.error}")
            return CAREFUL
        case 403, _:
            # The token is limited to a prefix that is not readable from it.
            return CAREFUL
        case _:
            return None
