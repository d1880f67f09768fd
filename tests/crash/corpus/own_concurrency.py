"""Concurrency of the user's own inside of workflows: groups, nurseries and scopes that the engine does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio

from resonate_anyio import Context

from ..scenarios import scenario
from .failures import busy, careful
from .leaves import Oops, fail, slow, step


def native_group() -> AbstractAsyncContextManager[Any]:
    """The task group of the backend itself."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.TaskGroup()
    import trio  # noqa: PLC0415 - only on trio

    return trio.open_nursery()


def start(group: Any, func: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Start a task in any of them."""
    if hasattr(group, "create_task"):
        group.create_task(func(*args))
    else:
        group.start_soon(partial(func, *args))


async def sit(ctx: Context, seconds: float, name: str) -> str:
    """Be a workflow among those that are called in tasks."""
    await ctx.sleep(seconds)
    return await ctx.run(step, name)


async def _in_three_tasks(ctx: Context, group: AbstractAsyncContextManager[Any]) -> dict[str, str]:
    results: dict[str, str] = {}

    async def one(name: str, seconds: float) -> None:
        results[name] = await ctx.run(sit, seconds, name).named(name)

    async with group as tasks:
        for seconds, name in ((3, "a"), (1, "b"), (2, "c")):
            start(tasks, one, name, seconds)
        results["body"] = await ctx.run(step, "body")
    return results


@scenario(returns={"a": "a", "b": "b", "c": "c", "body": "body"})
async def plain_group(ctx: Context) -> dict[str, str]:
    return await _in_three_tasks(ctx, anyio.create_task_group())


@scenario(returns={"a": "a", "b": "b", "c": "c", "body": "body"})
async def own_native_group(ctx: Context) -> dict[str, str]:
    return await _in_three_tasks(ctx, native_group())


async def _with_a_failure(ctx: Context, group: AbstractAsyncContextManager[Any]) -> str:
    async def failing() -> None:
        await ctx.run(fail, "no", 2)

    async def sleeping() -> None:
        await ctx.sleep(100)

    async def working() -> None:
        await ctx.run(sit, 100, "never")

    try:
        async with group as tasks:
            start(tasks, failing)
            start(tasks, sleeping)
            start(tasks, working)
    except* Oops:
        pass
    return await ctx.run(step, "after")


@scenario(returns="after")
async def plain_group_failing(ctx: Context) -> str:
    return await _with_a_failure(ctx, anyio.create_task_group())


@scenario(returns="after")
async def own_native_group_failing(ctx: Context) -> str:
    return await _with_a_failure(ctx, native_group())


@scenario(returns="instead")
async def plain_fail_after(ctx: Context) -> str:
    try:
        with anyio.fail_after(5):
            await ctx.run(step, "in time")
            await ctx.sleep(100)
    except TimeoutError:
        return await ctx.run(step, "instead")
    return "unreachable"


@scenario(returns=["first", "second"])
async def plain_scopes_in_a_row(ctx: Context) -> list[str]:
    with anyio.move_on_after(5):
        await ctx.run(slow, 100, "never")
    first = await ctx.run(step, "first")
    with anyio.move_on_after(5), anyio.move_on_after(50):
        await ctx.run(sit, 100, "never")
    return [first, await ctx.run(step, "second")]


@scenario(returns=["undone", "after"])
async def compensated_in_a_plain_scope(ctx: Context) -> list[str]:
    done: list[str] = []
    with anyio.move_on_after(5):
        try:
            await ctx.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                done.append(await ctx.run(step, "undone"))
    return [*done, await ctx.run(step, "after")]


async def _with_compensation(ctx: Context, group: AbstractAsyncContextManager[Any]) -> str:
    async def failing() -> None:
        await ctx.run(slow, 1, "well so far")
        await ctx.run(fail, "no", 2)

    async def working() -> None:
        await ctx.run(careful)

    try:
        async with group as tasks:
            start(tasks, failing)
            start(tasks, working)
            await ctx.run(busy, 100)
    except* Oops:
        pass
    return await ctx.run(step, "after")


@scenario(returns="after")
async def plain_group_with_compensation(ctx: Context) -> str:
    return await _with_compensation(ctx, anyio.create_task_group())


@scenario(returns="after")
async def own_native_group_with_compensation(ctx: Context) -> str:
    return await _with_compensation(ctx, native_group())


@scenario(returns="both")
async def future_awaited_in_two_tasks(ctx: Context) -> str:
    future = await ctx.run(sit, 3, "x").spawn()
    seen: list[str] = []

    async def wait() -> None:
        seen.append(await future)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(wait)
    assert seen == ["x", "x"]
    return await ctx.run(step, "both")


@scenario(returns="dropped")
async def future_cancelled(ctx: Context) -> str:
    """To cancel the await of a future is to cancel the call."""
    future = await ctx.run(careful).spawn()
    with anyio.move_on_after(5):
        await future
    return await ctx.run(step, "dropped")


@scenario(returns=["a", "late"])
async def plain_scope_that_does_not_fire(ctx: Context) -> list[str]:
    results = []
    with anyio.fail_after(50):
        results.append(await ctx.run(slow, 5, "a"))
        try:
            with anyio.fail_after(5):
                await ctx.rpc("nothing").target("nobody")
        except TimeoutError:
            results.append(await ctx.run(step, "late"))
    return results


async def _rows(ctx: Context, group: AbstractAsyncContextManager[Any]) -> list[list[int]]:
    rows: dict[int, list[int]] = {}

    async def row(n: int) -> None:
        first = await ctx.run(slow, 1 + n % 2, 10 * n)
        await ctx.sleep(1)
        rows[n] = [first, await ctx.run(slow, 1, 10 * n + 1)]

    async with group as tasks:
        for n in range(4):
            start(tasks, row, n)
    return [rows[n] for n in range(4)]


ROWS = [[0, 1], [10, 11], [20, 21], [30, 31]]


@scenario(returns=ROWS)
async def lanes_of_a_plain_group(ctx: Context) -> list[list[int]]:
    """Several calls in each task: every task counts by itself."""
    return await _rows(ctx, anyio.create_task_group())


@scenario(returns=ROWS)
async def lanes_of_an_own_native_group(ctx: Context) -> list[list[int]]:
    return await _rows(ctx, native_group())


@scenario(returns=[ROWS, ROWS])
async def lanes_below_each_other(ctx: Context) -> list[list[list[int]]]:
    results: list[list[list[int]]] = []

    async def again() -> None:
        results.append(await _rows(ctx, anyio.create_task_group()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(again)
        results.append(await _rows(ctx, anyio.create_task_group()))
    return results
