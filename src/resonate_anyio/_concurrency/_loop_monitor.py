"""`LoopMonitor`: tells another thread whether an event loop is blocked."""

from __future__ import annotations

import logging
import math
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread, get_ident
from time import monotonic
from typing import Final

from anyio import RunFinishedError
from anyio.lowlevel import current_token

logger = logging.getLogger("resonate_anyio")

_LATE: Final = 1.0
"""Seconds after which a loop that has not answered is logged, once, with the stack of the code that it runs."""
_SHOWN_FRAMES: Final = 12


class LoopMonitor:
    """Monitors the event loop in which it is created. Another thread calls `silence` from time to time.

    To ask the loop is to have a callback called in it; the loop has answered when the callback has run.
    """

    def __init__(self) -> None:
        self._token = current_token()
        self._thread = get_ident()
        self._asked_at = 0.0
        self._answered = Event()
        self._answered.set()
        self._logged = False

    @property
    def patience(self) -> float:
        """Seconds after which to call `silence` again because the loop may be blocked; infinity if it has answered."""
        return _LATE if not self._answered.is_set() and not self._logged else math.inf

    def silence(self) -> float:
        """Return for how many seconds the loop has not answered; 0 if it has. In that case, ask it again."""
        if self._answered.is_set():
            self._ask()
            return 0.0
        silence = monotonic() - self._asked_at
        if silence >= _LATE and not self._logged:
            self._logged = True
            self._log(silence)
        return silence

    def call_soon(self, func: Callable[[], object]) -> None:
        """Call a function in the loop, without waiting for that."""
        # In a thread of its own, because the call waits as long as the loop is blocked.
        Thread(target=self._call, args=(func,), name="resonate loop monitor", daemon=True).start()

    def _call(self, func: Callable[[], object]) -> None:
        from anyio import from_thread  # noqa: PLC0415 - the monitor is rare

        with suppress(RunFinishedError, RuntimeError):
            from_thread.run_sync(func, token=self._token)

    def _ask(self) -> None:
        self._asked_at = monotonic()
        self._answered = Event()
        self._logged = False
        self.call_soon(self._answered.set)

    def _log(self, silence: float) -> None:
        frame = sys._current_frames().get(self._thread)
        place = "" if frame is None else "".join(traceback.format_stack(frame, limit=_SHOWN_FRAMES))
        logger.warning(
            "worker.loop_blocked for=%.1f: no other code of the event loop runs meanwhile, and deadlines and "
            "cancellations are late; put the blocking code into a synchronous durable function, or a thread\n%s",
            silence,
            place,
        )
