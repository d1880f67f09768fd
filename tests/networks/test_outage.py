"""A store that cannot be written: how often it is tried, for how long, and what the log says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import count

import anyio
import pytest

from resonate_anyio import StoreLost, StoreUnavailable
from resonate_anyio._embedded._outage import Attempt, Outage, TimeLimit
from resonate_anyio._protocol import Outcome, Promise, PutPromise, Response

WROTE = [Outcome(response=Response(status=200), changes=(PutPromise(Promise(id="p", timeout_at=1, created_at=0)),))]
READ = [Outcome(response=Response(status=200))]


class Disk:
    """What is tried: it has room for so much, and counts the attempts."""

    def __init__(self) -> None:
        self.room = 0
        self.attempts = 0

    async def take(self, size: int = 1, outcome: Sequence[Outcome] = WROTE) -> Sequence[Outcome]:
        await anyio.lowlevel.checkpoint()
        self.attempts += 1
        if size > self.room:
            path, reason = "a.db", "disk full"
            raise StoreUnavailable(path, reason)
        return outcome


async def outlast(outage: Outage, attempt: Attempt, limit: TimeLimit) -> Sequence[Outcome]:
    """Do what the engine does: one attempt, and retries if the store is unavailable."""
    try:
        outcomes = await attempt()
    except StoreUnavailable as error:
        outcomes = await outage.retry(attempt, error, limit)
    outage.note_success(outcomes)
    return outcomes


def forever() -> float:
    return float("inf")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_thousand_that_wait_cost_no_more_than_one(caplog: pytest.LogCaptureFixture) -> None:
    """During an outage about two attempts are made in a second, however many wait; afterwards all go on at once."""
    disk, outage = Disk(), Outage()
    done = 0

    async def ask() -> None:
        nonlocal done
        assert WROTE == await outlast(outage, disk.take, forever)
        done += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(1000):
            tasks.start_soon(ask)
        await anyio.sleep(100)
        assert disk.attempts < 1000 + 2 * 100 + 20
        disk.room = 1
        began = anyio.current_time()

    assert 1000 == done
    assert anyio.current_time() - began < 1
    begins, ends = lines(caplog)
    assert begins.startswith("store.unavailable a.db: disk full. ")
    assert ends.startswith("store.available again after 100.")


async def test_what_fits_does_not_wait_for_what_does_not() -> None:
    """Where one that waits finds no room, the others get their turn."""
    disk, outage = Disk(), Outage()
    order: list[int] = []

    async def ask(size: int) -> None:
        await outlast(outage, lambda: disk.take(size), forever)
        order.append(size)

    async with anyio.create_task_group() as tasks:
        for size in (9, 5, 1):
            tasks.start_soon(ask, size)
        for room in (1, 5, 9):
            await anyio.sleep(10)
            disk.room = room

    assert [1, 5, 9] == order


async def test_patience_ends() -> None:
    """Who is willing to wait for five seconds is told then, although others wait on, and has had no effect."""
    disk, outage = Disk(), Outage()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(outlast, outage, disk.take, forever)
        await anyio.sleep(1)
        began = anyio.current_time()
        with pytest.raises(StoreUnavailable):
            await outlast(outage, disk.take, lambda: 5)
        assert 5 <= anyio.current_time() - began <= 6
        with pytest.raises(StoreUnavailable):
            await outlast(outage, disk.take, lambda: 0)
        disk.room = 1


async def test_who_waits_can_be_cancelled() -> None:
    """Whether its turn has come or not, it leaves the line and the others go on."""
    disk, outage = Disk(), Outage()
    scopes = [anyio.CancelScope() for _ in range(3)]

    async def ask(scope: anyio.CancelScope) -> None:
        with scope:
            await outlast(outage, disk.take, forever)

    async with anyio.create_task_group() as tasks:
        for scope in scopes:
            tasks.start_soon(ask, scope)
        await anyio.sleep(3)
        scopes[0].cancel()
        scopes[1].cancel()
        await anyio.sleep(3)
        disk.room = 1

    assert [True, True, False] == [scope.cancelled_caught for scope in scopes]


async def test_a_moment_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """What is over within a second leaves no line."""
    disk, outage = Disk(), Outage()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outlast, outage, disk.take, forever)
        await anyio.sleep(0.5)
        disk.room = 1

    assert [] == lines(caplog)


async def test_what_changes_nothing_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk reads succeed all the while: the outage is told once, and over when something was written."""
    disk, outage = Disk(), Outage()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await outlast(outage, disk.take, lambda: 3)
        await outlast(outage, lambda: disk.take(0, READ), forever)

    disk.room = 1
    await outlast(outage, disk.take, forever)
    assert 2 == len(lines(caplog))


async def test_another_error_ends_the_waiting() -> None:
    """What is not an outage comes out as it is."""
    numbers = count()

    async def attempt() -> Sequence[Outcome]:
        await anyio.lowlevel.checkpoint()
        path, reason = "a.db", "gone"
        raise StoreUnavailable(path, reason) if next(numbers) < 3 else StoreLost(path, reason)

    with pytest.raises(StoreLost):
        await outlast(Outage(), attempt, forever)
