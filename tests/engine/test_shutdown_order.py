"""The order in which everything ends, told by one trace of requests, code and network; and that nothing is left."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final

import anyio
import pytest
from anyio import CancelScope
from attrs import define, field

from resonate_anyio import Context, Resonate
from resonate_anyio._protocol import (
    PromiseSettle,
    Request,
    Response,
    TaskAcquire,
    TaskFulfill,
    TaskRelease,
    TaskState,
    TaskSuspend,
)
from resonate_anyio.abc import Clock, Connection, Identity, Network, Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore

from ..conftest import SPARE_THREADS
from ..inside import worker_of
from .harness import Look, Oops, Unreachable, Wire, World, nothing, settles

LIMIT: Final = 10.0


@define(eq=False)
class Traced(Network):
    """A network that notes when it is closed."""

    _inner: Network
    trace: list[str]

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        async with self._inner.connect(identity) as connection:
            yield connection
            self.trace.append("network closed")


@define(eq=False)
class Stage:
    """A program whose end is traced.

    Attributes:
        trace: what happened since `begin`.
    """

    store: Store
    clock: Clock
    trace: list[str] = field(factory=list)
    wire: Wire = field(init=False)
    resonate: Resonate = field(init=False)
    go: threading.Event = field(factory=threading.Event)
    threads: list[threading.Thread] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.wire = Wire(Traced(LocalNetwork(self.store, clock=self.clock), self.trace))
        self.make()

    def make(self, **settings: Any) -> Resonate:
        """The program anew, with other settings."""
        settings = {"grace": 10, **settings}
        self.resonate = Resonate(network=self.wire, pid="p", **settings)
        for func in (self.waiting, self.working, self.stuck, self.threaded, self.busy):
            self.resonate.register(func)
        return self.resonate

    def begin(self) -> None:
        """What comes from now on is traced."""
        self.trace.clear()
        self.wire.before = self._note
        receive = self.wire._messages[-1]
        close = receive.aclose

        async def aclose() -> None:
            self.trace.append("stream closed")
            await close()

        receive.aclose = aclose  # type: ignore[method-assign]

    async def _note(self, request: Request) -> None:
        match request:
            case TaskSuspend() | TaskRelease() | TaskFulfill() | PromiseSettle():
                self.trace.append(f"{request.kind} {request.id}")
            case _:
                pass

    def _ended(self, ctx: Context) -> None:
        self.trace.append(f"end of {ctx.id}")

    async def waiting(self, ctx: Context) -> None:
        """Wait for something durable, and nothing else."""
        try:
            await ctx.promise()
        finally:
            self._ended(ctx)

    async def busy(self, ctx: Context) -> None:
        """Do something of its own."""
        try:
            await anyio.sleep_forever()
        finally:
            self._ended(ctx)

    async def working(self, ctx: Context, seconds: float) -> None:
        """Run a leaf for a while, and then another."""

        async def leaf() -> None:
            await anyio.sleep(seconds)

        try:
            await ctx.run(leaf)
            await ctx.run(leaf)
        finally:
            self._ended(ctx)

    async def stuck(self, ctx: Context, seconds: float) -> None:
        """Swallow every cancellation for a while."""
        try:
            with CancelScope(shield=True):
                await anyio.sleep(seconds)
        finally:
            self._ended(ctx)

    async def threaded(self, ctx: Context) -> None:
        """Run a thread that ends when it is let go."""

        def block() -> None:
            self.threads.append(threading.current_thread())
            assert self.go.wait(LIMIT)

        await ctx.run(block)


@pytest.fixture
def stage(clock: Clock) -> Iterator[Stage]:
    stage = Stage(MemoryStore(), clock)
    yield stage
    stage.go.set()
    # Backends name a thread after what it does, and keep it for the next call.
    while any(thread.is_alive() and not thread.name.startswith(SPARE_THREADS) for thread in stage.threads):
        time.sleep(0.001)


async def states(stage: Stage, *ids: str) -> list[TaskState]:
    """How these tasks stand, asked by somebody else."""
    async with Resonate(network=LocalNetwork(stage.store, clock=stage.clock, keep_leases=True), pid="q") as other:
        look = Look(other)
        return [(await look.task(id)).state for id in ids]


async def test_order(stage: Stage) -> None:
    """Stream, suspends, waiting code, grace for leaves, the rest of the code, releases, network."""
    async with stage.resonate as resonate:
        await resonate.run("waits", "waiting").spawn()
        await resonate.run("works", "working", 5).spawn()
        await resonate.run("works-long", "working", 100).spawn()
        await resonate.run("busy", "busy").spawn()
        await anyio.sleep(1)
        start = anyio.current_time()
        stage.begin()
    assert 10 == pytest.approx(anyio.current_time() - start, abs=0.1)
    first, rest = stage.trace[:4], stage.trace[4:]
    assert ["stream closed", "task.suspend waits", "end of waits", "promise.settle works.leaf-1"] == first
    assert ["end of busy", "end of works", "end of works-long"] == sorted(rest[:3])
    assert ["task.release busy", "task.release works", "task.release works-long"] == sorted(rest[3:6])
    assert ["network closed"] == rest[6:]
    assert [TaskState.SUSPENDED] + [TaskState.PENDING] * 3 == await states(
        stage, "waits", "works", "works-long", "busy"
    )


async def test_parked_is_unloaded_without_a_request(stage: Stage) -> None:
    """What is parked already needs no request."""
    async with stage.make(hot_for=1) as resonate:
        await resonate.run("waits", "waiting").spawn()
        await anyio.sleep(30)
        stage.begin()
    assert ["stream closed", "end of waits", "network closed"] == stage.trace


async def test_nothing_waits_for_stuck_code(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Stuck code is named every five seconds, with its stack; leases of others are released meanwhile, its own last."""
    async with stage.resonate as resonate:
        await resonate.run("stuck", "stuck", 13).spawn()
        await resonate.run("busy", "busy").spawn()
        await anyio.sleep(1)
        stage.begin()
        start = anyio.current_time()
    assert 12 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert [
        "stream closed", "end of busy", "task.release busy", "end of stuck", "task.release stuck", "network closed"
    ] == stage.trace  # fmt: skip
    named = [record.getMessage() for record in caplog.records if "worker.stuck" in record.getMessage()]
    assert 2 == len(named)
    for text in named:
        assert text.startswith("worker.stuck id=stuck")
        assert "await anyio.sleep(seconds)" in text
        assert "resonate_anyio/" not in text


async def test_only_what_is_stuck_is_named(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Of several tasks that one is shown which does not end, and not those that wait for it."""

    async def guilty() -> None:
        with CancelScope(shield=True):
            await anyio.sleep(8)

    async def workflow(ctx: Context) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(guilty)

    stage.resonate.register(workflow)
    async with stage.resonate as resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
    [text] = [record.getMessage() for record in caplog.records if "worker.stuck" in record.getMessage()]
    assert "in guilty" in text
    assert "in workflow" not in text


async def test_hurry(stage: Stage) -> None:
    """A stop that is told to hurry gives no more grace, and releases at once what has ended beside stuck code."""
    async with stage.resonate as resonate:
        await resonate.run("stuck", "stuck", 30).spawn()
        await resonate.run("works", "working", 100).spawn()
        await anyio.sleep(1)
        stage.begin()
        worker = worker_of(resonate)
        worker.begin_to_stop()
        await anyio.sleep(1)
        assert ["stream closed"] == stage.trace
        worker.hurry()
        await anyio.sleep(0.6)
        assert ["stream closed", "end of works", "task.release works"] == stage.trace
    assert ["end of stuck", "task.release stuck", "network closed"] == stage.trace[3:]


async def test_abandoned_thread(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that runs on is named, and its execution keeps its lease, so that nobody runs it beside the thread."""
    async with stage.make(grace=0) as resonate:
        await resonate.run("threaded", "threaded").spawn()
        await anyio.sleep(0.1)
        stage.begin()
    assert ["stream closed", "network closed"] == stage.trace
    assert "worker.thread_abandoned id=threaded.block-1 func=block" in caplog.text
    assert [TaskState.ACQUIRED] == await states(stage, "threaded")


async def test_suspend_that_is_not_answered(stage: Stage) -> None:
    """Suspends share one limit of five seconds; then the lease is given back instead."""

    async def stall(request: Request) -> None:
        if isinstance(request, TaskSuspend):
            await anyio.sleep(math.inf)
        await stage._note(request)

    async with stage.resonate as resonate:
        for n in range(3):
            await resonate.run(f"w{n}", "waiting").spawn()
        await anyio.sleep(1)
        stage.begin()
        stage.wire.before = stall
        start = anyio.current_time()
    assert 5 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert ["task.release w0", "task.release w1", "task.release w2"] == sorted(stage.trace[-4:-1])
    assert [TaskState.PENDING] * 3 == await states(stage, "w0", "w1", "w2")


async def test_resume_that_is_not_answered(stage: Stage) -> None:
    """A task that was taken back just before, although nobody says so in time, is given back as well."""

    async def stall(request: Request, _: Response) -> None:
        if isinstance(request, TaskAcquire):
            taken.set()
            await anyio.sleep(math.inf)

    taken = anyio.Event()
    async with stage.make(hot_for=1) as resonate:
        await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        stage.begin()
        stage.wire.after = stall
        await resonate.promises.resolve("w.promise-1")
        await taken.wait()
        start = anyio.current_time()
    assert 5 == pytest.approx(anyio.current_time() - start, abs=0.1)
    assert "task.release w" in stage.trace
    assert [TaskState.PENDING] == await states(stage, "w")


async def test_network_that_is_down(stage: Stage) -> None:
    """A network that does not answer holds up nothing."""
    async with stage.make(hot_for=1) as resonate:
        await resonate.run("parked", "waiting").spawn()
        await anyio.sleep(10)
        await resonate.run("waits", "waiting").spawn()
        await resonate.run("busy", "busy").spawn()
        await anyio.sleep(1)
        stage.wire.cut()
        start = anyio.current_time()
    assert anyio.current_time() - start <= 10.1


async def over(stage: Stage, kind: type[object], hook: Callable[[], Awaitable[None]], *, answered: bool) -> None:
    """Stop in the middle of a request of this kind."""

    async def once(request: Request, *_: Response) -> None:
        if isinstance(request, kind):
            stage.wire.before = stage.wire.after = nothing
            await hook()

    if answered:
        stage.wire.after = once
    else:
        stage.wire.before = once


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", [TaskSuspend, TaskAcquire])
async def test_stopped_while_parking(stage: Stage, kind: type[object], fails: bool, answered: bool) -> None:
    """A stop that comes while a task is being suspended or taken back loses nothing, whatever the answer is."""
    resonate = stage.make(hot_for=1, grace=0)
    stopping = anyio.Event()

    async def stop() -> None:
        stopping.set()
        await anyio.sleep(1)
        if fails:
            raise Unreachable

    async with resonate, anyio.create_task_group() as tasks:
        await resonate.run("w", "waiting").spawn()
        if kind is TaskAcquire:
            await anyio.sleep(10)
        await over(stage, kind, stop, answered=answered)
        if kind is TaskAcquire:
            tasks.start_soon(resonate.promises.resolve, "w.promise-1", None)
        await stopping.wait()
        start = anyio.current_time()
        await resonate.stop()
        assert anyio.current_time() - start <= 6
    async with resonate:
        if kind is TaskSuspend:
            await resonate.promises.resolve("w.promise-1")
        assert (await (await resonate.get("w"))) is None
        assert "pending" not in (await Look(resonate).states()).values()


async def test_message_that_was_not_read(stage: Stage) -> None:
    """A task that is sent for while everything ends is not lost: others are sent for it."""
    async with stage.make(hot_for=1) as resonate:
        await resonate.run("w", "waiting").spawn()
        await anyio.sleep(10)
        await resonate.promises.resolve("w.promise-1")
    async with stage.resonate:
        assert (await (await stage.resonate.get("w"))) is None


async def test_two_hundred(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Under load too: each phase ends before the next begins, and every lease is given back but that of the thread."""
    caplog.set_level(logging.WARNING)
    async with stage.make(hot_for=5, threads=5, grace=1) as resonate:
        for n in range(60):
            await resonate.run(f"parked-{n}", "waiting").spawn()
        await anyio.sleep(10)
        for n in range(59):
            await resonate.run(f"waits-{n}", "waiting").spawn()
            await resonate.run(f"works-{n}", "working", 0.5 + n / 100).spawn()
        for n in range(20):
            await resonate.run(f"stuck-{n}", "stuck", 2.5).spawn()
        await anyio.sleep(0.2)
        await resonate.run("threaded-0", "threaded").spawn()
        await resonate.run("threaded-1", "threaded").spawn()
        await anyio.sleep(0.1)
        assert 200 == len(worker_of(resonate).executions)
        stage.begin()
    trace = [entry.partition("-")[0] for entry in stage.trace]
    phases = [
        {"stream closed"},
        {"task.suspend waits"},
        {"end of parked", "end of waits", "end of stuck", "promise.settle works.leaf", "promise.settle works"},
        {"end of works", "end of stuck"},
        {"task.release works", "task.release stuck"},
        {"network closed"},
    ]
    ends = [max(at for at, entry in enumerate(trace) if entry in phase) for phase in phases]
    begins = [min(at for at, entry in enumerate(trace) if entry in phase) for phase in phases]
    assert [] == [entry for entry in trace if not any(entry in phase for phase in phases)]
    assert all(end < begin for end, begin in pairwise([ends[0], begins[1]]))
    assert ends[1] < begins[3]
    assert ends[3] < begins[4] <= ends[4] < begins[5]
    assert 59 == trace.count("task.suspend waits")
    assert 79 == sum(entry.startswith("task.release") for entry in trace)
    assert 2 == caplog.text.count("worker.thread_abandoned")
    async with Resonate(network=LocalNetwork(stage.store, clock=stage.clock, keep_leases=True), pid="q") as other:
        look = Look(other)
        tasks = {id: (await look.task(id)).state for id in await look.states() if "." not in id}
    assert {"threaded-0", "threaded-1"} == {id for id, state in tasks.items() if state is TaskState.ACQUIRED}
    assert 119 == sum(state is TaskState.SUSPENDED for state in tasks.values())


@pytest.mark.parametrize("settled_last", ["w.busy-1.promise-1", "w.busy-1"])
async def test_a_group_that_is_about_to_fail(world: World, settled_last: str) -> None:
    """What is about to go on is not taken for what waits: the next process cancels what the failure has to cancel."""

    async def fail() -> None:
        await anyio.sleep(2)
        raise Oops

    async def nap(ctx: Context) -> None:
        await ctx.sleep(100)

    async def busy(ctx: Context) -> None:
        await ctx.promise()

    async def workflow(ctx: Context) -> str:
        try:
            async with ctx.task_group() as outer:
                outer.run(nap)
                async with ctx.task_group() as inner:
                    inner.run(busy)
                    inner.run(fail)
        except* Oops:
            pass
        return "failed"

    stopping = anyio.Event()

    async def before(request: Request) -> None:
        if settles(settled_last)(request):
            stopping.set()

    process = world.process(workflow)
    process.wire.before = before
    async with process:
        await process.resonate.run("w", workflow).spawn()
        await stopping.wait()
    async with world.process(workflow) as process:
        begun = anyio.current_time()
        assert "failed" == await process.resonate.run("w", workflow)
        assert anyio.current_time() - begun < 50
        assert "rejected_canceled" == (await Look(process.resonate).states())["w.nap-1.sleep-1"]
