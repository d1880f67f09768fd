"""Having the system watch a peer that may be silent for hours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Protocol

# A peer that is gone is noticed within a minute: after so many seconds of silence, so often, so many seconds apart.
_IDLE: Final = 30
_COUNT: Final = 3
_INTERVAL: Final = 10


class Socket(Protocol):
    """As much of a socket as this needs; each backend has one of its own."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def watch_peer(sock: Socket) -> None:
    """Let the system ask a silent peer whether it is there, and end the connection when it does not answer."""
    for level, option, value in _options():
        # Not every kind of socket has them all; without them a dead peer is noticed later.
        with suppress(OSError):
            sock.setsockopt(level, option, value)


def _options() -> Iterator[tuple[int, int, int]]:
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    # macOS has another name for the first.
    for names, value in (
        (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), _IDLE),
        (("TCP_KEEPINTVL",), _INTERVAL),
        (("TCP_KEEPCNT",), _COUNT),
    ):
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if option is not None:
            yield socket.IPPROTO_TCP, option, value
