"""Exception groups that a workflow's own nurseries and task groups make while it is being cancelled."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import pytest
import trio

from resonate_anyio import Context, DurableCancelledError, DurableTimeoutError, Resonate
from tests.crash.corpus.leaves import Oops, fail, slow, step

from .replays import survives


async def fails_when_cancelled() -> None:
    """Wait, and fail in the clean-up."""
    try:
        await anyio.sleep_forever()
    finally:
        msg = "the clean-up failed"
        raise ValueError(msg)


async def nursery(ctx: Context) -> None:
    """A task group of its own, one of whose tasks fails when it is cancelled."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fails_when_cancelled)
        await anyio.sleep_forever()


async def waits_in_a_nursery(ctx: Context) -> None:
    """A task group of its own, whose tasks end quietly."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        await anyio.sleep_forever()


async def calls_with_a_deadline(ctx: Context) -> None:
    """Give the nursery a deadline."""
    await ctx.run(nursery).timeout(10)


async def test_a_failure_in_the_clean_up_is_the_outcome(resonate: Resonate) -> None:
    """What fails while a function is being cancelled is its outcome, unless the server says that it timed out."""
    resonate.register(calls_with_a_deadline)
    async with resonate:
        with pytest.raises((ExceptionGroup, DurableTimeoutError)) as caught:
            await resonate.run("wf", calls_with_a_deadline)

        promise = await resonate.promises.get("wf.nursery-1")

    # The deadline has passed on the server as well, so its record is a timeout, whatever the code made of it.
    assert isinstance(caught.value, DurableTimeoutError)
    assert "rejected_timedout" == promise.state


async def test_a_failure_in_the_clean_up_of_a_cancelled_call_is_recorded(resonate: Resonate) -> None:
    """A call that is cancelled by a scope and fails in its clean-up is recorded as failed, with the failure alone."""

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(1):
            await ctx.run(nursery)
        return "moved on"

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("wf", workflow)
        promise = await resonate.promises.get("wf.nursery-1")

    assert "rejected" == promise.state
    assert [("ValueError", "the clean-up failed")] == [(type(e).__name__, str(e)) for e in caught.value.exceptions]


async def test_a_nursery_that_ends_quietly_is_cancelled(resonate: Resonate) -> None:
    """A group of nothing but cancellations is one cancellation."""

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(1):
            await ctx.run(waits_in_a_nursery).named("child")
        return "moved on"

    resonate.register(workflow)
    async with resonate:
        assert "moved on" == await resonate.run("wf", workflow)
        with pytest.raises(DurableCancelledError):
            await (await resonate.get("wf.child"))


on_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


@on_trio
@pytest.mark.parametrize("fails", [True, False])
async def test_a_nursery_of_trios_own(resonate: Resonate, *, fails: bool) -> None:
    """A nursery of trio's own raises failures and cancellations in one group; the failures are the outcome, if any."""

    async def with_a_nursery(ctx: Context) -> None:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(fails_when_cancelled if fails else trio.sleep_forever)
            await trio.sleep_forever()

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(1):
            await ctx.run(with_a_nursery).named("child")
        return "moved on"

    resonate.register(workflow)
    async with resonate:
        if fails:
            with pytest.raises(ExceptionGroup) as caught:
                await resonate.run("wf", workflow)
            assert ["ValueError"] == [type(error).__name__ for error in caught.value.exceptions]
        else:
            assert "moved on" == await resonate.run("wf", workflow)
        promise = await resonate.promises.get("wf.child")

    assert ("rejected" if fails else "rejected_canceled") == promise.state


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks from Python 3.12 on")
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_failure_in_an_eager_task() -> None:
    """A failure that is on record does not end a native group before all its tasks are started, if tasks are eager."""
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    asyncio.get_running_loop().set_task_factory(factory)

    async def workflow(ctx: Context) -> str:
        async def failing() -> None:
            await ctx.run(fail, "no", 1)

        async def working() -> None:
            await ctx.run(slow, 5, None)

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(failing())
                tasks.create_task(working())
        except* Oops:
            pass
        await ctx.sleep(1)
        return await ctx.run(step, "after")

    await survives(workflow, returns="after")
