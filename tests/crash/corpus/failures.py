"""Failures: handled, unseen, and those that end everything that was still going on."""

from __future__ import annotations

import anyio

from resonate_anyio import Context

from ..scenarios import scenario
from .leaves import Oops, fail, slow, step


@scenario(returns=["no", "instead"])
async def failure_handled(ctx: Context) -> list[str]:
    try:
        await ctx.run(fail, "no")
    except Oops as exc:
        return [str(exc), await ctx.run(step, "instead")]
    return []


@scenario(fails="Oops: late")
async def failure_of_a_future(ctx: Context) -> str:
    future = await ctx.run(fail, "late", 3).spawn()
    await ctx.run(step, "between")
    await future
    return "unreachable"


@scenario(
    fails="ExceptionGroup: 2 of the children of 'w' failed, and no code awaited them (2 sub-exceptions)",
)
async def failures_unseen(ctx: Context) -> str:
    await ctx.run(fail, "one", 4).spawn()
    await ctx.run(slow, 2, "fine").spawn()
    await ctx.run(fail, "two", 1).spawn()
    return "gone ahead"


@scenario(fails="Oops: body")
async def failure_with_unseen_ones(ctx: Context) -> str:
    await ctx.run(fail, "child", 1).spawn()
    # Later than the child ends if two processes have died with it: the notes depend on which of them fails first.
    await ctx.sleep(3.5)
    msg = "body"
    raise Oops(msg)


async def busy(ctx: Context, seconds: float) -> str:
    """Have something of every kind below."""
    await ctx.run(slow, seconds, "leaf").spawn()
    await ctx.sleep(seconds).spawn()
    await ctx.promise().spawn()
    await ctx.run(waiting, seconds)
    return "unreachable"


async def waiting(ctx: Context, seconds: float) -> None:
    await ctx.sleep(seconds)


async def remote(ctx: Context, seconds: float) -> str:
    local = await ctx.run(waiting, seconds).spawn()
    deeper = await ctx.rpc(waiting, seconds).spawn()
    await local
    await deeper
    return "remote"


@scenario(fails="Oops: body", functions=(remote, waiting))
async def failure_cancels(ctx: Context) -> None:
    await ctx.run(busy, 100).spawn()
    await ctx.rpc(remote, 100).spawn()
    await ctx.rpc(remote, 100).target("nobody").spawn()
    await ctx.sleep(100).spawn()
    await ctx.promise().spawn()
    await ctx.detached(waiting, 50)
    await ctx.sleep(5)
    msg = "body"
    raise Oops(msg)


@scenario(fails="Oops: no")
async def compensated(ctx: Context) -> None:
    await ctx.run(step, "booked")
    try:
        await ctx.run(fail, "no", 1)
    finally:
        await ctx.run(step, "cancelled")


async def careful(ctx: Context) -> str:
    """Be cancelled by the caller's failure, and put things in order first."""
    await ctx.run(step, "booked")
    try:
        await ctx.sleep(100)
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.run(step, "cancelled")
            await ctx.sleep(3)
            await ctx.run(step, "confirmed")
    return "unreachable"


@scenario(fails="Oops: body")
async def compensated_in_a_child(ctx: Context) -> None:
    await ctx.run(careful).spawn()
    await ctx.sleep(5)
    msg = "body"
    raise Oops(msg)


@scenario(returns=["booked", "undone", "after"])
async def several_compensations(ctx: Context) -> list[str]:
    """A saga: what was done is undone in reverse, when a later step fails."""
    done: list[str] = []
    try:
        for name, ok in (("flight", True), ("hotel", True), ("car", False)):
            done.append(await ctx.run(step, name))
            if not ok:
                await ctx.run(fail, name, 1)
    except Oops:
        for name in reversed(done):
            await ctx.run(step, f"no {name}").named(f"undo-{name}")
    return ["booked", "undone", await ctx.run(step, "after")]


@scenario(returns=["one", "two"])
async def failure_seen_by_two(ctx: Context) -> list[str]:
    """One future awaited twice, and its failure handled twice."""
    future = await ctx.run(fail, "x", 2).spawn()
    seen = []
    for name in ("one", "two"):
        try:
            await future
        except Oops:
            seen.append(await ctx.run(step, name))
    return seen


async def failing_parent(ctx: Context) -> None:
    await ctx.run(careful).spawn()
    await ctx.run(busy, 100).spawn()
    await ctx.run(fail, "middle", 3)


@scenario(returns="handled")
async def failure_in_the_middle(ctx: Context) -> str:
    """A child workflow fails, everything below it ends, and its parent goes on."""
    try:
        await ctx.run(failing_parent)
    except Oops:
        await ctx.run(step, "handled")
    return "handled"


@scenario(returns="handled", functions=(failing_parent,))
async def failure_in_a_remote_middle(ctx: Context) -> str:
    try:
        await ctx.rpc(failing_parent)
    except Oops:
        await ctx.run(step, "handled")
    return "handled"
