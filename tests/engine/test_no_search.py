"""Servers that do not let a client search: tokens that are restricted to a prefix, and the specification's own."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resonate_anyio import Context, DurableCancelledError, Resonate
from resonate_anyio._protocol import Request, Response
from resonate_anyio.networks import LocalNetwork

from .harness import Process, Wire, World, settles


def refuses_searches(wire: Wire, status: int) -> None:
    def refuse(request: Request) -> Response | None:
        return Response(status=status, error="Forbidden") if request.kind == "promise.search" else None

    wire.answer = refuse


RAN: list[str] = []


async def remote(name: str) -> str:
    RAN.append(name)
    return name


async def flow(ctx: Context) -> list[Any]:
    first = await ctx.rpc(remote, "first")
    await ctx.sleep(10)
    async with ctx.task_group() as tg:
        both = [tg.rpc(remote, "second"), tg.rpc(remote, "third")]
    await ctx.detached(remote, "detached")
    return [first, *[each.result() for each in both]]


@pytest.mark.parametrize("status", [403, 501])
async def test_replay(world: World, status: int) -> None:
    """Each remote call of a replay is looked up by its id: none is made a second time, and the outcome is the same."""
    RAN.clear()

    def process() -> Process:
        process = world.process(remote, flow)
        refuses_searches(process.wire, status)
        return process

    first = process()
    first.kill_at(settles("w"), answered=False)
    await world.run_until_killed(first, "w", flow)
    async with process() as second:
        with anyio.fail_after(100):
            assert ["first", "second", "third"] == await (await second.resonate.get("w"))
        assert "promise.get" in second.wire.kinds
        await anyio.sleep(1)
    assert ["detached", "first", "second", "third"] == sorted(RAN)


async def test_cancel(network: LocalNetwork, caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled execution ends, and the log says that what it has called elsewhere was not found."""

    async def waiting(ctx: Context) -> None:
        await ctx.rpc("nobody").target("nowhere")

    wire = Wire(network)
    refuses_searches(wire, 403)
    resonate = Resonate(network=wire)
    resonate.register(waiting)
    async with resonate:
        handle = await resonate.run("w", waiting).spawn()
        await anyio.sleep(1)
        await resonate.cancel("w")
        with pytest.raises(DurableCancelledError):
            await handle
    assert "sweep.not_allowed id=w" in caplog.text
