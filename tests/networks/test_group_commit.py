"""Requests that arrive together share a transaction, on a store that waits for the disk and on one that does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from attrs import define, field

from resonate_anyio import StoreError, StoreUnavailable, UsageError
from resonate_anyio._concurrency._tasks import on_asyncio
from resonate_anyio._protocol import PromiseCreate, PromiseGet, Step
from resonate_anyio.abc import Connection
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock

from .helpers import Watched, create, promise, received, worker

A = worker("a")


@pytest.fixture
def slow() -> Watched:
    """A store that is not to be called on the event loop."""
    return Watched(MemoryStore(), blocking=True)


@pytest.fixture
def network(slow: Watched, clock: VirtualClock) -> LocalNetwork:
    return LocalNetwork(slow, clock=clock)


@pytest.fixture(params=["on a thread", "on the loop"])
def shared(request: pytest.FixtureRequest) -> Watched:
    """Each kind of store whose transactions are shared."""
    on_loop = request.param == "on the loop"
    return Watched(MemoryStore(), blocking=not on_loop, costly_transactions=on_loop)


async def test_concurrent_requests_share_a_commit(shared: Watched, clock: VirtualClock) -> None:
    """The requests of one turn of the event loop share a transaction, and each has its own answer."""
    answers: dict[str, str | None] = {}
    async with LocalNetwork(shared, clock=clock).connect(A) as connection:
        shared.commits.clear()

        async def ask(id: str) -> None:
            answer = (await create(connection, id)).promise
            answers[id] = None if answer is None else answer.id

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, str(number))

    assert {str(number): str(number) for number in range(50)} == answers
    assert [50] == shared.commits


async def test_tasks_in_step_share_every_transaction(clock: VirtualClock) -> None:
    """Twenty tasks that make five requests each cost five transactions, if the store does not wait for the disk."""
    store = Watched(MemoryStore(), costly_transactions=True)
    async with LocalNetwork(store, clock=clock).connect(A) as connection:
        store.commits.clear()

        async def ask(name: str) -> None:
            for number in range(5):
                await create(connection, f"{name}.{number}")

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(ask, str(number))

    assert [20] * 5 == store.commits


async def test_each_request_has_a_transaction_where_sharing_saves_nothing(clock: VirtualClock) -> None:
    """A store whose transactions cost nothing runs each request alone."""
    store = Watched(MemoryStore())
    async with LocalNetwork(store, clock=clock).connect(A) as connection, anyio.create_task_group() as group:
        store.commits.clear()
        for number in range(20):
            group.start_soon(create, connection, str(number))

    assert [1] * 20 == store.commits


async def test_what_arrives_during_a_commit_shares_the_next(slow: Watched, network: LocalNetwork) -> None:
    """While a thread commits, requests gather, and the next transaction has all of them."""
    committing, go_on = threading.Event(), threading.Event()

    def hold(_: Sequence[Step]) -> None:
        committing.set()
        go_on.wait(10)

    async with network.connect(A) as connection, anyio.create_task_group() as group:
        slow.commits.clear()
        slow.before = hold
        group.start_soon(create, connection, "first")
        while not committing.is_set():
            await checkpoint()

        for number in range(50):
            group.start_soon(create, connection, str(number))

        await anyio.wait_all_tasks_blocked()
        go_on.set()

    assert [1, 50] == slow.commits


async def test_the_loop_does_not_wait_for_the_disk(slow: Watched, network: LocalNetwork) -> None:
    """Invocation, commits and closing all happen on threads."""
    loop = threading.current_thread()
    threads: set[threading.Thread] = set()
    slow.before = lambda _: threads.add(threading.current_thread())
    async with network.connect(A) as connection:
        await create(connection, "p")

    assert threads
    assert loop not in threads


async def test_a_cancelled_request_is_answered_all_the_same(slow: Watched, network: LocalNetwork) -> None:
    """Cancelled in the middle of its commit, or queued for the next, a request takes effect and has its answer."""
    committing, go_on = threading.Event(), threading.Event()
    answered: list[str] = []

    def hold(_: Sequence[Step]) -> None:
        committing.set()
        go_on.wait(10)

    async with network.connect(A) as connection:
        with CancelScope() as scope:

            async def ask(id: str) -> None:
                await create(connection, id, target=A.preferred)
                answered.append(id)

            async with anyio.create_task_group() as group:
                slow.before = hold
                group.start_soon(ask, "a")
                while not committing.is_set():
                    await checkpoint()

                # One is being committed, and the other will be in the queue.
                group.start_soon(ask, "b")
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
                go_on.set()

        assert ["a", "b"] == sorted(answered)
        assert ["a", "b"] == sorted(await received(connection))
        assert "b" == (await promise(connection, "b")).id


async def test_one_bad_request_does_not_take_others_with_it(slow: Watched, network: LocalNetwork) -> None:
    """If a shared commit fails its requests are tried one by one, and only the one at fault fails."""

    def refuse_long_ids(steps: Sequence[Step]) -> None:
        if any(len(step.keywords["request"].id) > 5 for step in steps):  # type: ignore[attr-defined]
            msg = "too long"
            raise StoreError(msg)

    statuses: dict[str, int | str] = {}
    async with network.connect(A) as connection, anyio.create_task_group() as group:
        slow.before = refuse_long_ids

        async def ask(id: str) -> None:
            try:
                statuses[id] = (await create(connection, id)).status
            except StoreError as error:
                statuses[id] = str(error)

        for id in ("first", "good", "much too long", "fine"):
            group.start_soon(ask, id)

    assert {"first": 200, "good": 200, "much too long": "too long", "fine": 200} == statuses


async def test_without_a_thread_everybody_fails(network: LocalNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no thread to give, each request says so, and later ones succeed."""

    async def refuse(*_: object, **__: object) -> None:
        await checkpoint()
        msg = "can't start new thread"
        raise RuntimeError(msg)

    failed: list[str] = []
    async with network.connect(A) as connection:

        async def ask(id: str) -> None:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await create(connection, id)
            failed.append(id)

        with monkeypatch.context() as patch:
            patch.setattr("anyio.to_thread.run_sync", refuse)
            async with anyio.create_task_group() as group:
                for id in "abc":
                    group.start_soon(ask, id)

        assert ["a", "b", "c"] == sorted(failed)
        assert 200 == (await create(connection, "d")).status


async def test_the_lead_is_handed_on(slow: Watched, network: LocalNetwork) -> None:
    """Nobody commits for the others for ever: under an unbroken load each requester goes on after its own commit."""
    order: list[str] = []
    async with network.connect(A) as connection, anyio.create_task_group() as group:

        async def ask(name: str) -> None:
            for number in range(5):
                await create(connection, f"{name}{number}")
                order.append(name)

        for name in "abc":
            group.start_soon(ask, name)

    assert 15 == len(order)
    assert set("abc") == set(order[:6])


async def is_stored(connection: Connection, id: str) -> bool:
    return (await connection.request(PromiseGet(id=id))).status == 200


@define
class Asker:
    """A task that makes one request and then passes a checkpoint.

    Attributes:
        late: whether it could not be cancelled, because it had ended or, by asyncio, was not known yet.
    """

    id: str
    scope: CancelScope = field(init=False, factory=CancelScope)
    task: asyncio.Task[None] | None = field(init=False, default=None)
    answered: bool = field(init=False, default=False)
    cancelled: bool = field(init=False, default=False)
    ended: bool = field(init=False, default=False)
    late: bool = field(init=False, default=False)

    async def run(self, connection: Connection) -> None:
        if on_asyncio():
            self.task = asyncio.current_task()

        try:
            with self.scope:
                await create(connection, self.id)
                self.answered = True
                await checkpoint()
        except asyncio.CancelledError:
            assert self.task is not None
            self.task.uncancel()
            self.cancelled = True

        self.cancelled = self.cancelled or self.scope.cancelled_caught
        self.ended = True

    def cancel(self, how: str) -> None:
        self.late = self.ended or (how == "by asyncio" and self.task is None)
        if how == "by a scope":
            self.scope.cancel()
        elif self.task is not None:
            self.task.cancel()


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("how", ["by a scope", "by asyncio"])
async def test_a_cancellation_at_any_instant_is_exact(
    shared: Watched, clock: VirtualClock, how: str, turns: int
) -> None:
    """A cancelled request either has its answer, and a cancellation at the next checkpoint, or has no effect."""
    askers = [Asker(str(number)) for number in range(40)]
    async with LocalNetwork(shared, clock=clock).connect(A) as connection:

        async def cancel_some() -> None:
            for _ in range(turns):
                await checkpoint()

            for asker in askers[::3]:
                asker.cancel(how)

        async with anyio.create_task_group() as group:
            for asker in askers[:20]:
                group.start_soon(asker.run, connection)

            group.start_soon(cancel_some)
            for asker in askers[20:]:
                group.start_soon(asker.run, connection)

        assert [asker.answered for asker in askers] == [await is_stored(connection, asker.id) for asker in askers]
        assert not any(asker.cancelled for asker in askers if asker not in askers[::3])
        assert all(asker.answered for asker in askers if not asker.cancelled)
        if how == "by a scope" or on_asyncio():
            assert all(asker.cancelled or asker.late for asker in askers[::3])


async def test_requests_that_were_cancelled_before_are_not_committed_by_others(
    shared: Watched, clock: VirtualClock
) -> None:
    """A request that begins in a cancelled scope has no effect, although others commit in the same turn."""
    askers = [Asker(str(number)) for number in range(40)]
    for asker in askers[::2]:
        asker.cancel("by a scope")

    async with LocalNetwork(shared, clock=clock).connect(A) as connection:
        async with anyio.create_task_group() as group:
            for asker in askers:
                group.start_soon(asker.run, connection)

        assert [False, True] * 20 == [await is_stored(connection, asker.id) for asker in askers]


async def test_a_cancellation_by_asyncio_while_a_thread_commits(slow: Watched, network: LocalNetwork) -> None:
    """It passes every shield: the request in the commit keeps its answer, one in the queue has no effect, and no hang.

    The next in the queue leads the next commit.
    """
    if not on_asyncio():
        return

    committing, go_on = threading.Event(), threading.Event()

    def hold(_: Sequence[Step]) -> None:
        committing.set()
        go_on.wait(10)

    ended: dict[str, str] = {}

    async def ask(connection: Connection, id: str) -> None:
        await create(connection, id)
        ended[id] = "answered"
        try:
            await checkpoint()
        except asyncio.CancelledError:
            ended[id] = "answered, then cancelled"
            raise

    async with network.connect(A) as connection:
        slow.before = hold
        tasks = {"leads": asyncio.create_task(ask(connection, "leads"))}
        while not committing.is_set():
            await checkpoint()

        for id in ("cancelled", "goes on", "goes on too"):
            tasks[id] = asyncio.create_task(ask(connection, id))

        await anyio.wait_all_tasks_blocked()
        tasks["leads"].cancel()
        tasks["cancelled"].cancel()
        await checkpoint()
        go_on.set()
        await asyncio.wait(tasks.values())
        assert {"leads": "answered, then cancelled", "goes on": "answered", "goes on too": "answered"} == ended
        assert {"leads": True, "cancelled": False, "goes on": True, "goes on too": True} == {
            id: await is_stored(connection, id) for id in tasks
        }


async def test_an_appointed_leader_that_is_cancelled_passes_the_lead_on(slow: Watched, network: LocalNetwork) -> None:
    """The caller that is to lead the next commit may be cancelled by asyncio in the same turn: another one leads."""
    if not on_asyncio():
        return

    committing, go_on = threading.Event(), threading.Event()

    def hold(_: Sequence[Step]) -> None:
        committing.set()
        go_on.wait(10)

    def request(id: str) -> PromiseCreate:
        return PromiseCreate(id=id, timeout_at=2**50)

    async with network.running() as engine, network.connect(A) as connection:
        slow.before = hold

        def cancel_the_next(*_: object) -> None:
            # Called with the answer to the first request, right before the next leader is appointed.
            appointed.cancel()

        first = asyncio.create_task(engine.request(request("first"), then=cancel_the_next))
        while not committing.is_set():
            await checkpoint()

        appointed = asyncio.create_task(engine.request(request("appointed")))
        other = asyncio.create_task(engine.request(request("other")))
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        await asyncio.wait([first, appointed, other])
        assert appointed.cancelled()
        assert 200 == other.result().status
        assert not await is_stored(connection, "appointed")


async def test_requests_of_a_connection_that_is_closed_meanwhile(shared: Watched, clock: VirtualClock) -> None:
    """A request that waits for its turn has no effect if its connection is closed before."""
    network = LocalNetwork(shared, clock=clock)
    refused: list[str] = []
    async with network.connect(worker("b")) as other:

        async def ask(connection: Connection, id: str) -> None:
            with pytest.raises(UsageError, match="this connection is closed"):
                await create(connection, id)
            refused.append(id)

        async with anyio.create_task_group() as group, network.connect(A) as closing:
            for id in "ab":
                group.start_soon(ask, closing, id)

            # The requests have begun, and their turn comes after that of this task.
            await checkpoint()

        assert ["a", "b"] == sorted(refused)
        assert not await is_stored(other, "a")
        assert not await is_stored(other, "b")


async def test_a_store_that_cannot_be_written_is_not_tried_for_each(shared: Watched, clock: VirtualClock) -> None:
    """If the store is locked the transaction is not tried for each request; all are made when it can be written."""
    tries: list[int] = []

    def refuse(steps: Sequence[Step]) -> None:
        tries.append(len(steps))
        if len(tries) <= 3:
            raise StoreUnavailable("file", "locked")  # noqa: EM101 - not messages

    statuses: list[int] = []
    async with LocalNetwork(shared, clock=clock).connect(A) as connection:

        async def ask(id: str) -> None:
            statuses.append((await create(connection, id)).status)

        async with anyio.create_task_group() as group:
            shared.before = refuse
            for number in range(20):
                group.start_soon(ask, str(number))

    assert [200] * 20 == statuses
    # Then one request is tried until the store can be written, and the others follow.
    assert [20, 1, 1] + [1] * 20 == tries


async def test_an_interrupt_in_a_transaction_concerns_one_caller(clock: VirtualClock) -> None:
    """The caller whose turn it is raises the interrupt, and the others commit their requests themselves."""
    store = Watched(MemoryStore(), costly_transactions=True)
    interrupted: list[str] = []
    answered: list[str] = []

    def interrupt(_: Sequence[Step]) -> None:
        store.before = lambda _: None
        raise KeyboardInterrupt

    async with LocalNetwork(store, clock=clock).connect(A) as connection:

        async def ask(id: str) -> None:
            try:
                await create(connection, id)
                answered.append(id)
            except KeyboardInterrupt:
                interrupted.append(id)

        store.before = interrupt
        async with anyio.create_task_group() as group:
            for id in "abc":
                group.start_soon(ask, id)

        assert 1 == len(interrupted)
        assert {"a", "b", "c"} - set(interrupted) == set(answered)
        assert not await is_stored(connection, interrupted[0])


async def test_an_error_of_a_watcher_concerns_one_caller(clock: VirtualClock) -> None:
    """An error in what is called with an answer is raised to the sender of that request, and others have theirs."""
    store = Watched(MemoryStore(), costly_transactions=True)
    outcomes: list[object] = []

    async with LocalNetwork(store, clock=clock).running() as engine:

        async def ask(id: str) -> None:
            def then(_: int, __: object) -> None:
                if id == "b":
                    msg = "wrong"
                    raise ValueError(msg)

            try:
                outcomes.append((await engine.request(PromiseGet(id=id), then=then)).status)
            except ValueError as error:
                outcomes.append(str(error))

        async with anyio.create_task_group() as group:
            for id in "abc":
                group.start_soon(ask, id)

    assert [404, 404, "wrong"] == sorted(outcomes, key=str)
