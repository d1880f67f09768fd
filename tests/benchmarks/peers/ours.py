"""This package, with an embedded engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Store
from resonate_anyio.stores import MemoryStore, SQLiteStore

from . import measuring


async def leaf(number: int) -> int:
    """Return the argument."""
    return number


async def sequence(ctx: Context, count: int) -> int:
    """Call so many steps, one after the other."""
    for number in range(count):
        await ctx.run(leaf, number)
    return count


async def nothing(ctx: Context) -> int:
    """Do nothing."""
    return 0


async def at_once(ctx: Context, count: int) -> int:
    """Call so many steps at once."""
    return sum(await ctx.map(leaf, range(count)))


class Ours:
    """A client."""

    def __init__(self, resonate: Resonate) -> None:
        self._resonate: Final = resonate

    async def steps(self, id: str, count: int) -> None:
        await self._resonate.run(id, sequence, count)

    async def empty(self, id: str) -> None:
        await self._resonate.run(id, nothing)

    async def fan_out(self, id: str, count: int) -> None:
        await self._resonate.run(id, at_once, count)


def store_of(variant: str, folder: Path) -> Store:
    """Return the store of a variant."""
    if variant == "memory":
        return MemoryStore()
    return SQLiteStore(folder / "ours.db", durability="power" if variant == "power" else "process")


@asynccontextmanager
async def start(variant: str, folder: Path) -> AsyncIterator[Ours]:
    """Start a worker."""
    async with Resonate(store=store_of(variant, folder)) as resonate:
        for function in (leaf, sequence, nothing, at_once):
            resonate.register(function)
        yield Ours(resonate)


if __name__ == "__main__":
    measuring.main(start)
