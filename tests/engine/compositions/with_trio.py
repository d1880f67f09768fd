"""Constructs of trio."""

from __future__ import annotations

import trio

from resonate_anyio import Context

from ..harness import Oops
from .cases import CANCELED, REJECTED, RESOLVED, How, Leaf, after, broken, call, case, endless, quick, slow


@case("after", "quick", "slow", seconds=9, backend="trio", quick=RESOLVED, slow=RESOLVED, after=RESOLVED)
async def trio_nursery(ctx: Context, how: How) -> list[str]:
    """A nursery ends when all of its tasks have."""
    seen: list[str] = []

    async def one(leaf: Leaf) -> None:
        seen.append(await call(ctx, how, leaf))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, slow)
        nursery.start_soon(one, quick)
    assert {"quick", "slow"} == set(seen)
    return sorted([*seen, await call(ctx, how, after)])


@case(
    "after", "caught Oops", "endless cancelled", "quick",
    seconds=4, backend="trio", quick=RESOLVED, endless=CANCELED, broken=REJECTED, after=RESOLVED,
)  # fmt: skip
async def trio_nursery_failing(ctx: Context, how: How) -> list[str]:
    """The first failure cancels the other tasks, and comes out in a group."""
    seen: list[str] = []

    async def one(leaf: Leaf) -> None:
        try:
            seen.append(await call(ctx, how, leaf))
        except trio.Cancelled:
            seen.append(f"{leaf.__name__} cancelled")
            raise

    try:
        async with trio.open_nursery() as nursery:
            for leaf in (endless, broken, quick):
                nursery.start_soon(one, leaf)
    except* Oops as group:
        seen += [f"caught {type(error).__name__}" for error in group.exceptions]
    seen.append(await call(ctx, how, after))
    return sorted(seen)


@case("after", "quick", seconds=2, backend="trio", quick=RESOLVED, endless=CANCELED, after=RESOLVED)
async def trio_nursery_cancelled(ctx: Context, how: How) -> list[str]:
    """Cancelling its scope ends its tasks, without an error."""

    async def other() -> None:
        await call(ctx, how, endless)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        first = await call(ctx, how, quick)
        nursery.cancel_scope.cancel()
    return sorted([first, await call(ctx, how, after)])


@case("after", "quick started", "slow", seconds=10, backend="trio", quick=RESOLVED, slow=RESOLVED, after=RESOLVED)
async def trio_nursery_start(ctx: Context, how: How) -> list[str]:
    """`start` waits until the task says that it has begun; the task goes on."""
    seen: list[str] = []

    async def service(task_status: trio.TaskStatus[str]) -> None:
        task_status.started(f"{await call(ctx, how, quick)} started")
        seen.append(await call(ctx, how, slow))

    async with trio.open_nursery() as nursery:
        seen.append(await nursery.start(service))
    return sorted([*seen, await call(ctx, how, after)])


@case("quick", "moved on", "after", seconds=6, backend="trio", quick=RESOLVED, endless=CANCELED, after=RESOLVED)
async def trio_move_on_after(ctx: Context, how: How) -> list[str]:
    """A deadline that passes ends the block, and the scope says so."""
    seen: list[str] = []
    with trio.move_on_after(5) as scope:
        seen.append(await call(ctx, how, quick))
        seen.append(await call(ctx, how, endless))
    assert scope.cancelled_caught
    return [*seen, "moved on", await call(ctx, how, after)]


@case("TooSlowError", "after", seconds=6, backend="trio", endless=CANCELED, after=RESOLVED)
async def trio_fail_after(ctx: Context, how: How) -> list[str]:
    """A deadline that passes raises `TooSlowError`."""
    seen: list[str] = []
    try:
        with trio.fail_after(5):
            await call(ctx, how, endless)
    except trio.TooSlowError as error:
        seen.append(type(error).__name__)
    return [*seen, await call(ctx, how, after)]
