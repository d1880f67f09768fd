"""This package, with an embedded engine or over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network, Store
from resonate_anyio.networks import HttpNetwork, LocalNetwork
from resonate_anyio.stores import MemoryStore, SQLiteStore

from . import dev, measuring


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


async def spawned(ctx: Context, count: int) -> int:
    """Start so many steps, each by a statement of its own."""
    futures = [await ctx.run(leaf, number).spawn() for number in range(count)]
    return sum([await future for future in futures])


async def remote(ctx: Context, count: int) -> int:
    """Make so many remote calls, one after the other."""
    for number in range(count):
        await ctx.rpc(leaf, number)
    return count


async def remote_at_once(ctx: Context, count: int) -> int:
    """Make so many remote calls at once."""
    futures = [await ctx.rpc(leaf, number).spawn() for number in range(count)]
    return sum([await future for future in futures])


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

    async def spawn(self, id: str, count: int) -> None:
        await self._resonate.run(id, spawned, count)

    async def remote(self, id: str, count: int) -> None:
        await self._resonate.run(id, remote, count)

    async def remote_fan_out(self, id: str, count: int) -> None:
        await self._resonate.run(id, remote_at_once, count)


def store_of(variant: str, folder: Path) -> Store:
    """Return the store of a variant."""
    if variant == "memory":
        return MemoryStore()
    return SQLiteStore(folder / "ours.db", durability="power" if variant == "power" else "process")


@contextmanager
def network_of(variant: str, folder: Path) -> Iterator[Network]:
    """Give the network of a variant: an embedded engine, or a server in another process."""
    if variant != "http":
        yield LocalNetwork(store_of(variant, folder))
        return
    with dev.server() as url:
        yield HttpNetwork(url)


@asynccontextmanager
async def start(variant: str, folder: Path) -> AsyncIterator[Ours]:
    """Start a worker."""
    with network_of(variant, folder) as network:
        async with Resonate(network=network) as resonate:
            for function in (leaf, sequence, nothing, at_once, spawned, remote, remote_at_once):
                resonate.register(function)
            yield Ours(resonate)


if __name__ == "__main__":
    measuring.main(start)
