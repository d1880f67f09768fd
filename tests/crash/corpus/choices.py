"""Which came first, what time it was: choices that are recorded, so that every replay makes the same."""

from __future__ import annotations

import anyio

from resonate_anyio import Context

from ..scenarios import Outside, scenario
from .failures import busy, careful
from .leaves import Oops, fail, slow, step
from .remote import sitting, summarise


@scenario(returns=[1, "fast", "after"])
async def first(ctx: Context) -> list[object]:
    """The losers are cancelled."""
    index, value = await ctx.first(ctx.run(careful), ctx.run(slow, 2, "fast"), ctx.run(busy, 100))
    return [index, value, await ctx.run(step, "after")]


@scenario(returns=[1, None, "kept"])
async def first_keeps_futures(ctx: Context) -> list[object]:
    """To wait with a limit and keep the child: a future that loses runs on."""
    future = await ctx.run(waits_long).spawn()
    index, value = await ctx.first(future, ctx.sleep(5))
    return [index, value, await future]


async def waits_long(ctx: Context) -> str:
    await ctx.sleep(20)
    return await ctx.run(step, "kept")


@scenario(returns=["no", "after"])
async def first_failing(ctx: Context) -> list[str]:
    try:
        await ctx.first(ctx.run(fail, "no", 2), ctx.run(careful), ctx.sleep(100))
    except Oops as exc:
        return [str(exc), await ctx.run(step, "after")]
    return []


@scenario(returns=[0, "x!", "after"], functions=(summarise, sitting), others={"gpu": (sitting, summarise)})
async def first_of_remote_calls(ctx: Context) -> list[object]:
    index, value = await ctx.first(
        ctx.rpc(summarise, "x"), ctx.rpc(sitting).target("gpu"), ctx.rpc("nothing").target("nobody")
    )
    return [index, value, await ctx.run(step, "after")]


async def settle_second(outside: Outside) -> None:
    await outside.exists("w.promise-2")
    await outside.at(5)
    await outside.resolve("w.promise-2", "second")


@scenario(returns=[1, "second"], outside=settle_second)
async def first_of_promises(ctx: Context) -> list[object]:
    index, value = await ctx.first(ctx.promise(), ctx.promise())
    return [index, await ctx.run(step, value)]


@scenario(returns="gone")
async def first_cancelled(ctx: Context) -> str:
    with anyio.move_on_after(5):
        await ctx.first(ctx.run(careful), ctx.sleep(100))
    return await ctx.run(step, "gone")


@scenario(returns=["b", "c", "a"])
async def as_completed(ctx: Context) -> list[str]:
    """In the order in which they ended, each followed by a step."""
    calls = [ctx.run(naps, name, seconds) for name, seconds in (("a", 30), ("b", 10), ("c", 20))]
    return [await ctx.run(step, future.result()) async for future in ctx.as_completed(*calls)]


async def naps(ctx: Context, name: str, seconds: float) -> str:
    await ctx.sleep(seconds)
    return await ctx.run(step, name)


@scenario(returns=["failed", "b", "c"])
async def as_completed_with_a_failure(ctx: Context) -> list[str]:
    results = []
    async for future in ctx.as_completed(ctx.run(naps, "c", 30), ctx.run(fail, "a", 2), ctx.run(naps, "b", 15)):
        try:
            results.append(await ctx.run(step, future.result() or ""))
        except Oops:
            results.append(await ctx.run(step, "failed"))
    return results


@scenario(returns="b")
async def as_completed_left_early(ctx: Context) -> str:
    """What is not waited for any more is waited for at the end, like any child."""
    async for future in ctx.as_completed(ctx.run(naps, "a", 30), ctx.run(naps, "b", 10)):
        return await ctx.run(step, future.result())
    return "unreachable"


@scenario(returns=[True, True, True, 10])
async def instants(ctx: Context) -> list[object]:
    """The time, and chance, are the same on every replay: the steps that depend on them are found again."""
    begun = await ctx.now()
    number = ctx.random().randrange(1000)
    same = await ctx.run(step, number)
    name = str(ctx.uuid())
    await ctx.sleep(10)
    passed = await ctx.now() - begun
    other = await ctx.run(step, name)
    return [same == number, other == name, await ctx.now() >= begun, int(passed.total_seconds())]
