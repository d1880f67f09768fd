"""Constructs of anyio, on both backends."""

from __future__ import annotations

from anyio import CancelScope, create_task_group, fail_after, get_cancelled_exc_class, move_on_after
from anyio.abc import TaskStatus

from resonate_anyio import Context

from ..harness import Oops
from .cases import CANCELED, REJECTED, RESOLVED, How, Leaf, after, broken, call, case, endless, quick, slow


@case("after", "quick", "slow", seconds=9, quick=RESOLVED, slow=RESOLVED, after=RESOLVED)
async def anyio_group(ctx: Context, how: How) -> list[str]:
    """A group ends when all of its tasks have."""
    seen: list[str] = []

    async def one(leaf: Leaf) -> None:
        seen.append(await call(ctx, how, leaf))

    async with create_task_group() as tasks:
        tasks.start_soon(one, slow)
        tasks.start_soon(one, quick)
    assert {"quick", "slow"} == set(seen)
    return sorted([*seen, await call(ctx, how, after)])


@case(
    "after", "caught Oops", "endless cancelled", "quick",
    seconds=4, quick=RESOLVED, endless=CANCELED, broken=REJECTED, after=RESOLVED,
)  # fmt: skip
async def anyio_group_failing(ctx: Context, how: How) -> list[str]:
    """The first failure cancels the other tasks, and comes out in a group; what has ended is not affected."""
    seen: list[str] = []

    async def one(leaf: Leaf) -> None:
        try:
            seen.append(await call(ctx, how, leaf))
        except get_cancelled_exc_class():
            seen.append(f"{leaf.__name__} cancelled")
            raise

    try:
        async with create_task_group() as tasks:
            for leaf in (endless, broken, quick):
                tasks.start_soon(one, leaf)
    except* Oops as group:
        seen += [f"caught {type(error).__name__}" for error in group.exceptions]
    seen.append(await call(ctx, how, after))
    return sorted(seen)


@case("after", "quick", seconds=2, quick=RESOLVED, endless=CANCELED, after=RESOLVED)
async def anyio_group_cancelled(ctx: Context, how: How) -> list[str]:
    """Cancelling the scope of a group ends its tasks, without an error."""

    async def other() -> None:
        await call(ctx, how, endless)

    async with create_task_group() as tasks:
        tasks.start_soon(other)
        first = await call(ctx, how, quick)
        tasks.cancel_scope.cancel()
    return sorted([first, await call(ctx, how, after)])


@case("after", "quick started", "slow", seconds=10, quick=RESOLVED, slow=RESOLVED, after=RESOLVED)
async def anyio_group_start(ctx: Context, how: How) -> list[str]:
    """`start` waits until the task says that it has begun; the task goes on."""
    seen: list[str] = []

    async def service(*, task_status: TaskStatus[str]) -> None:
        task_status.started(f"{await call(ctx, how, quick)} started")
        seen.append(await call(ctx, how, slow))

    async with create_task_group() as tasks:
        seen.append(await tasks.start(service))
    return sorted([*seen, await call(ctx, how, after)])


@case("TimeoutError", "after", seconds=6, endless=CANCELED, after=RESOLVED)
async def anyio_fail_after(ctx: Context, how: How) -> list[str]:
    """A deadline that passes raises `TimeoutError`."""
    seen: list[str] = []
    try:
        with fail_after(5):
            await call(ctx, how, endless)
    except TimeoutError as error:
        seen.append(type(error).__name__)
    return [*seen, await call(ctx, how, after)]


@case("quick", "moved on", "after", seconds=6, quick=RESOLVED, endless=CANCELED, after=RESOLVED)
async def anyio_move_on_after(ctx: Context, how: How) -> list[str]:
    """A deadline that passes ends the block, and the scope says so."""
    seen: list[str] = []
    with move_on_after(5) as scope:
        seen.append(await call(ctx, how, quick))
        seen.append(await call(ctx, how, endless))
    assert scope.cancelled_caught
    return [*seen, "moved on", await call(ctx, how, after)]


@case("slow", "after", seconds=9, slow=RESOLVED, after=RESOLVED)
async def anyio_deadline_in_time(ctx: Context, how: How) -> list[str]:
    """One that does not pass changes nothing."""
    with fail_after(30):
        first = await call(ctx, how, slow)
    return [first, await call(ctx, how, after)]


@case("inner", "outer", "after", seconds=6, endless=CANCELED, slow=CANCELED, after=RESOLVED)
async def anyio_nested(ctx: Context, how: How) -> list[str]:
    """Each scope ends what it is around: the inner one its call, the outer one the group that is in it as well."""
    seen: list[str] = []
    with CancelScope() as outer:

        async def other() -> None:
            await call(ctx, how, slow)

        try:
            async with create_task_group() as tasks:
                tasks.start_soon(other)
                with move_on_after(5) as inner:
                    await call(ctx, how, endless)
                seen.append("inner" if inner.cancelled_caught else "?")
                outer.cancel()
        finally:
            seen.append("outer")
    return [*seen, await call(ctx, how, after)]
