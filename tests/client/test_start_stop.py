"""`start()` and `stop()`: a life without a block, whose beginning and end are in different tasks."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, move_on_after, to_thread
from anyio.lowlevel import checkpoint

from resonate_anyio import Context, Info, NotRunning, Resonate, StoreError, StoreInUse, UsageError

from ..inside import worker_of
from .conftest import Make


async def double(number: int) -> int:
    """Double it."""
    return 2 * number


async def nap(ctx: Context) -> str:
    """Take a minute."""
    await ctx.sleep(60)
    return "rested"


async def at_work(ctx: Context) -> None:
    """Do one step, then one that does not end."""
    await ctx.run(double, 1)
    await ctx.run(endless)


async def endless(info: Info) -> None:
    """Say that it has begun, and never end."""
    info.get_dependency(anyio.Event).set()
    await anyio.sleep_forever()


async def in_task(func: Callable[[], Awaitable[Any]]) -> Any:
    """Await it in a task of its own, whose task group has ended when it is done."""
    results: list[Any] = []

    async def run() -> None:
        results.append(await func())

    async with create_task_group() as tasks:
        tasks.start_soon(run)
    return results[0]


async def test_started_and_stopped_in_different_tasks(resonate: Resonate) -> None:
    """Each of the three, start, use and stop, may be in a task that ends before the next."""
    resonate.register(nap)
    assert await in_task(resonate.start) is resonate
    assert await in_task(lambda: _awaited(resonate.run("a", nap))) == "rested"
    await in_task(resonate.stop)
    with pytest.raises(NotRunning, match=r"resonate\.start\(\)"):
        await resonate.run("b", nap)


async def _awaited(call: Any) -> Any:
    return await call


async def _next(generator: Any) -> Any:
    return await anext(generator)


async def test_started_again_goes_on(resonate: Resonate) -> None:
    """What was running when it was stopped is continued at the next start."""
    resonate.register(nap)
    for _ in range(2):
        await resonate.start()
        handle = await resonate.run("a", nap).spawn()
        await anyio.sleep(20)
        assert not await handle.done()
        await resonate.stop()
    await resonate.start()
    assert await (await resonate.get("a")) == "rested"
    await resonate.stop()


async def test_the_file_is_given_back(tmp_path: Path) -> None:
    """After `stop()` another engine can have the file at once, also while the block of the first is open."""
    path = tmp_path / "file.db"
    first, second = Resonate.local(path), Resonate.local(path)
    await first.start()
    with pytest.raises(StoreInUse):
        await second.start()
    await first.stop()
    async with second:
        await second.stop()
        await first.start()
        await first.stop()


async def test_the_task_that_has_started_it_is_cancelled(resonate: Resonate) -> None:
    """A scope around `start()` that is cancelled later has nothing to do with what was started."""
    resonate.register(nap)
    with CancelScope() as scope:
        await resonate.start()
        scope.cancel()
        await checkpoint()
    assert await resonate.run("a", nap) == "rested"
    await resonate.stop()


@pytest.mark.parametrize("first", ["start", "block"])
@pytest.mark.parametrize("second", ["start", "block"])
async def test_it_is_started_once(resonate: Resonate, first: str, second: str) -> None:
    """A second start is refused in whichever way, and disturbs nothing."""
    resonate.register(nap)
    begin = {"start": resonate.start, "block": resonate.__aenter__}
    await begin[first]()
    with pytest.raises(UsageError, match="running already"):
        await begin[second]()
    assert await resonate.run("a", nap) == "rested"
    await (resonate.stop() if first == "start" else resonate.__aexit__(None, None, None))


async def test_two_tasks_start_it_at_once(resonate: Resonate) -> None:
    """One of two starts wins, the other is refused."""
    outcomes: list[Any] = []

    async def start() -> None:
        try:
            outcomes.append(await resonate.start())
        except UsageError as exc:
            outcomes.append(type(exc))

    async with create_task_group() as tasks:
        tasks.start_soon(start)
        tasks.start_soon(start)
    assert {UsageError, resonate} == set(outcomes)
    await resonate.stop()


async def test_a_start_that_fails_can_be_tried_again(tmp_path: Path) -> None:
    """What a start fails with is raised by it, as it is, and leaves nothing behind."""
    folder = tmp_path / "later"
    resonate = Resonate.local(folder / "file.db")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"file\.db"):
            await resonate.start()
        await resonate.stop()
    folder.mkdir()
    await resonate.start()
    await resonate.stop()


async def test_a_start_that_is_cancelled_can_be_tried_again(tmp_path: Path) -> None:
    """Cancelled at any point, a start has begun nothing, or all of it."""
    resonate = Resonate.local(tmp_path / "file.db")
    cancelled = 0
    for checkpoints in range(6):
        with CancelScope() as scope:
            async with create_task_group() as tasks:
                tasks.start_soon(_cancel_after, scope, checkpoints)
                await resonate.start()
        cancelled += scope.cancelled_caught
        await resonate.stop()
        # The file is free.
        async with Resonate.local(tmp_path / "file.db"):
            pass
    assert cancelled > 0
    await resonate.start()
    await resonate.stop()


async def _cancel_after(scope: CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await checkpoint()
    scope.cancel()


async def test_stopped_while_it_starts(tmp_path: Path) -> None:
    """`stop()` by another task ends a start that is under way, which then says so."""
    resonate = Resonate.local(tmp_path / "file.db")
    errors: list[str] = []

    async def start() -> None:
        with pytest.raises(NotRunning) as caught:
            await resonate.start()
        errors.append(str(caught.value))

    async with create_task_group() as tasks:
        tasks.start_soon(start)
        while resonate._host is None:
            await checkpoint()
        await resonate.stop()
    assert len(errors) == 1
    assert "stopped while it was starting" in errors[0]
    async with resonate:
        pass


async def test_stop_ends_a_block_that_stays_open(resonate: Resonate, make: Make) -> None:
    """`stop()` inside of a block ends all of it; the block has to be left before it can be started again."""
    resonate.register(nap)
    async with resonate:
        await resonate.stop()
        with pytest.raises(NotRunning, match="leave its block"):
            await resonate.run("a", nap)
        with pytest.raises(UsageError, match="running already"):
            await resonate.start()
    await resonate.start()
    assert await resonate.run("a", nap) == "rested"
    await resonate.stop()


async def test_serve_and_stop(resonate: Resonate) -> None:
    """`serve()` ends when `stop()` has ended, after `start()` as in a block."""
    await resonate.start()
    async with create_task_group() as tasks:
        tasks.start_soon(resonate.serve)
        await anyio.sleep(1)
        await resonate.stop()
    with pytest.raises(NotRunning):
        await resonate.serve()


async def test_start_and_stop_belong_outside_of_durable_functions(resonate: Resonate) -> None:
    """A durable function can neither stop the engine that runs it, nor start one."""

    async def suicidal(what: str) -> None:
        await getattr(resonate, what)()

    resonate.register(suicidal)
    await resonate.start()
    for what in ("start", "stop"):
        with pytest.raises(UsageError, match="inside the durable function"):
            await resonate.run(what, suicidal, what)
    await resonate.stop()


async def test_another_loop(resonate: Resonate) -> None:
    """From another event loop neither is possible, and the message says so."""
    await resonate.start()

    async def use() -> None:
        with pytest.raises(NotRunning, match="another event loop"):
            await resonate.stop()
        with pytest.raises(UsageError, match="another event loop"):
            await resonate.start()

    for backend in ("asyncio", "trio"):
        await to_thread.run_sync(partial(anyio.run, use, backend=backend))
    await resonate.stop()


async def test_a_failure_of_the_engine_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """An engine that fails while it is started tells the log, those who serve, those who call, and `stop()`, once."""
    for told_to in ("serve", "stop"):
        resonate = Resonate.local()
        await resonate.start()
        raised: list[BaseException] = []

        async def serve() -> None:
            try:
                await resonate.serve()  # noqa: B023 - it ends within this round
            except BaseException as exc:  # noqa: BLE001 - that is what is looked at
                raised.append(exc)  # noqa: B023 - the same

        async with create_task_group() as tasks:
            if told_to == "serve":
                tasks.start_soon(serve)
            await anyio.sleep(1)
            worker_of(resonate).background(_fail, name="a helper that fails")
            await anyio.sleep(1)
        with pytest.raises(NotRunning, match="not running" if told_to == "serve" else "ZeroDivisionError"):
            await resonate.promises.get("a")
        if told_to == "stop":
            with pytest.raises(ZeroDivisionError) as caught:
                await resonate.stop()
            raised.append(caught.value)
        await resonate.stop()
        assert isinstance(raised[0], ZeroDivisionError)
    assert [record.levelno for record in caplog.records if "engine.failed" in record.message] == [logging.ERROR] * 2


async def _fail() -> None:
    raise ZeroDivisionError


# Frameworks


@contextmanager
def asyncio_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop on which one thing after another is run, as fixtures, cells and hooks are."""
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.mark.wall
def test_a_fixture_of_a_test(tmp_path: Path) -> None:
    """As pytest-asyncio does it: setup, test and teardown of an async generator fixture, each in a task of its own."""
    path = tmp_path / "file.db"

    async def fixture() -> Any:
        resonate = Resonate.local(path)
        resonate.register(double)
        await resonate.start()
        yield resonate
        await resonate.stop()

    async def test(resonate: Resonate) -> None:
        assert await resonate.run("a", double, 21) == 42

    with asyncio_loop() as loop:
        generator = fixture()
        resonate = loop.run_until_complete(_next(generator))
        loop.run_until_complete(test(resonate))
        with pytest.raises(StopAsyncIteration):
            loop.run_until_complete(_next(generator))
        assert not asyncio.all_tasks(loop)
    assert not Path(f"{path}-wal").exists()


@pytest.mark.wall
def test_two_cells_of_a_notebook(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As IPython does it: one loop that runs on, each cell a task of its own, with plain code between them."""
    cells: dict[str, Any] = {}

    async def first() -> None:
        cells["resonate"] = await Resonate.local(tmp_path / "file.db").start()

    def between() -> None:
        # In no task, and with nothing of anyio's around.
        cells["resonate"].register(double)

    async def second() -> None:
        cells["result"] = await cells["resonate"].rpc("a", "double", 21)

    async def third() -> None:
        await cells["resonate"].stop()

    async def kernel() -> None:
        for cell in (first, between, second, third):
            if asyncio.iscoroutinefunction(cell):
                await asyncio.get_running_loop().create_task(cell())
            else:
                asyncio.get_running_loop().call_soon(cell)

    with asyncio_loop() as loop:
        loop.run_until_complete(kernel())
    assert cells["result"] == 42
    assert [] == caplog.records


@pytest.mark.wall
def test_hooks_of_a_web_framework(tmp_path: Path) -> None:
    """As aiohttp does it: `on_startup` and `on_cleanup` in tasks of their own, requests in others."""
    resonate = Resonate.local(tmp_path / "file.db")
    resonate.register(nap)
    resonate.register(double)

    async def request(number: int) -> int:
        return await resonate.run(f"r-{number}", double, number)

    async def serve() -> list[int]:
        requests = [asyncio.create_task(request(number)) for number in range(5)]
        hung_up = asyncio.create_task(_awaited(resonate.run("n", nap)))
        results = [await each for each in requests]
        hung_up.cancel()
        await asyncio.gather(hung_up, return_exceptions=True)
        assert not await (await resonate.get("n")).done()
        return results

    with asyncio_loop() as loop:
        loop.run_until_complete(resonate.start())
        assert loop.run_until_complete(serve()) == [0, 2, 4, 6, 8]
        loop.run_until_complete(resonate.stop())


@pytest.mark.wall
def test_hooks_of_aiohttp(tmp_path: Path) -> None:
    """The real thing: an application that starts it in `on_startup`, uses it in a handler, stops it in `on_cleanup`."""
    web = pytest.importorskip("aiohttp.web", reason="aiohttp is not installed; the test above does what it does")
    test_utils = pytest.importorskip("aiohttp.test_utils", reason="aiohttp is not installed")
    resonate = Resonate.local(tmp_path / "file.db")
    resonate.register(double)

    async def handle(request: Any) -> Any:
        number = int(request.match_info["number"])
        return web.json_response(await resonate.run(f"r-{number}", double, number))

    async def main() -> Any:
        app = web.Application()
        app.add_routes([web.get("/{number}", handle)])
        app.on_startup.append(lambda _: resonate.start())
        app.on_cleanup.append(lambda _: resonate.stop())
        async with test_utils.TestClient(test_utils.TestServer(app)) as client:
            response = await client.get("/21")
            return await response.json()

    assert asyncio.run(main()) == 42
    assert resonate._host is None


@pytest.mark.wall
def test_a_trio_program(tmp_path: Path) -> None:
    """On trio it is a system task, which lives beside all nurseries of the program."""
    trio = pytest.importorskip("trio")
    resonate = Resonate.local(tmp_path / "file.db")
    resonate.register(double)

    async def main() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resonate.start)
        number = await resonate.run("a", double, 21)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resonate.stop)
        return number

    assert trio.run(main) == 42


# Not stopped


def run_and_close(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """End a loop by closing it, and by nothing else."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()


def run_and_shut_down(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """End a loop as many frameworks do: by ending its async generators, and closing it."""
    with asyncio_loop() as loop:
        loop.run_until_complete(main())


def close_from_another_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Close a loop while another one runs in the thread."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())

    async def close() -> None:
        loop.close()

    asyncio.run(close())


def collect(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Drop a loop that was never closed, which warns by itself."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.__del__()  # type: ignore[attr-defined] # asyncio's own loops have one


ENDS: dict[str, Callable[[Any], None]] = {
    "closed": run_and_close,
    "shut down": run_and_shut_down,
    "closed from another loop": close_from_another_loop,
    "collected": collect,
    "asyncio.run": lambda main: asyncio.run(main()),
    "trio.run": lambda main: anyio.run(main, backend="trio"),
}


@pytest.mark.slow
@pytest.mark.wall
@pytest.mark.parametrize("end", ENDS)
def test_a_loop_that_ends_without_a_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture, end: str) -> None:
    """Nothing is left but a warning that says what to do: no thread, no lock, no noise; what ran goes on."""
    path = tmp_path / "file.db"
    resonate = Resonate.local(path, grace=0)
    resonate.register(at_work)
    threads = threading.active_count()

    async def main() -> None:
        await resonate.start()
        begun = anyio.Event()
        resonate.with_dependency(begun, anyio.Event)
        await resonate.run("a", at_work).spawn()
        await begun.wait()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ENDS[end](main)
        gc.collect()
    said = [str(warning.message) for warning in caught if "unclosed event loop" not in str(warning.message)]
    assert len(said) == 1
    assert "Resonate default/" in said[0]
    assert "resonate.stop()" in said[0]
    ours = next(warning for warning in caught if "Resonate" in str(warning.message))
    assert ours.category is ResourceWarning
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert resonate._host is None
    assert _settled(threads)

    async def again() -> str:
        async with Resonate.local(path) as other:
            return (await other.promises.get("a")).state

    assert anyio.run(again) == "pending"


def _settled(threads: int) -> bool:
    # Threads of the backends' pools may take a moment to see that their loop is closed.
    for thread in threading.enumerate():
        if thread.name.startswith("AnyIO worker thread"):
            thread.join(5)
    spare = [thread for thread in threading.enumerate() if thread.name.startswith("Trio thread")]
    return threading.active_count() - len(spare) <= threads


@pytest.mark.wall
@pytest.mark.parametrize("end", ENDS)
def test_a_warning_that_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture, end: str) -> None:
    """Where warnings are errors there is nothing to raise it into: the log has it, and the end is as orderly."""
    resonate = Resonate.local(tmp_path / "file.db", grace=0)

    async def main() -> None:
        await resonate.start()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "unclosed event loop")
        ENDS[end](main)
    assert ["engine.not_stopped" in record.message for record in caplog.records] == [True]
    assert resonate._host is None


@pytest.mark.wall
def test_several_on_one_loop_and_a_second_close(tmp_path: Path) -> None:
    """Those that were stopped say nothing; the others are stopped each, once."""
    objects = [Resonate.local(tmp_path / f"{number}.db") for number in range(3)]

    async def main() -> None:
        for resonate in objects:
            await resonate.start()
        await objects[1].stop()

    loop = asyncio.new_event_loop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(main())
        loop.close()
        loop.close()
    assert len(caught) == 2
    assert [None, None, None] == [resonate._host for resonate in objects]


@pytest.mark.wall
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_of_a_fork(tmp_path: Path) -> None:
    """A child that inherits a started object can neither use nor stop it, and disturbs nothing when its copy goes."""
    resonate = Resonate.local(tmp_path / "file.db")
    resonate.register(double)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(resonate.start())
    child = os.fork()
    if child == 0:
        os._exit(_in_child(resonate, loop))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.run_until_complete(_awaited(resonate.run("a", double, 21))) == 42
    loop.run_until_complete(resonate.stop())
    loop.close()


def _in_child(resonate: Resonate, loop: asyncio.AbstractEventLoop) -> int:
    async def main() -> None:
        with pytest.raises(UsageError, match="fork"):
            await resonate.start()
        with pytest.raises(NotRunning, match="fork"):
            await resonate.stop()
        with pytest.raises(NotRunning, match="fork"):
            await resonate.run("a", double, 21)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            asyncio.run(main())
            loop.close()
    except BaseException as exc:  # noqa: BLE001 - nothing of the parent's is to go on here
        os.write(2, repr(exc).encode())
        return 1
    return 0


async def test_what_was_stopped_is_gone(resonate: Resonate) -> None:
    """A stopped object leaves no task behind, and can be collected by way of nothing that lives on."""
    resonate.register(nap)
    await resonate.start()
    await resonate.run("a", nap).spawn()
    with move_on_after(1):
        await resonate.serve()
    await resonate.stop()
    assert resonate._host is None


async def ends_the_program(kind: str) -> None:
    """Raise what ends the program."""
    raise {"ctrl-c": KeyboardInterrupt, "exit": SystemExit(3)}[kind]  # type: ignore[misc]


@pytest.mark.wall
@pytest.mark.parametrize("kind", ["ctrl-c", "exit"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_ends_the_program_ends_it(tmp_path: Path, backend: str, kind: str) -> None:
    """A durable function that raises KeyboardInterrupt or SystemExit ends the program, and that is not recorded."""
    path = tmp_path / "file.db"
    resonate = Resonate.local(path, grace=0)
    resonate.register(ends_the_program)

    async def main() -> None:
        await resonate.start()
        await resonate.run("a", ends_the_program, kind).spawn()
        await anyio.sleep_forever()

    raised: BaseException | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            anyio.run(main, backend=backend)
    except BaseException as exc:  # noqa: BLE001 - that is what is looked at
        raised = exc
    chain: list[str] = []
    while raised is not None:
        chain.append(type(raised).__name__)
        raised = raised.exceptions[0] if isinstance(raised, BaseExceptionGroup) else raised.__cause__
    assert {"ctrl-c": "KeyboardInterrupt", "exit": "SystemExit"}[kind] in chain

    async def again() -> str:
        async with Resonate.local(path) as other:
            return (await other.promises.get("a")).state

    assert anyio.run(again) == "pending"


@pytest.mark.wall
@pytest.mark.parametrize("block", [True, False])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_an_interrupt_before_the_first_step(tmp_path: Path, *, block: bool) -> None:
    """A program that is interrupted while its engine is about to begin ends, and does not wait for that engine."""
    resonate = Resonate.local(tmp_path / "file.db")

    def interrupt() -> None:
        raise SystemExit(3)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        if block:
            async with resonate:
                pass
        else:
            await resonate.start()

    with pytest.raises(SystemExit):
        asyncio.run(main())
    assert resonate._host is None

    async def again() -> None:
        async with Resonate.local(tmp_path / "file.db"):
            pass

    asyncio.run(again())
