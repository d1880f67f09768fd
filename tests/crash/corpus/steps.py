"""Steps in a row, in parallel and below each other."""

from __future__ import annotations

from resonate_anyio import Context, Retry

from ..scenarios import scenario
from .leaves import Oops, fail, flaky, slow, step, threaded


@scenario(returns=[1, 2, 3])
async def sequence(ctx: Context) -> list[int]:
    return [await ctx.run(step, n) for n in (1, 2, 3)]


@scenario(returns="nothing to do")
async def no_calls(ctx: Context) -> str:
    return "nothing to do"


@scenario(returns=["a", "b"])
async def in_threads(ctx: Context) -> list[str]:
    beside = await ctx.run(threaded, "b").spawn()
    return [await ctx.run(threaded, "a"), await beside]


async def pair(ctx: Context, first: int) -> list[int]:
    return [await ctx.run(step, first), await ctx.run(step, first + 1)]


async def four(ctx: Context, first: int) -> list[int]:
    return await ctx.run(pair, first) + await ctx.run(pair, first + 2)


@scenario(returns=[0, 1, 2, 3, 4, 5, 6, 7, 8])
async def nested(ctx: Context) -> list[int]:
    beside = await ctx.run(four, 4).spawn()
    return [*await ctx.run(four, 0), *await beside, await ctx.run(step, 8)]


async def descend(ctx: Context, levels: int) -> int:
    return 0 if levels == 0 else 1 + await ctx.run(descend, levels - 1)


@scenario(returns=22)
async def deeply_nested(ctx: Context) -> int:
    return await ctx.run(descend, 22)


@scenario(returns=["c", "b", "a"])
async def spawned(ctx: Context) -> list[str]:
    futures = [await ctx.run(slow, seconds, name).spawn() for seconds, name in ((1, "a"), (2, "b"), (3, "c"))]
    return [await future for future in reversed(futures)]


@scenario(returns="gone ahead")
async def not_awaited(ctx: Context) -> str:
    await ctx.run(slow, 5, "unheard").spawn()
    await ctx.run(pair, 1).spawn()
    await ctx.sleep(9).spawn()
    return "gone ahead"


async def apart(ctx: Context, seconds: float) -> str:
    await ctx.run(step, "begun")
    await ctx.sleep(seconds)
    return await ctx.run(step, "ended")


@scenario(returns=True, functions=(apart, slow))
async def detached(ctx: Context) -> bool:
    first = await ctx.detached(apart, 20)
    await ctx.run(step, "between")
    return first != await ctx.detached(slow, 30, "late")


@scenario(returns=3)
async def retried(ctx: Context) -> int:
    return await ctx.run(flaky, 2).retry(Retry(attempts=5, delay=2))


@scenario(returns="given up")
async def retried_in_vain(ctx: Context) -> str:
    try:
        await ctx.run(fail, "always").retry(Retry(attempts=3, delay=1))
    except Oops:
        return await ctx.run(step, "given up")
    return "unreachable"
