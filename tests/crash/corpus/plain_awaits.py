"""Plain awaits between durable calls, in bodies of groups, scopes and tasks, in which code is cancelled.

Nothing tells of them. A replay begins them anew, and goes past most of them before it is cancelled by what had done so,
and comes to calls that the first run never made.
"""

from __future__ import annotations

import anyio

from resonate_anyio import Context

from ..scenarios import scenario
from .leaves import Oops, fail, slow, step


@scenario(returns=["a", "b", "c"])
async def plain_awaits(ctx: Context) -> list[str]:
    results = []
    for text in "abc":
        await anyio.sleep(0.5)
        results.append(await ctx.run(step, text))
    return results


@scenario(returns=["cleanup", "after"])
async def plain_await_in_a_group(ctx: Context) -> list[str]:
    results = []
    try:
        async with ctx.task_group() as tg:
            tg.run(fail, "no", 4)
            await ctx.run(step, "before")
            await anyio.sleep(6)
            await ctx.run(step, "not reached")
    except* Oops:
        results.append(await ctx.run(step, "cleanup"))
    await ctx.sleep(5)
    return [*results, await ctx.run(step, "after")]


@scenario(returns=["cleanup", "after"])
async def plain_await_in_a_scope(ctx: Context) -> list[str]:
    with ctx.move_on_after(10):
        await ctx.run(step, "before")
        await anyio.sleep(15)
        await ctx.run(step, "not reached")
    results = [await ctx.run(step, "cleanup")]
    await ctx.sleep(5)
    return [*results, await ctx.run(step, "after")]


@scenario(returns=["undone", "a", "b", "after"])
async def plain_await_before_compensation(ctx: Context) -> list[str]:
    """The compensation is made inside of the group, by calls of the same function."""
    results: list[str] = []
    try:
        async with ctx.task_group() as tg:
            tg.run(fail, "no", 4)
            try:
                await anyio.sleep(6)
                await ctx.run(step, "not reached")
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                    results.append(await ctx.run(step, "undone"))
                    results += await ctx.gather(ctx.run(step, "a"), ctx.run(step, "b"))
    except* Oops:
        pass
    await ctx.sleep(5)
    return [*results, await ctx.run(step, "after")]


@scenario(returns=["sagas", "after"])
async def plain_awaits_in_plain_code(ctx: Context) -> list[str]:
    """Tasks beside the body are at different points when one of them fails, and each compensates."""

    async def saga(steps: int) -> None:
        done: list[str] = []
        try:
            for number in range(steps):
                await anyio.sleep(1.5)
                done.append(await ctx.run(step, f"{steps}: {number}"))
            await anyio.sleep(7)
            await ctx.run(step, "not reached")
        finally:
            with anyio.CancelScope(shield=True):
                for text in done:
                    await anyio.sleep(0.5)
                    await ctx.run(step, f"undo {text}")

    async def failing() -> None:
        await anyio.sleep(2)
        await ctx.run(fail, "no", 4)

    results = []
    try:
        async with ctx.task_group() as tg:
            tg.start_soon(saga, 1)
            tg.start_soon(failing)
            tg.start_soon(saga, 3)
            await ctx.sleep(100)
    except* Oops:
        results.append(await ctx.run(step, "sagas"))
    return [*results, await ctx.run(step, "after")]


async def hesitant(ctx: Context) -> None:
    try:
        await ctx.run(step, "do")
        await anyio.sleep(6)
        await ctx.run(step, "not reached")
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
            await ctx.run(step, "undo")


@scenario(returns=["members", "after"])
async def plain_awaits_in_members(ctx: Context) -> list[str]:
    """Workflows that run as members of a group that fails."""
    results = []
    try:
        async with ctx.task_group() as tg:
            tg.run(hesitant)
            tg.run(fail, "no", 4)
            tg.run(hesitant)
            await ctx.run(hesitant)
    except* Oops:
        results.append(await ctx.run(step, "members"))
    await ctx.sleep(5)
    return [*results, await ctx.run(step, "after")]


@scenario(returns=["tasks", "after"])
async def plain_awaits_in_tasks(ctx: Context) -> list[str]:
    """Tasks of a plain group inside of a durable one, each told by its first call."""

    async def one(name: str) -> None:
        await anyio.sleep(1)
        await ctx.run(step, name)
        await anyio.sleep(6)
        await ctx.run(step, "not reached")

    results = []
    try:
        async with ctx.task_group() as tg:
            tg.run(fail, "no", 4)
            async with anyio.create_task_group() as tasks:
                for name in "ab":
                    tasks.start_soon(one, name)
    except* Oops:
        results.append(await ctx.run(step, "tasks"))
    await ctx.sleep(5)
    return [*results, await ctx.run(step, "after")]


async def fails_at_eight(ctx: Context) -> None:
    await ctx.sleep(8)
    await ctx.run(fail, "outer")


@scenario(returns=["inner", "outer", "after"])
async def plain_awaits_in_nested_groups(ctx: Context) -> list[str]:
    """The inner group fails first, the outer one while the code between them waits."""
    results = []
    try:
        async with ctx.task_group() as outer:
            outer.run(fails_at_eight)
            try:
                async with ctx.task_group() as inner:
                    inner.run(fail, "inner", 3)
                    await anyio.sleep(5)
                    await ctx.run(step, "not reached")
            except* Oops:
                results.append(await ctx.run(step, "inner"))
            await anyio.sleep(7)
            await ctx.run(step, "not reached")
    except* Oops:
        results.append(await ctx.run(step, "outer"))
    await ctx.sleep(5)
    return [*results, await ctx.run(step, "after")]


@scenario(returns=["x", "y", 0, "after"])
async def plain_await_before_a_choice(ctx: Context) -> list[object]:
    """What comes after the plain await is a choice, and what follows is a map and another choice."""
    results: list[object] = []
    try:
        async with ctx.task_group() as tg:
            tg.run(fail, "no", 4)
            await anyio.sleep(6)
            await ctx.first(ctx.run(step, "not reached"), ctx.run(step, "nor this"))
    except* Oops:
        results += await ctx.map(step, ["x", "y"])
    index, _ = await ctx.first(ctx.run(slow, 1, "sooner"), ctx.run(slow, 3, "later"))
    return [*results, index, await ctx.run(step, "after")]


async def walking(ctx: Context) -> None:
    done: list[str] = []
    try:
        for number in range(3):
            await anyio.sleep(1)
            done.append(await ctx.run(step, f"do {number}"))
        await anyio.sleep(25)
        await ctx.run(step, "not reached")
    finally:
        with anyio.CancelScope(shield=True):
            for text in done:
                await ctx.run(step, f"undo {text}")


async def abandoning(ctx: Context) -> None:
    await ctx.run(walking).spawn()
    await ctx.sleep(20)
    msg = "abandoned"
    raise Oops(msg)


@scenario(returns="abandoned")
async def plain_awaits_below_a_failure(ctx: Context) -> str:
    """A function fails, and what it has called is ended in a plain await."""
    result = ""
    try:
        await ctx.run(abandoning)
    except Oops as error:
        result = str(error)
    return await ctx.run(step, result)
