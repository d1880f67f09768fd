"""The row of the table for a workflow whose worker is stopped, and started again a minute later."""

from __future__ import annotations

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.networks import LocalNetwork

from ..harness import Wire
from .cast import DETACHED, Diary, Start, branch, endings, knowing, passed, step


async def test_shutdown_local(resonate: Resonate, wire: Wire, diary: Diary, start: Start) -> None:
    """A leaf that runs may end within `grace` and is recorded; workflows are unwound, unrecorded, and run again."""

    async def child(ctx: Context) -> None:
        with diary.tells(ctx.id):
            await ctx.run(step, 10)
            await ctx.run(step, 1)

    async def workflow(ctx: Context) -> None:
        await start(ctx.run(child))

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        begun = anyio.current_time()
    assert 5 == passed(begun)
    assert [("w.child-1.step-1", "resolved")] == wire.settled()
    assert ["w.child-1.step-1 returned", "w.child-1 unwound"] == diary[2:]

    diary.clear()
    await anyio.sleep(60)
    async with resonate:
        begun = anyio.current_time()
        await (await resonate.get("w"))
        assert 1 == passed(begun)
    ids = ["w.child-1.step-1", "w.child-1.step-2", "w.child-1", "w"]
    assert [(id, "resolved") for id in ids] == wire.settled()
    assert ["w.child-1 begun", "w.child-1.step-2 begun", "w.child-1.step-2 returned", "w.child-1 returned"] == diary


async def test_shutdown_local_beyond_grace(resonate: Resonate, wire: Wire, diary: Diary, start: Start) -> None:
    """A leaf that takes longer is unwound, unrecorded, and runs again as a whole."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.run(branch, 100))

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        begun = anyio.current_time()
    assert 10 == passed(begun)
    assert [] == wire.settled()
    assert ["w.branch-1.step-1 unwound", "w.branch-1 unwound"] == diary[2:]

    await anyio.sleep(60)
    async with resonate:
        begun = anyio.current_time()
        await (await resonate.get("w"))
        assert 100 == passed(begun)
    assert ["begun", "unwound", "begun", "returned"] == diary.of("w.branch-1.step-1")


async def test_shutdown_remote(resonate: Resonate, elsewhere: Resonate, diary: Diary, start: Start) -> None:
    """What runs on another worker runs on, once, and its outcome is there at the next start."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.rpc(branch).target("elsewhere"))

    resonate.register(workflow)
    async with elsewhere:
        async with resonate:
            await resonate.run("w", workflow).spawn()
            await anyio.sleep(5)
        await anyio.sleep(60)
        assert {"w": "pending", "w.branch-1": "resolved", "w.branch-1.step-1": "resolved"} == await endings(elsewhere)
        async with resonate:
            begun = anyio.current_time()
            await (await resonate.get("w"))
            assert 0 == passed(begun)
    assert ["w.branch-1 begun", "w.branch-1.step-1 begun", "w.branch-1.step-1 returned", "w.branch-1 returned"] == diary


async def test_shutdown_remote_same_worker(
    network: LocalNetwork, resonate: Resonate, elsewhere: Resonate, start: Start
) -> None:
    """What the stopped worker itself runs is given back with the workflow: another of the group takes both at once."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.rpc(branch))

    resonate.register(workflow)
    taken = Diary()
    other = knowing(Resonate(network=network, pid="other"), taken, workflow)
    # Some worker is always there, so that the engine lives on, and with it the leases that were not given back.
    async with elsewhere:
        async with resonate:
            await resonate.run("w", workflow).spawn()
            await anyio.sleep(5)
        async with other:
            begun = anyio.current_time()
            await (await other.get("w"))
            assert 0 == passed(begun)
    assert ["w.branch-1 begun", "w.branch-1 returned"] == taken


async def test_shutdown_sleep(resonate: Resonate, wire: Wire, start: Start) -> None:
    """A sleep ends when it was due, if a worker runs then: not later for the stop, which it does not hold up."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.sleep(3600))

    resonate.register(workflow)
    begun = anyio.current_time()
    async with resonate:
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
    assert 5 == passed(begun)
    assert [] == wire.settled()
    await anyio.sleep(60)
    async with resonate:
        await (await resonate.get("w"))
        assert 3600 == passed(begun)


async def test_shutdown_promise(resonate: Resonate, elsewhere: Resonate, wire: Wire, start: Start) -> None:
    """A promise stays pending, and can be settled while the worker is away."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.promise())

    resonate.register(workflow)
    async with elsewhere:
        begun = anyio.current_time()
        async with resonate:
            await resonate.run("w", workflow).spawn()
            await anyio.sleep(5)
        assert 5 == passed(begun)
        assert [] == wire.settled()
        assert {"w": "pending", "w.promise-1": "pending"} == await endings(elsewhere)
        await elsewhere.promises.resolve("w.promise-1", "yes")
        await anyio.sleep(60)
        async with resonate:
            await (await resonate.get("w"))
            assert 65 == passed(begun)


async def test_shutdown_detached(resonate: Resonate, elsewhere: Resonate, diary: Diary) -> None:
    """What was detached goes on on its worker, and is not started again at the next start."""

    async def workflow(ctx: Context) -> None:
        await ctx.detached(branch).target("elsewhere")
        await ctx.sleep(20)

    resonate.register(workflow)
    async with elsewhere:
        begun = anyio.current_time()
        async with resonate:
            await resonate.run("w", workflow).spawn()
            await anyio.sleep(5)
        assert "done" == await (await elsewhere.get(DETACHED))
        assert 10 == passed(begun)
        async with resonate:
            await (await resonate.get("w"))
    assert ["begun", "returned"] == diary.of(DETACHED)
