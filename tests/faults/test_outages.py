"""The server is away for longer than leases last, or a worker is cut off from it, at any moment of a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group, current_time

from resonate_anyio import Constant, Context, Info, NetworkError, Resonate
from resonate_anyio.abc import Clock

from .job import FAR, RESULT, Name, job, pair
from .meter import ALL_A_MINUTE
from .play import play, told
from .runs import Runs
from .site import Site

AWAY = 300.0
"""Seconds that the server is away: five times as long as a lease."""

SOON = 120.0
"""Seconds after which everything goes on again: the longest pause between two attempts is one minute."""

MOMENTS = {
    "while a step runs": 1.0,
    "while steps run side by side": 5.0,
    "while another worker has something to do": 9.0,
    "while it sleeps, parked": 50.0,
    "while it waits for somebody outside": 100.0,
    "while another worker has the last to do": 104.5,
}
"""When things happen in the job, in seconds from its start."""


@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_server_is_away(clock: Clock, moment: str) -> None:
    """Everything waits and goes on after that; nothing is lost, nothing runs twice, and nobody is told."""

    async def meanwhile(site: Site) -> None:
        await anyio.sleep(MOMENTS[moment])
        async with site.down():
            await anyio.sleep(AWAY)

    story = await play(clock, meanwhile=meanwhile)
    assert [] == story.faults, told(story)
    assert {} == story.site.runs.repeated(), told(story)
    assert story.took < 110 + AWAY + SOON
    # Whoever waits goes on waiting. Only who asks from outside is told that nobody answers.
    assert {"promise.settle"} >= {error.kind for error in story.errors if isinstance(error, NetworkError)}


@pytest.mark.parametrize("times", [3, 20])
async def test_the_server_comes_and_goes(clock: Clock, times: int) -> None:
    """A server that is restarted again and again, each time for a moment, holds nothing up for long."""

    async def meanwhile(site: Site) -> None:
        for _ in range(times):
            await anyio.sleep(1.7)
            async with site.down():
                await anyio.sleep(1.1)

    story = await play(clock, meanwhile=meanwhile)
    assert [] == story.faults, told(story)
    assert {} == story.site.runs.repeated(), told(story)
    assert [] == story.errors
    assert story.took < 110 + times * 2.8 + SOON


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_worker_is_cut_off_and_another_takes_over(clock: Clock, moment: str) -> None:
    """It goes on elsewhere when its lease has lapsed; whoever comes back writes nothing and runs nothing again."""

    async def meanwhile(site: Site) -> None:
        rival = site.client("rival")
        async with rival:
            await anyio.sleep(MOMENTS[moment])
            site.cables["near"].unplug()
            with anyio.move_on_after(AWAY):
                await site.until(lambda _: site.settled("job"))
            site.cables["near"].plug_in()
            await anyio.sleep(SOON)

    story = await play(clock, meanwhile=meanwhile)
    assert [] == story.faults, told(story)
    assert story.took < 110 + AWAY + SOON
    # A step that was in flight when the lease lapsed may have run twice, and nothing else.
    assert 3 >= len(story.site.runs.repeated())
    assert 2 >= max(story.site.runs.counts.values())


async def test_a_server_that_is_away_at_the_start(clock: Clock) -> None:
    """A program starts all the same, and gets to work as soon as there is a server."""
    async with Site.open(clock) as site:
        await site.stop()
        began = current_time()
        async with site.client("near") as near:
            assert current_time() - began <= 5
            await anyio.sleep(AWAY)
            await site.start()
            back = current_time()
            async with site.client("other", group="other") as other:
                assert [1, 2] == await other.rpc("p", pair, 1).target("default")
            assert current_time() - back < SOON
            assert [3, 4] == await near.run("q", pair, 3)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_server_that_is_away_at_the_end(clock: Clock, moment: str) -> None:
    """A program ends all the same, soon after its grace period; what it could not tell is gone on with elsewhere."""
    async with Site.open(clock) as site:
        async with site.client("far", group=FAR):
            async with site.client("near", grace=10) as near:
                await near.run("job", job).spawn()
                await anyio.sleep(MOMENTS[moment])
                await site.stop()
                await anyio.sleep(5)
                began = current_time()
            assert current_time() - began < 40
            await anyio.sleep(AWAY)
            await site.start()
            async with site.client("next") as after:
                handle = await after.get("job", list[Any])
                await say_word(after, site)
                assert RESULT == await handle
        assert [] == site.runs.faults
        # What was in flight after the grace period, side by side.
        assert 3 >= len(site.runs.repeated())


async def say_word(resonate: Resonate, site: Site) -> None:
    """Settle what the job waits for."""
    with anyio.fail_after(2 * AWAY):
        await site.until(lambda records: "job.word" in records.promises)
    await resonate.promises.resolve("job.word", "word")


async def search(resonate: Resonate) -> object:
    """Find everything."""
    return [promise async for promise in resonate.promises.search()]


CALLS: dict[str, Callable[[Resonate], Awaitable[object]]] = {
    "run": lambda resonate: resonate.run("p", pair, 1),
    "run.spawn": lambda resonate: resonate.run("p", pair, 1).spawn(),
    "rpc": lambda resonate: resonate.rpc("p", pair, 1),
    "get": lambda resonate: resonate.get("here"),
    "cancel": lambda resonate: resonate.cancel("here"),
    "promises.create": lambda resonate: resonate.promises.create("new", 2_000_000_000_000),
    "promises.get": lambda resonate: resonate.promises.get("here"),
    "promises.resolve": lambda resonate: resonate.promises.resolve("here", 1),
    "promises.search": search,
    "schedule": lambda resonate: resonate.schedule("nightly", "0 3 * * *", pair, 1),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_is_tried_again_for_a_while(clock: Clock, call: str) -> None:
    """Ten seconds without a server are not noticed by whoever calls; after a minute or two there is an error."""
    async with Site.open(clock) as site, site.client("near") as near, create_task_group() as tasks:
        await near.promises.create("here", 2_000_000_000_000)

        async def away(seconds: float) -> None:
            async with site.down():
                await anyio.sleep(seconds)

        tasks.start_soon(away, 10)
        await anyio.sleep(1)
        await CALLS[call](near)

        tasks.start_soon(away, AWAY)
        await anyio.sleep(1)
        began = current_time()
        with pytest.raises(NetworkError):
            await CALLS[call](near)
        assert 20 < current_time() - began < 120


async def test_many_executions_and_no_server(clock: Clock) -> None:
    """However many executions are at work, whether the server is there again is asked a few times a minute."""

    async def long() -> None:
        await anyio.sleep(AWAY)

    async with Site.open(clock) as site, site.client("near", long) as near:
        handles = [await near.run(f"long-{number}", long).spawn() for number in range(100)]
        await anyio.sleep(10)
        async with site.down():
            gone = current_time()
            await anyio.sleep(AWAY - 20)
        asked = site.meter.busiest(60, since=gone)
        for handle in handles:
            await handle
    assert ALL_A_MINUTE >= asked[0], asked
    assert [] == site.records.pending


async def test_a_step_is_not_tried_again_without_a_lease(clock: Clock) -> None:
    """A worker that was cut off while a step waits for its next attempt leaves that to whoever has the lease now."""

    async def flaky(info: Info) -> str:
        who = info.get_dependency(Name)
        async with info.get_dependency(Runs).run(info.id, who):
            if who == "near":
                raise LookupError
        return who

    async def flow(ctx: Context) -> str:
        return await ctx.run(flaky).retry(Constant(delay=100))

    async with Site.open(clock) as site, site.client("near", flow) as near, site.client("rival", flow):
        handle = await near.run("p", flow).spawn()
        await anyio.sleep(1)
        site.cables["near"].unplug()
        await site.until(lambda _: site.settled("p"))
        await anyio.sleep(AWAY)
        site.cables["near"].plug_in()
        assert "rival" == await handle
    assert [] == site.runs.faults
    assert ["near", "rival"] == [run.who for run in site.runs.started]


async def test_a_step_that_outlives_its_lease_is_recorded(clock: Clock) -> None:
    """What a worker that was cut off has done counts if it can tell before the other one has done it too."""

    async def long(info: Info) -> str:
        who = info.get_dependency(Name)
        async with info.get_dependency(Runs).run(info.id, who):
            await anyio.sleep(AWAY)
        return who

    async def flow(ctx: Context) -> list[str]:
        return [await ctx.run(long), await ctx.run(long)]

    async with Site.open(clock) as site, site.client("near", flow) as near, site.client("rival", flow):
        handle = await near.run("p", flow).spawn()
        await anyio.sleep(1)
        site.cables["near"].unplug()
        await anyio.sleep(AWAY + 10)
        site.cables["near"].plug_in()
        assert ["near", "rival"] == await handle
    assert [] == site.runs.faults
    assert [("p.long-1", "near"), ("p.long-1", "rival"), ("p.long-2", "rival")] == [
        (run.id, run.who) for run in site.runs.started
    ]
