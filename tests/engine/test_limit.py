"""A limit on the executions of one worker."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import define, field

from resonate_anyio import Context, InvalidArgument, Resonate
from resonate_anyio._protocol import Unblock
from resonate_anyio.networks import LocalNetwork

from .test_parking import forget_messages


@define(eq=False)
class Meter:
    """Counts what runs at once."""

    running: int = 0
    most: int = 0
    ran: list[str] = field(factory=list)

    async def step(self, name: str) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        await anyio.sleep(10)
        self.running -= 1
        self.ran.append(name)
        return name


def limited(network: LocalNetwork, limit: int | None, meter: Meter, **settings: Any) -> Resonate:
    resonate = Resonate(network=network, max_executions=limit, **settings)
    resonate.register(meter.step, name="step")
    return resonate


async def start(resonate: Resonate, count: int, verb: str) -> list[str]:
    call = getattr(resonate, verb)
    handles = [await call(f"{verb}-{number}", "step", str(number)).spawn() for number in range(count)]
    return [await handle for handle in handles]


@pytest.mark.parametrize("verb", ["run", "rpc"])
async def test_no_more_than_so_many_at_once(network: LocalNetwork, verb: str) -> None:
    """However a root is started, no more than the limit run at once, and all of them run once."""
    meter = Meter()
    async with limited(network, 3, meter) as resonate:
        began = anyio.current_time()
        assert [str(number) for number in range(10)] == await start(resonate, 10, verb)
    assert 3 == meter.most
    assert 10 == len(meter.ran)
    assert 40 == pytest.approx(anyio.current_time() - began, abs=1)


async def test_no_limit(network: LocalNetwork) -> None:
    """Without a limit everything runs at once."""
    meter = Meter()
    async with limited(network, None, meter) as resonate:
        await start(resonate, 50, "run")
    assert 50 == meter.most


async def test_others_take_what_there_is_no_room_for(network: LocalNetwork) -> None:
    """A task that waits for room is taken by another process of the group that has some, when it is sent for again."""
    one, other = Meter(), Meter()
    async with limited(network, 1, one, pid="one") as first:
        handles = [await first.rpc(f"r-{number}", "step", str(number)).spawn() for number in range(20)]
        async with limited(network, None, other, pid="other"):
            with anyio.fail_after(150):
                for handle in handles:
                    await handle
    assert 1 == one.most
    assert 20 == len(one.ran) + len(other.ran)
    assert 5 <= len(other.ran)


async def test_those_that_wait_make_room(network: LocalNetwork) -> None:
    """Workflows that wait for each other's tasks do not block each other: what waits is parked."""
    meter = Meter()

    async def flow(ctx: Context, depth: int) -> int:
        if depth == 0:
            await ctx.run(meter.step, "bottom")
            return 0
        below: int = await ctx.rpc("flow", depth - 1)
        return below + 1

    resonate = limited(network, 1, meter)
    resonate.register(flow, name="flow")
    async with resonate:
        with anyio.fail_after(60):
            assert 8 == await resonate.run("w", "flow", 8)


async def test_what_is_parked_wakes_past_the_line(network: LocalNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """An execution that is parked goes on when it is sent for, however many wait in line that have not begun."""
    meter = Meter()
    woken: list[float] = []

    async def sleeper(ctx: Context) -> None:
        await ctx.sleep(100)
        woken.append(anyio.current_time())

    async def busy(ctx: Context) -> None:
        await anyio.sleep(1000)

    resonate = limited(network, 1, meter, hot_for=0)
    resonate.register(sleeper)
    resonate.register(busy)
    async with resonate:
        began = anyio.current_time()
        forget_messages(resonate, monkeypatch, Unblock)
        await resonate.run("sleeper", sleeper).spawn()
        await anyio.sleep(10)
        for number in range(5):
            await resonate.rpc(f"busy-{number}", busy).spawn()
        await anyio.sleep(200)
        assert 100 == pytest.approx(woken[0] - began, abs=2)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
def test_limits_that_make_no_sense(network: LocalNetwork, limit: Any) -> None:
    """A limit is a whole number from 1."""
    with pytest.raises(InvalidArgument, match="max_executions"):
        Resonate(network=network, max_executions=limit)
