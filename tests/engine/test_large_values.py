"""Values that a server does not take, over HTTP."""

from __future__ import annotations

import anyio
import pytest

from resonate_anyio import Context, Resonate, TooLarge
from resonate_anyio.abc import Clock
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore

from ..over_http import OverHttp

LIMIT = 2 * 1024 * 1024


async def big(size: int) -> str:
    return "x" * size


async def flow(ctx: Context) -> list[str]:
    caught: list[str] = []
    for size in (LIMIT, LIMIT // 4):
        try:
            await ctx.run(big, size)
        except TooLarge as exc:
            caught.append(exc.kind)
    with pytest.raises(TooLarge):
        await ctx.rpc("other", "x" * LIMIT)
    return caught


async def test_values_over_the_limit(clock: Clock) -> None:
    """What is larger than 2 MiB fails its call, once: it is not sent, and nothing is tried again and again."""
    network = OverHttp(LocalNetwork(MemoryStore(), clock=clock), clock)
    resonate = Resonate(network=network)
    resonate.register(big)
    resonate.register(flow)
    async with resonate:
        with anyio.fail_after(10):
            assert ["promise.settle"] == await resonate.run("w", flow)
            with pytest.raises(TooLarge, match="keep large values elsewhere"):
                await resonate.run("v", big, LIMIT)
            with pytest.raises(TooLarge):
                await resonate.promises.create("p", 4_000_000_000_000, "x" * LIMIT)
            assert {"v", "w", "w.big-1", "w.big-2"} == {each.id async for each in resonate.promises.search()}
