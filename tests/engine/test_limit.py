"""A limit on the executions of one worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from attrs import define, field

from resonate_anyio import Context, InvalidArgument, Resonate
from resonate_anyio._protocol import Request, Response, TaskAcquire, TaskGet, Unblock
from resonate_anyio.networks import LocalNetwork

from .harness import Wire
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


async def test_limit_of_concurrent_starts(network: LocalNetwork) -> None:
    """However many callers start roots at the same instant, no more than the limit run at once."""
    running = most = 0

    async def step() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(10)
        running -= 1

    resonate = Resonate(network=network, max_executions=3)
    resonate.register(step)
    async with resonate, anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(_run, resonate, number, step)
    assert 3 == most


async def _run(resonate: Resonate, number: int, step: Callable[..., object]) -> None:
    await resonate.run(f"w{number}", step)


async def test_limit_of_those_that_wake_together(network: LocalNetwork) -> None:
    """What was parked goes on at once when it wakes: it is not held up by a limit on what may begin."""
    running = most = 0

    async def step() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(10)
        running -= 1

    async def flow(ctx: Context) -> None:
        await ctx.sleep(7200)
        await ctx.run(step)

    resonate = Resonate(network=network, max_executions=3)
    resonate.register(flow)
    resonate.register(step)
    async with resonate, anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(_run, resonate, number, flow)
    assert 20 == most


async def test_tasks_that_the_token_does_not_allow_take_no_room(network: LocalNetwork) -> None:
    """Messages for tasks that the server refuses to hand out (403) do not keep a worker from its work."""
    wire = Wire(network, lapsing=True)

    def forbidden(request: Request) -> Response | None:
        ours = getattr(request, "id", "").startswith("theirs")
        return Response(status=403, error="Forbidden") if ours and isinstance(request, (TaskAcquire, TaskGet)) else None

    wire.answer = forbidden

    async def step() -> str:
        return "done"

    resonate = Resonate(network=wire, max_executions=2)
    resonate.register(step)
    async with resonate, Resonate(network=network, group="others") as other:
        for number in range(2):
            await other.rpc(f"theirs-{number}", "step").target("poll://any@default").spawn()
        await anyio.sleep(1)
        with anyio.fail_after(600):
            assert "done" == await resonate.run("ours", step)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
def test_limits_that_make_no_sense(network: LocalNetwork, limit: Any) -> None:
    """A limit is a whole number from 1."""
    with pytest.raises(InvalidArgument, match="max_executions"):
        Resonate(network=network, max_executions=limit)
