"""Constructs of asyncio."""

from __future__ import annotations

import asyncio

from resonate_anyio import Context

from ..harness import Oops
from .cases import CANCELED, REJECTED, RESOLVED, How, Leaf, after, broken, call, case, endless, quick, slow


@case("quick", "slow", "after", seconds=9, backend="asyncio", quick=RESOLVED, slow=RESOLVED, after=RESOLVED)
async def asyncio_group(ctx: Context, how: How) -> list[str]:
    """The results are those of its tasks."""

    async def one(leaf: Leaf) -> str:
        return await call(ctx, how, leaf)

    async with asyncio.TaskGroup() as tasks:
        first, second = tasks.create_task(one(quick)), tasks.create_task(one(slow))
    return [first.result(), second.result(), await call(ctx, how, after)]


@case(
    "Oops", "endless cancelled", "after",
    seconds=4, backend="asyncio", endless=CANCELED, broken=REJECTED, after=RESOLVED,
)  # fmt: skip
async def asyncio_group_failing(ctx: Context, how: How) -> list[str]:
    """The first failure cancels the other tasks, and comes out in a group."""
    seen: list[str] = []

    async def one(leaf: Leaf) -> str:
        return await call(ctx, how, leaf)

    other: asyncio.Task[str] | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(one(endless))
            tasks.create_task(one(broken))
    except* Oops as group:
        seen += [type(error).__name__ for error in group.exceptions]
    assert other is not None
    if other.cancelled():
        seen.append("endless cancelled")
    return [*seen, await call(ctx, how, after)]


@case("TimeoutError", "after", seconds=6, backend="asyncio", hidden=True, endless=CANCELED, after=RESOLVED)
async def asyncio_timeout(ctx: Context, how: How) -> list[str]:
    """A deadline that passes raises `TimeoutError`."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(5):
            await call(ctx, how, endless)
    except TimeoutError as error:
        seen.append(type(error).__name__)
    return [*seen, await call(ctx, how, after)]


@case(
    "quick",
    "TimeoutError",
    "after",
    seconds=6,
    backend="asyncio",
    hidden=True,
    quick=RESOLVED,
    endless=CANCELED,
    after=RESOLVED,
)
async def asyncio_timeout_of_several(ctx: Context, how: How) -> list[str]:
    """What had ended before keeps its result."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(5):
            seen.append(await call(ctx, how, quick))
            seen.append(await call(ctx, how, endless))
    except TimeoutError as error:
        seen.append(type(error).__name__)
    return [*seen, await call(ctx, how, after)]


@case(
    "inner",
    "outer",
    "after",
    seconds=7,
    backend="asyncio",
    hidden=True,
    endless=CANCELED,
    slow=CANCELED,
    after=RESOLVED,
)
async def asyncio_timeouts_nested(ctx: Context, how: How) -> list[str]:
    """Each of two deadlines ends what it is around."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(6):
            try:
                async with asyncio.timeout(5):
                    await call(ctx, how, endless)
            except TimeoutError:
                seen.append("inner")
            await call(ctx, how, slow)
    except TimeoutError:
        seen.append("outer")
    return [*seen, await call(ctx, how, after)]


@case("slow", "quick", "after", seconds=9, backend="asyncio", quick=RESOLVED, slow=RESOLVED, after=RESOLVED)
async def asyncio_gather(ctx: Context, how: How) -> list[str]:
    """Results are in the order of what was given; builders can be given as they are."""
    return [*await asyncio.gather(call(ctx, how, slow), call(ctx, how, quick)), await call(ctx, how, after)]


@case("Oops", "after", "slow", seconds=8, backend="asyncio", slow=RESOLVED, broken=REJECTED, after=RESOLVED)
async def asyncio_gather_failing(ctx: Context, how: How) -> list[str]:
    """The first failure is raised at once, and the others are not cancelled: they run on."""
    other = asyncio.ensure_future(call(ctx, how, slow))
    seen: list[str] = []
    try:
        await asyncio.gather(call(ctx, how, broken), other)
    except Oops as error:
        seen.append(type(error).__name__)
    seen.append(await call(ctx, how, after))
    return [*seen, await other]


@case("Oops", "slow", "after", seconds=9, backend="asyncio", slow=RESOLVED, broken=REJECTED, after=RESOLVED)
async def asyncio_gather_all(ctx: Context, how: How) -> list[str]:
    """With `return_exceptions` failures are results."""
    first, second = await asyncio.gather(call(ctx, how, broken), call(ctx, how, slow), return_exceptions=True)
    return [type(first).__name__, str(second), await call(ctx, how, after)]


@case("TimeoutError", "after", seconds=6, backend="asyncio", quick=RESOLVED, endless=CANCELED, after=RESOLVED)
async def asyncio_gather_cancelled(ctx: Context, how: How) -> list[str]:
    """Cancelling a gathering cancels everything in it that has not ended."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(5):
            await asyncio.gather(call(ctx, how, endless), call(ctx, how, quick))
    except TimeoutError as error:
        seen.append(type(error).__name__)
    return [*seen, await call(ctx, how, after)]


@case("TimeoutError", "after", seconds=6, backend="asyncio", endless=CANCELED, after=RESOLVED)
async def asyncio_wait_for(ctx: Context, how: How) -> list[str]:
    """It cancels what it waits for, and raises `TimeoutError`."""
    seen: list[str] = []
    try:
        await asyncio.wait_for(call(ctx, how, endless), 5)
    except TimeoutError as error:
        seen.append(type(error).__name__)
    return [*seen, await call(ctx, how, after)]


@case("slow", "after", seconds=9, backend="asyncio", slow=RESOLVED, after=RESOLVED)
async def asyncio_wait_for_in_time(ctx: Context, how: How) -> list[str]:
    """Or gives its result."""
    return [await asyncio.wait_for(call(ctx, how, slow), 30), await call(ctx, how, after)]


@case("TimeoutError", "slow", "after", seconds=9, backend="asyncio", replays=False, slow=RESOLVED, after=RESOLVED)
async def asyncio_shield(ctx: Context, how: How) -> list[str]:
    """What is shielded is not cancelled with the wait for it, and can be waited for again.

    That the wait was given up is not on record, since no call has ended with it.
    """
    seen: list[str] = []
    shielded = asyncio.ensure_future(call(ctx, how, slow))
    try:
        await asyncio.wait_for(asyncio.shield(shielded), 3)
    except TimeoutError as error:
        seen.append(type(error).__name__)
    return [*seen, await shielded, await call(ctx, how, after)]


@case("cancelled", "after", seconds=2, backend="asyncio", quick=RESOLVED, endless=CANCELED, after=RESOLVED)
async def asyncio_task_cancel(ctx: Context, how: How) -> list[str]:
    """A task that is cancelled by hand has been cancelled, and so has its call."""
    seen: list[str] = []

    async def other() -> None:
        await call(ctx, how, endless)

    task = asyncio.create_task(other())
    await call(ctx, how, quick)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        seen.append("cancelled")
    return [*seen, await call(ctx, how, after)]
