"""A store that cannot be written for a while: what has finished is kept in the process, and settled later.

And one that is gone for good: the program ends, and says what happened.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import anyio
import pytest

from resonate_anyio import (
    Context,
    Handle,
    NetworkError,
    NotFound,
    NotRunning,
    RequestError,
    Resonate,
    StoreError,
    StoreLost,
    StoreUnavailable,
)
from resonate_anyio.abc import Clock, Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore, SQLiteStore

from ..chosen import CHOSEN, dotted, network_on
from ..networks.helpers import Watched


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database file."""
    return tmp_path / "engine.db"


@pytest.fixture(params=["process", "power"])
def store(request: pytest.FixtureRequest, path: Path) -> SQLiteStore:
    """A store of each durability: one commits on the event loop, one on a thread."""
    return SQLiteStore(path, durability=request.param)


@contextmanager
def locked(store: SQLiteStore) -> Iterator[None]:
    """Hold the file's write lock, as a database browser does that has edited a row."""
    with closing(sqlite3.connect(store.path, isolation_level=None, timeout=5)) as browser:
        browser.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            browser.execute("ROLLBACK")


@contextmanager
def full(store: SQLiteStore) -> Iterator[None]:
    """Let the file not grow."""
    assert store._use is not None
    connection = store._use.connection
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        connection.execute("PRAGMA max_page_count = 1000000")


Fault = Callable[[SQLiteStore], AbstractContextManager[None]]

FAULTS: dict[str, tuple[Fault, str]] = {
    "locked": (locked, "another program holds the file's write lock"),
    "full": (full, "there is no room left"),
}

LARGE = "x" * 200_000
"""More than fits into what is free in a small file."""


def client(store: Store, clock: Clock, *, grace: float = 10, one_request: bool | None = None) -> Resonate:
    """A program on the store."""
    return Resonate(network=network_on(store, clock), pid="p", grace=grace, one_request=one_request)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says, from WARNING on."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_finished_meanwhile_is_recorded_later(
    store: SQLiteStore, clock: Clock, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A leaf that ends while the store cannot be written runs once, and who waits gets its result afterwards."""
    break_, words = FAULTS[fault]
    calls: list[str] = []
    results: list[object] = []
    begun, broken = anyio.Event(), anyio.Event()

    async def leaf() -> str:
        calls.append("leaf")
        begun.set()
        await broken.wait()
        return LARGE

    async def one() -> int:
        calls.append("one")
        return 1

    async def workflow(ctx: Context) -> int:
        return len(await ctx.run(leaf)) + await ctx.run(one)

    resonate = client(store, clock)
    resonate.register(workflow)

    async def wait() -> None:
        results.append(await resonate.run("w", workflow))

    async with resonate, anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await begun.wait()
        with break_(store):
            broken.set()
            await anyio.sleep(60)
            assert (["leaf"], []) == (calls, results)

    assert (["leaf", "one"], [len(LARGE) + 1]) == (calls, results)
    if CHOSEN.network == "local":
        begins, ends = lines(caplog)
        assert begins.startswith(f"store.unavailable {store.path}: ")
        assert words in begins
        assert ends.startswith("store.available again after 6")


@pytest.mark.parametrize("fault", FAULTS)
async def test_time_goes_on_meanwhile(store: SQLiteStore, clock: Clock, fault: str) -> None:
    """Leases, sleeps and schedules that fall due while the store cannot be written are seen to afterwards, once."""
    break_, _ = FAULTS[fault]
    calls: list[str] = []

    async def leaf(text: str) -> None:
        calls.append(text)

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(60)
        await ctx.run(leaf, "slept")

    resonate = client(store, clock)
    resonate.register(workflow)
    resonate.register(leaf)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await resonate.schedule("s", "* * * * *", leaf, LARGE).missed("latest")
        await anyio.sleep(1)
        with break_(store):
            await anyio.sleep(150)
            during = list(calls)

        await handle.result()
        await anyio.sleep(2)

    # A full disk may have room for the little that a sleep needs.
    assert during in (["slept"], []) if fault == "full" else during == []
    assert ["slept", LARGE] == sorted(calls)


async def test_who_waits_outside_is_told_after_half_a_minute(store: SQLiteStore, clock: Clock) -> None:
    """A call that cannot even begin says which file is locked, has had no effect, and works when it is free."""

    async def leaf() -> int:
        return 1

    resonate = client(store, clock)
    resonate.register(leaf)
    async with resonate:
        with locked(store):
            began = anyio.current_time()
            # A server answers that it cannot answer now.
            with pytest.raises((NetworkError, RequestError)) as refused:
                await resonate.run("w", leaf)
            waited = anyio.current_time() - began

        if CHOSEN.network == "local":
            assert isinstance(refused.value, StoreUnavailable)
            assert isinstance(refused.value, StoreError)
            assert "task.create 'w' was not done" in str(refused.value)
            assert store.path in str(refused.value)
            assert 30 <= waited < 32
            assert [] == [promise.id async for promise in resonate.promises.search()]

        assert 1 == await resonate.run("w", leaf)


async def test_searches_go_on(path: Path, clock: Clock) -> None:
    """What is on record can be looked up by a search while another program holds the write lock."""
    store = SQLiteStore(path)

    async def leaf() -> int:
        return 1

    resonate = client(store, clock)
    resonate.register(leaf)
    async with resonate:
        await resonate.run("w", leaf)
        with locked(store), anyio.fail_after(1):
            assert ["w"] == [promise.id async for promise in resonate.promises.search()]


@pytest.mark.parametrize("one_request", [True, False])
async def test_stopping_does_not_wait_for_ever(path: Path, clock: Clock, *, one_request: bool) -> None:
    """A program that ends while the file is locked ends, and the next one continues from what is recorded."""
    store = SQLiteStore(path)
    calls: list[str] = []

    async def leaf(text: str) -> str:
        calls.append(text)
        return text

    async def workflow(ctx: Context) -> None:
        await ctx.run(leaf, "first")
        begun.set()
        await anyio.sleep(1)
        await ctx.run(leaf, "second")

    begun = anyio.Event()
    resonate = client(store, clock, grace=2, one_request=one_request)
    resonate.register(workflow)
    began = anyio.current_time()
    with closing(sqlite3.connect(path, isolation_level=None)) as browser:
        async with resonate:
            await resonate.run("w", workflow).spawn()
            await begun.wait()
            browser.execute("BEGIN IMMEDIATE")
            await anyio.sleep(10)
        took = anyio.current_time() - began
        browser.execute("ROLLBACK")

    assert took < 60
    async with resonate:
        await (await resonate.get("w"))

    assert ["first", "second"] == calls


async def test_a_store_that_fails_now_and_then(clock: Clock) -> None:
    """Whatever transaction a store refuses for the moment, each step runs once and nobody hears of it."""
    refused = 0

    def refuse(_: object) -> None:
        nonlocal refused
        if len(inner.commits) % 3:
            refused += 1
            reason = "disk I/O error"
            raise StoreUnavailable(str(inner), reason)

    inner = Watched(MemoryStore(), before=refuse)
    calls: list[int] = []

    async def leaf(number: int) -> int:
        calls.append(number)
        return number

    async def workflow(ctx: Context) -> int:
        await ctx.sleep(5)
        return sum(await ctx.map(leaf, list(range(20))))

    resonate = client(inner, clock)
    resonate.register(workflow)
    async with resonate:
        assert 190 == await resonate.run("w", workflow)

    assert list(range(20)) == sorted(calls)
    assert refused > 50


@pytest.mark.embedded("a server that cannot open its file does not start, and says why by itself")
async def test_a_file_that_is_locked_when_it_is_opened(path: Path, clock: Clock) -> None:
    """A program that starts while another one writes waits for some seconds; then it says which lock it waits for."""

    async def leaf() -> int:
        return 1

    resonate = client(SQLiteStore(path), clock)
    resonate.register(leaf)
    async with resonate:
        pass

    with closing(sqlite3.connect(path, isolation_level=None)) as browser:
        browser.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="write lock"):
            async with resonate:
                pass

        async def let_go() -> None:
            await anyio.sleep(3)
            browser.execute("ROLLBACK")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(let_go)
            async with resonate:
                assert 1 == await resonate.run("w", leaf)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.embedded("a server answers that it is unavailable")
async def test_who_waits_for_a_result_is_told_of_the_stop(store: SQLiteStore, clock: Clock) -> None:
    """Where a program stops that cannot record a result, who waits for it gets `NotRunning`, as at any other stop."""
    begun = anyio.Event()
    raised: list[BaseException] = []

    async def leaf() -> None:
        begun.set()
        await anyio.sleep(1)

    async def workflow(ctx: Context) -> None:
        await ctx.run(leaf)

    resonate = client(store, clock)
    resonate.register(workflow)

    async def wait(handle: Handle[None]) -> None:
        try:
            await handle
        except Exception as exc:  # noqa: BLE001 - whatever it is
            raised.append(exc)

    async with anyio.create_task_group() as tasks:
        await resonate.start()
        await resonate.promises.create("elsewhere", clock() + 3_600_000)
        handles = [await resonate.run("w", workflow).spawn(), await resonate.get("elsewhere")]
        await begun.wait()
        with locked(store):
            for handle in handles:
                tasks.start_soon(wait, handle)
            await anyio.sleep(2)
            await resonate.stop()
            await anyio.sleep(60)

    assert [NotRunning] * 2 == [type(exc) for exc in raised]


@pytest.mark.parametrize("held", [2.0, 300.0])
async def test_a_stop_tells_what_it_could_not_record(
    store: SQLiteStore, clock: Clock, held: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop waits a while for the store. What has ended and is not recorded then runs again, and the log says so."""
    calls: list[str] = []
    begun = anyio.Event()

    async def leaf() -> None:
        calls.append("leaf")
        begun.set()
        await anyio.sleep(1)

    async def workflow(ctx: Context) -> None:
        await ctx.run(leaf)

    resonate = client(store, clock)
    resonate.register(workflow)
    async with anyio.create_task_group() as tasks:
        await resonate.start()
        await resonate.run("w", workflow).spawn()
        await begun.wait()
        with locked(store):
            await anyio.sleep(1.5)
            tasks.start_soon(resonate.stop)
            await anyio.sleep(held)

    lost = held > 100
    told = [dotted(line) for line in lines(caplog) if line.startswith("call.not_recorded")]
    assert [
        "call.not_recorded id=w.leaf-1 the leaf ended too late to be recorded before the stop; it runs again"
    ] * lost == told
    async with resonate:
        await resonate.run("w", workflow)
    assert ["leaf"] * (1 + lost) == calls


@pytest.mark.embedded("a server answers that it is unavailable")
async def test_what_waits_when_the_program_stops_has_no_effect_later(store: SQLiteStore, clock: Clock) -> None:
    """A request that still waits for the store when the last one leaves does nothing to a store that is opened anew."""
    raised: list[BaseException] = []
    resonate = client(store, clock)

    async def create() -> None:
        try:
            await resonate.promises.create("p", clock() + 3_600_000)
        except NetworkError as exc:
            raised.append(exc)

    async with anyio.create_task_group() as tasks:
        await resonate.start()
        with locked(store):
            tasks.start_soon(create)
            await anyio.sleep(0.1)
            await resonate.stop()
        await resonate.start()
        await anyio.sleep(10)
        with pytest.raises(NotFound):
            await resonate.promises.get("p")
        await resonate.stop()

    assert [StoreUnavailable] == [type(exc) for exc in raised]


def move(path: Path, other: Path) -> None:
    path.rename(other)


GONE = pytest.mark.embedded("a server that has lost its file ends by itself, and its clients wait for the next one")


@GONE
@pytest.mark.parametrize("name", ["engine.db", "engine.db-owner"])
async def test_a_file_that_is_deleted_ends_the_program(store: SQLiteStore, path: Path, clock: Clock, name: str) -> None:
    """An idle program notices within a minute that its file is gone, cancels the block, and says what happened."""
    resonate = Resonate(network=LocalNetwork(store, clock=clock, safety_sweep=60), pid="p")
    began = anyio.current_time()
    with pytest.raises(StoreLost, match=f"{name} was deleted or moved away while it was in use"):  # noqa: PT012 - the block is what ends
        async with resonate:
            remove(path.with_name(name))
            await anyio.sleep_forever()

    assert anyio.current_time() - began < 65


@GONE
async def test_a_file_that_is_deleted_while_it_is_locked(store: SQLiteStore, path: Path, clock: Clock) -> None:
    """The program does not wait for the lock of a file that is gone."""
    began = anyio.current_time()
    with pytest.raises(StoreLost):  # noqa: PT012 - the block is what ends
        async with client(store, clock) as resonate:
            with locked(store):
                remove(path)
                await resonate.promises.create("p", clock() + 3_600_000)

    assert anyio.current_time() - began < 5


@GONE
async def test_no_run_is_reported_as_done_that_is_not_kept(
    store: SQLiteStore, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the file is gone no call returns a result, no leaf starts again, and the block ends at once."""
    moved = path.with_name("moved.db")
    calls: list[str] = []

    async def leaf(text: str) -> str:
        calls.append(text)
        if calls == ["a", "b"]:
            move(path, moved)
        return text

    async def workflow(ctx: Context) -> None:
        for text in "abc":
            await ctx.run(leaf, text)

    resonate = client(store, clock)
    resonate.register(workflow)
    done: list[object] = []
    began = anyio.current_time()
    with pytest.raises(StoreLost, match=r"engine\.db was deleted or moved away"):
        async with resonate:
            done.append(await resonate.run("w", workflow))

    assert (["a", "b"], []) == (calls, done)
    assert anyio.current_time() - began < 1
    assert not [line for line in lines(caplog) if line.startswith("execution.unanswered")]
    move(moved, path)
    async with resonate:
        await (await resonate.get("w"))

    assert ["a", "b", "b", "c"] == calls


@GONE
async def test_all_who_share_the_engine_end(store: SQLiteStore, path: Path, clock: Clock) -> None:
    """Every connection of an engine that has lost its file ends, not only the one that noticed."""
    network = LocalNetwork(store, clock=clock, safety_sweep=60)
    ended: list[str] = []

    async def take_part(pid: str) -> None:
        with pytest.raises(StoreLost):
            async with Resonate(network=network, pid=pid):
                await anyio.sleep_forever()
        ended.append(pid)

    async with anyio.create_task_group() as tasks:
        for pid in "abc":
            tasks.start_soon(take_part, pid)
        await anyio.sleep(1)
        remove(path)

    assert ["a", "b", "c"] == sorted(ended)
