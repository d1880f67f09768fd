"""Tasks that share something in memory: a queue of work, a lock, a counter. Who takes what depends on their order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream

from resonate_anyio import Context

from ..scenarios import scenario
from .leaves import slow, step

_SECONDS: Final = {"a": 3, "b": 1, "c": 5, "d": 2, "e": 1, "f": 4}
_ANSWERS: Final = {name: f"{name}!" for name in _SECONDS}


def _queue() -> MemoryObjectReceiveStream[str]:
    send, receive = anyio.create_memory_object_stream[str](len(_SECONDS))
    for name in _SECONDS:
        send.send_nowait(name)
    send.close()
    return receive


@asynccontextmanager
async def _workers(ctx: Context, work: Callable[[str], Awaitable[None]], *, plain: bool) -> AsyncIterator[None]:
    """Three tasks that take from one queue until it is empty."""

    async def worker(queue: ObjectReceiveStream[str]) -> None:
        async for name in queue:
            await work(name)

    async with _queue() as queue, anyio.create_task_group() if plain else ctx.task_group() as tg:
        for _ in range(3):
            tg.start_soon(worker, queue)
        yield


# What is called and in which task is up to the order of the tasks; it is on record, and no two lives need to agree.
_VARIES: Final = ("w.s*",)


@scenario(returns=_ANSWERS, varies=_VARIES)
async def pool(ctx: Context) -> dict[str, str]:
    """Each task does one thing after the other."""
    found: dict[str, str] = {}

    async def work(name: str) -> None:
        found[name] = await ctx.run(slow, _SECONDS[name], f"{name}!")

    async with _workers(ctx, work, plain=False):
        pass
    return found


@scenario(returns=_ANSWERS, varies=_VARIES)
async def pool_of_quick_steps(ctx: Context) -> dict[str, str]:
    """No time passes between what one task does and what the next does."""
    found: dict[str, str] = {}

    async def work(name: str) -> None:
        found[name] = await ctx.run(step, f"{name}!")

    async with _workers(ctx, work, plain=False):
        pass
    return found


@scenario(returns=_ANSWERS, varies=_VARIES)
async def plain_pool(ctx: Context) -> dict[str, str]:
    """The same in a plain group."""
    found: dict[str, str] = {}

    async def work(name: str) -> None:
        found[name] = await ctx.run(slow, _SECONDS[name], f"{name}!")

    async with _workers(ctx, work, plain=True):
        pass
    return found


@scenario(returns=_ANSWERS, varies=_VARIES)
async def pool_of_several_steps(ctx: Context) -> dict[str, str]:
    """Each thing takes two calls, a plain wait between them, and two at once."""
    found: dict[str, str] = {}

    async def work(name: str) -> None:
        await ctx.run(slow, _SECONDS[name], name)
        await anyio.sleep(_SECONDS[name] / 4)
        last = await ctx.run(step, f"{name}!").spawn()
        await ctx.gather(ctx.run(step, name), ctx.sleep(_SECONDS[name] / 2))
        found[name] = await last

    async with _workers(ctx, work, plain=False):
        pass
    return found


@scenario(returns=_ANSWERS, varies=_VARIES)
async def pool_with_a_body(ctx: Context) -> dict[str, str]:
    """The code that has started the tasks makes calls as well, and gives them more to do."""
    found: dict[str, str] = {}
    send, receive = anyio.create_memory_object_stream[str]()

    async def worker() -> None:
        async for name in receive:
            index, _ = await ctx.first(ctx.run(slow, _SECONDS[name], name), ctx.sleep(60))
            found[name] = ["!", "?"][index].join((name, ""))

    async with receive, ctx.task_group() as tg:
        for _ in range(2):
            tg.start_soon(worker)
        async with send:
            for name in _SECONDS:
                await send.send(await ctx.run(step, name))
    return found


@scenario(returns=[[number, number] for number in range(6)], varies=_VARIES)
async def shared_counter(ctx: Context) -> list[tuple[int, int]]:
    """The tasks number what they do by a counter in memory."""
    numbers: Iterator[int] = iter(range(6))
    taken: dict[int, int] = {}

    async def count(seconds: float) -> None:
        for _ in range(2):
            number = next(numbers)
            taken[number] = await ctx.run(slow, seconds, number)

    async with ctx.task_group() as tg:
        for seconds in (3, 2, 1):
            tg.start_soon(count, seconds)
    return sorted(taken.items())


@scenario(returns=["a", "b", "c", "d"], varies=_VARIES)
async def handed_over(ctx: Context) -> list[str]:
    """One task waits for what another tells it, with no call between."""
    told, found = anyio.Event(), list[Any]()

    async def first() -> None:
        found.append(await ctx.run(slow, 2, "a"))
        told.set()

    async def second() -> None:
        await told.wait()
        found.append(await ctx.run(slow, 1, "b"))
        found.append(await ctx.run(step, "c"))

    async with ctx.task_group() as tg:
        tg.start_soon(first)
        tg.start_soon(second)
    return [*found, await ctx.run(step, "d")]
