"""What heartbeats name, when they are sent, and that a blocked event loop does not hold them up."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
import pytest
from anyio.abc import ObjectReceiveStream
from attrs import define, field

from resonate_anyio import NetworkError
from resonate_anyio._concurrency._loop_monitor import LoopMonitor
from resonate_anyio._execution._lease import Lease
from resonate_anyio._protocol import Message, Request, Response, TaskHeartbeat, TaskRecord, TaskState
from resonate_anyio._requests._requester import Requester
from resonate_anyio._requests._subscriptions import Subscriptions
from resonate_anyio._worker._heartbeats import HeartbeatPlan, LoopHeartbeats, ThreadHeartbeats
from resonate_anyio._worker._leases import Leases
from resonate_anyio.abc import Connection, Dialect, Gap

TTL = 60.0


@define(eq=False)
class FakeConnection(Connection):
    """A server that says yes to everything, and a clock that is moved by hand.

    Attributes:
        asked: the requests.
        silent: none is answered.
        holder: who holds every task.
        takes: how long each answer takes.
    """

    read_as: Dialect = field(factory=Dialect)
    time: float = 0.0
    asked: list[Request] = field(factory=list)
    silent: bool = False
    holder: str = "me"
    takes: float = 0.0
    messages: ObjectReceiveStream[Message | Gap] = field(default=None)

    @property
    def dialect(self) -> Dialect:
        return self.read_as

    def now(self) -> int:
        return int(self.time * 1000)

    def elapsed(self) -> float:
        return self.time

    def send(self, request: Request) -> Response:
        self.asked.append(request)
        self.time += self.takes
        if self.silent:
            raise NetworkError(request.kind, "", "silence")
        task = TaskRecord(id="", state=TaskState.ACQUIRED, version=1, resumes=0, pid=self.holder)
        return Response(status=200, task=task)

    async def request(self, request: Request) -> Response:
        return self.send(request)

    @property
    def named(self) -> list[Sequence[str]]:
        """The tasks that each heartbeat named."""
        return [[ref.id for ref in each.tasks] for each in self.asked if isinstance(each, TaskHeartbeat)]


@define(eq=False)
class Bench:
    """The leases of a worker, and what sends their heartbeats."""

    connection: FakeConnection
    leases: Leases = field(init=False)
    plan: HeartbeatPlan = field(init=False)

    def __attrs_post_init__(self) -> None:
        waiting = Subscriptions()
        requester = Requester(self.connection, waiting)
        self.leases = Leases(self.connection, "me", waiting, requester, TTL, 10.0)
        self.plan = HeartbeatPlan(leases=self.leases, connection=self.connection, holder="me", ttl=TTL)

    def lease(self, id: str) -> Lease:
        lease = Lease(self.leases, id)
        lease.grant(1, self.connection.time)
        return lease

    def round(self) -> None:
        """Do one round."""
        asking = self.plan.round()
        with suppress(StopIteration):
            request = next(asking)
            while True:
                request = asking.send(self._answer(request))

    def _answer(self, request: Request) -> Response | None:
        try:
            return self.connection.send(request)
        except NetworkError:
            return None


@pytest.fixture
def bench() -> Bench:
    return Bench(FakeConnection())


def test_no_lease_no_round(bench: Bench) -> None:
    """Without leases nothing is due, and one that was given back is not renewed."""
    assert bench.plan.delay() is None
    bench.lease("a").end()
    assert bench.plan.delay() is None
    bench.round()
    assert [] == bench.connection.asked


def test_when(bench: Bench) -> None:
    """A lease is renewed when a third of it is over, and those that are nearly as old with it."""
    bench.lease("a")
    assert 20 == bench.plan.delay()
    bench.connection.time = 4
    bench.lease("b")
    bench.connection.time = 12
    bench.lease("c")
    assert 8 == bench.plan.delay()
    bench.connection.time = 20
    bench.round()
    assert [["a", "b"]] == bench.connection.named
    assert 12 == bench.plan.delay()


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (Dialect(), [["a", "a.1", "b.1", "c:1"]]),
        (Dialect(origins_mix=False), [["a", "a.1"], ["b.1"], ["c:1"]]),
        (Dialect(separator=":", origins_mix=False), [["a"], ["a.1"], ["b.1"], ["c:1"]]),
    ],
)
def test_which(bench: Bench, dialect: Dialect, expected: list[list[str]]) -> None:
    """One heartbeat names the tasks of one root, where the server wants that, else of all."""
    bench.connection.read_as = dialect
    for id in ("a", "a.1", "b.1", "c:1"):
        bench.lease(id)
    bench.connection.time = 20
    bench.round()
    assert expected == bench.connection.named


def test_no_more_than_500(bench: Bench) -> None:
    """A heartbeat names 500 tasks at most."""
    for number in range(1201):
        bench.lease(f"t{number}")
    bench.connection.time = 20
    bench.round()
    assert [500, 500, 201] == [len(named) for named in bench.connection.named]


def test_renewed_from_the_sending(bench: Bench) -> None:
    """A lease lasts from when the heartbeat was sent, not from when it was answered."""
    lease = bench.lease("a")
    bench.connection.time = 20
    bench.connection.takes = 7
    bench.round()
    assert 80 == lease.certain_until
    assert 20 == lease.renewed_at


def test_answered_too_late(bench: Bench) -> None:
    """A heartbeat that is answered when the lease may be over already extends nothing."""
    lease = bench.lease("a")
    bench.connection.time = 40
    bench.connection.takes = 20
    bench.round()
    assert 60 == lease.certain_until
    assert not lease.certain


@pytest.mark.parametrize(("time", "certain"), [(0, True), (49.9, True), (50, False), (60, False), (1000, False)])
def test_certain_for_a_request(bench: Bench, time: float, certain: bool) -> None:
    """A lease is certain while it lasts for longer than a request may be under way, and no longer."""
    lease = bench.lease("a")
    bench.connection.time = time
    assert certain == lease.certain


def test_lapsed_leases_are_left_alone(bench: Bench) -> None:
    """What may have lapsed is not renewed by a heartbeat: somebody has to ask whose it is."""
    bench.lease("a")
    bench.connection.time = 60
    assert bench.plan.delay() is None
    bench.round()
    assert [] == bench.connection.asked


def test_looked_at_once_a_minute(bench: Bench) -> None:
    """A lease is asked about once a minute, and one that somebody else has is not certain any more."""
    told: list[str] = []
    bench.leases.observe(doubted=lambda: told.append("doubted"))
    lease = bench.lease("a")
    for instant in range(20, 140, 20):
        bench.connection.time = instant
        bench.round()
    assert [60, 120] == [20 * (1 + index) for index, kinds in enumerate(rounds(bench)) if "task.get" in kinds]
    assert lease.certain
    bench.connection.holder = "somebody else"
    for instant in range(140, 200, 20):
        bench.connection.time = instant
        bench.round()
    assert not lease.certain
    assert ["doubted"] == told


@pytest.mark.parametrize("takes", [0.02, 0.06])
def test_looks_do_not_hold_up_heartbeats(takes: float) -> None:
    """A thousand leases, each looked at once a minute over a slow line, are renewed in time all the same."""
    bench = Bench(FakeConnection())
    leases = [bench.lease(f"w{number}") for number in range(1000)]
    bench.connection.takes = takes
    least = 60.0
    while bench.connection.time < 600:
        delay = bench.plan.delay()
        if delay is None:
            least = 0
            break
        bench.connection.time += delay
        least = min(least, *(lease.certain_until - bench.connection.time for lease in leases))
        bench.round()
        least = min(least, *(lease.certain_until - bench.connection.time for lease in leases))
    assert least > 10


def rounds(bench: Bench) -> list[list[str]]:
    """The kinds of requests, round by round: each begins with a heartbeat."""
    found: list[list[str]] = []
    for request in bench.connection.asked:
        if request.kind == "task.heartbeat":
            found.append([])
        found[-1].append(request.kind)
    return found


def test_silent_server(bench: Bench) -> None:
    """A round ends with the first heartbeat that is not answered twice, and the next one comes later."""
    bench.connection.read_as = Dialect(origins_mix=False)
    for number in range(100):
        bench.lease(f"t{number}")
    bench.connection.time = 20
    bench.connection.silent = True
    bench.round()
    assert 2 == len(bench.connection.asked)
    assert 10 == bench.plan.delay()
    bench.connection.silent = False
    bench.round()
    assert 102 == len(bench.connection.asked)
    assert 20 == bench.plan.delay()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something that another thread does has happened."""
    while not condition():  # noqa: ASYNC110 - a thread knows no event of this loop
        await anyio.sleep(0.001)


@pytest.mark.wall
async def test_a_thread_beats_while_the_loop_is_blocked(caplog: pytest.LogCaptureFixture) -> None:
    """Code that blocks the event loop for longer than a lease costs no lease, and is named in a warning."""
    ttl = 0.6
    waiting = Subscriptions()
    connection = Clocked()
    leases = Leases(connection, "me", waiting, Requester(connection, waiting), ttl, 0.1)
    plan = HeartbeatPlan(leases=leases, connection=connection, holder="me", ttl=ttl)
    heart = ThreadHeartbeats(plan, LoopMonitor(), connection.send, "heart")
    leases.observe(added=heart.wake)
    lease = Lease(leases, "a")
    lease.grant(1, connection.elapsed())
    try:
        with caplog.at_level(logging.WARNING):
            block_until(lambda: len(connection.named) >= 6 and "loop_blocked" in caplog.text)
        assert lease.certain
        assert "block_until" in caplog.text
        assert 1 == caplog.text.count("worker.loop_blocked")
    finally:
        heart.stop()


@define(eq=False)
class Clocked(FakeConnection):
    """The same on the wall clock."""

    def elapsed(self) -> float:
        return time.monotonic()


def block_until(condition: Callable[[], bool]) -> None:
    """Wait as code does that knows nothing of event loops."""
    while not condition():
        time.sleep(0.01)


@pytest.mark.wall
async def test_a_thread_rests_without_leases() -> None:
    """A thread that has no lease to renew waits, begins with the next one, and ends when it is told to."""
    ttl = 0.3
    waiting = Subscriptions()
    connection = Clocked()
    leases = Leases(connection, "me", waiting, Requester(connection, waiting), ttl, 0.01)
    plan = HeartbeatPlan(leases=leases, connection=connection, holder="me", ttl=ttl)
    heart = ThreadHeartbeats(plan, LoopMonitor(), connection.send, "the heart of this test")
    leases.observe(added=heart.wake)
    lease = Lease(leases, "a")
    lease.grant(1, connection.elapsed())
    await until(lambda: len(connection.named) >= 2)
    lease.end()
    await until(lambda: heart._idle)
    sent = len(connection.asked)
    lease.grant(1, connection.elapsed())
    await until(lambda: len(connection.asked) > sent)
    heart.stop()
    await until(lambda: "the heart of this test" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.wall
async def test_a_loop_that_answers_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """A loop that is not blocked is silent for no time, and is not warned about."""
    monitor = LoopMonitor()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert 0 == monitor.silence()
            await until(lambda: math.isinf(monitor.patience))
    assert "" == caplog.text


async def test_from_the_loop() -> None:
    """Where there is no way from a thread, the loop sends the heartbeats, as long as there are leases."""
    waiting = Subscriptions()
    connection = InLoop()
    leases = Leases(connection, "me", waiting, Requester(connection, waiting), TTL, 10.0)
    plan = HeartbeatPlan(leases=leases, connection=connection, holder="me", ttl=TTL)
    heart = LoopHeartbeats(plan, connection, waiting)
    leases.observe(added=heart.wake)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heart.run)
        await anyio.sleep(1000)
        assert [] == connection.asked
        lease = Lease(leases, "a")
        lease.grant(1, connection.elapsed())
        await anyio.sleep(205)
        assert lease.certain
        assert 10 == len(connection.named)
        lease.end()
        await anyio.sleep(1000)
        assert 10 == len(connection.named)
        waiting.begin_to_stop()
        waiting.stop()


@define(eq=False)
class InLoop(FakeConnection):
    """The same on the loop's clock."""

    def elapsed(self) -> float:
        return anyio.current_time()
