"""The row of the table for a workflow that is cancelled from outside."""

from __future__ import annotations

import anyio
import pytest

from resonate_anyio import Context, DurableCancelledError, Resonate

from ..harness import Wire
from .cast import DETACHED, Diary, Start, branch, endings, passed

CANCELED = "rejected_canceled"


@pytest.fixture(params=["its worker", "another worker"])
def canceller(request: pytest.FixtureRequest, resonate: Resonate, elsewhere: Resonate) -> Resonate:
    """Who is asked to cancel."""
    return resonate if request.param == "its worker" else elsewhere


async def test_cancel_local(
    resonate: Resonate, elsewhere: Resonate, canceller: Resonate, wire: Wire, diary: Diary, start: Start
) -> None:
    """The workflow is recorded first, then what is below it; the code is unwound within a second, leaves first."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.run(branch, 3600))

    resonate.register(workflow)
    async with elsewhere, resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await canceller.cancel("w")
        assert {
            "w": CANCELED,
            "w.branch-1": "rejected_canceled by parent",
            "w.branch-1.step-1": "rejected_canceled by parent",
        } == await endings(resonate)
        with pytest.raises(DurableCancelledError):
            await handle
        await anyio.sleep(1)
        assert ["w.branch-1.step-1 unwound", "w.branch-1 unwound"] == diary[2:]
    assert [(id, CANCELED) for id in ("w", "w.branch-1", "w.branch-1.step-1")] == list(dict.fromkeys(wire.settled()))


async def test_cancel_remote(
    resonate: Resonate, elsewhere: Resonate, canceller: Resonate, diary: Diary, start: Start
) -> None:
    """What runs on another worker is cancelled with all that is below it, and its code unwound within a second."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.rpc(branch, 3600).target("elsewhere"))

    resonate.register(workflow)
    async with elsewhere, resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await canceller.cancel("w")
        assert {
            "w": CANCELED,
            "w.branch-1": "rejected_canceled by parent",
            "w.branch-1.step-1": "rejected_canceled by parent",
        } == await endings(resonate)
        with pytest.raises(DurableCancelledError):
            await handle
        await anyio.sleep(1)
        assert ["w.branch-1.step-1 unwound", "w.branch-1 unwound"] == diary[2:]


async def test_cancel_sleep(resonate: Resonate, elsewhere: Resonate, canceller: Resonate, start: Start) -> None:
    """A sleep is cancelled."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.sleep(3600))

    resonate.register(workflow)
    async with elsewhere, resonate:
        begun = anyio.current_time()
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await canceller.cancel("w")
        with pytest.raises(DurableCancelledError):
            await handle
        assert 6 >= passed(begun)
        assert {"w": CANCELED, "w.sleep-1": "rejected_canceled by parent"} == await endings(resonate)


async def test_cancel_promise(resonate: Resonate, elsewhere: Resonate, canceller: Resonate, start: Start) -> None:
    """A promise is cancelled: who settles it later is told that it is too late."""

    async def workflow(ctx: Context) -> None:
        await start(ctx.promise())

    resonate.register(workflow)
    async with elsewhere, resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await canceller.cancel("w")
        with pytest.raises(DurableCancelledError):
            await handle
        assert CANCELED == (await resonate.promises.resolve("w.promise-1", "yes")).state
        assert {"w": CANCELED, "w.promise-1": "rejected_canceled by parent"} == await endings(resonate)


async def test_cancel_detached(resonate: Resonate, elsewhere: Resonate, canceller: Resonate) -> None:
    """What was detached goes on."""

    async def workflow(ctx: Context) -> None:
        await ctx.detached(branch).target("elsewhere")
        await ctx.sleep(3600)

    resonate.register(workflow)
    async with elsewhere, resonate:
        begun = anyio.current_time()
        await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        await canceller.cancel("w")
        assert "done" == await (await elsewhere.get(DETACHED))
        assert 10 == passed(begun)
