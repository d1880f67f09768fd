"""Workflows over a real server: across workers, while they wait, and how they end."""

from __future__ import annotations

import os

import anyio
import pytest
from anyio import create_task_group

from resonate_anyio import Context, DurableCancelledError, DurableTimeoutError, NotFound, Resonate
from resonate_anyio.networks import system_clock
from tests.engine.harness import Look

from .conftest import TTL, Settings, Site
from .flows import Journal, ask, begin, block, late, nap, remote, row, step, tour, tree

pytestmark = pytest.mark.wall

SOON = 80.0
"""Seconds in which what is waited for has to come."""


async def settled(resonate: Resonate, id: str) -> str:
    """Wait until a promise is no longer pending, and give its state."""
    look = Look(resonate)
    with anyio.fail_after(SOON):
        while (state := (await look.promise(id)).state.value) == "pending":  # noqa: ASYNC110 - nobody would set an event
            await anyio.sleep(0.05)
    return state


async def suspended(resonate: Resonate, id: str) -> None:
    """Wait until nobody holds the task of an execution, because that waits."""
    look = Look(resonate)
    with anyio.fail_after(SOON):
        while (await look.task(id)).state.value != "suspended":  # noqa: ASYNC110 - nobody would set an event
            await anyio.sleep(0.05)


async def child(resonate: Resonate, parent: str, part: str) -> str:
    """Wait until a child exists, and give its id: it is joined to a root by what the server separates ids with."""
    with anyio.fail_after(SOON):
        while True:
            for separator in (".", ":"):
                try:
                    await resonate.promises.get(f"{parent}{separator}{part}")
                except NotFound:
                    await anyio.sleep(0.05)
                else:
                    return f"{parent}{separator}{part}"


async def test_tour(site: Site, settings: Settings) -> None:
    """A workflow calls another worker, sleeps, and is told something by a third, however it is kept while it waits."""
    caller = site.client(**settings)
    async with site.client("far"), caller, site.client("third") as third:
        handle = await caller.run("a", tour, site.group("far")).spawn()
        await third.promises.resolve(await child(third, f"{site.name}-a", "promise-1"), "said")

        assert ["here!", "there!", "said!"] == await handle


async def test_tour_across_processes(site: Site, backend: str) -> None:
    """The same when the caller is a process, what it calls another one, and who starts it a third."""
    site.start(backend, "caller")
    site.start(backend, "far")
    async with site.client("third") as third:
        handle = await third.rpc("a", tour, site.group("far")).target(site.group("caller")).spawn()
        await third.promises.resolve(await child(third, f"{site.name}-a", "promise-1"), "said")

        assert ["here!", "there!", "said!"] == await handle


@pytest.mark.parametrize("parked_limit", [0, 10], ids=["unloaded", "parked"])
async def test_a_sleep_wakes_it_although_its_process_is_gone(site: Site, backend: str, parked_limit: int) -> None:
    """An execution that sleeps is woken when it is time, and taken up by whoever is there, also if its worker died."""
    program = site.start(backend, hot_for=0, parked_limit=parked_limit)
    async with site.client("third") as third:
        handle = await third.rpc("a", nap, 3).target(site.group()).spawn()
        await site.heard(program, "before")
        await suspended(third, f"{site.name}-a")
        program.kill()
        journal = Journal()
        async with site.client("", journal):
            with anyio.fail_after(SOON):
                assert "after!" == await handle

    assert ["after"] == journal.lines


async def test_an_answer_wakes_it_although_its_process_is_gone(site: Site, backend: str) -> None:
    """The same with a promise that is settled after the process that made it is gone."""
    program = site.start(backend, hot_for=0)
    async with site.client("third") as third:
        handle = await third.rpc("a", ask).target(site.group()).spawn()
        await site.heard(program, "asked")
        await suspended(third, f"{site.name}-a")
        program.kill()
        journal = Journal()
        async with site.client("", journal):
            await third.promises.resolve(await child(third, f"{site.name}-a", "promise-1"), "yes")
            with anyio.fail_after(SOON):
                assert "yes!" == await handle

    assert ["yes"] == journal.lines


async def test_a_worker_that_dies_is_followed_by_another(site: Site, backend: str) -> None:
    """Killed in the middle, an execution is taken up when its lease has lapsed; what was done is not done again."""
    program = site.start(backend)
    async with site.client("third") as third:
        handle = await third.rpc("a", row, 0.3).target(site.group()).spawn()
        await site.heard(program, "step 2")
        await settled(third, await child(third, f"{site.name}-a", "step-3"))
        program.kill()
        journal = Journal()
        async with site.client("", journal):
            with anyio.fail_after(SOON):
                assert [f"step {n}!" for n in range(4)] == await handle

    assert ["step 3"] == journal.lines


async def test_a_tree_is_cancelled_from_another_process(site: Site, backend: str) -> None:
    """Everything below an execution ends with it, on all workers, whoever cancels it."""
    programs = [site.start(backend, group) for group in ("caller", "far")]
    async with site.client("third") as third:
        handle = await third.rpc("a", tree, site.group("far")).target(site.group("caller")).spawn()
        for program in programs:
            await site.heard(program, "hanging")
        await third.cancel("a")
        with pytest.raises(DurableCancelledError):
            await handle
        for program in programs:
            await site.heard(program, "let go")
        branches = [await child(third, f"{site.name}-a", part) for part in ("branch-1", "branch-2")]
        below = [f"{branch}.{part}" for branch in branches for part in ("hang-1", "promise-1", "sleep-1")]
        assert {"rejected_canceled"} == {await settled(third, id) for id in (*branches, *below)}


async def test_a_busy_event_loop_loses_no_lease(site: Site) -> None:
    """Code that blocks the loop for longer than a lease runs once: the lease is kept from beside the loop."""
    journal = Journal()
    async with site.client("", journal) as resonate, create_task_group() as tasks:

        async def rival() -> None:
            async with site.client("third") as third:
                assert "unblocked" == await (await third.get("a", str))

        async def work(ctx: Context) -> str:
            # A lease is renewed once it is older than a third of its length.
            await ctx.run(step, "begun")
            await anyio.sleep(TTL / 3 + 0.5)
            return await ctx.run(block, TTL + 2)

        resonate.register(work)
        handle = await resonate.run("a", work).spawn()
        tasks.start_soon(rival)
        assert "unblocked" == await handle

    assert ["begun", "blocking"] == journal.lines


async def test_deadlines(site: Site) -> None:
    """What is not done by its deadline is given up: steps, calls here and elsewhere, promises, blocks."""
    async with site.client("far"), site.client() as resonate:
        expected = ["leaf", "local", "remote", "nobody", "promise", "scope True"]
        assert expected == await resonate.run("a", late, site.group("far"))


async def test_deadline_of_a_root(site: Site) -> None:
    """An execution ends at its deadline, also when nobody runs it."""
    async with site.client("third") as third:
        with pytest.raises(DurableTimeoutError):
            await third.rpc("a", nap, 60).target(site.group("nobody")).timeout(1)
        async with site.client() as resonate:
            with pytest.raises(DurableTimeoutError):
                await resonate.run("b", nap, 60).timeout(1)


async def test_detached(site: Site) -> None:
    """A detached call outlives its caller, and is found by its id."""
    async with site.client("far"), site.client() as resonate:
        id = await resonate.run("a", begin, site.group("far"))
        assert "after!" == await (await resonate.get(id, str))


@pytest.mark.usefixtures("each_transport")
async def test_handles(site: Site) -> None:
    """An id is joined from anywhere, waited for in several places, and runs once."""
    journal = Journal()
    async with site.client("", journal) as one, site.client("other") as other:
        handle = await one.run("a", nap, 0.5).spawn()
        joined = await one.run("a", nap, 0.5).spawn()
        found = await other.get("a", str)
        assert not await found.done()
        assert ["after!"] * 3 == [await each for each in (handle, joined, found)]
        assert await found.done()
        with pytest.raises(NotFound):
            await other.get("b")

    assert ["before", "after"] == journal.lines


@pytest.mark.usefixtures("each_transport")
async def test_stop_and_go_on(site: Site) -> None:
    """What is left by a worker that stops in order is taken up at once."""
    async with site.client() as resonate:
        await resonate.run("a", nap, 2).spawn()
        await child(resonate, f"{site.name}-a", "sleep-1")
    journal = Journal()
    async with site.client("", journal) as resonate:
        with anyio.fail_after(SOON):
            assert "after!" == await (await resonate.get("a", str))

    assert ["after"] == journal.lines


async def test_promises(site: Site) -> None:
    """Promises by hand: made, found, settled in each way, and given up at their deadline."""
    async with site.client() as resonate, site.client("other") as other:
        names = [f"{site.name}-{name}" for name in ("cancelled", "late", "rejected", "resolved")]
        cancelled, late, rejected, resolved = names
        for name in names:
            await resonate.promises.create(name, in_seconds(3 if name == late else 600), tags={"site": site.name})
        waiting = [await other.get(name, str) for name in names]
        await resonate.promises.cancel(cancelled)
        await resonate.promises.reject(rejected, ValueError("no"))
        await resonate.promises.resolve(resolved, "yes")
        with pytest.raises(DurableCancelledError):
            await waiting[0]
        with pytest.raises(DurableTimeoutError), anyio.fail_after(SOON):
            await waiting[1]
        with pytest.raises(ValueError, match="no"):
            await waiting[2]
        assert "yes" == await waiting[3]
        found = {promise.id: promise.state async for promise in resonate.promises.search(tags={"site": site.name})}
        assert [*names] == sorted(found)


def in_seconds(seconds: float) -> int:
    """So many seconds from now, as an instant in milliseconds."""
    return system_clock() + round(seconds * 1000)


async def test_schedules(site: Site) -> None:
    """A schedule is made, found and deleted."""
    async with site.client() as resonate:
        name = f"{site.name}-nightly"
        made = await resonate.schedule(name, "0 3 * * *", remote, "x")
        assert made == await resonate.schedules.get(name)
        assert name in [schedule.id async for schedule in resonate.schedules.search()]
        await resonate.schedules.delete(name)
        with pytest.raises(NotFound):
            await resonate.schedules.get(name)


@pytest.mark.skipif(not os.environ.get("RESONATE_TEST_URL"), reason="takes up to a minute; dev does it in virtual time")
@pytest.mark.wall(limit=200)
async def test_a_schedule_fires(site: Site) -> None:
    """A scheduled function runs at the next whole minute."""
    journal = Journal()
    async with site.client("", journal) as resonate:
        name = f"{site.name}-minutely"
        await resonate.schedule(name, "* * * * *", remote, "fired")
        with anyio.fail_after(150):
            while "fired" not in journal.lines:  # noqa: ASYNC110 - nobody would set an event
                await anyio.sleep(0.1)
        await resonate.schedules.delete(name)
