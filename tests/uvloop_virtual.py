"""uvloop in virtual time: its time jumps to the next timer when nothing is ready, as that of `VirtualEventLoop` does.

libuv keeps its time to itself, so timers are kept here. Whether something is ready is found out by callbacks that
follow each other: what was ready before the first has run before the second, and if nothing was scheduled meanwhile,
nothing is ready. Only what comes of sockets and other processes is not waited for, as under every virtual clock.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from contextvars import Context
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVarTuple

from resonate_anyio.testing._virtual_asyncio import _threads_at_work

if TYPE_CHECKING:
    # uvloop may not be installed, and its loop is such a one.
    from asyncio import SelectorEventLoop as _Loop
else:
    from uvloop import Loop as _Loop

Ts = TypeVarTuple("Ts")

_MOMENT: Final = 0.001
"""Seconds between two looks while a thread is at work."""


class VirtualUvLoop(_Loop):
    """A loop of uvloop with virtual time. Its time begins at 0."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()
        self._scheduled = 0
        self._looking = False

    def time(self) -> float:
        """Return seconds of virtual time since the loop was made."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedule a callback, and note that something is ready."""
        self._scheduled += 1
        handle = super().call_soon(callback, *args, context=context)
        self._look_later()
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Do so from another thread."""
        self._scheduled += 1
        return super().call_soon_threadsafe(self._back, callback, args, context=context)

    def _back(self, callback: Callable[[*Ts], object], args: tuple[*Ts]) -> None:
        callback(*args)
        self._look_later()

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer for an instant."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        self._look_later()
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave a cancelled timer where it is: it is dropped when its time comes."""

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            super().call_soon(self._look, self._scheduled)

    def _look(self, scheduled: int) -> None:
        if self._scheduled > scheduled:
            # Something was scheduled, and comes before this when it looks again.
            super().call_soon(self._look, self._scheduled)
        elif _threads_at_work():
            super().call_later(_MOMENT, self._pass, time.monotonic())
        else:
            self._looking = False
            self._jump()

    def _pass(self, since: float) -> None:
        self._now += time.monotonic() - since
        self._run_due()
        super().call_soon(self._look, self._scheduled)

    def _jump(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if self._timers:
            self._now = max(self._now, self._timers[0][0])
            self._run_due()

    def _run_due(self) -> None:
        while self._timers and self._timers[0][0] <= self._now:
            _, _, handle = heapq.heappop(self._timers)
            self.call_soon(self._run_unless_cancelled, handle)

    @staticmethod
    def _run_unless_cancelled(handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled():
            handle._run()
