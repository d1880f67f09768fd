"""`LoopWatch`: whether an event loop answers, as seen from another thread."""

from __future__ import annotations

import logging
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
_SHOWN_FRAMES: Final = 12


class LoopWatch:
    """Made in the event loop that it watches; `silence` is called from another thread."""

    def __init__(self) -> None:
        self._token = current_token()
        self._thread = get_ident()
        self._asked_at = 0.0
        self._answered = Event()
        self._answered.set()

    def silence(self) -> float:
        """Ask whether the loop answers, and wait a second for that. For how many seconds it has not.

        A loop that does not is logged, once, with what it is at.
        """
        new = self._answered.is_set()
        if new:
            self._ask()
        if self._answered.wait(_LATE if new else 0):
            return 0.0
        if new:
            self._tell()
        return monotonic() - self._asked_at

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
        self.call_soon(self._answered.set)

    def _tell(self) -> None:
        frame = sys._current_frames().get(self._thread)
        place = "" if frame is None else "".join(traceback.format_stack(frame, limit=_SHOWN_FRAMES))
        logger.warning(
            "worker.loop_blocked for=%.1f: the event loop does nothing else meanwhile, and deadlines and cancellations "
            "are late; call what blocks it through a synchronous durable function, or in a thread\n%s",
            _LATE,
            place,
        )
