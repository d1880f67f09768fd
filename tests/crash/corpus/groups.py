"""Durable task groups: success, failure, limits, plain code, nesting, cancelling; `gather` and `map`."""

from __future__ import annotations

import anyio

from resonate_anyio import Context

from ..scenarios import Outside, scenario
from .failures import busy, careful, remote, waiting
from .leaves import Oops, fail, slow, step
from .remote import summarise


async def answer(outside: Outside) -> None:
    await outside.exists("w.promise-1")
    await outside.at(5)
    await outside.resolve("w.promise-1", "yes")


@scenario(
    returns=["a", "b!", None, "yes", "body"], functions=(summarise,), others={"gpu": (summarise,)}, outside=answer
)
async def group(ctx: Context) -> list[object]:
    async with ctx.task_group() as tg:
        futures = [
            tg.run(slow, 2, "a"),
            tg.start(ctx.rpc(summarise, "b").target("gpu")),
            tg.sleep(3),
            tg.promise(),
        ]
        body = await ctx.run(step, "body")
    return [*(future.result() for future in futures), body]


@scenario(returns="one failed", functions=(remote, waiting))
async def group_failing(ctx: Context) -> str:
    """One failure cancels everything else in the group, durably, compensation included."""
    try:
        async with ctx.task_group() as tg:
            tg.run(careful)
            tg.run(busy, 100)
            tg.rpc(remote, 100)
            tg.sleep(100)
            tg.promise()
            tg.run(slow, 100, "never")
            tg.run(fail, "no", 4)
            await ctx.sleep(100)
    except* Oops:
        await ctx.run(step, "one failed")
    return "one failed"


@scenario(fails="ExceptionGroup: *")
async def group_failure_uncaught(ctx: Context) -> None:
    async with ctx.task_group() as tg:
        tg.run(careful)
        tg.run(fail, "no", 2)


@scenario(fails="ExceptionGroup: *")
async def group_body_failing(ctx: Context) -> None:
    async with ctx.task_group() as tg:
        tg.run(careful)
        tg.run(slow, 1, "in time")
        await ctx.sleep(5)
        msg = "body"
        raise Oops(msg)


async def breaks_on_cancel(ctx: Context) -> None:
    try:
        await ctx.sleep(100)
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.run(fail, "second", 1)


@scenario(returns=["first", "second", "third"])
async def group_with_three_failures(ctx: Context) -> list[str]:
    texts: list[str] = []
    try:
        async with ctx.task_group() as tg:
            tg.run(fail, "first", 2)
            tg.run(breaks_on_cancel)
            try:
                await ctx.sleep(100)
            finally:
                msg = "third"
                raise Oops(msg)
    except* Oops as group:
        texts = [str(error) for error in group.exceptions]
    await ctx.run(step, "after")
    return texts


@scenario(returns=list(range(5)))
async def group_with_a_limit(ctx: Context) -> list[int]:
    async with ctx.task_group(limit=2) as tg:
        futures = [tg.run(slow, 1, n) for n in range(5)]
    return [future.result() for future in futures]


# What has not had its turn when the group fails may be put on record as cancelled, or not at all.
@scenario(returns="cut", varies=("w.slow-*", "w.waiting-*"))
async def group_with_a_limit_failing(ctx: Context) -> str:
    result = "unreachable"
    try:
        async with ctx.task_group(limit=2) as tg:
            tg.run(careful)
            tg.run(fail, "no", 3)
            for n in range(3):
                tg.run(slow, 1, n)
                tg.run(waiting, 1)
    except* Oops:
        result = await ctx.run(step, "cut")
    return result


@scenario(returns={"a": "aa", "b": "bb", "c": "cc"})
async def group_of_plain_code(ctx: Context) -> dict[str, str]:
    results: dict[str, str] = {}

    async def one(name: str, seconds: float) -> None:
        first = await ctx.run(slow, seconds, name)
        await ctx.sleep(1)
        results[name] = first + await ctx.run(slow, seconds, name)

    async with ctx.task_group() as tg:
        for seconds, name in ((3, "a"), (1, "b"), (2, "c")):
            tg.start_soon(one, name, seconds)
    return results


@scenario(returns=["undone", "after"])
async def group_of_plain_code_failing(ctx: Context) -> list[str]:
    done: list[str] = []

    async def saga() -> None:
        await ctx.run(step, "do")
        try:
            await ctx.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                done.append(await ctx.run(step, "undone"))

    async def failing() -> None:
        await ctx.run(slow, 1, "fine")
        await ctx.run(fail, "no", 2)

    try:
        async with ctx.task_group() as tg:
            tg.start_soon(saga)
            tg.start_soon(failing)
            tg.run(busy, 100)
    except* Oops:
        done.append(await ctx.run(step, "after"))
    return done


@scenario(returns={"inner": "inner", "outer": "outer", "fine": "fine"})
async def groups_nested(ctx: Context) -> dict[str, str]:
    """The failure of an inner group ends that, and nothing else, if it is handled there."""
    results: dict[str, str] = {}

    async def inner() -> None:
        try:
            async with ctx.task_group() as tg:
                tg.run(careful)
                tg.run(fail, "inner", 2)
                tg.start_soon(deeper)
        except* Oops:
            results["inner"] = await ctx.run(step, "inner")

    async def deeper() -> None:
        async with ctx.task_group() as tg:
            tg.run(waiting, 100)
            tg.sleep(100)

    async with ctx.task_group() as tg:
        tg.start_soon(inner)
        outer = tg.run(slow, 20, "fine")
        await ctx.sleep(15)
        results["outer"] = await ctx.run(step, "outer")
    return {**results, "fine": outer.result()}


@scenario(returns="both ended")
async def groups_nested_failing(ctx: Context) -> str:
    """The failure of an inner group that is not handled ends the outer one as well."""
    result = "unreachable"
    try:
        async with ctx.task_group() as outer:
            outer.run(careful)
            async with ctx.task_group() as inner:
                inner.run(busy, 100)
                inner.run(fail, "inner", 2)
    except* Oops:
        result = await ctx.run(step, "both ended")
    return result


async def with_a_group(ctx: Context) -> None:
    async with ctx.task_group() as tg:
        tg.run(careful)
        tg.run(slow, 100, "never")
        tg.rpc(waiting, 100)
        await ctx.sleep(100)


@scenario(fails="Oops: body", functions=(waiting, with_a_group))
async def group_below_a_failure(ctx: Context) -> None:
    """A child that is inside of a group when its parent fails, here and in an execution of its own."""
    await ctx.run(with_a_group).spawn()
    await ctx.rpc(with_a_group).spawn()
    await ctx.sleep(5)
    msg = "body"
    raise Oops(msg)


@scenario(returns=["winner", "after"])
async def group_cancelled_by_its_body(ctx: Context) -> list[str]:
    async with ctx.task_group() as tg:
        tg.run(careful)
        tg.run(slow, 100, "never")
        winner = await tg.run(slow, 2, "winner")
        tg.cancel_scope.cancel()
    return [winner, await ctx.run(step, "after")]


@scenario(returns=["seen", "after"])
async def group_member_awaited(ctx: Context) -> list[str]:
    """A failure that the body has caught at its await has cancelled the group all the same."""
    results = []
    try:
        async with ctx.task_group() as tg:
            tg.run(slow, 100, "never")
            try:
                await tg.run(fail, "no", 2)
            except Oops:
                results.append("seen")
    except* Oops:
        results.append(await ctx.run(step, "after"))
    return results


@scenario(returns=[["a", "b"], ["c!", None]], functions=(summarise,))
async def gathered(ctx: Context) -> list[object]:
    first = await ctx.gather(ctx.run(slow, 2, "a"), ctx.run(slow, 1, "b"))
    second = await ctx.gather(ctx.rpc(summarise, "c"), ctx.sleep(5))
    return [list(first), list(second)]


@scenario(returns="instead")
async def gathered_in_vain(ctx: Context) -> str:
    result = "unreachable"
    try:
        await ctx.gather(ctx.run(careful), ctx.run(fail, "no", 2), ctx.sleep(100))
    except* Oops:
        result = await ctx.run(step, "instead")
    return result


@scenario(returns=[0, 1, 4, 9, 16])
async def mapped(ctx: Context) -> list[int]:
    return await ctx.map(squared, range(5), limit=2)


async def squared(ctx: Context, n: int) -> int:
    await ctx.sleep(1)
    return await ctx.run(step, n * n)


@scenario(returns="odd", varies=("w.even-[456]",))
async def mapped_in_vain(ctx: Context) -> str:
    result = "unreachable"
    try:
        await ctx.map(even, range(6), limit=3)
    except* Oops:
        result = await ctx.run(step, "odd")
    return result


async def even(ctx: Context, n: int) -> int:
    await ctx.run(step, n)
    await ctx.sleep(5)
    if n == 1:
        await ctx.run(fail, "odd")
    await ctx.sleep(5)
    return await ctx.run(step, n)
