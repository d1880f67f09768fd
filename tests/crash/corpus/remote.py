"""Calls that run as executions of their own, in the same group and in another."""

from __future__ import annotations

from resonate_anyio import Context

from ..scenarios import scenario
from .leaves import Oops, fail, slow, step


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
