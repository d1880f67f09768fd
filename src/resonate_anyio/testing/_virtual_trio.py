"""Trio's clock for tests, made to mind worker threads and to rest when there is no timer. Imported only with trio."""

from __future__ import annotations

import math
from typing import Any

import trio
import trio.testing
from attrs import define, field


def options() -> dict[str, Any]:
    """Arguments for `trio.run` that make its time virtual, for one run."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return {"clock": clock, "instruments": [_Pacemaker(clock)]}


@define(eq=False)
class _Pacemaker(trio.abc.Instrument):
    """Decides before each wait how time passes: by jumping, as on the wall, or not at all.

    A `MockClock` by itself jumps over the work of threads, and spins when no timer is set.
    """

    _clock: trio.testing.MockClock
    _on_the_wall: bool = field(default=False, init=False)
    _stepped: bool = field(default=True, init=False)
    _resting: bool = field(default=False, init=False)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self._stepped = True
        on_the_wall = trio.testing.active_thread_count() > 0
        if self._resting or on_the_wall != self._on_the_wall:
            self._set_pace(on_the_wall=on_the_wall)

    def before_io_wait(self, timeout: float) -> None:
        # A first wait of no length lets the clock jump. If no task has run by the second, there was nowhere to jump to.
        if timeout == 0 and not self._stepped and not self._on_the_wall:
            self._rest_unless_a_timer_is_set()
        self._stepped = False

    def _set_pace(self, *, on_the_wall: bool) -> None:
        self._on_the_wall = on_the_wall
        self._resting = False
        self._clock.rate = 1.0 if on_the_wall else 0.0
        self._clock.autojump_threshold = math.inf if on_the_wall else 0.0

    def _rest_unless_a_timer_is_set(self) -> None:
        if trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf:
            self._resting = True
            self._clock.autojump_threshold = math.inf
