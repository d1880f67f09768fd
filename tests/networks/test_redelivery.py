"""A task that its workers keep giving back is sent out ever more slowly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from resonate_anyio._embedded._redelivery import Redelivery
from resonate_anyio._protocol import (
    EMBEDDED,
    RELEASE,
    SNAPSHOT,
    Execute,
    PromiseCreate,
    PromiseSettle,
    PromiseState,
    Request,
    Response,
    Rules,
    TaskAcquire,
    TaskContinue,
    TaskFence,
    TaskHalt,
    TaskRelease,
    TaskSuspend,
)
from resonate_anyio.abc import Clock, Connection, Identity, Network, Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore, SQLiteStore

from ..over_http import OverHttp

FAR = 2_000_000_000_000
GROUP = {"resonate:target": "poll://any@g"}
SOON = 0.01


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "engine.db")


Make = Callable[..., Network]


@pytest.fixture(params=["local", "dev"])
def make(request: pytest.FixtureRequest, store: Store, clock: Clock) -> Make:
    """An engine on the store, embedded or behind HTTP."""

    def made(rules: Rules = EMBEDDED) -> Network:
        # Leases are of this process; a worker of another one would have to renew them.
        engine = LocalNetwork(store, clock=clock, rules=rules)
        return OverHttp(engine, clock) if request.param == "dev" else engine

    return made


class Worker:
    """Takes each task that it is sent, and notes when."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sent_at: list[int] = []

    async def ask(self, request: Request) -> Response:
        response = await self.connection.request(request)
        assert 200 == response.status, response
        return response

    async def next(self, ttl: int = 10**9) -> tuple[str, int]:
        """Wait for a task and acquire it; give its id and version."""
        while True:
            message = await self.connection.messages.receive()
            if isinstance(message, Execute):
                self.sent_at.append(self.connection.now())
                taken = TaskAcquire(id=message.task_id, version=message.version, pid="w", ttl=ttl)
                response = await self.connection.request(taken)
                if response.status == 200:
                    assert response.task is not None
                    return response.task.id, response.task.version

    async def give_back(self) -> None:
        """Do that with the next task."""
        id, version = await self.next()
        await self.ask(TaskRelease(id=id, version=version))

    def gaps(self) -> list[int]:
        """How long it was from each message to the next, in milliseconds."""
        return [later - earlier for earlier, later in zip(self.sent_at, self.sent_at[1:], strict=False)]


@asynccontextmanager
async def worker(network: Network, name: str = "w") -> AsyncIterator[Worker]:
    async with network.connect(Identity(group="g", pid=name, holder=name)) as connection:
        yield Worker(connection)


async def create(worker: Worker, id: str = "t", **tags: str) -> None:
    await worker.ask(PromiseCreate(id=id, timeout_at=FAR, tags=GROUP | tags))


async def give_back_for(worker: Worker, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        while True:
            await worker.give_back()


@pytest.mark.parametrize("rules", [EMBEDDED, RELEASE, SNAPSHOT])
async def test_a_task_that_is_always_given_back(make: Make, rules: Rules) -> None:
    """It is sent again at once, then at the pace of the Resonate Server, then ever more slowly, and never given up."""
    async with worker(make(rules)) as one:
        await create(one)
        await give_back_for(one, 600)

    gaps = one.gaps()
    expected = [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600]
    assert all(wanted <= gap <= wanted + 50 for wanted, gap in zip(expected, gaps, strict=False)), gaps
    # What nobody has taken for half a minute is sent again anyway, so no pause is longer than that.
    assert {True} == {29_000 <= gap <= 30_050 for gap in gaps[10:]}, gaps
    assert len(gaps) > 25


async def test_each_task_by_itself(make: Make) -> None:
    """Other tasks of the same workers are not slowed down."""
    async with worker(make()) as one:
        await create(one, "a")
        for _ in range(6):
            await one.give_back()
        began = one.connection.now()
        for number in range(20):
            await create(one, f"t{number}")
            assert (f"t{number}", 1) == await one.next()
        assert one.connection.now() - began < 100


async def test_a_worker_that_comes(make: Make) -> None:
    """A worker that connects is sent at once what the others of its group have given back."""
    network = make()
    async with worker(network) as one:
        await create(one)
        for _ in range(8):
            await one.give_back()
        began = one.connection.now()
        async with network.connect(Identity(group="other", pid="x", holder="x")):
            pass
        async with worker(network, "two") as two, anyio.create_task_group() as tasks:
            taken: list[int] = []

            async def take(worker: Worker) -> None:
                await worker.next()
                taken.append(worker.connection.now())

            tasks.start_soon(take, one)
            tasks.start_soon(take, two)
            await anyio.sleep(5)
            tasks.cancel_scope.cancel()
        assert 1 == len(taken)
        assert taken[0] - began < 50


async def suspend(worker: Worker, id: str, version: int) -> None:
    await worker.ask(PromiseCreate(id=f"{id}.{version}", timeout_at=FAR))
    await worker.ask(TaskSuspend(id=id, version=version, awaited=(f"{id}.{version}",), awaiters=(id,)))
    await worker.ask(PromiseSettle(id=f"{id}.{version}", state=PromiseState.RESOLVED))


async def halt(worker: Worker, id: str, version: int) -> None:
    await worker.ask(TaskHalt(id=id))
    await worker.ask(TaskContinue(id=id))


@pytest.mark.parametrize("progress", [suspend, halt])
async def test_a_task_that_gets_on(make: Make, progress: Any) -> None:
    """After it was suspended or halted a task begins anew: it is sent again at once."""
    async with worker(make()) as one:
        await create(one)
        for _ in range(7):
            await one.give_back()
        id, version = await one.next()
        began = one.connection.now()
        await progress(one, id, version)
        for _ in range(3):
            await one.give_back()
        assert [0, 0, 100] == [gap // 10 * 10 for gap in (one.sent_at[-3] - began, *one.gaps()[-2:])]


async def test_waking_is_not_slowed(make: Make) -> None:
    """A task that is suspended and woken again and again is sent each time at once."""
    async with worker(make()) as one:
        await create(one)
        began = one.connection.now()
        for _ in range(50):
            id, version = await one.next()
            await suspend(one, id, version)
        assert one.connection.now() - began < 500


async def test_a_step_is_not_progress(make: Make) -> None:
    """A worker that finds each time what it had done, and then gives the task back, is slowed down like others."""
    async with worker(make()) as one:
        await create(one)
        with anyio.move_on_after(20):
            while True:
                id, version = await one.next()
                create_child = PromiseCreate(id="t.1", timeout_at=FAR)
                await one.ask(TaskFence(id=id, version=version, action=create_child, action_id="t.1"))
                await one.ask(TaskRelease(id=id, version=version))
        # The Resonate Server would have sent 190.
        assert len(one.sent_at) < 12


async def test_leases_of_nothing(make: Make, store: Store, clock: Clock) -> None:
    """A worker that lets leases lapse that are too short slows its task down as well."""
    network = OverHttp(LocalNetwork(store, clock=clock, keep_leases=True), clock)
    async with worker(network) as one:
        await create(one)
        with anyio.move_on_after(20):
            while True:
                await one.next(ttl=1)
        assert 8 <= len(one.sent_at) < 14
        # A lease that was held for long has been pause enough.
        await create(one, "long")
        with anyio.move_on_after(600):
            for _ in range(8):
                id, _ = await one.next(ttl=20_000)
                while id != "long":
                    id, _ = await one.next(ttl=20_000)
        assert [] == [gap for gap in one.gaps()[-5:] if gap > 20_100]


async def test_a_slow_worker_is_not_slowed(make: Make) -> None:
    """A worker that pauses by itself before it gives a task back is sent it at once."""
    async with worker(make()) as one:
        await create(one)
        gave_back = one.connection.now()
        for _ in range(6):
            id, version = await one.next()
            assert one.sent_at[-1] - gave_back < 50
            await anyio.sleep(31)
            await one.ask(TaskRelease(id=id, version=version))
            gave_back = one.connection.now()


async def test_what_is_taken_otherwise(make: Make) -> None:
    """A paused message is not sent any more if its task was taken meanwhile, or has ended."""
    async with worker(make()) as one:
        for id in ("taken", "ended"):
            await create(one, id)
            for _ in range(8):
                await one.give_back()
        await one.ask(TaskAcquire(id="taken", version=8, pid="x", ttl=10**9))
        await one.ask(PromiseSettle(id="ended", state=PromiseState.RESOLVED))
        with anyio.move_on_after(120):
            message = await one.connection.messages.receive()
            while not isinstance(message, Execute):
                message = await one.connection.messages.receive()
            pytest.fail(f"sent: {message}")


async def test_after_a_restart(make: Make) -> None:
    """The next engine on the store sends each task once without a pause, and then as before."""
    network = make()
    async with worker(network) as one:
        await create(one)
        for _ in range(8):
            await one.give_back()
        began = one.connection.now()
    async with worker(network) as one:
        for _ in range(3):
            await one.give_back()
        assert one.sent_at[0] - began < 50
        assert [0, 100] == [gap // 10 * 10 for gap in one.gaps()]


def test_what_is_remembered() -> None:
    """Not more than ten thousand tasks are remembered, none for longer than ten minutes, and the latest stay."""
    redelivery = Redelivery()
    for number in range(20_000):
        assert 5 == redelivery.next_delivery(f"t{number}", 5)
    assert 10_000 == len(redelivery)
    assert 105 == redelivery.next_delivery("t19999", 6)
    assert 6 == redelivery.next_delivery("t0", 6)
    assert 106 == redelivery.next_delivery("t0", 6)
    assert [9_000_000, 9_000_100] == [
        redelivery.next_delivery("t0", 9_000_000),
        redelivery.next_delivery("t0", 9_000_000),
    ]
