"""`LoopMonitor`: whether an event loop answers, as seen from another thread."""

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

from anyio import RunFinishedError, from_thread
from anyio.lowlevel import current_token

logger = logging.getLogger("resonate_anyio")

_LATE: Final = 1.0
"""Seconds that a loop may take to answer. One that does not in time is logged, once, with what it is at."""
_SHOWN_FRAMES: Final = 12


class LoopMonitor:
    """Made in the event loop that it watches; `silence` is called from another thread."""

    def __init__(self) -> None:
        self._token = current_token()
        self._thread = get_ident()
        self._asked_at = 0.0
        self._answered = Event()
        self._answered.set()
        self._told = False

    @property
    def patience(self) -> float:
        """Seconds after which to look again, if the loop has been asked and may turn out to be blocked."""
        return _LATE if not self._answered.is_set() and not self._told else math.inf

    def silence(self) -> float:
        """For how many seconds the loop has not answered. One that has is asked anew."""
        if self._answered.is_set():
            self._ask()
            return 0.0
        silence = monotonic() - self._asked_at
        if silence >= _LATE and not self._told:
            self._told = True
            self._tell(silence)
        return silence

    def call_soon(self, func: Callable[[], object]) -> None:
        """Call a function in the loop, and do not wait for that."""
        # The call itself waits for as long as the loop is blocked.
        Thread(target=self._call, args=(func,), name="resonate loop watch", daemon=True).start()

    def _call(self, func: Callable[[], object]) -> None:
        with suppress(RunFinishedError, RuntimeError):
            from_thread.run_sync(func, token=self._token)

    def _ask(self) -> None:
        self._asked_at = monotonic()
        self._answered = Event()
        self._told = False
        self.call_soon(self._answered.set)

    def _tell(self, silence: float) -> None:
        frame = sys._current_frames().get(self._thread)
        place = "" if frame is None else "".join(traceback.format_stack(frame, limit=_SHOWN_FRAMES))
        logger.warning(
            "worker.loop_blocked for=%.1f: the event loop does nothing else meanwhile, and deadlines and cancellations "
            "are late; call what blocks it through a synchronous durable function, or in a thread\n%s",
            silence,
            place,
        )
