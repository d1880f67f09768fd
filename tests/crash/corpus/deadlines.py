"""Deadlines: of leaves, of workflows, of workflows in workflows, and of the root."""

from __future__ import annotations

from contextlib import suppress

import anyio

from resonate_anyio import Context, DurableTimeoutError, Retry

from ..scenarios import scenario
from .leaves import flaky, slow, step


@scenario(returns=["late", "instead"])
async def leaf_timed_out(ctx: Context) -> list[str]:
    try:
        await ctx.run(slow, 100, "never").timeout(5)
    except DurableTimeoutError:
        return ["late", await ctx.run(step, "instead")]
    return []


async def naps(ctx: Context, count: int, seconds: float) -> int:
    for n in range(count):
        await ctx.sleep(seconds)
        await ctx.run(step, n)
    return count


@scenario(returns="late", functions=(naps,))
async def workflow_timed_out(ctx: Context) -> str:
    with suppress(DurableTimeoutError):
        await ctx.run(naps, 5, 4).timeout(10)
    try:
        await ctx.rpc(naps, 5, 4).timeout(10)
    except DurableTimeoutError:
        return await ctx.run(step, "late")
    return "in time"


async def outer(ctx: Context) -> str:
    """Have children that would like to live longer."""
    await ctx.run(naps, 3, 10).timeout(100).spawn()
    await ctx.promise().timeout(100).spawn()
    try:
        await ctx.run(naps, 1, 3).timeout(2)
    except DurableTimeoutError:
        await ctx.run(step, "inner")
    await ctx.sleep(50)
    return "unreachable"


@scenario(returns="outer")
async def nested_deadlines(ctx: Context) -> str:
    try:
        await ctx.run(outer).timeout(15)
    except DurableTimeoutError:
        await ctx.run(step, "after")
        return "outer"
    return "unreachable"


@scenario(fails="timedout", timeout=12)
async def root_timed_out(ctx: Context) -> None:
    await ctx.run(naps, 10, 5).spawn()
    await ctx.promise().spawn()
    await ctx.run(slow, 30, "never")


async def stubborn(ctx: Context) -> None:
    """Try to compensate after the own deadline, which is too late: the promise is settled."""
    try:
        await ctx.sleep(100)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)


@scenario(returns="stopped")
async def timed_out_with_a_finally(ctx: Context) -> str:
    try:
        await ctx.run(stubborn).timeout(4)
    except DurableTimeoutError:
        return "stopped"
    return "unreachable"


@scenario(returns="given up")
async def retries_timed_out(ctx: Context) -> str:
    try:
        await ctx.run(flaky, 50).retry(Retry(attempts=100, delay=3)).timeout(10)
    except DurableTimeoutError:
        return await ctx.run(step, "given up")
    return "unreachable"


async def sitting(ctx: Context, seconds: float) -> str:
    """Have something running below, here and elsewhere."""
    await ctx.run(naps, 100, 6).spawn()
    await ctx.rpc(naps, 100, 6).spawn()
    await ctx.sleep(seconds)
    return "unreachable"


@scenario(returns=["late", "late"], functions=(naps, sitting))
async def remote_deadlines(ctx: Context) -> list[str]:
    """Deadlines are clamped down the graph, across executions."""
    results = []
    for call in (ctx.run(sitting, 100), ctx.rpc(sitting, 100)):
        try:
            await call.timeout(10)
        except DurableTimeoutError:
            results.append(await ctx.run(step, "late"))
    return results


@scenario(fails="DurableTimeoutError: *", varies=("w",))
async def child_timed_out_unseen(ctx: Context) -> str:
    await ctx.run(naps, 5, 5).timeout(8).spawn()
    future = await ctx.promise().timeout(6).spawn()
    await ctx.run(step, "begun")
    await future
    return "unreachable"
