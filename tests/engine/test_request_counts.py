"""What things cost: requests are counted, because each is a commit here and a round trip elsewhere."""

from __future__ import annotations

import anyio
import pytest

from resonate_anyio import Context, Resonate
from resonate_anyio._protocol import PromiseSearch
from resonate_anyio.networks import LocalNetwork

from ..chosen import CHOSEN, native
from .harness import Wire, World


def besides_heartbeats(wire: Wire) -> list[str]:
    """What was asked for. In process a lease takes no heartbeats; to a server, one goes every third of its length."""
    return [kind for kind in wire.kinds if kind != "task.heartbeat" or CHOSEN.network == "local"]


async def double(x: int) -> int:
    return x * 2


async def test_workflow_that_does_nothing(resonate: Resonate, wire: Wire) -> None:
    """A workflow without calls costs two requests, its result included."""

    async def workflow(ctx: Context) -> str:
        return "done"

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        assert ["task.create", "task.fulfill"] == wire.kinds


async def test_leaf_as_root(resonate: Resonate, wire: Wire) -> None:
    """So does a leaf that is run as a root."""
    resonate.register(double)
    async with resonate:
        await resonate.run("r", double, 1)
        assert ["task.create", "task.fulfill"] == wire.kinds


@pytest.mark.parametrize("steps", [1, 10, 150])
@pytest.mark.parametrize("one_request", [True, False])
async def test_local_steps(wire: Wire, steps: int, *, one_request: bool) -> None:
    """Each short step costs one request, or two if that is asked for, however many there are."""
    resonate = Resonate(network=wire, one_request=one_request)

    async def workflow(ctx: Context) -> None:
        for n in range(steps):
            await ctx.run(double, n)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        settles = {} if one_request else {"promise.settle": steps}
        assert {"task.create": 1, "promise.create": steps, "task.fulfill": 1, **settles} == wire.counts()


@pytest.mark.parametrize("one_request", [True, False])
async def test_nested_and_spawned_steps(wire: Wire, *, one_request: bool) -> None:
    """Neither nesting nor spawning costs more. A workflow is on record before it begins."""
    resonate = Resonate(network=wire, one_request=one_request)

    async def child(ctx: Context) -> None:
        await ctx.run(double, 1)

    async def workflow(ctx: Context) -> None:
        futures = [await ctx.run(child).spawn() for _ in range(5)]
        for future in futures:
            await future

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        settles = 5 if one_request else 10
        assert {"task.create": 1, "promise.create": 10, "promise.settle": settles, "task.fulfill": 1} == wire.counts()


async def test_remote_children(network: LocalNetwork) -> None:
    """While hot, a remote child costs its caller two requests (create, listener), and its worker two (acquire, end)."""
    near, far = Wire(network), Wire(network)
    caller = Resonate(network=near, group="near", pid="n")
    worker = Resonate(network=far, group="far", pid="f")

    async def workflow(ctx: Context) -> int:
        futures = [await ctx.rpc("double", n).target("far").spawn() for n in range(10)]
        return sum([await future for future in futures])

    caller.register(workflow)
    worker.register(double)
    async with caller, worker:
        assert 90 == await caller.run("w", workflow)
        assert {
            "task.create": 1, "task.fence": 10, "promise.register_listener": 10, "task.fulfill": 1
        } == near.counts()  # fmt: skip
        assert {"task.acquire": 10, "task.fulfill": 10} == far.counts()


async def test_remote_child_that_was_recorded(network: LocalNetwork) -> None:
    """A remote child whose outcome is known when it is awaited again costs nothing more."""
    near, far = Wire(network), Wire(network)
    caller = Resonate(network=near, group="near", pid="n")
    worker = Resonate(network=far, group="far", pid="f")

    async def workflow(ctx: Context) -> int:
        future = await ctx.rpc("double", 1).target("far").spawn()
        first: int = await future
        second: int = await future
        return first + second

    caller.register(workflow)
    worker.register(double)
    async with caller, worker:
        assert 4 == await caller.run("w", workflow)
        assert 4 == len(near.kinds)


async def test_sleep(resonate: Resonate, wire: Wire) -> None:
    """A sleep costs two requests (the timer, its listener) while hot, and after half a second one for the root."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(59)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        listener = "promise.register_listener"
        assert ["task.create", "task.create", listener, listener, "task.fulfill"] == besides_heartbeats(wire)


async def test_long_sleep(resonate: Resonate, wire: Wire) -> None:
    """One that is parked costs four more: the wake promise and the suspend, the wake's end and the acquire."""

    async def workflow(ctx: Context) -> None:
        await ctx.sleep(599)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        listener = "promise.register_listener"
        hot = ["task.create", "task.create", listener, listener]
        parked = ["task.create", "task.suspend", "promise.settle", "task.acquire"]
        assert [*hot, *parked, "task.fulfill"] == wire.kinds


@pytest.mark.embedded("a lease that a server keeps is renewed, and looked at once a minute")
async def test_waiting_hot_costs_nothing(wire: Wire) -> None:
    """In process nothing is polled: an hour of waiting makes no request."""

    async def workflow(ctx: Context) -> None:
        await ctx.promise()

    resonate = Resonate(network=wire, hot_for=7200)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(1)
        wire.forget()
        await anyio.sleep(3600)
        assert [] == wire.kinds
        await resonate.promises.resolve("w.promise-1")
        await handle


async def test_handle_of_what_runs_here(resonate: Resonate, wire: Wire) -> None:
    """A handle's result is taken from the local execution, not from a message."""

    async def workflow(ctx: Context) -> None:
        await anyio.sleep(0.4)

    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await handle
        await handle
        assert ["task.create", "task.fulfill"] == wire.kinds


async def test_remote_call_of_a_large_execution(resonate: Resonate, wire: Wire) -> None:
    """Above a hundred local records a remote call is not fenced: a fence is answered with all of them."""

    async def workflow(ctx: Context) -> None:
        await ctx.rpc(double, 1)
        for n in range(101):
            await ctx.run(double, n)
        wire.forget()
        await ctx.rpc(double, 2)

    resonate.register(workflow)
    resonate.register(double)
    async with resonate:
        await resonate.run("w", workflow)
    assert "promise.create" == wire.kinds[0]
    assert "task.fence" not in wire.kinds


COUNT = 20
"""How many executions are suspended: the records of others behind each one's are several pages of any size."""


@pytest.mark.parametrize(("calls", "pages"), [(0, 1), (6, 1), (20, 2)])
async def test_a_resumed_execution_reads_its_own_history(world: World, calls: int, pages: int) -> None:
    """However many executions there are beside it: what it reads of others is a handful of records."""

    async def workflow(ctx: Context) -> None:
        for _ in range(calls // 2):
            await ctx.run(double, 1)
            await ctx.rpc(double, 1)
        await ctx.promise().named("go")

    async with world.process(workflow, double) as process:
        for number in range(COUNT):
            await process.resonate.run(f"w{number:02}", workflow).spawn()
        await anyio.sleep(5)

    async with world.process(workflow, double) as process:
        for number in range(COUNT):
            await process.resonate.promises.resolve(native(f"w{number:02}.go"))
        await anyio.sleep(5)
        searches = [each.response for each in process.wire.exchanges if isinstance(each.request, PromiseSearch)]

    assert len(searches) == COUNT * pages
    # Its own, the promise that it waits for, and the first page beyond.
    read = sum(len(response.promises) for response in searches) / COUNT
    own = calls + 1
    assert read <= own + (8 if pages == 1 else 64)


async def test_an_execution_resumed_after_a_crash(world: World) -> None:
    """After a crash an execution costs four requests until it waits again, whatever else there is, and reads a page.

    It is acquired, its history is read, the crash is put on record, and it listens to the promise that it waits for.
    Then it goes on as before: a step, which is recorded before it begins, and its end.
    """

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1)
        await ctx.promise().named("go")
        await ctx.run(double, 2)

    async with world.process(workflow) as process:
        for number in range(COUNT):
            await process.resonate.run(f"w{number:02}", workflow).spawn()
        await anyio.sleep(5)
        process.kill()

    async with world.process(workflow) as process:
        await anyio.sleep(0.1)
        assert {
            "task.acquire": COUNT,
            "promise.search": COUNT,
            "promise.create": COUNT,
            "promise.register_listener": COUNT,
        } == process.wire.counts()  # fmt: skip
        searches = [each.response for each in process.wire.exchanges if isinstance(each.request, PromiseSearch)]
        # Its step, its promise and seven records of others; the last three executions have fewer behind them.
        assert [2, 5, 8] + [9] * (COUNT - 3) == sorted(len(response.promises) for response in searches)
        process.wire.forget()
        for number in range(COUNT):
            await process.resonate.promises.resolve(native(f"w{number:02}.go"))
        await anyio.sleep(0.1)
        assert {
            "promise.settle": 2 * COUNT, "promise.create": COUNT, "task.fulfill": COUNT
        } == process.wire.counts()  # fmt: skip
