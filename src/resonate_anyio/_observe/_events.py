"""The events that a worker tells its observers.

An event is made on the event loop, when the state that it tells of has changed as a whole, and each observer is called
with it at once. Events hold plain values: ids, names, states, durations, counts, and exception objects. They never hold
arguments, results, headers or tokens.
"""

from __future__ import annotations

from attrs import frozen

from .._values import ValueObject


@frozen(kw_only=True, eq=False, repr=False)
class Event(ValueObject):
    """What a worker tells its observers. Every event is an instance of one of the subclasses."""


# Calls


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
class ExecutionStarted(ExecutionEvent):
    """The code of an execution begins, and nothing that it did is on record."""


@frozen(kw_only=True, eq=False, repr=False)
class ExecutionReplaying(ExecutionEvent):
    """The code of an execution begins, and is replayed.

    Attributes:
        records: how many records there are below its root.
    """

    records: int


@frozen(kw_only=True, eq=False, repr=False)
class ExecutionParked(ExecutionEvent):
    """The task of an execution is suspended, and its coroutines stay in memory.

    Attributes:
        awaited: how many promises it waits for.
    """

    awaited: int


@frozen(kw_only=True, eq=False, repr=False)
class ExecutionResumed(ExecutionEvent):
    """The task of a parked execution was acquired again, and its code goes on where it was."""


@frozen(kw_only=True, eq=False, repr=False)
class ExecutionHalted(ExecutionEvent):
    """A replay has asked for something else than what is recorded. The worker is about to halt it at the server.

    Attributes:
        error: the `NonDeterminismError`.
    """

    error: BaseException | None


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
class LeaseTaken(Event):
    """A task was acquired.

    Attributes:
        id: the task.
        version: the version at which it was acquired.
    """

    id: str
    version: int


@frozen(kw_only=True, eq=False, repr=False)
class LeaseRenewed(Event):
    """A round of heartbeats was answered. There are none where the server keeps the leases itself.

    Attributes:
        leases: how many leases were renewed.
    """

    leases: int


@frozen(kw_only=True, eq=False, repr=False)
class LeaseLost(Event):
    """Another worker holds the task of an execution, or may. Nothing is recorded for the execution any more.

    Attributes:
        id: the task.
        version: the version at which it was held.
    """

    id: str
    version: int
