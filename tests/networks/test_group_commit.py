"""Requests to a store that waits for the disk share its commits."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import anyio
import pytest
from anyio import CancelScope

from resonate_anyio import StoreError
from resonate_anyio._protocol import Step
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


async def test_concurrent_requests_share_a_commit(slow: Watched, network: LocalNetwork) -> None:
    """What arrives while a commit is under way goes into the next one, all together, and each has its own answer."""
    async with network.connect(A) as connection, anyio.create_task_group() as group:
        slow.commits.clear()
        answers: dict[str, str | None] = {}

        async def ask(id: str) -> None:
            answer = (await create(connection, id)).promise
            answers[id] = None if answer is None else answer.id

        for number in range(50):
            group.start_soon(ask, str(number))

    assert {str(number): str(number) for number in range(50)} == answers
    assert 50 == sum(slow.commits)
    assert [1, 49] == slow.commits


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
                for id in "ab":
                    group.start_soon(ask, id)

                while not committing.is_set():
                    await anyio.lowlevel.checkpoint()

                # Now one is being committed and the other is in the queue.
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
        await anyio.lowlevel.checkpoint()
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
