"""Host code: what stands around `async with resonate` and around the waits of its callers, and ends them.

The scopes are those of anyio, of asyncio and of trio themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
import pytest
import trio
from anyio import CancelScope, create_task_group, fail_after, move_on_after
from anyio.lowlevel import checkpoint

from resonate_anyio import Context, Handle, Resonate
from resonate_anyio._protocol import Request, Response
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore

from ..engine.harness import After, Wanted, Wire, creates, settles
from .conftest import Make

Body: TypeAlias = Callable[[], Awaitable[None]]
Host: TypeAlias = Callable[[Body, float], Awaitable[None]]


class Down(Exception):
    """Something else in the program has failed."""


async def fails_after(seconds: float) -> None:
    await anyio.sleep(seconds)
    raise Down


async def cancel_scope(body: Body, seconds: float) -> None:
    """A scope that somebody cancels."""
    async with create_task_group() as watchers:
        with CancelScope() as scope:

            async def cancel() -> None:
                await anyio.sleep(seconds)
                scope.cancel()

            watchers.start_soon(cancel)
            await body()


async def deadline(body: Body, seconds: float) -> None:
    """A deadline of anyio's."""
    with pytest.raises(TimeoutError), fail_after(seconds):
        await body()


async def sibling(body: Body, seconds: float) -> None:
    """A task group, another task of which fails."""
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group is what raises
        async with create_task_group() as tasks:
            tasks.start_soon(fails_after, seconds)
            await body()
    assert [Down] == [type(error) for error in caught.value.exceptions]


async def asyncio_cancel(body: Body, seconds: float) -> None:
    """A task that is cancelled by hand."""
    task = asyncio.ensure_future(body())
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def asyncio_timeout(body: Body, seconds: float) -> None:
    """A deadline of asyncio's."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await body()


async def asyncio_wait_for(body: Body, seconds: float) -> None:
    """The older one."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(body(), seconds)


async def asyncio_group(body: Body, seconds: float) -> None:
    """A task group of asyncio's, another task of which fails."""
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group is what raises
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails_after(seconds))
            await body()
    assert [Down] == [type(error) for error in caught.value.exceptions]


async def trio_deadline(body: Body, seconds: float) -> None:
    """A deadline of trio's."""
    with trio.move_on_after(seconds):
        await body()


async def trio_nursery(body: Body, seconds: float) -> None:
    """A nursery, another task of which fails."""
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the nursery is what raises
        async with trio.open_nursery() as tasks:
            tasks.start_soon(fails_after, seconds)
            await body()
    assert [Down] == [type(error) for error in caught.value.exceptions]


ANYIO = (cancel_scope, deadline, sibling)
ASYNCIO = (asyncio_cancel, asyncio_timeout, asyncio_wait_for, asyncio_group)
TRIO = (trio_deadline, trio_nursery)

all_hosts = pytest.mark.parametrize(
    ("anyio_backend", "host"),
    [
        *(
            pytest.param(backend, host, id=f"{backend}-{host.__name__}")
            for backend in ("asyncio", "trio")
            for host in ANYIO
        ),
        *(pytest.param("asyncio", host, id=host.__name__) for host in ASYNCIO),
        *(pytest.param("trio", host, id=host.__name__) for host in TRIO),
    ],
    indirect=["anyio_backend"],
)


def living() -> int:
    """How many tasks there are."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return len(asyncio.all_tasks())
    return trio.lowlevel.current_statistics().tasks_living


async def step(seconds: float = 10) -> str:
    await anyio.sleep(seconds)
    return "done"


async def job(ctx: Context) -> str:
    """Something of everything: a step, another execution, a sleep, a promise."""
    first = await ctx.run(step).spawn()
    second = await ctx.rpc(nap).spawn()
    await ctx.sleep(30)
    return f"{await first}, {await second}"


async def nap(ctx: Context) -> str:
    await ctx.sleep(30)
    return "rested"


def working(resonate: Resonate) -> Resonate:
    """Make a client know the functions of this module."""
    resonate.register(job)
    resonate.register(nap)
    return resonate


async def states(resonate: Resonate) -> dict[str, str]:
    """All promises of functions and their calls, with their states."""
    return {promise.id: promise.state async for promise in resonate.promises.search() if "~" not in promise.id}


@all_hosts
async def test_a_host_that_is_cancelled(make: Make, host: Host) -> None:
    """However the host is cancelled, its block ends in order, what ran goes on at the next start, nothing is left."""
    resonate = working(make(pid="p"))
    async with make(group="others") as other:
        before = living()
        begun = anyio.current_time()

        async def body() -> None:
            async with resonate:
                await resonate.run("a", job)

        await host(body, 5)

        # The step was given the rest of its time, and is on record; nothing else is, and all leases are given back.
        assert 10 == pytest.approx(anyio.current_time() - begun, abs=0.1)
        assert before == living()
        assert {
            "a": "pending",
            "a.nap-1": "pending",
            "a.nap-1.sleep-1": "pending",
            "a.sleep-1": "pending",
            "a.step-1": "resolved",
        } == await states(other)
        async with resonate:
            assert "done, rested" == await (await resonate.get("a"))
            assert 30 == pytest.approx(anyio.current_time() - begun, abs=0.1)


@all_hosts
async def test_a_host_that_is_cancelled_while_its_block_ends(make: Make, host: Host) -> None:
    """A cancellation that comes while the block is being left changes nothing about that."""
    resonate = working(make(pid="p"))
    begun = anyio.current_time()

    async def body() -> None:
        async with resonate:
            await resonate.run("a", job).spawn()
            await anyio.sleep(1)
        assert 10 == pytest.approx(anyio.current_time() - begun, abs=0.1)
        await anyio.sleep_forever()

    await host(body, 5)

    assert 10 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    async with resonate:
        assert "resolved" == (await resonate.promises.get("a.step-1")).state
        assert "done, rested" == await (await resonate.get("a"))
    assert 30 == pytest.approx(anyio.current_time() - begun, abs=0.1)


async def test_a_host_that_is_cancelled_before_it_starts(make: Make) -> None:
    """In a scope that is cancelled already the block is not run, and the client can be entered later."""
    resonate = working(make())
    reached = False
    with CancelScope() as scope:
        scope.cancel()
        async with resonate:
            await checkpoint()
            reached = True
    assert not reached
    async with resonate:
        assert "rested" == await resonate.run("a", nap)


@all_hosts
async def test_a_caller_that_is_cancelled(make: Make, host: Host) -> None:
    """However a wait for an execution is cancelled, the execution runs on, and so do the waits of others."""
    resonate = working(make())
    results: list[str] = []

    async def patient(handle: Handle[str]) -> None:
        results.append(await handle)

    async with resonate, create_task_group() as tasks:
        begun = anyio.current_time()
        handle = await resonate.run("a", nap).spawn()
        tasks.start_soon(patient, handle)
        tasks.start_soon(patient, await resonate.get("a", str))

        async def hasty() -> None:
            await handle.result()
            pytest.fail("it is not done yet")

        async def joining() -> None:
            await resonate.run("a", nap)
            pytest.fail("it is not done yet")

        await host(hasty, 5)
        await host(joining, 5)

        assert 10 == pytest.approx(anyio.current_time() - begun, abs=0.1)
        assert not await handle.done()
        assert "rested" == await handle
        assert 30 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    assert ["rested", "rested"] == results


@all_hosts
async def test_a_caller_that_is_cancelled_while_it_starts(network: LocalNetwork, host: Host) -> None:
    """A start is never half a start: what is on record runs, although the answer has reached nobody."""
    wire = Wire(network)
    wire.after = late(creates("a"))
    resonate = working(Resonate(network=wire))
    async with resonate:

        async def start() -> None:
            await resonate.run("a", nap)

        await host(start, 5)
        with fail_after(100):
            assert "rested" == await (await resonate.get("a"))


@all_hosts
async def test_a_caller_that_is_cancelled_while_it_cancels(network: LocalNetwork, host: Host) -> None:
    """A cancel is never half a cancel: what was below the execution ends with it, and so does its code."""
    wire = Wire(network)
    wire.after = late(settles("a"))
    resonate = working(Resonate(network=wire))
    async with resonate:
        await resonate.run("a", nap).spawn()

        async def cancel() -> None:
            await resonate.cancel("a")

        await host(cancel, 5)
        await anyio.sleep(10)
        assert {"a": "rejected_canceled", "a.sleep-1": "rejected_canceled"} == await states(resonate)


def late(wanted: Wanted) -> After:
    """The answer to a request takes ten seconds."""

    async def hold(request: Request, _: Response) -> None:
        if wanted(request):
            await anyio.sleep(10)

    return hold


async def test_a_host_that_fails(make: Make) -> None:
    """A failure in the body of the block comes out as it is, after everything was put away in order."""
    resonate = working(make(pid="p"))
    error = Down("the host")
    begun = anyio.current_time()
    with pytest.raises(Down) as caught:  # noqa: PT012 - the block is what raises
        async with resonate:
            await resonate.run("a", job).spawn()
            await anyio.sleep(5)
            raise error
    assert error is caught.value
    assert error.__context__ is None
    assert 10 == pytest.approx(anyio.current_time() - begun, abs=0.1)
    async with resonate:
        assert "resolved" == (await resonate.promises.get("a.step-1")).state
        assert "done, rested" == await (await resonate.get("a"))


async def test_a_group_of_the_hosts_inside_of_the_block(make: Make) -> None:
    """Where one of the host's own tasks fails, its siblings' waits are cancelled, and their executions are not."""
    resonate = working(make(pid="p"))
    ended: list[str] = []

    async def wait() -> None:
        try:
            await resonate.run("a", nap)
        finally:
            ended.append("wait")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group is what raises
        async with resonate, create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(fails_after, 5)
    assert [Down] == [type(error) for error in caught.value.exceptions]
    assert ["wait"] == ended
    async with resonate:
        assert "rested" == await (await resonate.get("a"))


async def test_blocks_in_blocks(make: Make) -> None:
    """Of two clients on one engine, the inner one ends first; what it ran is taken by the outer one of its group."""
    outer, inner = working(make(pid="outer")), working(make(pid="inner"))
    begun = anyio.current_time()
    async with outer:
        with move_on_after(5) as scope:
            async with inner:
                await inner.run("a", nap)
        assert scope.cancelled_caught
        assert "rested" == await (await outer.get("a"))
    assert 30 == pytest.approx(anyio.current_time() - begun, abs=0.1)


async def test_blocks_in_blocks_that_fail(make: Make) -> None:
    """A failure goes through any number of blocks, of one engine or of several, as it is."""
    error = Down("inside")
    with pytest.raises(Down) as caught:
        async with make(pid="a"), Resonate(network=LocalNetwork(MemoryStore())), make(pid="b"):
            raise error
    assert error is caught.value


async def test_the_one_that_came_first_goes(make: Make) -> None:
    """Clients that share an engine are equals: it runs on when the one that has opened it is cancelled."""
    first, second = working(make(pid="first")), working(make(pid="second"))
    entered = anyio.Event()

    async def open_it() -> None:
        with scope:
            async with first:
                entered.set()
                await anyio.sleep_forever()

    scope = CancelScope()
    async with create_task_group() as tasks:
        tasks.start_soon(open_it)
        await entered.wait()
        async with second:
            begun = anyio.current_time()
            handle = await second.run("a", nap).spawn()
            await anyio.sleep(5)
            scope.cancel()
            assert "rested" == await handle
            assert 30 == pytest.approx(anyio.current_time() - begun, abs=0.1)
