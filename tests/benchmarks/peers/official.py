"""The official Resonate SDK for Python, in its local mode, where promises are kept in memory, or over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from resonate.resonate import Resonate  # type: ignore[import-not-found, import-untyped, unused-ignore]

from . import dev, measuring


async def leaf(ctx: Any, number: int) -> int:
    """Return the argument."""
    return number


async def sequence(ctx: Any, count: int) -> int:
    """Call so many steps, one after the other."""
    for number in range(count):
        await ctx.run(leaf, number)
    return count


async def nothing(ctx: Any) -> int:
    """Do nothing."""
    return 0


async def at_once(ctx: Any, count: int) -> int:
    """Call so many steps at once."""
    futures = [ctx.run(leaf, number) for number in range(count)]
    return sum([await future for future in futures])


async def remote(ctx: Any, count: int) -> int:
    """Make so many remote calls, one after the other."""
    for number in range(count):
        await ctx.rpc(leaf, number)
    return count


async def remote_at_once(ctx: Any, count: int) -> int:
    """Make so many remote calls at once."""
    futures = [ctx.rpc(leaf, number) for number in range(count)]
    return sum([await future for future in futures])


class Official:
    """A client."""

    def __init__(self, resonate: Any) -> None:
        self._resonate = resonate

    async def steps(self, id: str, count: int) -> None:
        await self._resonate.run(id, sequence, count).result()

    async def empty(self, id: str) -> None:
        await self._resonate.run(id, nothing).result()

    async def fan_out(self, id: str, count: int) -> None:
        await self._resonate.run(id, at_once, count).result()

    async def spawn(self, id: str, count: int) -> None:
        await self.fan_out(id, count)

    async def remote(self, id: str, count: int) -> None:
        await self._resonate.run(id, remote, count).result()

    async def remote_fan_out(self, id: str, count: int) -> None:
        await self._resonate.run(id, remote_at_once, count).result()


@asynccontextmanager
async def start(variant: str, folder: Path) -> AsyncIterator[Official]:
    """Start a worker."""
    with dev.server() if variant == "http" else nullcontext() as url:
        resonate = Resonate(url=url, env={}, observer=lambda *_, **__: None)
        for function in (leaf, sequence, nothing, at_once, remote, remote_at_once):
            resonate.register(function)
        try:
            yield Official(resonate)
        finally:
            await resonate.stop()


if __name__ == "__main__":
    measuring.main(start)
