"""Durable deadlines inside of a workflow: `ctx.fail_after` and `ctx.move_on_after`, alone, nested, and with groups."""

from __future__ import annotations

import anyio

from resonate_anyio import Context

from ..scenarios import Outside, scenario
from .failures import busy, careful
from .leaves import Oops, fail, slow, step
from .remote import sitting, summarise


@scenario(returns=["in time", "late"])
async def fail_after(ctx: Context) -> list[str]:
    results = []
    try:
        with ctx.fail_after(30):
            results.append(await ctx.run(slow, 1, "in time"))
            await ctx.run(busy, 100)
    except TimeoutError:
        results.append(await ctx.run(step, "late"))
    return results


@scenario(returns=["inner", "outer", "after"])
async def scopes_nested(ctx: Context) -> list[str]:
    results = []
    with ctx.move_on_after(20) as outer:
        with ctx.move_on_after(5) as inner:
            await ctx.run(careful)
        assert inner.cancelled_caught
        results.append(await ctx.run(step, "inner"))
        with ctx.move_on_after(100):
            await ctx.sleep(1000)
        await ctx.run(step, "skipped")
    assert outer.cancelled_caught
    results.append(await ctx.run(step, "outer"))
    return [*results, await ctx.run(step, "after")]


@scenario(returns=["fine", "after"], functions=(summarise,))
async def scope_that_does_not_fire(ctx: Context) -> list[str]:
    with ctx.fail_after(50):
        await ctx.rpc(summarise, "a")
        await ctx.sleep(5)
        value = await ctx.run(step, "fine")
    await ctx.sleep(100)
    return [value, await ctx.run(step, "after")]


@scenario(returns=["undone", "after"], functions=(sitting, summarise), others={"gpu": (sitting, summarise)})
async def scope_with_compensation(ctx: Context) -> list[str]:
    results = []
    with ctx.move_on_after(10):
        try:
            await ctx.rpc(sitting).target("gpu").spawn()
            await ctx.rpc(sitting)
        finally:
            with anyio.CancelScope(shield=True):
                results.append(await ctx.run(step, "undone"))
                await ctx.sleep(5)
    return [*results, await ctx.run(step, "after")]


@scenario(returns="late")
async def scope_around_a_group(ctx: Context) -> str:
    try:
        with ctx.fail_after(10):
            async with ctx.task_group() as tg:
                tg.run(careful)
                tg.run(busy, 100)
                tg.run(slow, 1, "in time")
                await ctx.sleep(100)
    except TimeoutError:
        return await ctx.run(step, "late")
    return "unreachable"


@scenario(returns=["a late", "b in time", "c late"])
async def scopes_in_a_group(ctx: Context) -> list[str]:
    results: dict[str, str] = {}

    async def one(name: str, seconds: float) -> None:
        with ctx.move_on_after(10) as scope:
            await ctx.run(step, name)
            await ctx.sleep(seconds)
        results[name] = await ctx.run(step, f"{name} late" if scope.cancelled_caught else f"{name} in time")

    async with ctx.task_group() as tg:
        for name, seconds in (("a", 50), ("b", 5), ("c", 20)):
            tg.start_soon(one, name, seconds)
    return [results[name] for name in "abc"]


@scenario(returns="failed first")
async def scope_around_a_failing_group(ctx: Context) -> str:
    result = "unreachable"
    try:
        with ctx.fail_after(50):
            async with ctx.task_group() as tg:
                tg.run(careful)
                tg.run(fail, "no", 2)
    except* Oops:
        result = await ctx.run(step, "failed first")
    return result


async def answer(outside: Outside) -> None:
    await outside.exists("w.promise-1")
    await outside.at(5)
    await outside.resolve("w.promise-1", "yes")


@scenario(returns=["yes", "late"], outside=answer)
async def scopes_around_promises(ctx: Context) -> list[str]:
    results = []
    with ctx.fail_after(20):
        results.append(await ctx.promise().returns(str))
    try:
        with ctx.fail_after(20):
            results.append(await ctx.promise().returns(str))
    except TimeoutError:
        results.append(await ctx.run(step, "late"))
    return results


@scenario(returns="in the end", functions=(sitting,))
async def scope_of_a_child(ctx: Context) -> str:
    """A scope of the caller's ends before one of the child's own."""
    with ctx.move_on_after(8):
        await ctx.run(with_a_scope)
    return await ctx.run(step, "in the end")


async def with_a_scope(ctx: Context) -> str:
    with ctx.move_on_after(3):
        await ctx.sleep(100)
    await ctx.run(step, "one")
    with ctx.fail_after(20):
        await ctx.sleep(100)
    return "unreachable"


@scenario(returns=[1, "kept"])
async def scope_around_first(ctx: Context) -> list[object]:
    future = await ctx.run(slow, 2, "kept").spawn()
    with ctx.move_on_after(10):
        await ctx.first(ctx.run(careful), ctx.sleep(100))
    return [await ctx.run(step, 1), await future]


@scenario(returns=["past", "after"])
async def scope_past_at_once(ctx: Context) -> list[str]:
    results = []
    with ctx.move_on_after(0):
        await ctx.run(slow, 5, "never")
    results.append(await ctx.run(step, "past"))
    return [*results, await ctx.run(step, "after")]
