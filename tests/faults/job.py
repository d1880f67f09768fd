"""A workflow that says everything that an execution can say to a server, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anyio

from resonate_anyio import Context, Info

from .runs import Runs

STEP: Final = 2.0
"""Seconds that each step takes."""

NAP: Final = 90.0
"""Seconds that the workflow sleeps: long enough to be parked."""

FAR: Final = "far"
"""The group of the worker that is called by the other one."""

RESULT: Final = [[0, 1], [[10, 11], [20, 21], [30, 31]], [7, 8], "word", [4, 5]]


class Name(str):
    """The pid of the worker that runs something."""

    __slots__ = ()


async def step(info: Info, number: int) -> int:
    """Be seen running, for a while."""
    async with info.get_dependency(Runs).run(info.id, info.get_dependency(Name)):
        await anyio.sleep(STEP)
    return number


async def pair(ctx: Context, number: int) -> list[int]:
    """Two steps, one after the other."""
    return [await ctx.run(step, number), await ctx.run(step, number + 1)]


async def job(ctx: Context) -> list[Any]:
    """Steps in a row, pairs side by side, a pair elsewhere, a sleep, a word from outside, one more pair elsewhere."""
    row = [await ctx.run(step, number) for number in range(2)]
    side_by_side = await ctx.map(pair, [10, 20, 30])
    elsewhere = await ctx.rpc(pair, 7).target(FAR).spawn()
    word = await ctx.promise().returns(str).named("word").spawn()
    await ctx.sleep(NAP)
    return [row, side_by_side, await elsewhere, await word, await ctx.rpc(pair, 4).target(FAR)]


FUNCTIONS: Final[tuple[Callable[..., Any], ...]] = (job, pair)
