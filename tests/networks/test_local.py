"""The engine in this process: requests, messages, leases, timers, and who opens and closes it."""

from __future__ import annotations

import math
from pathlib import Path

import anyio
import pytest
from anyio import CancelScope, to_thread

from resonate_anyio import StoreError, UsageError
from resonate_anyio._protocol import (
    PromiseSettle,
    PromiseState,
    RegisterListener,
    ScheduleCreate,
    TaskHalt,
    TaskState,
)
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.networks._clock import MonotoneClock
from resonate_anyio.stores import MemoryStore, SQLiteStore
from resonate_anyio.testing import VirtualClock

from .helpers import Watched, acquire, create, name_of, promise, received, task, worker

A, B = worker("a"), worker("b")
ANY = "poll://any@g"


async def test_a_request_is_answered_and_kept(network: LocalNetwork) -> None:
    """What one connection writes, another reads, after everybody had left too."""
    async with network.connect(A) as connection:
        assert 200 == (await create(connection, "p")).status

    async with network.connect(B) as connection:
        assert "p" == (await promise(connection, "p")).id


async def test_a_cancelled_request_has_no_effect(network: LocalNetwork) -> None:
    """A cancellation that is there first is delivered before anything is written."""
    async with network.connect(A) as connection:
        with CancelScope() as scope:
            scope.cancel()
            await create(connection, "p")

        assert scope.cancelled_caught
        assert 200 == (await create(connection, "p", x="y")).status
        assert {"x": "y"} == (await promise(connection, "p")).tags


async def test_a_closed_connection_says_so(network: LocalNetwork) -> None:
    """After its block a connection refuses requests with the remedy."""
    async with network.connect(A) as connection:
        pass

    with pytest.raises(UsageError, match=r"inside `async with network\.connect"):
        await create(connection, "p")


async def test_messages_are_delivered(network: LocalNetwork) -> None:
    """A new task is sent for, and a listener hears of the settled promise."""
    async with network.connect(A) as a, network.connect(B) as b:
        await create(a, "t", target=B.preferred)
        await a.request(RegisterListener(awaited="t", address=A.unicast))
        assert ["t"] == await received(b)
        await b.request(PromiseSettle(id="t", state=PromiseState.RESOLVED))
        assert ["unblock t"] == await received(a)


async def test_messages_wait_for_a_connection_that_can_receive(network: LocalNetwork) -> None:
    """A task created before its group is there is sent for when the first of the group arrives."""
    async with network.connect(A) as a:
        await create(a, "t", target="poll://any@later")
        async with network.connect(worker("c", "later")) as c:
            assert ["t"] == await received(c)


async def test_closing_the_messages_leaves_routing_only(network: LocalNetwork, clock: VirtualClock) -> None:
    """A connection whose message stream is closed gets nothing more, but makes requests and keeps its leases."""
    async with network.connect(A) as a, network.connect(B) as b:
        await create(a, "t", target=A.preferred)
        await acquire(a, A, await a.messages.receive())
        await a.messages.aclose()
        await create(a, "u", target=A.preferred)
        assert ["u"] == await received(b)
        await anyio.sleep(10)
        assert A.holder == (await task(b, "t")).pid


async def test_leases_are_kept_while_their_holder_is_here(network: LocalNetwork) -> None:
    """A lease is renewed without any heartbeat until its holder's connection ends; then it lapses and is sent for."""
    async with network.connect(B) as b:
        async with network.connect(A) as a:
            await create(a, "t", target=A.preferred)
            await acquire(a, A, await a.messages.receive(), ttl=1000)
            await anyio.sleep(3600.5)
            assert (TaskState.ACQUIRED, 1) == ((await task(b, "t")).state, (await task(b, "t")).version)

        assert [] == await received(b)
        await anyio.sleep(1.001)
        assert TaskState.PENDING == (await task(b, "t")).state
        assert ["t"] == await received(b)


async def test_a_task_that_nobody_takes_is_sent_for_again(network: LocalNetwork) -> None:
    """Every 30 seconds a pending task is sent for again, until it is halted."""
    async with network.connect(A) as a:
        await create(a, "t", target=ANY)
        await anyio.sleep(61)
        assert ["t", "t", "t"] == await received(a)
        await a.request(TaskHalt(id="t"))
        await anyio.sleep(100)
        assert [] == await received(a)


async def test_deadlines_are_met_to_the_millisecond(network: LocalNetwork, clock: VirtualClock) -> None:
    """A promise is settled at its deadline though nobody touches it, and later deadlines wait for theirs."""
    async with network.connect(A) as a:
        for id, after in (("late", 50_000), ("soon", 20_000), ("sooner", 7)):
            await create(a, id, after=after)
            await a.request(RegisterListener(awaited=id, address=A.unicast))

        began = clock()
        heard = [(type(await a.messages.receive()), clock() - began)[1] for _ in range(3)]
        assert [7, 20_000, 50_000] == heard


async def test_schedules_fire_on_time(network: LocalNetwork, clock: VirtualClock) -> None:
    """A schedule that is made wakes the engine for its next occurrence, which is sent for at once."""
    async with network.connect(A) as a:
        schedule = ScheduleCreate(
            id="s",
            cron="* * * * *",
            promise_id="{{.id}}-run",
            promise_timeout=1000,
            promise_tags={"resonate:target": ANY},
        )
        await a.request(schedule)
        assert "s-run" == name_of(await a.messages.receive())
        assert 0 == clock() % 60_000


async def test_nothing_to_do_takes_no_sweeps(clock: VirtualClock) -> None:
    """Without a due instant the engine sleeps, but for the safety sweep."""
    store = Watched(MemoryStore())
    async with LocalNetwork(store, clock=clock, safety_sweep=60).connect(A):
        opening = len(store.commits)
        await anyio.sleep(3630)
        assert 60 == len(store.commits) - opening

    store.commits.clear()
    async with LocalNetwork(store, clock=clock, safety_sweep=math.inf).connect(A):
        await anyio.sleep(3600)
        assert 1 == len(store.commits)


async def test_a_clock_that_jumps_is_caught_up_with(network: LocalNetwork, clock: VirtualClock) -> None:
    """What is due because the wall clock jumped is found by the next safety sweep."""
    async with network.connect(A) as a:
        await create(a, "p", after=3_600_000)
        await a.request(RegisterListener(awaited="p", address=A.unicast))
        await anyio.sleep(1)
        clock.advance(3_600_000)
        with anyio.fail_after(61):
            assert "unblock p" == name_of(await a.messages.receive())


def test_time_does_not_go_back() -> None:
    """A clock that is set back stands still until it has caught up."""
    instants = iter([5, 3, 4, 6])
    clock = MonotoneClock(lambda: next(instants))
    assert [5, 5, 5, 6] == [clock() for _ in range(4)]


async def test_the_next_connection_takes_over_the_timers(network: LocalNetwork) -> None:
    """When the connection that kept the time leaves, another keeps it, and deadlines are met all the same."""
    left = anyio.Event()

    async def leave_first() -> None:
        async with network.connect(A) as a:
            await create(a, "p", after=5000)
            entered.set()
            await anyio.sleep(1)

        left.set()

    entered = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(leave_first)
        await entered.wait()
        async with network.connect(B) as b:
            await b.request(RegisterListener(awaited="p", address=B.unicast))
            await left.wait()
            assert "unblock p" == name_of(await b.messages.receive())


async def test_timers_outlive_the_cancellation_of_their_host(network: LocalNetwork) -> None:
    """While a cancelled host is still finishing inside the block, deadlines are met and leases renewed."""
    finished = False
    with CancelScope() as host:
        async with network.connect(A) as a:
            await create(a, "p", after=5000)
            await a.request(RegisterListener(awaited="p", address=A.unicast))
            try:
                host.cancel()
                await anyio.sleep_forever()
            finally:
                with CancelScope(shield=True):
                    assert "unblock p" == name_of(await a.messages.receive())
                    finished = True

    assert finished


async def test_an_exception_of_the_block_comes_out_as_it_is(network: LocalNetwork) -> None:
    """No group is put around what the block raises."""

    async def fail_inside() -> None:
        async with network.connect(A):
            msg = "mine"
            raise LookupError(msg)

    with pytest.raises(LookupError, match="mine"):
        await fail_inside()


# Recovery


async def test_the_first_connection_frees_the_leases_it_finds(network: LocalNetwork) -> None:
    """Who held a lease when the engine ended is dead: its task is sent for at once, at the same version."""
    async with network.connect(A) as a:
        await create(a, "t", target=ANY)
        await acquire(a, A, await a.messages.receive(), ttl=3_600_000)

    async with network.connect(B) as b:
        assert ["t"] == await received(b)
        assert (TaskState.PENDING, 1) == ((await task(b, "t")).state, (await task(b, "t")).version)


async def test_a_server_keeps_the_leases_it_finds(store: MemoryStore, clock: VirtualClock) -> None:
    """With `keep_leases` the holders may live on as other processes; their leases lapse by themselves."""
    async with LocalNetwork(store, clock=clock).connect(A) as a:
        await create(a, "t", target=ANY)
        await acquire(a, A, await a.messages.receive(), ttl=5000)

    async with LocalNetwork(store, clock=clock, keep_leases=True).connect(B) as b:
        assert ([], TaskState.ACQUIRED) == (await received(b), (await task(b, "t")).state)
        await anyio.sleep(5)
        assert ["t"] == await received(b)


# Opening and closing


async def test_the_store_is_open_from_the_first_connection_to_the_last(clock: VirtualClock) -> None:
    """Connections share one opening; the next one after the last opens anew."""
    store = Watched(MemoryStore())
    network = LocalNetwork(store, clock=clock)
    async with network.connect(A):
        async with network.connect(B):
            pass

        assert (1, 0) == (store.opened, store.closed)

    assert (1, 1) == (store.opened, store.closed)
    async with network.connect(A):
        assert (2, 1) == (store.opened, store.closed)


async def test_many_may_connect_at_once(clock: VirtualClock) -> None:
    """Connections that come and go at the same time find the store open, and leave it closed."""
    store = Watched(MemoryStore(), blocking=True)
    network = LocalNetwork(store, clock=clock)

    async def visit(pid: str) -> None:
        async with network.connect(worker(pid)) as connection:
            await create(connection, pid)

    for _ in range(3):
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(visit, str(number))

        assert store.opened == store.closed > 0


async def test_a_store_that_cannot_be_recovered_is_closed(clock: VirtualClock) -> None:
    """If opening fails half-way the store is given back, and the next try may succeed."""
    store = Watched(MemoryStore())
    network = LocalNetwork(store, clock=clock)

    def refuse(_: object) -> None:
        msg = "the disk is full"
        raise StoreError(msg)

    store.before = refuse
    with pytest.raises(StoreError, match="the disk is full"):
        async with network.connect(A):
            pass

    assert (1, 1) == (store.opened, store.closed)
    store.before = lambda _: None
    async with network.connect(A) as a:
        assert 200 == (await create(a, "p")).status


async def test_a_sweep_that_fails_is_tried_again(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    """A store that refuses a sweep for a while does not end the engine; what was due is done a second later."""
    store = Watched(MemoryStore())
    refusals = iter([True, True, False])

    def refuse(steps: object) -> None:
        if next(refusals, False):
            msg = "the disk is full"
            raise StoreError(msg)

    async with LocalNetwork(store, clock=clock, safety_sweep=math.inf).connect(A) as a:
        await create(a, "p", after=5000)
        await a.request(RegisterListener(awaited="p", address=A.unicast))
        began = clock()
        store.before = refuse
        await a.messages.receive()
        assert 7000 == clock() - began

    assert 2 == len(caplog.records)


@pytest.mark.wall
async def test_a_second_event_loop_is_refused(network: LocalNetwork, anyio_backend_name: str) -> None:
    """While connections are open, a loop in another thread is told that an engine lives in one loop."""

    async def connect() -> None:
        async with network.connect(B):
            pass

    async with network.connect(A):
        with pytest.raises(UsageError, match="in use in another event loop"):
            await to_thread.run_sync(lambda: anyio.run(connect, backend=anyio_backend_name))

    await to_thread.run_sync(lambda: anyio.run(connect, backend=anyio_backend_name))


async def test_a_file_is_owned_while_connected(tmp_path: Path, clock: VirtualClock) -> None:
    """On an SQLite file the engine takes the lock with the first connection and gives it back with the last."""
    path = tmp_path / "engine.db"
    async with LocalNetwork(SQLiteStore(path), clock=clock).connect(A) as a:
        await create(a, "p")
        with pytest.raises(StoreError, match="in use by process"):
            async with LocalNetwork(SQLiteStore(path), clock=clock).connect(B):
                pass

    async with LocalNetwork(SQLiteStore(path), clock=clock).connect(B) as b:
        assert "p" == (await promise(b, "p")).id


async def test_one_name_is_connected_once(network: LocalNetwork) -> None:
    """Two connections of one name could not be told apart: the second is refused, until the first has gone."""
    async with network.connect(A):
        with pytest.raises(UsageError, match="'a' is connected already in the group 'g'"):
            async with network.connect(A):
                pass
        async with network.connect(worker("a", group="h")), network.connect(B):
            pass

    async with network.connect(A):
        pass
