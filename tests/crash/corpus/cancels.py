"""Cancelled from outside: the whole execution, one local call of it, one remote call."""

from __future__ import annotations

from resonate_anyio import Context, DurableCancelledError

from ..scenarios import Outside, scenario
from .failures import busy, remote, waiting
from .leaves import slow, step
from .remote import cancel_all


@scenario(fails="canceled", outside=cancel_all, functions=(remote, waiting))
async def cancelled_from_outside(ctx: Context) -> None:
    await ctx.run(busy, 100).spawn()
    await ctx.rpc(remote, 100).spawn()
    await ctx.sleep(100)


async def cancel_local(outside: Outside) -> None:
    await outside.exists("w.nap-1")
    await outside.at(5)
    await outside.cancel("w.nap-1")


async def nap(ctx: Context) -> str:
    await ctx.run(step, "lies down")
    await ctx.run(busy, 100)
    return "slept"


@scenario(returns="woken", outside=cancel_local)
async def local_call_cancelled_from_outside(ctx: Context) -> str:
    try:
        return await ctx.run(nap)
    except DurableCancelledError:
        return await ctx.run(step, "woken")


async def cancel_remote(outside: Outside) -> None:
    await outside.exists("w.remote-1")
    await outside.at(5)
    await outside.cancel("w.remote-1")


@scenario(returns=["called off", "fine"], outside=cancel_remote, functions=(remote, waiting))
async def remote_call_cancelled_from_outside(ctx: Context) -> list[str]:
    beside = await ctx.run(slow, 10, "fine").spawn()
    try:
        await ctx.rpc(remote, 100)
    except DurableCancelledError:
        return [await ctx.run(step, "called off"), await beside]
    return []
