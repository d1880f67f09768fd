"""Outages of the store: how requests are retried while it cannot be written, and what is logged."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

from anyio import Event, current_time, move_on_after, sleep
from attrs import define, field

from .._errors import StoreUnavailable
from .._protocol import Outcome

TimeLimit: TypeAlias = Callable[[], float]
"""Returns for how many seconds after its first attempt a request is retried. It is called before every retry."""

Attempt: TypeAlias = Callable[[], Awaitable[Sequence[Outcome]]]

logger: Final = logging.getLogger("resonate_anyio")

#: Seconds between two attempts, at first and at most.
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5

#: Seconds after which an outage is logged.
_LOG_AFTER: Final = 1.0


@define(eq=False, repr=False)
class Outage:
    """Whether the store can be written. An outage is logged once, and once more when it is over.

    Waiting requests form a queue, and only the first is retried, so a thousand of them cost no more than one. A request
    that fails again goes to the end, because a full disk may have room for a smaller request.

    Attributes:
        began: the time of the event loop at which the store could not be written for the first time; None if the last
            write succeeded.
    """

    began: float | None = field(init=False, default=None)
    _queue: deque[_Place] = field(init=False, factory=deque)
    _pause: float = field(init=False, default=_FIRST_PAUSE)
    _logged: bool = field(init=False, default=False)
    _stopped: bool = field(init=False, default=False)

    async def retry(self, attempt: Attempt, error: StoreUnavailable, limit: TimeLimit) -> Sequence[Outcome]:
        """Retry an attempt that failed with `error` until it succeeds. It can be cancelled between two attempts.

        Raises:
            StoreUnavailable: the store was unavailable for as long as the limit.
        """
        self._failed(error)
        began = current_time()

        def left() -> float:
            # Not the limit less the time that has passed: rounding could leave a rest in which no time passes.
            return 0 if self._stopped else (began + limit()) - current_time()

        while left() > 0:
            with self._place() as place:
                await self._wait_turn(place, left)
                if self._queue[0] is not place:
                    break

                await sleep(self._pause)
                if self._stopped:
                    break

                try:
                    outcomes = await attempt()
                except StoreUnavailable as again:
                    error = again
                    self._pause = min(2 * max(self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                    self._failed(error)
                else:
                    # So the requests behind this one are retried at once.
                    self._pause = 0
                    return outcomes

        raise error

    def note_success(self, outcomes: Sequence[Outcome]) -> None:
        """End the outage if something was written and no request waits."""
        # On a full disk a step that changes nothing succeeds during the outage as well.
        if self.began is None or self._queue or not any(outcome.changes for outcome in outcomes):
            return

        if self._logged:
            logger.warning("store.available again after %.1f s: what waited goes on", current_time() - self.began)

        self.began, self._logged = None, False

    def recheck_limits(self) -> None:
        """Make every waiting request call its time limit again, because the limit may have become shorter."""
        for place in self._queue:
            place.woken.set()

    def stop(self) -> None:
        """Retry nothing from now on: the store is being closed, and the next engine may open it."""
        self._stopped = True
        self.recheck_limits()

    async def _wait_turn(self, place: _Place, left: Callable[[], float]) -> None:
        """Wait until the place is the first of the queue, or no time is left."""
        while self._queue[0] is not place and (seconds := left()) > 0:
            place.woken = Event()
            with move_on_after(seconds):
                await place.woken.wait()

    @contextmanager
    def _place(self) -> Iterator[_Place]:
        place = _Place()
        self._queue.append(place)
        try:
            yield place
        finally:
            self._queue.remove(place)
            if self._queue:
                self._queue[0].woken.set()

    def _failed(self, error: StoreUnavailable) -> None:
        if self.began is None:
            self.began, self._pause = current_time(), _FIRST_PAUSE
        elif not self._logged and current_time() - self.began >= _LOG_AFTER:
            self._logged = True
            logger.warning(
                "store.unavailable %s. What has to be recorded waits and is tried again until the store can be "
                "written; what runs goes on, and nothing is lost",
                error,
            )


@define(eq=False, repr=False)
class _Place:
    """A place in the queue. `woken` is set when the place may be the first, or when its time may be over."""

    woken: Event = field(init=False, factory=Event)
