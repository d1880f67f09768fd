"""TCP keepalive for connections that may be silent for hours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Protocol

# A dead peer is noticed within a minute: after `_IDLE` seconds of silence, by `_COUNT` probes each `_INTERVAL` seconds.
_IDLE: Final = 30
_COUNT: Final = 3
_INTERVAL: Final = 10


class Socket(Protocol):
    """The part of a socket that is used here. Each backend has a class of its own."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def watch_peer(sock: Socket) -> None:
    """Make the system probe a silent peer, and end the connection if it does not answer."""
    for level, option, value in _options():
        # Not every kind of socket has all options; without them a dead peer is noticed later.
        with suppress(OSError):
            sock.setsockopt(level, option, value)


def _options() -> Iterator[tuple[int, int, int]]:
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    # macOS has another name for the first option.
    for names, value in (
        (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), _IDLE),
        (("TCP_KEEPINTVL",), _INTERVAL),
        (("TCP_KEEPCNT",), _COUNT),
    ):
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if option is not None:
            yield socket.IPPROTO_TCP, option, value
