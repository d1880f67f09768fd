"""Observers, and how the worker tells them of events.

Code that makes events asks a tuple of `Observers` first. While that tuple is empty, the test is all that an event
costs: no event object is made, and no function of this package is called. Nor are the classes of the events imported:
a module that makes one names it as `_observe.CallPlanned`.
"""

from __future__ import annotations

import logging
import typing
from time import perf_counter
from typing import Final, Protocol, TypeAlias, runtime_checkable

from attrs import define, field

if typing.TYPE_CHECKING:
    from ._events import (
        CallPlanned as CallPlanned,
        CallRecorded as CallRecorded,
        CallRetried as CallRetried,
        CallSettled as CallSettled,
        CallStarted as CallStarted,
        Event as Event,
        ExecutionDropped as ExecutionDropped,
        ExecutionEnded as ExecutionEnded,
        ExecutionEvent as ExecutionEvent,
        ExecutionHalted as ExecutionHalted,
        ExecutionParked as ExecutionParked,
        ExecutionReplaying as ExecutionReplaying,
        ExecutionResumed as ExecutionResumed,
        ExecutionStarted as ExecutionStarted,
        LeafAttemptBegun as LeafAttemptBegun,
        LeafAttemptEnded as LeafAttemptEnded,
        LeaseLost as LeaseLost,
        LeaseRenewed as LeaseRenewed,
        LeaseTaken as LeaseTaken,
        RequestAnswered as RequestAnswered,
        RequestRetried as RequestRetried,
        RequestSent as RequestSent,
        RequestUnanswered as RequestUnanswered,
    )

LONGEST_CALL: Final = 0.05
"""Seconds that an observer may take for one event."""

logger = logging.getLogger("resonate_anyio")


def __getattr__(name: str) -> object:
    if name.startswith("_"):
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from . import _events  # noqa: PLC0415 - most programs have no observers

    return getattr(_events, name)


@runtime_checkable
class Observer(Protocol):
    """Hears of what a worker does: `Resonate(observers=[...])`."""

    def on_event(self, event: Event) -> None:
        """Take note of an event, and return at once.

        It is called on the event loop, by the code that the event is about. If it raises an `Exception`, or takes
        longer than 50 ms, the log says so, once for each observer, and the observer is called again with the next
        event. Any other exception, such as `KeyboardInterrupt`, is passed on to the program.
        """
        ...


ObserverTuple: TypeAlias = tuple[Observer, ...]


@define(eq=False, repr=False)
class Observers:
    """The observers of one worker: those of the program, and the log.

    The log gets only the events that its logger would write. The level of a logger may be changed at any time, so it is
    looked up (`refresh`) when an execution begins, moves or ends, and half a second after a call has begun: never at a
    call.

    Attributes:
        given: the observers of the program. They get every event.
        calls: the same, and the log while it writes DEBUG: for calls that are recorded, started and settled.
        lives: the same, and the log while it writes INFO: for the lives of executions.
        failures: the same, and the log while it writes ERROR: for failures.
    """

    given: ObserverTuple = ()
    _log: Observer | None = None
    _logger: logging.Logger | None = None
    calls: ObserverTuple = field(init=False)
    lives: ObserverTuple = field(init=False)
    failures: ObserverTuple = field(init=False)
    _detail: int = field(default=0, init=False)
    _reported: set[tuple[int, str]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.calls = self.lives = self.failures = self.given
        self.refresh()

    def refresh(self) -> None:
        """Look up what the logger writes."""
        if (detail := self._logged_detail()) == self._detail:
            return
        self._detail = detail
        both = self.given if self._log is None else (*self.given, self._log)
        self.calls = both if detail >= 3 else self.given
        self.lives = both if detail >= 2 else self.given
        self.failures = both if detail >= 1 else self.given

    def _logged_detail(self) -> int:
        enabled = None if self._logger is None else self._logger.isEnabledFor
        if enabled is None:
            return 0
        return 3 if enabled(logging.DEBUG) else 2 if enabled(logging.INFO) else 1 if enabled(logging.ERROR) else 0

    def tell(self, event: Event) -> None:
        """Call each observer with an event. The log takes of it what its logger would write."""
        for observer in self.given:
            self._call(observer, event)
        if self._detail and self._log is not None:
            self._log.on_event(event)

    def _call(self, observer: Observer, event: Event) -> None:
        began = perf_counter()
        try:
            observer.on_event(event)
        except Exception as exc:  # noqa: BLE001 - an observer harms nothing
            self._report(observer, event, "raised", exc)
        else:
            if (taken := perf_counter() - began) > LONGEST_CALL:
                self._report(observer, event, f"took {taken * 1000:.0f} ms")

    def _report(self, observer: Observer, event: Event, trouble: str, error: Exception | None = None) -> None:
        """Write a warning about an observer, unless there was one of the same kind."""
        key = (id(observer), "slow" if error is None else "raised")
        if key in self._reported:
            return
        self._reported.add(key)
        name = "observer.slow" if error is None else "observer.failed"
        logger.warning(
            "%s %s %s at %s; it is called again with the next event, and this is not reported again",
            name, _shown(observer), trouble, _shown(event), exc_info=error,
        )  # fmt: skip


def _shown(thing: object) -> str:
    try:
        return repr(thing)
    except Exception:  # noqa: BLE001 - the class of the program's own object is all that can be shown
        return f"<{type(thing).__name__}>"
