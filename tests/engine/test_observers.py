"""What observers are told: every event once, in order, on the loop; and that an observer harms nothing."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import asdict, define, field

import resonate_anyio
from resonate_anyio import Context, InvalidArgument, NonDeterminismError, Resonate, Retry, durable
from resonate_anyio._observe import Observers
from resonate_anyio._protocol import Request, Response, TaskGet, TaskHeartbeat
from resonate_anyio._requests._observed import ObservedConnection
from resonate_anyio.abc import Connection, Network
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.observe import (
    CallPlanned,
    CallRecorded,
    CallRetried,
    CallSettled,
    CallStarted,
    Event,
    ExecutionDropped,
    ExecutionEnded,
    ExecutionHalted,
    ExecutionParked,
    ExecutionReplaying,
    ExecutionResumed,
    ExecutionStarted,
    LeafAttemptBegun,
    LeafAttemptEnded,
    LeaseLost,
    LeaseRenewed,
    LeaseTaken,
    RequestAnswered,
    RequestRetried,
    RequestSent,
    RequestUnanswered,
)
from resonate_anyio.stores import MemoryStore

from ..inside import worker_of
from .harness import Oops, Wire, World, creates

PACKAGE = str(Path(resonate_anyio.__file__).parent)
LOGGER = "resonate_anyio.executions"
REQUESTS = (RequestSent, RequestRetried, RequestAnswered, RequestUnanswered)


@define(eq=False)
class Seen:
    """An observer that keeps what it is told."""

    events: list[Event] = field(factory=list)
    threads: set[int] = field(factory=set)

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())

    def of(self, *kinds: type[Event]) -> list[Any]:
        """The events of these classes, in order."""
        return [event for event in self.events if isinstance(event, kinds)]

    def names(self, id: str | None = None) -> list[str]:
        """The classes of the events, in order, without those of requests; of one id only, if that is given."""
        return [
            type(event).__name__
            for event in self.events
            if not isinstance(event, REQUESTS) and id in {None, getattr(event, "id", None)}
        ]


class Raising:
    """An observer that raises at every event."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.told = 0

    def on_event(self, event: Event) -> None:
        del event
        self.told += 1
        raise self.error


class Slow:
    """An observer that takes too long."""

    told = 0

    def on_event(self, event: Event) -> None:
        del event
        self.told += 1
        if self.told <= 3:
            time.sleep(0.06)


@pytest.fixture
def seen() -> Seen:
    """What the observer of a test was told."""
    return Seen()


def observed(
    network: Network, seen: Any, *functions: Callable[..., Any], one_request: bool = True, **settings: Any
) -> Resonate:
    """A `Resonate` object with an observer."""
    resonate = Resonate(network=network, pid="p", observers=[seen], one_request=one_request, **settings)
    for function in functions:
        resonate.register(function)
    return resonate


async def double(x: int, seconds: float = 1) -> int:
    await anyio.sleep(seconds)
    return x * 2


async def flow(ctx: Context, x: int) -> int:
    return await ctx.run(double, x)


async def wait(ctx: Context) -> Any:
    await ctx.run(double, 1)
    return await ctx.promise().named("answer")


def about(event: Any) -> dict[str, Any]:
    """The fields of an event, its durations left out."""
    return {name: value for name, value in asdict(event, recurse=False).items() if name != "duration"}


# One call


async def test_a_live_workflow_in_order(network: Network, seen: Seen) -> None:
    """Each step of an execution with one leaf is told once, in the order in which it happens."""
    async with observed(network, seen, flow) as resonate:
        await resonate.run("w", flow, 1234)
    assert [
        "LeaseTaken",
        "ExecutionStarted",
        "CallPlanned",
        "CallStarted",
        "LeafAttemptBegun",
        "CallRecorded",
        "LeafAttemptEnded",
        "CallSettled",
        "ExecutionEnded",
    ] == seen.names()


async def test_a_short_step_in_order(network: Network, seen: Seen) -> None:
    """A step that is recorded once is told to be on record, with its outcome, after it has run."""

    async def short(ctx: Context) -> int:
        return await ctx.run(double, 2, 0)

    async with observed(network, seen, short, one_request=True) as resonate:
        await resonate.run("w", short)
    assert [
        "CallPlanned",
        "CallStarted",
        "LeafAttemptBegun",
        "LeafAttemptEnded",
        "CallRecorded",
        "CallSettled",
    ] == seen.names("w.double-1")
    [recorded] = seen.of(CallRecorded)
    assert ("resolved", False) == (recorded.state, recorded.replayed)


async def test_what_the_events_of_a_live_workflow_say(network: Network, seen: Seen) -> None:
    """Ids, names, states and durations; nothing of arguments and results."""
    async with observed(network, seen, flow) as resonate:
        await resonate.run("w", flow, 1234)
    call = {"id": "w.double-1", "execution": "w"}
    life = {"id": "w", "function": "flow", "version": 1, "task_version": 1}
    leaf = {**call, "function": "double", "version": 1, "attempt": 1}
    assert [
        {"id": "w", "version": 1},
        life,
        {**call, "operation": "ctx.run"},
        {**call, "function": "double", "version": 1},
        leaf,
        {**call, "operation": "ctx.run", "state": "pending", "replayed": False},
        {**leaf, "outcome": "returned", "error": None},
        {**call, "state": "resolved"},
        {**life, "state": "resolved", "error": None, "by": None, "awaited": True},
    ] == [about(event) for event in seen.events if not isinstance(event, REQUESTS)]
    [attempt, settled, ended] = seen.of(LeafAttemptEnded, CallSettled, ExecutionEnded)
    assert 1 == pytest.approx(attempt.duration)
    # A step that takes longer than 50 ms is put on record when it has taken them.
    assert 0.95 <= settled.duration <= ended.duration < 2
    assert "1234" not in repr(seen.events)
    assert "2468" not in repr(seen.events)


async def test_all_events_are_on_the_loop(network: Network, seen: Seen) -> None:
    """Also those of a leaf that runs in a thread."""

    def plain() -> int:
        return 7

    async def outer(ctx: Context) -> int:
        return await ctx.run(plain)

    async with observed(network, seen, outer) as resonate:
        await resonate.run("w", outer)
    assert ["LeafAttemptBegun", "LeafAttemptEnded"] == [
        type(event).__name__ for event in seen.of(LeafAttemptBegun, LeafAttemptEnded)
    ]
    assert {threading.get_ident()} == seen.threads


async def test_a_root_that_is_a_leaf(network: Network, seen: Seen) -> None:
    """It makes no call: there are its attempt and its execution."""
    async with observed(network, seen, double) as resonate:
        await resonate.run("w", double, 1)
    names = ["LeaseTaken", "ExecutionStarted", "LeafAttemptBegun", "LeafAttemptEnded", "ExecutionEnded"]
    assert names == seen.names()


async def test_retries(network: Network, seen: Seen) -> None:
    """Each attempt begins and ends; between two of them the retry is told with its pause and the error itself."""
    errors = [Oops("first"), Oops("second")]

    async def flaky() -> str:
        if errors_left:
            raise errors_left.pop(0)
        return "yes"

    async def outer(ctx: Context) -> str:
        return await ctx.run(flaky).retry(Retry(delay=1, jitter=0))

    errors_left = [*errors]
    async with observed(network, seen, outer) as resonate:
        await resonate.run("w", outer)
    attempt = ["LeafAttemptBegun", "LeafAttemptEnded"]
    assert [
        "CallPlanned", "CallStarted",
        *attempt, "CallRetried", "CallRecorded", *attempt, "CallRetried", *attempt, "CallSettled",
    ] == seen.names("w.flaky-1")  # fmt: skip
    assert [1, 2, 3] == [event.attempt for event in seen.of(LeafAttemptBegun)]
    ended = seen.of(LeafAttemptEnded)
    assert [(1, "raised", errors[0]), (2, "raised", errors[1]), (3, "returned", None)] == [
        (event.attempt, event.outcome, event.error) for event in ended
    ]
    assert [(1, 1.0, errors[0]), (2, 2.0, errors[1])] == [
        (event.attempt, event.retry_in, event.error) for event in seen.of(CallRetried)
    ]


async def test_a_failure_has_its_error(network: Network, seen: Seen) -> None:
    """The end of an execution that has failed has the exception that its function raised."""
    error = Oops("no unicorns")

    async def fail() -> None:
        raise error

    async with observed(network, seen, fail) as resonate:
        with pytest.raises(Oops):
            await resonate.run("w", fail)
    [ended] = seen.of(ExecutionEnded)
    assert ("rejected", error, True) == (ended.state, ended.error, ended.awaited)


async def test_cancellations(network: Network, seen: Seen) -> None:
    """A call that a scope cancels is settled, and its attempt was cancelled; a cancelled execution says by what."""

    async def outer(ctx: Context) -> None:
        with anyio.move_on_after(1):
            await ctx.run(anyio.sleep_forever).named("long")
        await ctx.promise().named("never")

    async with observed(network, seen, outer) as resonate:
        await resonate.run("w", outer).spawn()
        await anyio.sleep(5)
        await resonate.cancel("w")
        await anyio.sleep(5)
    [attempt] = seen.of(LeafAttemptEnded)
    assert ("cancelled", None) == (attempt.outcome, attempt.error)
    settled = [(event.id, event.state) for event in seen.of(CallSettled)]
    assert ("w.long", "rejected_canceled") in settled
    [ended] = seen.of(ExecutionEnded)
    assert ("rejected_canceled", "outside", None) == (ended.state, ended.by, ended.error)


async def test_remote_calls_and_sleeps(network: Network, seen: Seen) -> None:
    """Calls of every kind are planned, recorded and settled, and what they are is told by their operation."""

    async def outer(ctx: Context) -> None:
        await ctx.sleep(1)
        await ctx.rpc(double, 1)
        await ctx.detached(double, 2)

    async with observed(network, seen, outer, double) as resonate:
        await resonate.run("w", outer)
        await anyio.sleep(5)
    calls = [event for event in seen.of(CallPlanned, CallRecorded, CallSettled) if event.execution == "w"]
    operations = {event.id: event.operation for event in calls if isinstance(event, CallPlanned)}
    assert ["ctx.sleep", "ctx.rpc", "ctx.detached"] == list(operations.values())
    assert [
        ("CallPlanned", "ctx.sleep"), ("CallRecorded", "ctx.sleep"), ("CallSettled", "ctx.sleep"),
        ("CallPlanned", "ctx.rpc"), ("CallRecorded", "ctx.rpc"), ("CallSettled", "ctx.rpc"),
        ("CallPlanned", "ctx.detached"), ("CallRecorded", "ctx.detached"),
    ] == [(type(event).__name__, operations[event.id]) for event in calls]  # fmt: skip


# Lives


async def test_a_replay_in_order(world: World, seen: Seen) -> None:
    """A call with an outcome on record is planned and recorded again, and not run or settled again."""
    process = world.process(wait)
    process.kill_at(creates("w.answer"), answered=True)
    await world.run_until_killed(process, "w", wait)
    async with world.process(wait, observers=[seen]) as again:
        await again.resonate.promises.resolve("w.answer", 7)
        await (await again.resonate.get("w"))
    assert ["CallPlanned", "CallRecorded"] == seen.names("w.double-1")
    [first, *_] = seen.of(CallRecorded)
    assert ("w.double-1", "resolved", True) == (first.id, first.state, first.replayed)
    assert [] == seen.of(ExecutionStarted, LeafAttemptBegun)
    [replaying] = seen.of(ExecutionReplaying)
    assert ("w", 2) == (replaying.id, replaying.records)
    assert "ExecutionEnded" == seen.names()[-1]


async def test_a_process_that_dies(world: World, seen: Seen) -> None:
    """A crash has no events but the failures that it makes: no outcome is told that is not on record."""
    process = world.process(wait, observers=[seen])
    process.kill_at(creates("w.answer"), answered=False)
    await world.run_until_killed(process, "w", wait)
    assert [] == seen.of(ExecutionEnded)
    assert ["w.double-1"] == [event.id for event in seen.of(CallSettled)]
    assert ["w.double-1"] == [event.id for event in seen.of(CallRecorded)]
    [dropped] = seen.of(ExecutionDropped)
    assert dropped.reason in {"crashed", "unloaded"}


async def test_parking_and_resuming(wire: Wire, seen: Seen) -> None:
    """The lease that is taken back is told, and then that the execution goes on."""
    async with observed(wire, seen, wait, hot_for=1) as resonate:
        handle = await resonate.run("w", wait).spawn()
        await anyio.sleep(300)
        await resonate.promises.resolve("w.answer")
        await handle
    assert [
        "LeaseTaken", "ExecutionStarted", "ExecutionParked", "LeaseTaken", "ExecutionResumed", "ExecutionEnded",
    ] == seen.names("w")  # fmt: skip
    [parked] = seen.of(ExecutionParked)
    assert (1, 1) == (parked.awaited, parked.task_version)
    assert [1, 2] == [event.version for event in seen.of(LeaseTaken)]
    [resumed] = seen.of(ExecutionResumed)
    assert 2 == resumed.task_version


async def test_a_stop_drops(network: Network, seen: Seen) -> None:
    """What the worker unloads when it stops is told when its code has ended."""
    async with observed(network, seen, wait) as resonate:
        await resonate.run("w", wait).spawn()
        await anyio.sleep(5)
    [dropped] = seen.of(ExecutionDropped)
    assert ("w", "unloaded", None) == (dropped.id, dropped.reason, dropped.error)
    assert [] == seen.of(ExecutionEnded, LeaseLost)


async def test_a_lost_lease(wire: Wire, seen: Seen) -> None:
    """First that the lease is lost, then that the execution has left memory."""
    async with observed(wire, seen, wait) as resonate:
        await resonate.run("w", wait).spawn()
        await anyio.sleep(5)
        wire.answer = lambda request: Response(status=404, error="gone") if isinstance(request, TaskGet) else None
        worker_of(resonate).executions["w"].suspension.verify_lease()
        await anyio.sleep(5)
    assert ["LeaseTaken", "ExecutionStarted", "LeaseLost", "ExecutionDropped"] == seen.names("w")
    [lost, dropped] = seen.of(LeaseLost, ExecutionDropped)
    assert ("w", 1, "lost") == (lost.id, lost.version, dropped.reason)


async def test_a_halt(world: World, seen: Seen) -> None:
    """A halted execution is told with the error, and not as one that has ended or was dropped."""
    process = world.process(wait)
    process.kill_at(creates("w.answer"), answered=True)
    await world.run_until_killed(process, "w", wait)

    async def changed(ctx: Context) -> None:
        await ctx.run(double, 1).named("other")
        await ctx.rpc(double, 1).named("answer")

    async with world.process(durable(name="wait")(changed), observers=[seen]) as again:
        with pytest.raises(NonDeterminismError):
            await (await again.resonate.get("w"))
    [halted] = seen.of(ExecutionHalted)
    assert isinstance(halted.error, NonDeterminismError)
    assert [] == seen.of(ExecutionEnded, ExecutionDropped)


async def test_what_a_worker_fails_under(wire: Wire, seen: Seen) -> None:
    """A crash is told with its error, and the execution begins again."""
    failure = ZeroDivisionError("out of order")

    def broken(request: Request) -> Response | None:
        if creates("w.double-1")(request):
            wire.answer = lambda _: None
            raise failure
        return None

    wire.answer = broken
    async with observed(wire, seen, flow, one_request=False) as resonate:
        await resonate.rpc("w", flow, 1)
    assert ["LeaseTaken", "ExecutionStarted", "ExecutionDropped"] * 2 == [
        name for name in seen.names("w") if name != "ExecutionEnded"
    ] + ["ExecutionDropped"]
    [dropped] = seen.of(ExecutionDropped)
    assert ("crashed", failure) == (dropped.reason, dropped.error)


async def test_heartbeats(network: Network, seen: Seen) -> None:
    """One event a round says how many leases were renewed, where leases lapse."""

    async def long() -> None:
        await anyio.sleep(100)

    async with observed(Wire(network, lapsing=True), seen, long) as resonate, anyio.create_task_group() as tasks:
        for id in ("a", "b", "c"):
            tasks.start_soon(_run, resonate, id, long)
    renewed = seen.of(LeaseRenewed)
    beats = [event for event in seen.of(RequestAnswered) if event.kind == "task.heartbeat"]
    assert 3 <= len(renewed) <= len(beats)
    assert {3} == {event.leases for event in renewed}


async def _run(resonate: Resonate, id: str, func: Callable[..., Any]) -> None:
    await resonate.run(id, func)


# Requests


async def test_requests(network: Network, seen: Seen) -> None:
    """Each request is sent once and answered once, and the two have one number."""
    async with observed(network, seen, flow) as resonate:
        await resonate.run("w", flow, 1)
    sent, answered = seen.of(RequestSent), seen.of(RequestAnswered)
    assert [("task.create", "w"), ("promise.create", "w.double-1"), ("promise.settle", "w.double-1")] == [
        (event.kind, event.id) for event in sent if event.kind != "promise.register_listener"
    ][:3]
    assert [(event.number, event.kind, event.id) for event in sent] == sorted(
        (event.number, event.kind, event.id) for event in answered
    )
    assert list(range(1, len(sent) + 1)) == [event.number for event in sent]
    assert {200} == {event.status for event in answered}
    assert all(event.duration >= 0 for event in answered)
    assert [] == seen.of(RequestRetried, RequestUnanswered)


async def test_a_request_that_is_not_answered_is_retried(wire: Wire, seen: Seen) -> None:
    """The failure is told with its error, and each further attempt has the number of the first."""
    failures = [resonate_anyio.NetworkError("promise.create", "", "away") for _ in range(2)]
    left = [*failures]

    async def before(request: Request) -> None:
        if creates("w.double-1")(request) and left:
            raise left.pop(0)

    wire.before = before
    async with observed(wire, seen, flow) as resonate:
        await resonate.run("w", flow, 1)
    events = [event for event in seen.of(*REQUESTS) if event.kind == "promise.create"]
    assert [
        "RequestSent", "RequestUnanswered", "RequestRetried", "RequestUnanswered", "RequestRetried", "RequestAnswered",
    ] == [type(event).__name__ for event in events]  # fmt: skip
    assert 1 == len({event.number for event in events})
    assert failures == [event.error for event in seen.of(RequestUnanswered)]
    assert [2, 3] == [event.attempt for event in seen.of(RequestRetried)]


async def test_a_server_that_cannot_answer(wire: Wire, seen: Seen) -> None:
    """An answer that asks for patience is told with its status, and the request is retried."""
    refused = [503]

    def answer(request: Request) -> Response | None:
        return Response(status=refused.pop()) if creates("w.double-1")(request) and refused else None

    wire.answer = answer
    async with observed(wire, seen, flow) as resonate:
        await resonate.run("w", flow, 1)
    events = [event for event in seen.of(*REQUESTS) if event.kind == "promise.create"]
    assert ["RequestSent", "RequestAnswered", "RequestRetried", "RequestAnswered"] == [
        type(event).__name__ for event in events
    ]
    assert [503, 200] == [event.status for event in events if isinstance(event, RequestAnswered)]


async def test_a_request_that_is_cancelled(wire: Wire, seen: Seen) -> None:
    """Every request that was sent ends: one whose caller is cancelled has no error."""

    async def before(request: Request) -> None:
        if request.kind == "promise.get":
            await anyio.sleep_forever()

    wire.before = before
    async with observed(wire, seen) as resonate:
        with anyio.move_on_after(1):
            await resonate.promises.get("p")
    [unanswered] = seen.of(RequestUnanswered)
    assert ("promise.get", "p", None) == (unanswered.kind, unanswered.id, unanswered.error)


@define(eq=False)
class _Threaded(Connection):
    """A connection whose requests may be sent from a thread: the second one is not answered."""

    error: Exception
    sent: int = 0

    def __attrs_post_init__(self) -> None:
        send, self.messages = anyio.create_memory_object_stream[Any]()
        send.close()
        self.blocking_request = self._send

    def _send(self, request: Request) -> Response:
        self.sent += 1
        if self.sent == 2:
            raise self.error
        return Response(status=200)

    def now(self) -> int:
        return 0

    async def request(self, request: Request) -> Response:
        raise NotImplementedError


async def test_requests_of_a_thread(seen: Seen) -> None:
    """What a thread sends, as heartbeats are sent, is told on the loop, in order."""
    error = Oops("away")
    connection = ObservedConnection(_Threaded(error), Observers((seen,)))

    def beat() -> None:
        assert connection.blocking_request is not None
        request = TaskHeartbeat(pid="p", tasks=())
        connection.blocking_request(request)
        with pytest.raises(Oops):
            connection.blocking_request(request)

    await anyio.to_thread.run_sync(beat)
    await anyio.sleep(1)
    await connection.messages.aclose()
    assert ["RequestSent", "RequestAnswered", "RequestRetried", "RequestUnanswered"] == [
        type(event).__name__ for event in seen.events
    ]
    assert {(1, "task.heartbeat")} == {(event.number, event.kind) for event in seen.of(*REQUESTS)}
    assert {threading.get_ident()} == seen.threads


# Observers that misbehave


async def test_an_observer_that_raises_harms_nothing(
    network: Network, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, with the event; it goes on being called, and those after it are told everything."""
    raising = Raising(Oops("observer"))
    resonate = Resonate(network=network, observers=[raising, seen])
    resonate.register(flow)
    async with resonate:
        assert 14 == await resonate.run("w", flow, 7)
    [line] = [record for record in caplog.records if record.getMessage().startswith("observer.")]
    assert line.levelname == "WARNING"
    assert line.getMessage().startswith(f"observer.failed {raising!r} raised at RequestSent(")
    assert line.exc_info is not None
    assert line.exc_info[1] is raising.error
    assert raising.told == len(seen.events) > 10


async def test_a_slow_observer_is_reported_once(network: Network, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """One that takes over 50 ms is named with the event, once, and goes on being called."""
    slow = Slow()
    resonate = Resonate(network=network, observers=[slow, seen])
    resonate.register(flow)
    async with resonate:
        assert 14 == await resonate.run("w", flow, 7)
    lines = [record.getMessage() for record in caplog.records if "observer.slow" in record.getMessage()]
    [line] = [each for each in lines if repr(slow) in each]
    assert "at RequestSent(" in line
    assert slow.told == len(seen.events)


async def test_an_observer_whose_repr_raises(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Then the report has its class."""

    class Odd(Raising):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    resonate = Resonate(network=network, observers=[Odd(Oops())])
    resonate.register(double)
    async with resonate:
        assert 14 == await resonate.run("w", double, 7)
    assert "observer.failed <Odd> raised at RequestSent(" in caplog.text


def test_an_interrupt_in_an_observer_passes() -> None:
    """What is no `Exception` ends the program, as anywhere else in it."""
    observers = Observers((Raising(KeyboardInterrupt()),))
    with pytest.raises(KeyboardInterrupt):
        observers.tell(LeaseRenewed(leases=1))


@pytest.mark.parametrize("wrong", [object(), Seen, lambda _: None])
def test_what_is_no_observer_is_refused(wrong: Any) -> None:
    """An object without the method, or a class instead of an object, is refused when it is given."""
    with pytest.raises(InvalidArgument, match="an observer is an object with a method on_event"):
        Resonate(observers=[wrong])


# The log is one of them


async def test_a_level_that_is_set_while_a_worker_runs(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Lines of executions begin at once, and those of calls half a second after the first call at the latest."""

    async def many(ctx: Context) -> None:
        for _ in range(20):
            await ctx.run(anyio.sleep, 0.1)

    async with Resonate(network=network) as resonate:
        resonate.register(many)
        await resonate.run("quiet", many)
        handle = await resonate.run("w", many).spawn()
        await anyio.sleep(1.05)
        assert "" == caplog.text
        caplog.set_level(logging.DEBUG, LOGGER)
        await handle
        caplog.set_level(logging.INFO, LOGGER)
        await resonate.run("later", many)
    calls = [record.getMessage() for record in caplog.records if record.levelname == "DEBUG"]
    assert 5 * 3 - 1 <= len(calls) <= 10 * 3
    assert all("execution=w " in line for line in calls)
    assert "execution.completed id=w " in caplog.text
    assert "execution.started id=later " in caplog.text


async def test_observers_hear_what_the_log_does_not_write(
    network: Network, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """The level of the logger is for the log only, and an observer does not make the log write more."""
    async with observed(network, seen, flow) as resonate:
        await resonate.run("w", flow, 1)
    assert 1 == len(seen.of(CallStarted))
    assert "" == caplog.text


# What they cost


async def test_without_observers_a_call_makes_no_event(clock: Callable[[], int]) -> None:
    """No function of the modules about events is called during a step, and no connection is in between."""
    called: list[str] = []

    def profile(frame: Any, event: str, _: object) -> None:
        file = Path(frame.f_code.co_filename)
        about_events = file.name in {"_events.py", "_log.py", "_observed.py"} or file.parent.name == "_observe"
        if event == "call" and file.is_relative_to(PACKAGE) and about_events:
            called.append(frame.f_code.co_qualname)

    async def steps(ctx: Context) -> None:
        await ctx.run(instant)
        sys.setprofile(profile)
        await ctx.run(instant)
        await ctx.run(instant)
        sys.setprofile(None)

    async def instant() -> None:
        pass

    async with Resonate(network=LocalNetwork(MemoryStore(), clock=clock)) as resonate:
        resonate.register(steps)
        await resonate.run("w", steps)
    assert [] == called


async def test_events_can_be_written_down(network: Network, seen: Seen) -> None:
    """Fields are plain values: every event can be made JSON, but for exceptions."""
    async with observed(network, seen, flow) as resonate:
        await resonate.run("w", flow, 1)
    written = [json.dumps(asdict(event, recurse=False)) for event in seen.events]
    assert '{"id": "w.double-1", "execution": "w", "operation": "ctx.run"}' in written
