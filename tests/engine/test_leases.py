"""Leases where they lapse: heartbeats, what happens when they are not answered, and answers that are lost.

The network is the embedded one, seen through a wire that makes leases lapse. A lease lasts 60 seconds, and a request
may be under way for 10.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
import pytest
from attrs import define, field

from resonate_anyio import Context, Exponential, NetworkError, NotRunning, Resonate, TooLarge, durable
from resonate_anyio._execution._execution import Execution
from resonate_anyio._execution._phases import Phase
from resonate_anyio._protocol import (
    PromiseSearch,
    PromiseSettle,
    RegisterListener,
    Request,
    Response,
    TaskAcquire,
    TaskCreate,
    TaskRelease,
)
from resonate_anyio._workflow._host import Drop
from resonate_anyio.abc import Gap
from resonate_anyio.networks import LocalNetwork

from ..inside import worker_of
from .harness import Look, Wanted, Wire, creates, nothing, settles


@pytest.fixture
def wire(network: LocalNetwork) -> Wire:
    """What the `resonate` fixture says to an engine that does not renew its leases."""
    return Wire(network, lapsing=True)


@define(eq=False)
class Line:
    """Makes requests fail as they do when a server cannot be reached.

    Attributes:
        down: none is answered.
        failed: the kinds of those that were not.
    """

    wire: Wire
    down: bool = False
    failed: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.wire.before = self._before

    async def _before(self, request: Request) -> None:
        if self.down:
            self.fail(request)

    def fail(self, request: Request) -> None:
        self.failed.append(request.kind)
        raise NetworkError(request.kind, "", "the server is away")

    def lose_answers(self, wanted: Wanted, times: int = 1) -> None:
        """Requests that are `wanted` have their effect, and so many are not answered."""

        async def after(request: Request, _: Response) -> None:
            nonlocal times
            if times and wanted(request):
                times -= 1
                self.fail(request)

        self.wire.after = after


@pytest.fixture
def line(wire: Wire) -> Line:
    """What the requests of `resonate` go through."""
    return Line(wire)


@define(eq=False)
class Runs:
    """A workflow of three steps, the second of which takes long."""

    length: float = 1000
    ran: list[str] = field(factory=list)

    async def flow(self, ctx: Context) -> list[str]:
        self.ran.append("flow")
        return [await ctx.run(self.step, name, seconds) for name, seconds in (("a", 0), ("b", self.length), ("c", 0))]

    async def step(self, name: str, seconds: float) -> str:
        await anyio.sleep(seconds)
        self.ran.append(name)
        return name

    def register(self, resonate: Resonate) -> None:
        resonate.register(self.flow, name="flow")
        resonate.register(self.step, name="step")


ONCE = ["flow", "a", "b", "c"]


async def test_a_lease_is_kept_alive(resonate: Resonate, wire: Wire) -> None:
    """What runs for longer than its lease lasts keeps it, with a heartbeat every third of it."""
    runs = Runs()
    runs.register(resonate)
    async with resonate:
        assert ["a", "b", "c"] == await resonate.run("w", "flow")
    assert ONCE == runs.ran
    assert 1 == wire.counts()["task.create"]
    assert 40 <= wire.counts()["task.heartbeat"] <= 55
    # Whether it is still ours is asked once a minute.
    assert 12 <= wire.counts()["task.get"] <= 18


async def test_short_executions_cost_nothing(resonate: Resonate, wire: Wire) -> None:
    """What is over before a third of its lease is sends no heartbeat."""
    runs = Runs(length=15)
    runs.register(resonate)
    async with resonate:
        for number in range(5):
            await resonate.run(f"w{number}", "flow")
    assert "task.heartbeat" not in wire.counts()
    assert "task.get" not in wire.counts()


async def test_idle_workers_send_nothing(resonate: Resonate, wire: Wire) -> None:
    """A worker without leases sends no heartbeats."""
    runs = Runs(length=15)
    runs.register(resonate)
    async with resonate:
        await resonate.run("w", "flow")
        wire.forget()
        await anyio.sleep(80_000)
    assert [] == wire.exchanges


async def test_server_away_within_the_lease(resonate: Resonate, wire: Wire, line: Line) -> None:
    """A server that cannot be reached for a while costs nothing but that time: code goes on where it is."""
    runs = Runs(length=50)
    runs.register(resonate)
    async with resonate:
        handle = await resonate.run("w", "flow").spawn()
        await anyio.sleep(25)
        line.down = True
        await anyio.sleep(30)
        assert ["flow", "a", "b"] == runs.ran
        line.down = False
        assert ["a", "b", "c"] == await handle
    assert ONCE == runs.ran
    assert 1 == (await version(wire, "w"))
    assert 30 > len(line.failed)


async def version(wire: Wire, id: str) -> int:
    """The version at which a task was settled."""
    versions = [exchange.request for exchange in wire.exchanges if exchange.request.kind == "task.fulfill"]
    return versions[-1].version  # type: ignore[union-attr]


async def test_server_away_for_longer_than_the_lease(resonate: Resonate, wire: Wire, line: Line) -> None:
    """A lease that has lapsed while nobody could be told is taken again, and the code goes on; no step runs twice."""
    runs = Runs(length=50)
    runs.register(resonate)
    async with resonate:
        handle = await resonate.run("w", "flow").spawn()
        await anyio.sleep(25)
        line.down = True
        await anyio.sleep(400)
        assert ["flow", "a", "b"] == runs.ran
        line.down = False
        assert ["a", "b", "c"] == await handle
    assert ONCE == runs.ran
    assert 2 == (await version(wire, "w"))
    # It was asked with growing pauses.
    assert 60 > len(line.failed)


async def test_lease_taken_over(resonate: Resonate, network: LocalNetwork, wire: Wire, line: Line) -> None:
    """Whoever has lost the task to somebody else writes nothing more: what counts is what that one does."""
    runs, others = Runs(length=300), Runs(length=100)
    runs.register(resonate)
    other = Resonate(network=network, pid="other")
    others.register(other)
    async with resonate:
        handle = await resonate.rpc("w", "flow").spawn()
        await anyio.sleep(1)
        line.down = True
        async with other:
            with anyio.fail_after(280):
                assert ["a", "b", "c"] == await (await other.get("w", list[str]))
        line.down = False
        wire.forget()
        with anyio.fail_after(500):
            assert ["a", "b", "c"] == await handle
        await anyio.sleep(500)
    assert ["flow", "b", "c"] == others.ran
    assert ["flow", "a"] == runs.ran[:2]
    assert "c" not in runs.ran
    assert [] == [id for id, _ in wire.settled() if id != "w.step-2"]
    assert [] == wire.created()


async def test_nothing_begins_while_the_lease_is_in_doubt(resonate: Resonate, wire: Wire) -> None:
    """An answer that comes so late that the lease may be over by then begins no step."""
    began: list[float] = []

    async def step() -> None:
        began.append(anyio.current_time())

    async def flow(ctx: Context) -> None:
        await ctx.run(step)

    async def late(request: Request, _: Response) -> None:
        if creates("w.step-1")(request):
            await anyio.sleep(55)

    wire.after = late
    # Heartbeats would keep the lease.
    wire.answer = lambda request: Response(status=503) if request.kind == "task.heartbeat" and not began else None
    resonate.register(flow)
    resonate.register(step)
    async with resonate:
        start = anyio.current_time()
        handle = await resonate.run("w", flow).spawn()
        await anyio.sleep(100)
        assert [] == began
        wire.answer = lambda _: None
        await handle
    assert 100 < began[0] - start
    assert 1 == len(began)


async def test_no_attempt_begins_on_a_lease_that_lapsed_while_it_was_taken_back(
    resonate: Resonate, network: LocalNetwork, wire: Wire
) -> None:
    """A lease that is over when the execution is hot again is none: no leaf is run beside its new holder."""
    began: list[float] = []
    start = anyio.current_time()
    down = trap = False

    @durable(retry=Exponential(attempts=5, delay=1))
    async def step() -> None:
        began.append(anyio.current_time() - start)
        await anyio.sleep(70)
        raise OSError

    async def flow(ctx: Context) -> None:
        await ctx.gather(ctx.rpc("nothing").target("poll://any@nobody").timeout(3000), ctx.run(step))

    async def before(request: Request) -> None:
        nonlocal down
        # The line breaks for a second time just when the lease has been taken back.
        if trap and isinstance(request, RegisterListener) and "nothing" in request.awaited:
            down = True
        if down:
            fail(request)

    for function in (flow, step):
        resonate.register(function)
    async with resonate, Resonate(network=network, group="others") as other:
        await resonate.run("w", flow).spawn()
        await anyio.sleep(2)
        wire.before, down = before, True
        await anyio.sleep(98)
        trap, down = True, False
        await anyio.sleep(110)
        # Its lease has lapsed once more, and now somebody else has the task.
        taken = TaskAcquire(id="w", version=2, pid="somebody", ttl=1_000_000)
        assert 200 == (await Look(other).request(taken)).status
        trap = down = False
        await anyio.sleep(250)
        wire.before = nothing
    assert 1 == len(began)


async def test_finished_leaf_is_recorded_without_a_lease(resonate: Resonate, wire: Wire) -> None:
    """What a leaf has done is a fact: it is recorded although nobody can say whose the task is by now."""
    runs = Runs(length=200)
    runs.register(resonate)

    def deaf(request: Request) -> Response | None:
        return Response(status=503) if request.kind in {"task.heartbeat", "task.get"} else None

    wire.answer = deaf
    async with resonate:
        handle = await resonate.run("w", "flow").spawn()
        await anyio.sleep(201)
        assert ("w.step-2", "resolved") in wire.settled()
        assert "w.step-3" not in wire.created()
        wire.answer = lambda _: None
        assert ["a", "b", "c"] == await handle
    assert ONCE == runs.ran


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_that_passes_does_not_undo_a_leaf(resonate: Resonate, wire: Wire, status: int) -> None:
    """What a leaf has done is recorded although a gateway has turned the worker away for a moment."""
    ran: list[str] = []
    refused: list[Request] = []

    async def step() -> str:
        ran.append("step")
        return "done"

    async def flow(ctx: Context) -> str:
        return await ctx.run(step)

    def turned_away(request: Request) -> Response | None:
        if not settles("w.step-1")(request) or refused:
            return None
        refused.append(request)
        return Response(status=status, error="not now")

    wire.answer = turned_away
    for function in (flow, step):
        resonate.register(function)
    async with resonate:
        handle = await resonate.run("w", flow).spawn()
        await anyio.sleep(200)
        assert "resolved" == (await Look(resonate).promise("w")).state.value
        del handle
    assert ["step"] == ran


async def test_a_record_that_is_gone_is_no_outcome(resonate: Resonate, wire: Wire) -> None:
    """A server that does not know a step (it was restored from a backup) is a failure of the platform."""

    async def step() -> str:
        return "done"

    async def flow(ctx: Context) -> str:
        return await ctx.run(step)

    def gone(request: Request) -> Response | None:
        missing = isinstance(request, PromiseSettle) and request.id == "w.step-1"
        return Response(status=404, error="not found") if missing else None

    wire.answer = gone
    resonate.register(flow)
    resonate.register(step)
    async with resonate:
        handle = await resonate.run("w", flow).spawn()
        await anyio.sleep(10)
        assert "pending" == (await Look(resonate).promise("w")).state.value
        wire.answer = lambda _: None
        with anyio.fail_after(600):
            assert "done" == await handle


LOST: dict[str, Callable[[Request], bool]] = {
    "create": creates("w.step-2"),
    "settle": settles("w.step-2"),
    "fulfil": settles("w"),
    "start": creates("w"),
}


@pytest.mark.parametrize("lost", LOST)
async def test_lost_answers(resonate: Resonate, wire: Wire, line: Line, lost: str) -> None:
    """Whichever answer is lost, the request is sent again, or its effect is found: nothing runs twice."""
    runs = Runs(length=1)
    runs.register(resonate)
    line.lose_answers(LOST[lost], times=2)
    async with resonate:
        with anyio.fail_after(60):
            assert ["a", "b", "c"] == await resonate.run("w", "flow")
    assert ONCE == runs.ran
    assert 2 == len(line.failed)


async def test_lost_answer_to_an_acquire(resonate: Resonate, wire: Wire, line: Line) -> None:
    """A task that was granted by an answer which never came is not left lying until its lease lapses."""
    runs = Runs(length=1)
    runs.register(resonate)
    line.lose_answers(lambda request: isinstance(request, TaskAcquire))
    async with resonate:
        with anyio.fail_after(30):
            assert ["a", "b", "c"] == await resonate.rpc("w", "flow")
    assert ONCE == runs.ran


def fail(request: Request) -> None:
    raise NetworkError(request.kind, "", "the server is away")


async def on_its_way(request: Request) -> None:
    """Requests take their time, and a search the most."""
    await anyio.sleep(0.1 if isinstance(request, PromiseSearch) else 0.03)


async def test_taken_back_beside_a_message(resonate: Resonate, wire: Wire) -> None:
    """What is taken back after a lost answer is run once, although a message sends for it at the same time."""
    began: list[float] = []
    lost: list[Request] = []

    async def step() -> str:
        began.append(anyio.current_time())
        await anyio.sleep(100)
        return "done"

    async def lose(request: Request, _: Response) -> None:
        if isinstance(request, TaskCreate) and request.action.id == "w" and not lost:
            lost.append(request)
            fail(request)

    wire.before, wire.after = on_its_way, lose
    resonate.register(step)
    async with resonate:
        with anyio.fail_after(400):
            assert "done" == await resonate.run("w", step)
    assert 1 == len(began)


async def test_started_twice_with_the_first_answer_late(resonate: Resonate, wire: Wire) -> None:
    """Two callers start the same root, and the first one's answer is late: it runs once."""
    began: list[float] = []
    late: list[Request] = []

    async def step() -> str:
        began.append(anyio.current_time())
        await anyio.sleep(100)
        return "done"

    async def delay(request: Request, _: Response) -> None:
        if isinstance(request, TaskCreate) and not late:
            late.append(request)
            await anyio.sleep(2)

    wire.after = delay
    resonate.register(step)
    results: list[str] = []

    async def call() -> None:
        results.append(await resonate.run("w", step))

    async with resonate:
        start = anyio.current_time()
        with anyio.fail_after(1000):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await anyio.sleep(0.5)
                tasks.start_soon(call)
        assert ["done", "done"] == results
    assert [1, True] == [len(began), anyio.current_time() - start < 110]


async def test_start_while_the_server_is_away(resonate: Resonate, line: Line) -> None:
    """A start waits half a minute for the server, and then says that it cannot be reached."""
    runs = Runs(length=1)
    runs.register(resonate)
    async with resonate:
        line.down = True
        with anyio.fail_after(60), pytest.raises(NetworkError, match="the server is away"):
            await resonate.run("w", "flow")
        assert 5 <= len(line.failed) <= 15
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_up_after, line, 10)
            assert ["a", "b", "c"] == await resonate.run("v", "flow")


async def test_a_start_beside_a_message_is_told_that_the_server_is_away(
    resonate: Resonate, network: LocalNetwork, wire: Wire
) -> None:
    """A start waits half a minute for the server, also of a task that a message has sent for already."""

    async def away(request: Request) -> None:
        fail(request)

    async def step() -> None:
        pass

    resonate.register(step)
    async with resonate, Resonate(network=network, group="others") as other:
        wire.before = away
        await other.rpc("w", "step").target("poll://any@default").spawn()
        await anyio.sleep(2)
        with anyio.fail_after(90), pytest.raises(NetworkError):
            await resonate.run("w", step)


async def _up_after(line: Line, seconds: float) -> None:
    await anyio.sleep(seconds)
    line.down = False


async def test_the_client_asks_again(resonate: Resonate, line: Line) -> None:
    """Whoever creates, settles or asks for promises does not notice that the server was away for a moment."""

    async def through_an_outage(call: Callable[[], Awaitable[object]]) -> object:
        line.down = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_up_after, line, 10)
            result = await call()
        return result  # noqa: RET504 - to a type checker, a group may swallow the return

    async with resonate:
        later = worker_of(resonate).connection.now() + 10**9
        await through_an_outage(lambda: resonate.promises.create("p", later))
        await through_an_outage(lambda: resonate.promises.resolve("p", 1))
        handle = await resonate.get("p")
        assert 1 == await through_an_outage(handle.result)
        # Newer servers fire only what has a target.
        tags = {"resonate:target": "poll://any@nobody"}
        create = partial(resonate.schedules.create, "s", "* * * * *", "{{.id}}-{{.timestamp}}", 1000, promise_tags=tags)
        await through_an_outage(create)
    assert len(line.failed) >= 5


async def test_deleting_twice_is_deleting(resonate: Resonate, line: Line) -> None:
    """A schedule whose deletion was answered too late is not reported as missing."""
    async with resonate:
        tags = {"resonate:target": "poll://any@nobody"}
        await resonate.schedules.create("s", "0 0 1 1 *", "{{.id}}-{{.timestamp}}", 1000, promise_tags=tags)
        line.lose_answers(lambda request: request.kind == "schedule.delete")
        await resonate.schedules.delete("s")
        assert [] == [each.id async for each in resonate.schedules.search()]


async def test_gap(resonate: Resonate, wire: Wire) -> None:
    """After a gap in the messages everything that is waited for is asked for again."""
    async with resonate:
        later = worker_of(resonate).connection.now() + 10**9
        await resonate.promises.create("p", later, tags={"resonate:target": "poll://any@nobody"})
        got: list[object] = []

        async def wait() -> None:
            got.append(await (await resonate.get("p")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(1)
            messages = wire._messages[-1]
            hidden, messages._inner = messages._inner, _Silence()  # type: ignore[assignment]
            messages._waiting.cancel()
            await resonate.promises.resolve("p", "value")
            await anyio.sleep(100)
            assert [] == got
            wire.inject(Gap())
            await anyio.sleep(1)
            assert ["value"] == got
            messages._inner = hidden
            messages._waiting.cancel()


class _Silence:
    """A stream of messages in which none arrives."""

    async def receive(self) -> None:
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        await nothing()


def too_large(wire: Wire, limit: int) -> None:
    """Refuse every request with a value above the limit, as a network does that knows what its server takes."""

    async def refuse(request: Request) -> None:
        action = getattr(request, "action", request)
        values = [getattr(action, name, None) for name in ("value", "param")]
        size = max(len(value.data or "") for value in values if value is not None) if any(values) else 0
        if size > limit:
            raise TooLarge(request.kind, getattr(action, "id", ""), size, limit)

    wire.before = refuse


async def test_result_that_is_too_large(resonate: Resonate, wire: Wire) -> None:
    """A result that the server does not take fails its call, once, and so does that of a root."""
    ran: list[str] = []

    async def big(ctx: Context, size: int) -> str:
        ran.append("big")
        return "x" * size

    async def flow(ctx: Context) -> str:
        with pytest.raises(TooLarge, match="keep large values elsewhere"):
            await ctx.run(big, 100_000)
        return "caught"

    too_large(wire, 50_000)
    resonate.register(big)
    resonate.register(flow)
    async with resonate:
        assert "caught" == await resonate.run("w", flow)
        with pytest.raises(TooLarge):
            await resonate.run("v", big, 100_000)
    assert ["big", "big"] == ran


async def test_error_that_is_too_large(resonate: Resonate, wire: Wire) -> None:
    """An error whose record the server does not take is recorded as that."""

    async def fails() -> None:
        raise ValueError("x" * 100_000)

    too_large(wire, 50_000)
    resonate.register(fails)
    async with resonate:
        with pytest.raises(TooLarge):
            await resonate.run("w", fails)


async def test_arguments_that_are_too_large(resonate: Resonate, wire: Wire) -> None:
    """A call whose arguments the server does not take raises where it is made, and nothing is recorded."""

    async def flow(ctx: Context) -> str:
        with pytest.raises(TooLarge):
            await ctx.rpc("other", "x" * 100_000)
        return "caught"

    too_large(wire, 50_000)
    resonate.register(flow)
    async with resonate:
        assert "caught" == await resonate.run("w", flow)
        assert {"w"} == set(await Look(resonate).states())
        with pytest.raises(TooLarge):
            await resonate.rpc("v", "other", "x" * 100_000)


async def test_release_in_vain(resonate: Resonate, wire: Wire) -> None:
    """A task that somebody has released under its holder is taken again at the next look, within a minute or so."""
    runs = Runs(length=500)
    runs.register(resonate)
    async with resonate:
        handle = await resonate.run("w", "flow").spawn()
        await anyio.sleep(5)
        await Look(resonate).request(TaskRelease(id="w", version=1))
        await Look(resonate).request(TaskAcquire(id="w", version=1, pid="thief", ttl=1_000_000))
        await anyio.sleep(100)
        assert "w" not in worker_of(resonate).executions
        assert not await handle.done()


@pytest.mark.slow
async def test_everything_is_asked_for_in_turn(resonate: Resonate, wire: Wire) -> None:
    """However much is waited for, so many are asked for in a round, and in the next rounds the others."""

    async def wait(id: str) -> None:
        await (await resonate.get(id))

    async with resonate, anyio.create_task_group() as tasks:
        worker = worker_of(resonate)
        later = worker.connection.now() + 10**9
        ids = [f"p{number}" for number in range(1300)]
        for id in ids:
            await resonate.promises.create(id, later, tags={"resonate:target": "poll://any@nobody"})
            tasks.start_soon(wait, id)
        await anyio.sleep(1)
        wire.forget()
        worker.connection.recheck = 60
        worker.subscriptions._random = lambda: 0.5
        worker.background(worker.rechecks.run_periodically, name="recheck")
        await anyio.sleep(95)
        assert 600 == wire.counts()["promise.register_listener"]
        await anyio.sleep(205)
        asked = [
            exchange.request.awaited for exchange in wire.exchanges if isinstance(exchange.request, RegisterListener)
        ]
        assert set(ids) == set(asked)
        assert len(asked) <= 5 * 600
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("seconds", [5, 55, 70, 300, 1000])
async def test_stopping_while_the_server_is_away(resonate: Resonate, line: Line, seconds: float) -> None:
    """Leaving the block takes as long as grace and a few attempts, however long the server has been away."""
    runs = Runs(length=50)
    runs.register(resonate)
    async with resonate:
        handle = await resonate.run("w", "flow").spawn()
        await anyio.sleep(25)
        line.down = True
        await anyio.sleep(seconds)
        began = anyio.current_time()
    assert 25 > anyio.current_time() - began
    line.down = False
    async with resonate:
        with anyio.fail_after(300):
            assert ["a", "b", "c"] == await (await resonate.get("w", list[str]))
    with pytest.raises(NotRunning):
        await handle


async def test_a_leaf_that_has_finished_is_recorded_although_one_answer_fails(resonate: Resonate, wire: Wire) -> None:
    """A leaf that finishes within the grace period is recorded, also if the first attempt is not answered."""
    ran: list[str] = []
    failed: list[Request] = []

    async def step() -> str:
        ran.append("step")
        await anyio.sleep(3)
        return "done"

    async def flow(ctx: Context) -> str:
        return await ctx.run(step)

    async def before(request: Request) -> None:
        if settles("w.step-1")(request) and not failed:
            failed.append(request)
            fail(request)

    resonate.register(flow)
    resonate.register(step)
    async with resonate:
        await resonate.run("w", flow).spawn()
        await anyio.sleep(1)
        wire.before = before
    assert 1 == len(failed)
    wire.before = nothing
    async with resonate:
        assert "done" == await (await resonate.get("w"))
    assert ["step"] == ran


async def test_lease_lost_while_parked(resonate: Resonate, wire: Wire, line: Line) -> None:
    """A parked execution has no lease to lose: it goes on when the server is back and what it waits for has settled."""
    woken: list[str] = []

    async def sleeper(ctx: Context) -> str:
        woken.append("began")
        await ctx.sleep(500)
        return "awake"

    resonate.register(sleeper)
    async with resonate:
        handle = await resonate.run("w", sleeper).spawn()
        await anyio.sleep(100)
        line.down = True
        await anyio.sleep(600)
        line.down = False
        with anyio.fail_after(100):
            assert "awake" == await handle
    assert ["began"] == woken


@pytest.mark.slow
async def test_resuming_what_awaits_many_over_a_slow_line(wire: Wire, resonate: Resonate) -> None:
    """An execution that awaits hundreds of calls 100 ms from its server is taken back once, not again and again."""

    async def flow(ctx: Context) -> None:
        await ctx.gather(*(ctx.rpc("nothing").target("poll://any@nobody") for _ in range(700)))

    async def slow(_: Request) -> None:
        await anyio.sleep(0.1)

    resonate.register(flow)
    async with resonate:
        await resonate.run("w", flow).spawn()
        wire.before = slow
        await anyio.sleep(100)
        # As its wake promise would by itself on asyncio, after ten minutes.
        worker_of(resonate).executions["w"].suspension.request_resume()
        await anyio.sleep(1000)
        wire.before = nothing
        # And once more on asyncio, by itself.
        assert 1 <= wire.counts().get("task.acquire", 0) <= 2


async def test_a_lease_that_was_doubted_and_is_held(resonate: Resonate, wire: Wire) -> None:
    """A lease of which the server says that this worker holds it is kept, and the code goes on."""

    async def flow(ctx: Context) -> str:
        return str(await ctx.promise())

    resonate.register(flow)
    async with resonate:
        handle = await resonate.run("w", flow).spawn()
        await anyio.sleep(10)
        wire.forget()
        execution = worker_of(resonate).executions["w"]
        execution.suspension.verify_lease()
        phases = [execution.suspension.phase]
        await anyio.sleep(1)
        phases.append(execution.suspension.phase)
        assert [Phase.VERIFYING, Phase.HOT] == phases
        assert ["task.heartbeat", "task.get"] == wire.kinds
        assert 1 == execution.version
        await resonate.promises.resolve("w.promise-1", "value")
        assert "value" == await handle


async def test_dropping_tells_nobody_that_the_lease_has_moved(resonate: Resonate, wire: Wire) -> None:
    """Who waits until it is decided who has the lease is not woken because the execution is dropped."""

    async def flow(ctx: Context) -> None:
        await ctx.sleep(7200)

    async def away(request: Request) -> None:
        fail(request)

    resonate.register(flow)
    async with resonate:
        await resonate.run("w", flow).spawn()
        await anyio.sleep(10)
        execution = worker_of(resonate).executions["w"]
        assert Phase.PARKED is execution.suspension.phase
        wire.before = away
        async with anyio.create_task_group() as tasks:
            # Code that has woken by itself waits at the gate, and the task cannot be taken back now.
            tasks.start_soon(_at_the_gate, execution)
            await anyio.sleep(1)
            assert execution.suspension.undecided
            execution.drop(Drop.SETTLED)
            await anyio.sleep(1)
            resting = anyio.Event()
            tasks.start_soon(_rest, execution, resting)
            await anyio.sleep(1)
            assert not resting.is_set()
            wire.before = nothing
            tasks.cancel_scope.cancel()


async def _rest(execution: Execution, resting: anyio.Event) -> None:
    await execution.suspension.wait_transferred()
    resting.set()


async def _at_the_gate(execution: Execution) -> None:
    with suppress(anyio.get_cancelled_exc_class()):
        await execution.until_hot()
