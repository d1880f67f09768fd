"""How long the event loop is held up: `python -m tests.benchmarks.bench_loop [BACKEND]`.

Prints, for each store, the longest time between two turns of the loop, the most processor time that its thread used
between two, and how long the whole took: while a week of a schedule by the minute is made up for, and while 50,000
promises are searched through. The figures depend on the machine, and but for processor time on what else it does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import anyio

from resonate_anyio._protocol import (
    EMBEDDED,
    PromiseCreate,
    PromiseSearch,
    PromiseSettle,
    PromiseState,
    Request,
    ScheduleCreate,
    ScheduleGet,
    Value,
    apply,
)
from resonate_anyio.abc import Connection, Identity, Store
from resonate_anyio.networks import LocalNetwork, system_clock
from resonate_anyio.stores import MemoryStore, SQLiteStore

WEEK = 7 * 24 * 3600 * 1000
PROMISES = 50_000
Figures: TypeAlias = tuple[float, float, float]
"""The longest turn, the most processor time of one, and the whole, in milliseconds."""

ME = Identity(group="g", pid="p", holder="p.0")

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(),
    "sqlite, process": SQLiteStore,
    "sqlite, power": lambda path: SQLiteStore(path, durability="power"),
}


async def stall(work: Callable[[], Awaitable[object]]) -> Figures:
    """The longest turn of the loop while `work` is done, and how long it takes."""
    longest = busiest = 0.0
    last, worked = time.perf_counter(), time.thread_time()
    begun = last

    async def watch() -> None:
        nonlocal longest, busiest, last, worked
        while True:
            now, work_now = time.perf_counter(), time.thread_time()
            longest, busiest = max(longest, now - last), max(busiest, work_now - worked)
            last, worked = now, work_now
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await work()
        taken = time.perf_counter() - begun
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    return longest * 1000, busiest * 1000, taken * 1000


async def made_up_for(connection: Connection) -> None:
    """Wait until the schedule has caught up."""
    while True:
        schedule = (await connection.request(ScheduleGet(id="s"))).schedule
        assert schedule is not None
        if schedule.next_run_at > connection.now():
            return
        await anyio.sleep(0.05)


async def schedules(store: Store) -> Figures:
    """A week of a schedule by the minute, whose runs anybody may be sent."""
    ahead = 0
    network = LocalNetwork(store, clock=lambda: system_clock() + ahead, safety_sweep=0.1)
    async with network.connect(ME) as connection:
        await connection.request(
            ScheduleCreate(
                id="s",
                cron="* * * * *",
                promise_id="{{.id}}-{{.timestamp}}",
                promise_timeout=WEEK,
                promise_tags={"resonate:target": "poll://any@others"},
            )
        )
        ahead = WEEK
        return await stall(lambda: made_up_for(connection))


def fill(store: Store) -> None:
    """Make promises, ten of which stay pending."""
    store.open()
    now = system_clock()
    for start in range(0, PROMISES, 1000):
        requests: list[Request] = []
        for number in range(start, start + 1000):
            id, last = f"p{number:06}", number == PROMISES - 1
            tags = {"team": "a", "last": "yes" if last else "no"}
            requests.append(PromiseCreate(id=id, timeout_at=now + WEEK, tags=tags, param=Value("x" * 200)))
            if number % 5000:
                requests.append(PromiseSettle(id=id, state=PromiseState.RESOLVED, value=Value("y" * 200)))
        store.transact([partial(apply, now=now, request=request, rules=EMBEDDED) for request in requests])
    store.close()


SEARCHES = {
    "one by its tag": PromiseSearch(tags={"last": "yes"}, limit=100),
    "those pending": PromiseSearch(state=PromiseState.PENDING, limit=100),
    "a page of 1,000": PromiseSearch(limit=1000),
}


async def searches(store: Store, request: PromiseSearch) -> Figures:
    """One search."""
    async with LocalNetwork(store).connect(ME) as connection:
        return await stall(lambda: connection.request(request))


def main(backend: str = "asyncio") -> None:
    """Print a table."""
    sys.stdout.write(
        f"{backend + ', milliseconds':36}{'store':>18}{'longest turn':>14}{'processor':>11}{'in all':>8}\n"
    )
    for name, make in STORES.items():
        with TemporaryDirectory(dir=Path.cwd()) as directory:
            figures = {
                "a week of missed schedules": anyio.run(schedules, make(Path(directory, "1.db")), backend=backend)
            }
            store = make(Path(directory, "2.db"))
            fill(store)
            for what, request in SEARCHES.items():
                figures[what] = anyio.run(searches, store, request, backend=backend)
            for what, (longest, busiest, taken) in figures.items():
                sys.stdout.write(f"{what:36}{name:>18}{longest:>14.1f}{busiest:>11.1f}{taken:>8.0f}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
