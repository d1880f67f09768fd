"""Unhinged, on an SQLite file. Its workflows are synchronous and run in one thread, so none of them run at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from unhinged import Unhinged  # type: ignore[import-not-found, import-untyped, unused-ignore]

from . import measuring

NO_WORKERS: Final = "it has no calls that another worker takes"


def sequence(count: int, ctx: Any) -> int:
    """Call so many steps, one after the other."""
    for number in range(count):
        ctx.step("leaf", lambda number=number: number)
    return count


class InOneThread:
    """A client that is its own worker."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def steps(self, id: str, count: int) -> None:
        self._app.spawn("sequence", count, idempotency_key=id)
        assert self._app.run_until_idle() == 1

    async def empty(self, id: str) -> None:
        await self.steps(id, 0)

    async def fan_out(self, id: str, count: int) -> None:
        msg = "it has no steps that run at once"
        raise NotImplementedError(msg)

    async def spawn(self, id: str, count: int) -> None:
        await self.fan_out(id, count)

    async def remote(self, id: str, count: int) -> None:
        raise NotImplementedError(NO_WORKERS)

    async def remote_fan_out(self, id: str, count: int) -> None:
        raise NotImplementedError(NO_WORKERS)


@asynccontextmanager
async def start(variant: str, folder: Path) -> AsyncIterator[InOneThread]:
    """Open the file."""
    app = Unhinged(str(folder / "unhinged.db"), queue_name="benchmark")
    app.create_queue()
    app.register_task("sequence")(sequence)
    yield InOneThread(app)
    app.close()


if __name__ == "__main__":
    measuring.main(start)
