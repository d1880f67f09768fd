"""An asyncio event loop whose time jumps to the next timer when nothing is ready."""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from typing import Final

from anyio import NoEventLoopError
from anyio._backends import _asyncio as anyio_asyncio

_NANOSECOND: Final = 1e-9


class VirtualEventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop with virtual time, for use as a `loop_factory`. Its time begins at 0."""

    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)
        self._clock_resolution = _NANOSECOND

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        now = self._virtual.time
        # The loop runs timers that lie before its time plus this. Far from zero a nanosecond is less than the distance
        # of two floats: a timer met exactly would be due, and never before it.
        self._clock_resolution = max(_NANOSECOND, math.ulp(now))
        return now


class _JumpingSelector(selectors.DefaultSelector):
    """Where an event loop waits, and so where its time passes: it polls what is ready, and jumps instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if nothing is, let `timeout` pass at once and return nothing."""
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if _threads_at_work():
            return self._wait_on_the_wall(timeout)
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self._pass(timeout)
        return ready

    def _wait_on_the_wall(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        ready = super().select(timeout)
        self._pass(time.monotonic() - began)
        return ready

    def _pass(self, seconds: float) -> None:
        self.time += seconds


def _threads_at_work() -> bool:
    # anyio has no public way to ask. Its thread limiters do not tell: each call may bring its own.
    try:
        workers = anyio_asyncio._threadpool_workers.get(())
        idle = anyio_asyncio._threadpool_idle_workers.get(())
    except NoEventLoopError:
        # The loop was not started by anyio, which then cannot tell whose it is between two tasks.
        return False
    return len(workers) > len(idle)
