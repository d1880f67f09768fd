"""The engine in this process: requests, messages, leases, timers, and who opens and closes it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from anyio import CancelScope, to_thread
from attrs import evolve

from resonate_anyio import StoreError, StoreLost, UsageError
from resonate_anyio._embedded._clock import MonotoneClock
from resonate_anyio._protocol import (
    PromiseCreate,
    PromiseSearch,
    PromiseSettle,
    PromiseState,
    RegisterListener,
    Request,
    Schedule,
    ScheduleCreate,
    ScheduleGet,
    ScheduleSearch,
    Search,
    TaskHalt,
    TaskSearch,
    TaskState,
    View,
    apply,
    snapshot,
)
from resonate_anyio.abc import Connection, Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore, SQLiteStore
from resonate_anyio.testing import VirtualClock

from .helpers import YEAR, Watched, acquire, create, name_of, promise, received, task, worker

T = TypeVar("T")

A, B = worker("a"), worker("b")
ANY = "poll://any@g"


async def schedule(connection: Connection, id: str) -> Schedule:
    found = (await connection.request(ScheduleGet(id=id))).schedule
    assert found is not None
    return found


async def stored(store: Watched) -> int:
    """How many promises there are."""
    await anyio.lowlevel.checkpoint()
    return len(store.read(lambda view: view.search_promises(state=None, tags={}, after=None, limit=1_000_000)))


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


WEEK_MS = 7 * 24 * 3600 * 1000


def every_minute(id: str) -> ScheduleCreate:
    """A schedule that fires a promise every minute."""
    return ScheduleCreate(id=id, cron="* * * * *", promise_id="{{.id}}-{{.timestamp}}", promise_timeout=WEEK_MS)


async def seen_between(store: Watched, steps: Callable[[], Awaitable[None]]) -> list[int]:
    """After how many commits the event loop turned, while `steps` are done."""
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(len(store.commits))
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await steps()
        tasks.cancel_scope.cancel()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("pause", ["nothing ran", "the clock was set"])
async def test_what_was_missed_is_fired_in_parts(clock: VirtualClock, pause: str) -> None:
    """A week of a schedule by the minute is fired a hundred at a time, and the event loop turns in between."""
    store = Watched(MemoryStore())
    network = LocalNetwork(store, clock=clock, safety_sweep=60)
    async with network.connect(A) as a:
        await a.request(every_minute("s"))
        if pause == "the clock was set":
            clock.advance(WEEK_MS)
            await _week_is_made_up_for(store, a)

    if pause == "nothing ran":
        clock.advance(WEEK_MS)
        async with network.connect(A) as a:
            await _week_is_made_up_for(store, a)


async def _week_is_made_up_for(store: Watched, connection: Connection) -> None:
    store.commits.clear()
    store.largest = 0

    async def made_up_for() -> None:
        with anyio.fail_after(70):
            # The network tells nobody of its sweeps.
            while (await schedule(connection, "s")).next_run_at <= connection.now():  # noqa: ASYNC110
                await anyio.sleep(0.05)

    seen = await seen_between(store, made_up_for)
    # Promises, and the schedule itself.
    assert store.largest == 101
    sweeps = [number for number, steps in enumerate(store.commits) if steps == 2]
    assert len(sweeps) >= 7 * 24 * 60 // 100
    # Between each two sweeps of the backlog.
    assert all(set(range(first + 1, second + 1)) & set(seen) for first, second in pairwise(sweeps))
    assert 7 * 24 * 60 <= await stored(store) <= 7 * 24 * 60 + 1


@pytest.mark.slow
async def test_one_that_missed_much_does_not_hold_up_the_others(network: LocalNetwork, clock: VirtualClock) -> None:
    """Another schedule fires at its time while the first is still made up for."""
    async with network.connect(A) as a:
        await a.request(every_minute("s"))
    clock.advance(2 * WEEK_MS)
    async with network.connect(A) as a:
        began = a.now()
        await a.request(every_minute("t"))
        due = (await schedule(a, "t")).next_run_at
        await anyio.sleep((due - began) / 1000 + 0.05)
        assert due == (await schedule(a, "t")).last_run_at


async def test_many_deadlines_are_met_in_parts(clock: VirtualClock) -> None:
    """Ten thousand promises and tasks that are due at once are seen to a hundred at a time, and all of them."""
    store = Watched(MemoryStore())
    network = LocalNetwork(store, clock=clock, safety_sweep=60)
    async with network.connect(A) as a:
        for number in range(1000):
            await create(a, f"p{number}", after=10_000)
            await create(a, f"t{number}", target="poll://any@nobody")
        store.largest = 0
        await anyio.sleep(40)
        assert store.largest <= 101
        assert not (await promise(a, "p999")).pending

    store.largest = 0
    async with network.connect(A) as a:
        await anyio.sleep(1)
        assert store.largest <= 101


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


# Invocation and closing


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


# Searches


@pytest.fixture(params=["memory", "sqlite", "sqlite, power"])
def some_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each sort."""
    match request.param:
        case "memory":
            return MemoryStore()
        case "sqlite":
            return SQLiteStore(tmp_path / "engine.db")
        case _:
            return SQLiteStore(tmp_path / "engine.db", durability="power")


SEARCHES: dict[str, tuple[Search, int]] = {
    "all": (PromiseSearch(limit=1000), 1000),
    "a page": (PromiseSearch(limit=7, cursor="p0010"), 7),
    "one at the end": (PromiseSearch(tags={"last": "yes"}), 1),
    "several tags": (PromiseSearch(tags={"team": "a", "last": "no"}, limit=1000), 1000),
    "pending": (PromiseSearch(state=PromiseState.PENDING, limit=1000), 1000),
    "resolved": (PromiseSearch(state=PromiseState.RESOLVED, limit=1000), 3),
    "rejected": (PromiseSearch(state=PromiseState.REJECTED), 0),
    "branch": (PromiseSearch(tags={"resonate:branch": "b"}, limit=3), 2),
    "what only looks alike": (PromiseSearch(tags={"team": 'a","last":"no'}), 0),
    "tasks": (TaskSearch(limit=1000), 5),
    "schedules": (ScheduleSearch(limit=1000, tags={"team": "s"}), 3),
    "a page that is refused": (PromiseSearch(limit=1001), 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
async def test_a_search_in_parts_finds_what_one_look_finds(some_store: Store, clock: VirtualClock, name: str) -> None:
    """However many records lie between those that are searched for, the page is the same, and so is its cursor."""
    search, expected = SEARCHES[name]
    network = LocalNetwork(some_store, clock=clock)
    async with network.connect(A) as a:
        engine = network._session.engine if network._session else None
        assert engine is not None
        now = clock()
        creates = [
            PromiseCreate(id=f"p{number:04}", timeout_at=now + YEAR, tags=_tags_of(number)) for number in range(2000)
        ]
        requests: list[Request] = [
            *creates,
            *(PromiseSettle(id=f"p{number:04}", state=PromiseState.RESOLVED) for number in (3, 800, 1999)),
            *(evolve(every_minute(f"s{number}"), promise_tags={"team": "st"[number % 2]}) for number in range(6)),
        ]
        steps = [partial(apply, now=now, request=request, rules=engine.rules) for request in requests]
        some_store.transact(steps)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            found = await a.request(search)
            tasks.cancel_scope.cancel()

        [at_once] = some_store.transact([partial(apply, now=now, request=search, rules=engine.rules)])
        assert at_once.response == found
        assert expected == len(found.promises) + len(found.tasks) + len(found.schedules)
        if name in {"one at the end", "rejected", "what only looks alike"}:
            assert turns >= 2000 // 250


def _tags_of(number: int) -> dict[str, str]:
    tags = {"team": "aab"[number % 3], "last": "yes" if number == 1999 else "no"}
    if number % 1000 == 5:
        tags["resonate:branch"] = "b"
    if number % 400 == 0:
        tags["resonate:target"] = "poll://any@nobody"
    return tags


# Clocks


@pytest.mark.parametrize("blocking", [False, True])
async def test_what_changes_nothing_is_read(clock: VirtualClock, blocking: bool) -> None:
    """Searches and snapshots go through `Store.read` and make no transaction, so they need no lock."""
    store = Watched(MemoryStore(), blocking=blocking)
    network = LocalNetwork(store, clock=clock)
    async with network.connect(A) as a, network.running() as engine:
        await create(a, "p")
        store.commits.clear()
        assert ["p"] == [found.id for found in (await a.request(PromiseSearch())).promises]
        assert (1, []) == (store.reads, store.commits)
        found = await engine.read(partial(snapshot, outbox=engine.router.waiting, rules=engine.rules))
        assert ["p"] == [found["id"] for found in found["promises"]]
        assert (2, []) == (store.reads, store.commits)


async def test_a_read_that_finds_the_store_lost_stops_the_engine(clock: VirtualClock) -> None:
    """The connections of an engine whose store is found to be damaged by a read end with this error."""

    class Lost(Watched):
        def read(self, query: Callable[[View], T]) -> T:
            path, reason = "a.db", "damaged"
            raise StoreLost(path, reason)

    async def search() -> None:
        async with LocalNetwork(Lost(MemoryStore()), clock=clock).connect(A) as a:
            with pytest.raises(StoreLost, match="damaged"):
                await a.request(PromiseSearch())
            with pytest.raises(StoreLost, match="damaged"):
                await create(a, "p")
            await anyio.sleep_forever()

    with anyio.fail_after(60), pytest.raises(StoreLost, match="damaged"):
        await search()


async def test_a_clock_past_the_calendar_is_refused() -> None:
    """An engine does not start by a clock that is past the year 9999; the error says what the clock says."""
    network = LocalNetwork(MemoryStore(), clock=lambda: 2**63)
    with pytest.raises(UsageError, match="9223372036854775808 ms after 1970, which is past the year 9999"):
        async with network.connect(A):
            pass


async def test_a_clock_that_leaves_the_calendar_is_not_followed(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its readings past the year 9999 are ignored, and told once; when it is set right again, time goes on."""
    away = 0
    network = LocalNetwork(MemoryStore(), clock=lambda: clock() + away, safety_sweep=60)
    async with network.connect(A) as a:
        await a.request(every_minute("s"))
        await create(a, "p", after=100_000)
        began = a.now()
        away = 10**15
        await anyio.sleep(300)
        assert (began, True) == (a.now(), (await promise(a, "p")).pending)
        away = 0
        await anyio.sleep(60)
        assert not (await promise(a, "p")).pending

    assert ["clock.unusable"] == [record.getMessage().split()[0] for record in caplog.records]
