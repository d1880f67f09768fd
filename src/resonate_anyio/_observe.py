"""Events: what a worker tells its observers, and how.

An event is made on the event loop, when the state that it tells of has changed as a whole, and each observer is called
with it at once. Events hold plain values: ids, names, states, durations, counts, and exception objects. They never hold
arguments, results, headers or tokens.

Code that makes events asks a tuple of `Observers` first. While that tuple is empty, the test is all that an event
costs: no event object is made, and no function of this package is called.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Final, Protocol, TypeAlias, runtime_checkable

from attrs import define, field, frozen

LONGEST_CALL: Final = 0.05
"""Seconds that an observer may take for one event."""

logger = logging.getLogger("resonate_anyio")


@frozen(kw_only=True)
class Event:
    """What a worker tells its observers. Every event is an instance of one of the subclasses."""


# Calls


@frozen(kw_only=True)
class CallPlanned(Event):
    """A durable function has made a call: its id and its place are known, and nothing is recorded yet.

    A call that its function is cancelled at before it is recorded has no other event.

    Attributes:
        id: the id of the call.
        execution: the id of the execution that makes it.
        operation: the kind of call: `ctx.run`, `ctx.rpc`, `ctx.detached`, `ctx.sleep`, `ctx.promise`, or `choice` for
            what `ctx.now`, `ctx.first` and the like have chosen.
    """

    id: str
    execution: str
    operation: str


@frozen(kw_only=True)
class CallRecorded(Event):
    """The call is on record: it was recorded now, or by an earlier run.

    Attributes:
        id: the id of the call.
        execution: the id of the execution that makes it.
        operation: the kind of call, as in `CallPlanned`.
        state: the state of its promise, such as `pending` or `resolved`.
        replayed: whether an earlier run has recorded it.
    """

    id: str
    execution: str
    operation: str
    state: str
    replayed: bool


@frozen(kw_only=True)
class CallStarted(Event):
    """The function of a call that runs in this execution begins, or is replayed.

    Attributes:
        id: the id of the call.
        execution: the id of the execution that runs it.
        function: the name of the function.
        version: the version of the function.
    """

    id: str
    execution: str
    function: str
    version: int


@frozen(kw_only=True)
class CallRetried(Event):
    """An attempt of a leaf has failed, and there will be another one.

    Attributes:
        id: the id of the call.
        execution: the id of the execution that runs it.
        function: the name of the function.
        version: the version of the function.
        attempt: the number of the attempt that has failed, from 1.
        retry_in: seconds until the next attempt.
        error: what the attempt has raised.
    """

    id: str
    execution: str
    function: str
    version: int
    attempt: int
    retry_in: float
    error: Exception


@frozen(kw_only=True)
class CallSettled(Event):
    """A call that was pending has an outcome.

    Attributes:
        id: the id of the call.
        execution: the id of the execution that has made it.
        state: the state of its promise, such as `resolved` or `rejected`.
        duration: seconds from its creation to its settlement, by the server's clock.
    """

    id: str
    execution: str
    state: str
    duration: float | None


# Attempts of leaves


@frozen(kw_only=True)
class LeafAttemptBegun(Event):
    """The function of a leaf is about to be called.

    Attributes:
        id: the id of the call; the id of the execution, if its root is the leaf.
        execution: the id of the execution that runs it.
        function: the name of the function.
        version: the version of the function.
        attempt: the number of the attempt, from 1. After a crash it begins anew.
    """

    id: str
    execution: str
    function: str
    version: int
    attempt: int


@frozen(kw_only=True)
class LeafAttemptEnded(Event):
    """The function of a leaf has returned, has raised, or was cancelled. Its outcome is not on record yet.

    Attributes:
        id: the id of the call, as in `LeafAttemptBegun`.
        execution: the id of the execution that runs it.
        function: the name of the function.
        version: the version of the function.
        attempt: the number of the attempt, from 1.
        outcome: `returned`, `raised` or `cancelled`.
        error: what it has raised, or None.
        duration: seconds since the attempt began, by the clock of the event loop.
    """

    id: str
    execution: str
    function: str
    version: int
    attempt: int
    outcome: str
    error: Exception | None
    duration: float


# Executions


@frozen(kw_only=True)
class ExecutionEvent(Event):
    """An event in the life of an execution on this worker.

    Attributes:
        id: the id of the execution: of its root promise, and of its task.
        function: the name of its root function.
        version: the version of that function.
        task_version: at which version the task was acquired.
    """

    id: str
    function: str
    version: int
    task_version: int


@frozen(kw_only=True)
class ExecutionStarted(ExecutionEvent):
    """The code of an execution begins, and nothing that it did is on record."""


@frozen(kw_only=True)
class ExecutionReplaying(ExecutionEvent):
    """The code of an execution begins, and is replayed.

    Attributes:
        records: how many records there are below its root.
    """

    records: int


@frozen(kw_only=True)
class ExecutionParked(ExecutionEvent):
    """The task of an execution is suspended, and its coroutines stay in memory.

    Attributes:
        awaited: how many promises it waits for.
    """

    awaited: int


@frozen(kw_only=True)
class ExecutionResumed(ExecutionEvent):
    """The task of a parked execution was acquired again, and its code goes on where it was."""


@frozen(kw_only=True)
class ExecutionHalted(ExecutionEvent):
    """A replay has asked for something else than what is recorded. The worker is about to halt it at the server.

    Attributes:
        error: the `NonDeterminismError`.
    """

    error: BaseException | None


@frozen(kw_only=True)
class ExecutionEnded(ExecutionEvent):
    """An execution has an outcome.

    Attributes:
        state: the state of its promise: `resolved`, `rejected`, `rejected_canceled` or `rejected_timedout`.
        duration: seconds from its creation to its settlement, or None if the settlement is not known here.
        error: what it has failed with, if its own code has, or None.
        by: what has ended it, if that was not the return or the failure of its code, and not its deadline: `outside`,
            `parent`, or another reason for a cancellation.
        awaited: whether code waits for it: code of this process, or a durable function that has called it.
    """

    state: str
    duration: float | None
    error: Exception | None
    by: str | None
    awaited: bool


@frozen(kw_only=True)
class ExecutionDropped(ExecutionEvent):
    """An execution has left memory without an outcome. Its code has ended here, and goes on elsewhere or later.

    Attributes:
        reason: `unloaded` (the worker stops, or has too many in memory), `lost` (another worker has the task, or may),
            `crashed` (the worker or the server failed) or `interrupted` (the program ends).
        error: what went wrong, if that is why.
    """

    reason: str
    error: BaseException | None


# Requests


@frozen(kw_only=True)
class RequestSent(Event):
    """A request is sent to the server for the first time.

    Attributes:
        number: which request of this worker it is, from 1. Its other events have the same number.
        kind: the operation, such as `promise.create`.
        id: the promise, task or schedule that it is about, or None.
    """

    number: int
    kind: str
    id: str | None


@frozen(kw_only=True)
class RequestRetried(Event):
    """A request is sent again, because it was not answered, or because the server could not handle it.

    Attributes:
        number: as in `RequestSent`.
        kind: the operation.
        id: as in `RequestSent`.
        attempt: how often it has been sent, this time included.
    """

    number: int
    kind: str
    id: str | None
    attempt: int


@frozen(kw_only=True)
class RequestAnswered(Event):
    """A request was answered, be it with a refusal.

    Attributes:
        number: as in `RequestSent`.
        kind: the operation.
        id: as in `RequestSent`.
        status: the status of the answer.
        duration: seconds since it was sent.
    """

    number: int
    kind: str
    id: str | None
    status: int
    duration: float


@frozen(kw_only=True)
class RequestUnanswered(Event):
    """A request has ended without an answer.

    Attributes:
        number: as in `RequestSent`.
        kind: the operation.
        id: as in `RequestSent`.
        error: why, or None if it was cancelled.
        duration: seconds since it was sent.
    """

    number: int
    kind: str
    id: str | None
    error: Exception | None
    duration: float


# Leases


@frozen(kw_only=True)
class LeaseTaken(Event):
    """A task was acquired.

    Attributes:
        id: the task.
        version: the version at which it was acquired.
    """

    id: str
    version: int


@frozen(kw_only=True)
class LeaseRenewed(Event):
    """A round of heartbeats was answered. There are none where the server keeps the leases itself.

    Attributes:
        leases: how many leases were renewed.
    """

    leases: int


@frozen(kw_only=True)
class LeaseLost(Event):
    """Another worker holds the task of an execution, or may. Nothing is recorded for the execution any more.

    Attributes:
        id: the task.
        version: the version at which it was held.
    """

    id: str
    version: int


# Telling


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


@define(eq=False)
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
