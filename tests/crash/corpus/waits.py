"""Sleeps, and promises that somebody outside settles."""

from __future__ import annotations

from resonate_anyio import ApplicationError, Context, DurableCancelledError, DurableTimeoutError

from ..scenarios import Outside, scenario
from .leaves import step


@scenario(returns=3)
async def sleeps(ctx: Context) -> int:
    long = await ctx.sleep(60).spawn()
    for n in range(3):
        await ctx.sleep(10)
        await ctx.run(step, n)
    await ctx.sleep(0)
    await long
    return 3


@scenario(returns="woken")
async def long_sleep(ctx: Context) -> str:
    await ctx.sleep(3600)
    return await ctx.run(step, "woken")


async def approve(outside: Outside) -> None:
    await outside.exists("w.promise-1")
    await outside.at(5)
    await outside.resolve("w.promise-1", "yes")


@scenario(returns="yes", outside=approve)
async def approved(ctx: Context) -> str:
    await ctx.run(step, "asked")
    return await ctx.run(step, await ctx.promise().returns(str))


async def refuse(outside: Outside) -> None:
    await outside.exists("w.promise-1")
    await outside.at(5)
    await outside.reject("w.promise-1", ValueError("not now"))


@scenario(returns="refused: not now", outside=refuse)
async def refused(ctx: Context) -> str:
    future = await ctx.promise().returns(str).spawn()
    await ctx.run(step, "asked")
    try:
        return await future
    except (ApplicationError, ValueError) as exc:
        return await ctx.run(step, f"refused: {exc}")


async def withdraw(outside: Outside) -> None:
    await outside.exists("w.promise-1")
    await outside.at(5)
    await outside.withdraw("w.promise-1")


@scenario(returns="withdrawn", outside=withdraw)
async def withdrawn(ctx: Context) -> str:
    try:
        return await ctx.promise().returns(str)
    except DurableCancelledError:
        return await ctx.run(step, "withdrawn")


@scenario(returns="nobody answered")
async def unanswered(ctx: Context) -> str:
    try:
        return await ctx.promise().returns(str).timeout(20)
    except DurableTimeoutError:
        return await ctx.run(step, "nobody answered")


async def answer_all(outside: Outside) -> None:
    for n in (3, 1, 2):
        await outside.exists(f"w.promise-{n}")
        await outside.at(5 * n)
        await outside.resolve(f"w.promise-{n}", n)


@scenario(returns=[1, 2, 3], outside=answer_all)
async def several_promises(ctx: Context) -> list[int]:
    futures = [await ctx.promise().returns(int).spawn() for _ in range(3)]
    return [await ctx.run(step, await future) for future in futures]
