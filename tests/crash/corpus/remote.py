"""Calls that run as executions of their own, in the same group and in another."""

from __future__ import annotations

import anyio

from resonate_anyio import Context, durable

from ..scenarios import ROOT, Outside, scenario
from .leaves import Oops, fail, slow, step


async def cancel_all(outside: Outside) -> None:
    await outside.exists(ROOT)
    await outside.at(5)
    await outside.cancel(ROOT)


async def summarise(ctx: Context, text: str) -> str:
    first = await ctx.run(step, text)
    await ctx.sleep(2)
    return first + await ctx.run(step, "!")


async def broken(ctx: Context) -> None:
    await ctx.run(step, "tried")
    await ctx.run(fail, "remote", 1)


async def relay(ctx: Context, text: str) -> str:
    """Call on, back to the group that the root is in."""
    return await ctx.rpc(summarise, text).target("default")


@scenario(returns="a!b!", functions=(summarise,))
async def rpc_in_the_group(ctx: Context) -> str:
    return await ctx.rpc(summarise, "a") + await ctx.rpc(summarise, "b")


@scenario(returns=["a!", "b", "c!"], functions=(summarise,), others={"gpu": (summarise, slow, relay)})
async def rpc_to_another_group(ctx: Context) -> list[str]:
    first = await ctx.rpc("summarise", "a").target("gpu").spawn()
    second = await ctx.rpc(slow, 5, "b").target("gpu").spawn()
    third = await ctx.rpc(relay, "c").target("gpu").spawn()
    await ctx.run(step, "meanwhile")
    return [await first, await second, await third]


@scenario(returns=["remote", "remote"], functions=(broken,), others={"gpu": (broken,)})
async def rpc_failing(ctx: Context) -> list[str]:
    errors = []
    for target in ("default", "gpu"):
        try:
            await ctx.rpc(broken).target(target)
        except Oops as exc:
            errors.append(await ctx.run(step, str(exc)))
    return errors


@scenario(fails="Oops: remote", functions=(broken, summarise), others={"gpu": (summarise,)})
async def rpc_failure_cancels(ctx: Context) -> None:
    await ctx.rpc(summarise, "late").target("nobody").spawn()
    await ctx.rpc(sitting).target("gpu").spawn()
    await ctx.rpc(broken)


async def sitting(ctx: Context) -> None:
    await ctx.run(slow, 100, "sat").spawn()
    await ctx.rpc(summarise, "x").target("nobody").spawn()
    await ctx.sleep(50)


@scenario(returns=["gave up", "after"], functions=(summarise, sitting), others={"gpu": (sitting, summarise)})
async def rpc_cancelled_by_a_scope(ctx: Context) -> list[str]:
    results = []
    with anyio.move_on_after(5):
        await ctx.rpc(sitting)
    results.append(await ctx.run(step, "gave up"))
    with anyio.move_on_after(5):
        future = await ctx.rpc(sitting).target("gpu").spawn()
        await future
    return [*results, await ctx.run(step, "after")]


@durable(name="a_name_that_is_as_long_as_names_may_be_in_an_id_of")
async def long(ctx: Context, levels: int) -> int:
    if levels == 0:
        await ctx.promise().spawn()
        return await ctx.run(slow, 100, 0)
    call = (ctx.run if levels % 2 else ctx.rpc)(long, levels - 1)
    return 1 + await call


@scenario(returns="cut", functions=(long,))
async def long_ids(ctx: Context) -> str:
    """Ids that would get too long are hashed, and what has them is found all the same."""
    with anyio.move_on_after(5):
        await ctx.run(long, 5)
    return await ctx.run(step, "cut")


@scenario(fails="canceled", functions=(long,), outside=cancel_all)
async def long_ids_cancelled(ctx: Context) -> None:
    await ctx.run(long, 5)


async def fan(ctx: Context, width: int) -> list[int]:
    futures = [await ctx.rpc(leaf_like, n).spawn() for n in range(width)]
    return [await future for future in futures]


async def leaf_like(ctx: Context, n: int) -> int:
    return await ctx.run(step, n)


@scenario(returns=[[0, 1, 2], [0, 1, 2]], functions=(fan, leaf_like), others={"gpu": (fan, leaf_like)})
async def rpc_fan(ctx: Context) -> list[list[int]]:
    here = await ctx.rpc(fan, 3).spawn()
    there = await ctx.rpc(fan, 3).target("gpu").spawn()
    return [await here, await there]
