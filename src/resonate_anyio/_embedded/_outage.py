"""The times in which the store cannot be written: how long requests wait for it, and what the log says."""

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

Patience: TypeAlias = Callable[[], float]
"""Gives how many seconds after its first attempt a request is tried for the last time. It is asked each time."""

_logger: Final = logging.getLogger("resonate_anyio")

#: Seconds between two attempts at one request: at first, and at most.
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5

#: Seconds after which an outage is told in the log.
_TOLD_AFTER: Final = 1.0


Attempt: TypeAlias = Callable[[], Awaitable[Sequence[Outcome]]]


@define(eq=False)
class Outage:
    """Whether the store can be written. One outage is one line in the log, and one more when it is over.

    Waiting requests form a queue, and only the first is tried: so a thousand of them cost no more than one. A request
    that was refused goes to the end, because a full disk may have room for a smaller one.
    """

    #: The first is the one that is tried.
    _line: deque[_Place] = field(init=False, factory=deque)
    _pause: float = field(init=False, default=_FIRST_PAUSE)
    _began: float | None = field(init=False, default=None)
    _told: bool = field(init=False, default=False)
    _over: bool = field(init=False, default=False)

    async def outlast(self, attempt: Attempt, patience: Patience) -> Sequence[Outcome]:
        """Make an attempt, and again while the store is unavailable. Between two of them it can be cancelled.

        Raises:
            StoreUnavailable: the store was unavailable for longer than the patience.
        """
        try:
            outcomes = await attempt()
        except StoreUnavailable as error:
            self._failed(error)
            if patience() <= 0 or self._over:
                raise

            outcomes = await self._try_again(attempt, patience, error)

        self._succeeded(outcomes)
        return outcomes

    async def _try_again(self, attempt: Attempt, patience: Patience, error: StoreUnavailable) -> Sequence[Outcome]:
        began = current_time()

        def left() -> float:
            # Not the patience less the time that has passed: rounding would leave a rest in which no time passes.
            return 0 if self._over else (began + patience()) - current_time()

        while left() > 0:
            with self._place() as place:
                await self._turn_of(place, left)
                if self._line[0] is not place:
                    break

                await sleep(self._pause)
                if self._over:
                    break

                try:
                    outcomes = await attempt()
                except StoreUnavailable as again:
                    error = again
                    self._pause = min(2 * max(self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                    self._failed(error)
                else:
                    # So those behind are tried at once.
                    self._pause = 0
                    return outcomes

        raise error

    async def _turn_of(self, place: _Place, left: Callable[[], float]) -> None:
        """Wait until the place is the first, or there is no time left."""
        while self._line[0] is not place and (seconds := left()) > 0:
            place.stirred = Event()
            with move_on_after(seconds):
                await place.stirred.wait()

    @contextmanager
    def _place(self) -> Iterator[_Place]:
        place = _Place()
        self._line.append(place)
        try:
            yield place
        finally:
            self._line.remove(place)
            if self._line:
                self._line[0].stirred.set()

    def stir(self) -> None:
        """Ask every waiting request for its patience again: it may have become shorter."""
        for place in self._line:
            place.stirred.set()

    def give_up(self) -> None:
        """Try nothing again from now on: the store is being closed, and the next engine may open it."""
        self._over = True
        self.stir()

    def _failed(self, error: StoreUnavailable) -> None:
        if self._began is None:
            self._began, self._pause = current_time(), _FIRST_PAUSE
        elif not self._told and current_time() - self._began >= _TOLD_AFTER:
            self._told = True
            _logger.warning(
                "store.unavailable %s. What has to be recorded waits and is tried again until the store can be "
                "written; what runs goes on, and nothing is lost",
                error,
            )

    def _succeeded(self, outcomes: Sequence[Outcome]) -> None:
        # Where there is no room, what changes nothing succeeds all the same.
        if self._began is None or self._line or not any(outcome.changes for outcome in outcomes):
            return

        if self._told:
            _logger.warning("store.available again after %.1f s: what waited goes on", current_time() - self._began)

        self._began, self._told = None, False


@define(eq=False)
class _Place:
    """A place in the line. It is told when it may be the first, or may have no time left."""

    stirred: Event = field(init=False, factory=Event)
