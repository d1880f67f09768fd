"""The life of a client: made at import, entered, stopped, entered again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import create_task_group, move_on_after, to_thread

from resonate_anyio import Context, Handle, NotRunning, Resonate, UsageError
from resonate_anyio.abc import Clock
from resonate_anyio.testing import run_virtual

from .conftest import Make

resonate_at_import = Resonate.local()
"""Made where no loop runs, as in a module of a program."""


@resonate_at_import.register
async def registered_at_import(number: int) -> int:
    """Double the number."""
    return 2 * number


async def nap(ctx: Context) -> str:
    """Take a minute."""
    await ctx.sleep(60)
    return "rested"


def test_a_client_made_at_import_runs_in_any_loop_after_another() -> None:
    """It belongs to no loop until it is entered, and keeps what is in memory from one to the next, whatever backend."""

    async def main(number: int) -> int:
        async with resonate_at_import as resonate:
            assert resonate is resonate_at_import
            return await resonate.run("a", registered_at_import, number)

    first = anyio.run(main, 21, backend="asyncio")
    with pytest.warns(UserWarning, match="other arguments"):
        second = anyio.run(main, 4, backend="trio")

    assert (42, 42) == (first, second)


async def test_leaving_and_entering_again_goes_on(resonate: Resonate, clock: Clock) -> None:
    """What was running when the block ended is continued at the next entry, and its sleep is not begun anew."""
    resonate.register(nap)
    began = clock()
    for _ in range(2):
        async with resonate:
            handle = await resonate.run("a", nap).spawn()
            with move_on_after(20):
                await handle
            assert not await handle.done()
    async with resonate:
        assert await (await resonate.get("a")) == "rested"

    assert clock() - began == 60_000


async def test_what_became_due_meanwhile_ends_at_once(resonate: Resonate, clock: Clock) -> None:
    """A sleep whose end fell into a pause is over at the next entry, and not begun anew."""
    resonate.register(nap)
    async with resonate:
        await resonate.run("a", nap).spawn()
        await anyio.sleep(1)
    await anyio.sleep(3600)
    entered = clock()
    async with resonate:
        assert await (await resonate.get("a")) == "rested"
        sleep = await resonate.promises.get("a.sleep-1")

    assert clock() == entered
    assert sleep.settled_at == sleep.timeout_at


async def test_entering_twice_is_refused(resonate: Resonate) -> None:
    """One object is one worker; a second entry is refused and disturbs nothing."""
    resonate.register(nap)
    async with resonate:
        with pytest.raises(UsageError, match="running already"):
            await resonate.__aenter__()

        assert await resonate.run("a", nap) == "rested"


async def test_a_failed_entry_can_be_tried_again(tmp_path: Any) -> None:
    """An entry that failed leaves the client as it was."""
    folder = tmp_path / "later"
    resonate = Resonate.local(folder / "file.db")
    with pytest.raises(Exception, match=r"file\.db"):
        await resonate.__aenter__()
    folder.mkdir()
    async with resonate:
        assert [] == [promise async for promise in resonate.promises.search()]


async def test_the_bodys_exception_comes_out_unwrapped(resonate: Resonate) -> None:
    """`async with resonate` wraps nothing into an exception group."""
    with pytest.raises(ZeroDivisionError):
        async with resonate:
            raise ZeroDivisionError


CALLS: dict[str, Callable[[Resonate], Awaitable[Any]]] = {
    "run": lambda r: _awaited(r.run("a", nap)),
    "run.spawn": lambda r: r.run("a", nap).spawn(),
    "rpc": lambda r: _awaited(r.rpc("a", nap)),
    "schedule": lambda r: _awaited(r.schedule("a", "* * * * *", nap)),
    "get": lambda r: r.get("a"),
    "cancel": lambda r: r.cancel("a"),
    "resume": lambda r: r.resume("a"),
    "serve": lambda r: r.serve(),
    "promises.create": lambda r: r.promises.create("a", 0),
    "promises.get": lambda r: r.promises.get("a"),
    "promises.settle": lambda r: r.promises.settle("a", "resolved"),
    "promises.resolve": lambda r: r.promises.resolve("a"),
    "promises.reject": lambda r: r.promises.reject("a"),
    "promises.cancel": lambda r: r.promises.cancel("a"),
    "promises.search": lambda r: anext(r.promises.search()),
    "schedules.create": lambda r: r.schedules.create("a", "* * * * *", "p", 1),
    "schedules.get": lambda r: r.schedules.get("a"),
    "schedules.delete": lambda r: r.schedules.delete("a"),
    "schedules.search": lambda r: anext(r.schedules.search()),
}


async def _awaited(call: Any) -> Any:
    return await call


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_needs_a_running_client(resonate: Resonate, call: str) -> None:
    """Before the block, after it and after `stop()`, each call says in which state the client is and what to do."""
    resonate.register(nap)
    with pytest.raises(NotRunning, match="async with resonate"):
        await CALLS[call](resonate)
    async with resonate:
        await resonate.stop()
        with pytest.raises(NotRunning, match="stopped"):
            await CALLS[call](resonate)
    with pytest.raises(NotRunning, match="async with resonate"):
        await CALLS[call](resonate)


@pytest.mark.parametrize("call", CALLS)
async def test_another_loop_is_refused(resonate: Resonate, call: str) -> None:
    """A client belongs to the loop that it was entered in; from another thread's loop each call says so."""
    resonate.register(nap)

    async def use() -> None:
        with pytest.raises(NotRunning, match="another event loop"):
            await CALLS[call](resonate)

    async with resonate:
        for backend in ("asyncio", "trio"):
            await to_thread.run_sync(partial(anyio.run, use, backend=backend))


async def test_stopping_from_another_loop_is_refused(resonate: Resonate) -> None:
    """`stop()` too belongs to the client's own loop."""

    async def use() -> None:
        with pytest.raises(NotRunning, match="another event loop"):
            await resonate.stop()

    async with resonate:
        await to_thread.run_sync(partial(anyio.run, use))


async def test_stop_ends_what_waits(resonate: Resonate, make: Make) -> None:
    """Tasks that wait for a result when the client is stopped get `NotRunning`, which says that nothing is lost."""
    resonate.register(nap)
    elsewhere = make(group="elsewhere")
    errors: list[str] = []

    async def wait(handle: Handle[str]) -> None:
        with pytest.raises(NotRunning) as caught:
            await handle
        errors.append(str(caught.value))

    async with resonate, elsewhere, create_task_group() as tasks:
        tasks.start_soon(wait, await resonate.run("a", nap).spawn())
        await elsewhere.promises.create("b", 2_000_000_000_000)
        tasks.start_soon(wait, await resonate.get("b"))
        await anyio.sleep(1)
        await resonate.stop()

    assert len(errors) == 2
    assert all("kept" in error for error in errors)


async def test_stop_may_be_called_again_and_before(resonate: Resonate) -> None:
    """Stopping what does not run, or has stopped, does nothing."""
    await resonate.stop()
    async with resonate:
        await resonate.stop()
        await resonate.stop()
    await resonate.stop()


async def test_stop_called_by_two_ends_both(resonate: Resonate) -> None:
    """Two tasks that stop at once both return when it is done, and the block can be left and entered again."""
    resonate.register(nap)
    async with resonate:
        await resonate.run("a", nap).spawn()
        async with create_task_group() as tasks:
            tasks.start_soon(resonate.stop)
            tasks.start_soon(resonate.stop)
    async with resonate:
        assert await resonate.run("a", nap) == "rested"


async def test_serve_ends_when_stopped(resonate: Resonate) -> None:
    """A worker serves until `stop()` is called."""
    served = False

    async def serve() -> None:
        nonlocal served
        await resonate.serve()
        served = True

    async with resonate, create_task_group() as tasks:
        tasks.start_soon(serve)
        await anyio.sleep(1)
        assert not served

        await resonate.stop()

    assert served


async def test_serve_ends_when_cancelled(resonate: Resonate) -> None:
    """A worker serves until its task is cancelled; the client runs on until its block ends."""
    resonate.register(nap)
    async with resonate:
        with move_on_after(1) as scope:
            await resonate.serve()

        assert scope.cancelled_caught
        assert await resonate.run("a", nap) == "rested"


async def test_a_cancelled_block_stops_in_order(resonate: Resonate) -> None:
    """Cancelling the host ends the block; what ran is released and goes on at the next entry."""
    resonate.register(nap)
    with move_on_after(20) as scope:
        async with resonate:
            await resonate.run("a", nap)
    assert scope.cancelled_caught

    async with resonate:
        assert await resonate.run("a", nap) == "rested"


def test_the_repr_tells_whether_it_runs(make: Make) -> None:
    """`repr()` shows the state."""
    resonate = make(group="g", pid="p")

    async def main() -> str:
        async with resonate:
            return repr(resonate)

    assert run_virtual(main) == "<Resonate g/p running>"
    assert repr(resonate) == "<Resonate g/p not running>"
