"""Functions that are registered while the client runs, and functions that are defined again, as in a notebook."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import create_task_group, to_thread

from resonate_anyio import AlreadyRegistered, Context, NotRegistered, Resonate
from resonate_anyio.abc import Clock, Connection, Identity, Network

from ..engine.harness import Wire
from .conftest import Make


async def double(number: int) -> int:
    """Double it."""
    return 2 * number


async def patient(ctx: Context, number: int) -> int:
    """Wait for two hours, and double it."""
    await ctx.sleep(7200)
    return await ctx.run(double, number)


async def ask(ctx: Context, name: str) -> Any:
    """Call it by name, wherever it runs."""
    return await ctx.rpc(name, 21)


async def test_the_first_function_makes_a_worker_of_a_client(resonate: Resonate) -> None:
    """A function that is registered inside of the block runs, parks and is called by name like any other."""
    async with resonate:
        resonate.register(patient)
        assert await resonate.run("a", patient, 21) == 42

        resonate.register(double)
        assert await resonate.rpc("b", "double", 21) == 42


@pytest.mark.parametrize("where", ["other thread", "callback"])
async def test_it_is_registered_from_anywhere(resonate: Resonate, where: str) -> None:
    """Another thread may register it, and code that is no task."""
    async with resonate:
        if where == "other thread":
            await to_thread.run_sync(resonate.register, double)
        else:
            token: Any = anyio.lowlevel.current_token().native_token
            soon = getattr(token, "call_soon", None) or token.run_sync_soon
            soon(partial(resonate.register, double))
            await anyio.sleep(0.1)
        assert await resonate.rpc("a", "double", 21) == 42


async def test_it_is_registered_while_the_client_starts(network: Network) -> None:
    """A function that is registered when the start has begun and has not ended makes a worker of the client, too."""
    opening, go_on = anyio.Event(), anyio.Event()

    class Slow(Wire):
        @asynccontextmanager
        async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
            opening.set()
            await go_on.wait()
            async with super().connect(identity) as connection:
                yield connection

    resonate = Resonate(network=Slow(network))
    async with create_task_group() as tasks:
        tasks.start_soon(resonate.start)
        await opening.wait()
        resonate.register(double)
        go_on.set()
        async with Resonate(network=network) as caller:
            with anyio.fail_after(100):
                assert await caller.rpc("a", "double", 21) == 42
        await resonate.stop()


async def test_what_was_asked_before_there_was_a_worker_is_done(resonate: Resonate, clock: Clock) -> None:
    """A call that waits in the group for somebody who can run it is taken at once by the client that has become one."""
    async with resonate:
        handle = await resonate.rpc("a", "double", 21).spawn()
        await anyio.sleep(3600)
        began = clock()
        resonate.register(double)
        assert await handle == 42

    assert clock() == began


async def test_what_a_client_waits_for_arrives_after_it_has_become_a_worker(make: Make, clock: Clock) -> None:
    """A result that was waited for before the first function was registered is told although the group is another."""
    client, worker = make(pid="client"), make(pid="worker", group="elsewhere")
    worker.register(patient)
    results: list[int] = []
    async with client, worker, create_task_group() as tasks:
        handle = await client.rpc("a", "patient", 21).target("elsewhere").spawn()

        async def wait() -> None:
            results.append(await handle)

        tasks.start_soon(wait)
        await anyio.sleep(1)
        began = clock()
        client.register(double)
        assert await client.run("b", double, 1) == 2
    assert results == [42]
    assert clock() - began < 7_200_000


@pytest.mark.parametrize("waited", [0.1, 100, 1000])
async def test_what_was_handed_back_is_taken_at_once(resonate: Resonate, clock: Clock, waited: float) -> None:
    """A call that this worker has given back, again and again, for want of its function begins when that is there."""
    resonate.register(ask)
    async with resonate:
        handle = await resonate.run("a", ask, "double").spawn()
        await anyio.sleep(waited)
        began = clock()
        resonate.register(double)
        assert await handle == 42

    assert clock() - began <= 1


async def test_another_worker_has_taken_it(network: Network) -> None:
    """A call that was given back, and was taken elsewhere since, is not run a second time by who registers later."""
    runs: list[str] = []

    def named(who: str) -> Callable[[int], Awaitable[int]]:
        async def run(number: int) -> int:
            runs.append(who)
            return number

        return run

    first, second = Resonate(network=network, pid="first"), Resonate(network=network, pid="second")
    first.register(ask)
    async with first, second:
        handle = await first.run("a", ask, "late").spawn()
        await anyio.sleep(10)
        second.register(named("second"), name="late")
        assert await handle == 21
        first.register(named("first"), name="late")
        await anyio.sleep(100)

    assert runs == ["second"]


async def test_registering_while_it_stops_is_harmless(resonate: Resonate) -> None:
    """A first function that comes too late is known at the next start."""
    async with resonate:
        await resonate.rpc("a", "double", 21).spawn()
        async with create_task_group() as tasks:
            tasks.start_soon(resonate.stop)
            await anyio.lowlevel.checkpoint()
            resonate.register(double)
    async with resonate:
        assert await (await resonate.get("a")) == 42


@pytest.mark.embedded("a server lets several connections have one name")
async def test_the_name_of_a_worker_is_taken(network: Network) -> None:
    """A client whose name another worker of the group has cannot become one: its block ends, and says so."""
    worker, client = Resonate(network=network, pid="p"), Resonate(network=network, pid="p")
    worker.register(double)
    async with worker:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block is what raises
            async with client:
                client.register(double)
                await anyio.sleep(10)
    assert "connected already" in repr(caught.value)


# Defined again


def _old_and_new() -> tuple[Any, Any]:
    def defined(text: str) -> Any:
        async def wf(ctx: Context, wait: float) -> str:
            await ctx.sleep(wait)
            return text

        return wf

    return defined("old"), defined("new")


async def test_a_function_is_replaced(resonate: Resonate) -> None:
    """`replace=True` takes effect for calls that begin from then on; what runs goes on with the old function."""
    old, new = _old_and_new()
    resonate.register(old)
    async with resonate:
        running = await resonate.run("a", old, 60).spawn()
        await anyio.sleep(1)
        assert resonate.register(new, replace=True) is new
        assert await resonate.run("b", new, 1) == "new"
        assert await resonate.rpc("c", "wf", 1) == "new"
        assert await running == "old"


async def test_a_replay_gets_the_function_that_has_replaced_it(resonate: Resonate) -> None:
    """What is replayed after a restart runs the function that is registered then."""
    old, new = _old_and_new()
    resonate.register(old)
    async with resonate:
        await resonate.run("a", old, 60).spawn()
        await anyio.sleep(1)
        resonate.register(new, replace=True)
    async with resonate:
        assert await (await resonate.get("a")) == "new"


def test_only_that_version_is_replaced(resonate: Resonate) -> None:
    """Other versions of the name stay, and what replaces nothing is registered as ever."""
    old, new = _old_and_new()
    resonate.register(old, version=2, replace=True)
    resonate.register(old)
    resonate.register(replace=True)(new)
    resonate.run("a", new, 1).excuse()
    resonate.run("a", old, 1).excuse()


async def test_a_cell_that_is_run_again_teaches(resonate: Resonate) -> None:
    """Registering the edited function says how to replace the old one; running it unregistered, what has happened."""
    old, new = _old_and_new()
    resonate.register(old)
    with pytest.raises(AlreadyRegistered, match="replace=True"):
        resonate.register(new)
    async with resonate:
        with pytest.raises(NotRegistered) as caught:
            await resonate.run("a", new, 1)

    assert "defined again" in str(caught.value)
    assert "resonate.register(wf, replace=True)" in str(caught.value)
    assert caught.value.changed
