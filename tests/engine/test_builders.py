"""Calls are lazy builders: made once, in the frame that they belong to, composing with the backends' own constructs."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from resonate_anyio import BuilderUsed, Context, DurableCancelledError, InvalidArgument, Resonate, WrongWorld

from .harness import Look

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


async def double(x: int) -> int:
    return x * 2


async def later(seconds: float, value: str) -> str:
    await anyio.sleep(seconds)
    return value


async def run_workflow(resonate: Resonate, func: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    resonate.register(func)
    async with resonate:
        return await resonate.run("w", func, *args)


async def test_awaited_twice(resonate: Resonate) -> None:
    """A call is made once: awaiting it again raises and says to build another one."""

    async def workflow(ctx: Context) -> str:
        call = ctx.run(double, 1)
        await call
        with pytest.raises(BuilderUsed, match="started already") as caught:
            await call
        return str(caught.value)

    assert "build another one" in await run_workflow(resonate, workflow)


async def test_spawned_twice(resonate: Resonate) -> None:
    """A call that was spawned can be neither awaited nor spawned again."""

    async def workflow(ctx: Context) -> int:
        call = ctx.run(double, 1)
        future = await call.spawn()
        with pytest.raises(BuilderUsed):
            await call.spawn()
        with pytest.raises(BuilderUsed):
            await call
        return await future

    assert 2 == await run_workflow(resonate, workflow)


async def test_root_call_twice(resonate: Resonate) -> None:
    """The calls of the ephemeral world are made once as well."""
    resonate.register(double)
    async with resonate:
        call = resonate.run("r", double, 1)
        assert 2 == await call
        with pytest.raises(BuilderUsed):
            await call.spawn()


@pytest.mark.parametrize(
    "option",
    [
        lambda call: call.timeout(1),
        lambda call: call.named("x"),
        lambda call: call.retry(None),
        lambda call: call.returns(int),
    ],
    ids=["timeout", "named", "retry", "returns"],
)
async def test_option_after_the_start(resonate: Resonate, option: Callable[[Any], Any]) -> None:
    """Options are set before the await; later they raise instead of being ignored."""

    async def workflow(ctx: Context) -> int:
        call = ctx.run(double, 1)
        result = await call
        with pytest.raises(BuilderUsed, match="before the await"):
            option(call)
        return result

    assert 2 == await run_workflow(resonate, workflow)


def _unused_warnings(caught: list[warnings.WarningMessage]) -> list[tuple[str, int]]:
    return [(w.filename, w.lineno) for w in caught if "never awaited" in str(w.message)]


async def test_dropped_call_warns(resonate: Resonate) -> None:
    """A call that nobody awaits warns with the line that made it, as a forgotten coroutine does."""

    async def workflow(ctx: Context) -> int:
        ctx.run(double, 1)
        return inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = await run_workflow(resonate, workflow)
        gc.collect()
    assert [(__file__, line)] == _unused_warnings(caught)


async def test_dropped_root_call_warns(resonate: Resonate) -> None:
    """The same holds outside of durable functions."""
    resonate.register(double)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resonate.run("r", double, 1)
        line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
        gc.collect()
    assert [(__file__, line)] == _unused_warnings(caught)


async def test_used_call_does_not_warn(resonate: Resonate) -> None:
    """Neither an awaited nor a spawned call warns, and neither does a detached one."""

    async def workflow(ctx: Context) -> None:
        await ctx.run(double, 1)
        await ctx.run(double, 2).spawn()
        await ctx.detached(double, 3)

    resonate.register(double)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await run_workflow(resonate, workflow)
        gc.collect()
    assert [] == _unused_warnings(caught)


@on_asyncio
async def test_in_gather(resonate: Resonate) -> None:
    """asyncio.gather takes calls as they are and runs them beside each other."""

    async def workflow(ctx: Context) -> list[str]:
        return list(await asyncio.gather(ctx.run(later, 10, "a"), ctx.run(later, 10, "b")))

    start = asyncio.get_running_loop().time()
    assert ["a", "b"] == await run_workflow(resonate, workflow)
    assert 15 > asyncio.get_running_loop().time() - start


@on_asyncio
async def test_in_ensure_future(resonate: Resonate) -> None:
    """asyncio.ensure_future makes a task of a call."""

    async def workflow(ctx: Context) -> list[int]:
        task = asyncio.ensure_future(ctx.run(double, 2))
        return [await ctx.run(double, 1), await task]

    assert [2, 4] == await run_workflow(resonate, workflow)


@on_asyncio
async def test_in_shield(resonate: Resonate) -> None:
    """asyncio.shield takes a call: cancelling the shield leaves the call running."""

    async def workflow(ctx: Context) -> str:
        task = asyncio.ensure_future(ctx.run(later, 10, "kept"))
        with anyio.move_on_after(1):
            await asyncio.shield(task)
        return await task

    assert "kept" == await run_workflow(resonate, workflow)


@on_asyncio
async def test_in_wait_for(resonate: Resonate) -> None:
    """asyncio.wait_for takes a call; when it times out the call is cancelled, durably."""

    async def workflow(ctx: Context) -> str:
        assert "soon" == await asyncio.wait_for(ctx.run(later, 1, "soon"), 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ctx.run(later, 100, "late"), 5)
        return "done"

    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)
        states = await Look(resonate).states()
    assert {"w": "resolved", "w.later-1": "resolved", "w.later-2": "rejected_canceled"} == states


async def test_in_a_task_group(resonate: Resonate) -> None:
    """Tasks of a plain task group inside a workflow may make calls."""

    async def workflow(ctx: Context) -> list[str]:
        results: dict[str, str] = {}

        async def one(value: str) -> None:
            results[value] = await ctx.run(later, 1, value).named(value)

        async with anyio.create_task_group() as tasks:
            for value in ("a", "b", "c"):
                tasks.start_soon(one, value)
        return sorted(results.values())

    assert ["a", "b", "c"] == await run_workflow(resonate, workflow)


async def test_cancelled_await_cancels_the_call(resonate: Resonate) -> None:
    """Cancelling the await of a call is cancelling the call, durably, with the scope named as the reason."""

    async def workflow(ctx: Context) -> str:
        with anyio.move_on_after(1):
            await ctx.run(later, 100, "late")
        future = await ctx.run(later, 100, "late").spawn()
        with anyio.move_on_after(1):
            await future
        with pytest.raises(DurableCancelledError):
            await future
        return "done"

    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)
        for id in ("w.later-1", "w.later-2"):
            record = await resonate.promises.get(id)
            assert ("rejected_canceled", {"by": "scope"}) == (record.state, record.value)


async def test_context_of_another_frame(resonate: Resonate) -> None:
    """A child that uses its parent's context is refused: a replay of the parent would not run that code."""

    async def workflow(ctx: Context) -> None:
        async def child(_: Context) -> int:
            return await ctx.run(double, 1)

        await ctx.run(child)

    with pytest.raises(WrongWorld, match="this ctx belongs to 'workflow'"):
        await run_workflow(resonate, workflow)


async def test_context_in_a_leaf(resonate: Resonate) -> None:
    """A leaf cannot make calls with the context of the workflow that called it."""

    async def workflow(ctx: Context) -> None:
        async def leaf() -> int:
            return await ctx.run(double, 1)

        await ctx.run(leaf)

    with pytest.raises(WrongWorld, match="was used by 'leaf'"):
        await run_workflow(resonate, workflow)


async def test_context_after_its_end(resonate: Resonate) -> None:
    """A context is of no use once its function has ended."""
    kept: list[Context] = []

    async def workflow(ctx: Context) -> None:
        kept.append(ctx)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        with pytest.raises(WrongWorld, match="had ended"):
            kept[0].run(double, 1)


async def test_call_made_before_and_awaited_after_the_end(resonate: Resonate) -> None:
    """A call that outlives its function is refused when it is awaited."""
    kept: list[Any] = []

    async def workflow(ctx: Context) -> None:
        kept.append(ctx.run(double, 1))

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        with pytest.raises(WrongWorld, match="had ended"):
            await kept[0]


async def test_future_awaited_in_another_frame(resonate: Resonate) -> None:
    """A future belongs to the frame that spawned it."""

    async def workflow(ctx: Context) -> None:
        future = await ctx.run(double, 1).spawn()

        async def child(_: Context) -> int:
            return await future

        await ctx.run(child)

    with pytest.raises(WrongWorld):
        await run_workflow(resonate, workflow)


@pytest.mark.parametrize(
    ("use", "instead"),
    [
        (lambda resonate: resonate.run("x", double, 1), "ctx.run()"),
        (lambda resonate: resonate.rpc("x", double, 1), "ctx.rpc()"),
        (lambda resonate: resonate.schedule("x", "* * * * *", double, 1), "ctx.detached()"),
        (lambda resonate: resonate.get("x"), "ctx.promise()"),
        (lambda resonate: resonate.promises.get("x"), "ctx.promise()"),
        (lambda resonate: resonate.stop(), "outside of durable functions"),
    ],
    ids=["run", "rpc", "schedule", "get", "promises", "stop"],
)
async def test_client_in_a_durable_function(
    resonate: Resonate, use: Callable[[Resonate], Awaitable[Any]], instead: str
) -> None:
    """The client is refused inside a durable function, and the error names the call of the context to use."""

    async def workflow(ctx: Context) -> str:
        with pytest.raises(WrongWorld) as caught:
            await use(resonate)
        return str(caught.value)

    resonate.register(double)
    assert instead in await run_workflow(resonate, workflow)


async def test_what_they_show(resonate: Resonate) -> None:
    """A context, a call and a future say what they are, and whether they have been awaited."""
    shown: list[str] = []

    async def workflow(ctx: Context) -> None:
        call = ctx.run(double, 1)
        shown.extend([repr(ctx), repr(call)])
        future = await call.spawn()
        shown.extend([repr(call), repr(future)])
        await future
        shown.append(repr(future))

    await run_workflow(resonate, workflow)
    assert [
        "<Context w of workflow>",
        "<ctx.run(double, ...), not awaited>",
        "<ctx.run(double, ...)>",
        "<DurableFuture w.double-1 started>",
        "<DurableFuture w.double-1 resolved>",
    ] == shown


async def test_retries_are_a_policy(resonate: Resonate) -> None:
    """A number is not taken for a retry policy; the error shows one."""

    async def workflow(ctx: Context) -> None:
        with pytest.raises(InvalidArgument, match=r"Retry\(attempts=5\), not 3"):
            ctx.run(double, 1).retry(3)  # type: ignore[arg-type]

    await run_workflow(resonate, workflow)


async def test_version_of_a_detached_call(resonate: Resonate) -> None:
    """A detached call by name runs the version that it was given."""

    async def triple(x: int) -> int:
        return x * 3

    async def workflow(ctx: Context) -> str:
        return await ctx.detached("double", 4).version(2)

    resonate.register(double)
    resonate.register(triple, name="double", version=2)
    resonate.register(workflow)
    async with resonate:
        assert 12 == await (await resonate.get(await resonate.run("w", workflow)))
