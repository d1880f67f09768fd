"""Calls are lazy builders: made once, in the frame that they belong to, composing with the backends' own constructs."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from resonate_anyio import (
    BuilderUsed,
    Context,
    DurableCancelledError,
    InvalidArgument,
    InvalidFunction,
    Resonate,
    UsageError,
    WrongWorld,
)
from tests.crash.corpus.leaves import slow, step

from .harness import Look
from .replays import survives

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


@on_asyncio
async def test_in_create_task() -> None:
    """A call is what `create_task` takes, of the module and of `asyncio.TaskGroup`, and a replay gives the same."""

    async def workflow(ctx: Context) -> list[Any]:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(ctx.run(slow, 2, "a"))
            second = tasks.create_task(ctx.run(slow, 1, "b"), name="second")
        third = asyncio.create_task(ctx.run(slow, 1, "c"))
        return [first.result(), second.result(), await third, await ctx.run(step, "d")]

    endings = await survives(workflow, returns=["a", "b", "c", "d"])
    assert {"slow-1", "slow-2", "slow-3", "step-1"} == set(endings)


@on_asyncio
async def test_a_task_that_is_cancelled_before_it_begins(resonate: Resonate) -> None:
    """The call of such a task was not made, as if it had been a coroutine, and nothing warns."""

    async def workflow(ctx: Context) -> str:
        task = asyncio.create_task(ctx.run(double, 1))
        assert "ctx.run()" in repr(task)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ctx.run(double, 1).close()
        call = ctx.run(double, 1)
        call.close()
        with pytest.raises(BuilderUsed):
            await call
        return "done"

    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)
        assert ["w"] == list(await Look(resonate).states())


@on_asyncio
async def test_a_call_in_two_tasks(resonate: Resonate) -> None:
    """A call is made once in whichever way, and the second way says so."""

    async def workflow(ctx: Context) -> int:
        call = ctx.run(double, 1)
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        with pytest.raises(BuilderUsed):
            await call
        other = ctx.run(double, 2)
        await other
        with pytest.raises(BuilderUsed):
            await asyncio.create_task(other)
        return await task

    assert 2 == await run_workflow(resonate, workflow)


@on_asyncio
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
async def test_in_an_eager_task(resonate: Resonate) -> None:
    """A task that begins at once, inside of `create_task`, makes the call as well."""

    async def workflow(ctx: Context) -> list[int]:
        factory = getattr(asyncio, "eager_task_factory")  # noqa: B009 - not known to Python 3.11
        asyncio.get_running_loop().set_task_factory(factory)
        try:
            tasks = [asyncio.create_task(ctx.run(double, number)) for number in range(3)]
            return [await task for task in tasks]
        finally:
            asyncio.get_running_loop().set_task_factory(None)

    assert [0, 2, 4] == await run_workflow(resonate, workflow)


async def test_started_as_a_function(resonate: Resonate) -> None:
    """`start_soon(ctx.run, func)` works on both backends; `start_soon(ctx.run(func))` says what to write instead."""

    async def workflow(ctx: Context) -> str:
        async with anyio.create_task_group() as tasks:
            run: Any = ctx.run
            tasks.start_soon(run, double, 1)
            with pytest.raises(UsageError, match=r"start_soon\(ctx\.run, func"):
                tasks.start_soon(ctx.run(double, 2))  # type: ignore[arg-type]
        async with ctx.task_group() as group:
            with pytest.raises(UsageError, match=r"tg\.start\(call\)"):
                group.start_soon(ctx.run(double, 3))  # type: ignore[arg-type]
            calls.append(group)
        return "done"

    calls: list[Any] = []
    resonate.register(workflow)
    async with resonate:
        with pytest.warns(RuntimeWarning, match="never awaited"):  # noqa: PT031 - collected only when it has ended
            assert "done" == await resonate.run("w", workflow)
            gc.collect()
        assert {"w", "w.double-1"} == set(await Look(resonate).states())


async def test_a_call_is_no_function(resonate: Resonate) -> None:
    """A call that is given where a function belongs is told from a coroutine, and does not warn besides."""

    async def workflow(ctx: Context) -> str:
        with pytest.raises(InvalidFunction) as caught:
            ctx.run(ctx.run(double, 1))  # type: ignore[call-overload]
        return str(caught.value)

    assert "got the call <ctx.run(double, ...)" in await run_workflow(resonate, workflow)


@pytest.mark.wall
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_collected_outside_of_its_loop(backend: str) -> None:
    """A forgotten call that outlives its event loop gives the usual warning and no other noise."""
    kept: list[Any] = []

    async def workflow(ctx: Context) -> None:
        kept.append(ctx.run(double, 1))

    async def main() -> None:
        await run_workflow(Resonate(), workflow)

    anyio.run(main, backend=backend)
    with pytest.warns(RuntimeWarning, match=r"ctx\.run\(double, \.\.\.\) was never awaited"):
        kept.clear()


async def test_a_partial_teaches(resonate: Resonate) -> None:
    """A partial in a call is told to pass the arguments to the call; registering it would not help."""

    async def workflow(ctx: Context) -> str:
        with pytest.raises(InvalidFunction) as caught:
            ctx.run(functools.partial(later, 1, value="x"))
        return str(caught.value)

    assert "ctx.run(later, 1, value='x', ...)" in await run_workflow(resonate, workflow)


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
        with pytest.raises(InvalidArgument, match=r"Retry\(attempts=5\), got 3"):
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
