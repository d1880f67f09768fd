"""What can never go well costs a few requests a minute, and what is sent to nobody in particular finds its worker."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resonate_anyio import Context, Resonate
from resonate_anyio._protocol import PromiseCreate, Value
from resonate_anyio.abc import Clock

from ..engine.harness import Look
from .job import pair
from .meter import busy_loops
from .site import Site

HOUR = 3600.0
FOR_EVER = 2_000_000_000_000

AN_HOUR = 126
"""How often a task may be taken and given back in an hour: pauses of a minute, each shortened at random by up to a
half, after some shorter ones."""

AT_FIRST = 7
"""The same for the first minute, whose pauses begin with one second."""


async def create(resonate: Resonate, id: str, param: Value) -> None:
    """Make a call as another program would, with any content."""
    tags = {"resonate:target": "poll://any@default", "resonate:scope": "global", "resonate:branch": id}
    await Look(resonate).request(PromiseCreate(id=id, timeout_at=FOR_EVER, param=param, tags=tags))


@pytest.mark.parametrize(
    "param",
    [
        Value(data="eyJmdW5jIjoidW5rbm93biIsImFyZ3MiOltdfQ=="),  # {"func":"unknown","args":[]}
        Value(data="eyJmdW5jIjoicGFpciIsImFyZ3MiOlsieCIsMiwzXX0="),  # {"func":"pair","args":["x",2,3]}
        Value(data="bm8ganNvbg=="),  # no json
        Value(data="%%%"),
        Value(),
    ],
    ids=["unknown function", "wrong arguments", "no JSON", "no base64", "nothing"],
)
async def test_what_cannot_be_run_is_no_busy_loop(clock: Clock, param: Value) -> None:
    """A call of something unknown or unreadable is given back, less and less often, and the others go on."""
    async with Site.open(clock) as site, site.client("near") as near, site.client("other", group="o") as other:
        await create(other, "p", param)
        await anyio.sleep(60)
        assert 1 <= site.meter.count("task.acquire") <= AT_FIRST
        await anyio.sleep(HOUR)
        assert 1 < site.meter.count("task.acquire") <= AN_HOUR
        assert site.meter.count("task.release") <= AN_HOUR
        assert [] == busy_loops(site.meter)
        assert [1, 2] == await near.run("q", pair, 1)
        await other.promises.cancel("p")
    assert ["q"] == [id for id in site.records.promises if "." not in id and id != "p"]


async def test_what_a_worker_cannot_run_finds_one_that_can(clock: Clock) -> None:
    """A call that one worker gives back is run by another one that knows its function, once that is there."""

    async def double(ctx: Context, number: int) -> int:
        return 2 * number

    async with Site.open(clock) as site, site.client("near") as near:
        handle = await near.rpc("p", "double", 4).spawn()
        await anyio.sleep(600)
        async with site.client("late", double):
            assert 8 == await handle
    assert [] == busy_loops(site.meter)


async def test_many_calls_that_cannot_be_run(clock: Clock) -> None:
    """Many of them cost as many times as little as one, and no more."""
    async with Site.open(clock) as site, site.client("near"), site.client("other", group="o") as other:
        calls: list[Any] = [other.rpc(f"p-{number}", "unknown").target("default") for number in range(30)]
        for call in calls:
            await call.spawn()
        await anyio.sleep(600)
        began = anyio.current_time()
        await anyio.sleep(600)
        # An acquire and a release, once in a minute or so; the rest is for the stream and rechecks.
        assert 30 * 6 >= site.meter.busiest(60, since=began)[0]
        for call in range(30):
            await other.promises.cancel(f"p-{call}")


async def test_idle_programs_say_nearly_nothing(clock: Clock) -> None:
    """A worker without work, and a job that waits for a week, cost a request a minute."""

    async def patient(ctx: Context) -> None:
        await ctx.sleep(7 * 24 * HOUR)

    async with Site.open(clock) as site, site.client("near", patient) as near:
        await anyio.sleep(600)
        assert 5 >= len(site.meter.calls)
        await near.run("p", patient).spawn()
        await anyio.sleep(600)
        began = anyio.current_time()
        await anyio.sleep(600)
        # on asyncio it is looked now and then whether a deadline in it was missed (docs/distribution.md 4.3)
        assert 10 >= site.meter.busiest(60, since=began)[0]
