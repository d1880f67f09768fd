"""DBOS, with its system database in an SQLite file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from dbos import DBOS, SetWorkflowID  # type: ignore[import-not-found, import-untyped, unused-ignore]
from sqlalchemy import event  # type: ignore[import-not-found, unused-ignore]
from sqlalchemy.engine import Engine  # type: ignore[import-not-found, unused-ignore]

from . import measuring

NO_WORKERS: Final = "it has no calls that another worker takes"


@event.listens_for(Engine, "connect")  # type: ignore[untyped-decorator, unused-ignore]
def know_milliseconds(connection: Any, _: object) -> None:
    """Give SQLite before 3.42 the function that the tables of DBOS use."""
    connection.create_function("unixepoch", 1, lambda _: time.time())


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]
async def leaf(number: int) -> int:
    """Return the argument."""
    return number


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def sequence(count: int) -> int:
    """Call so many steps, one after the other."""
    for number in range(count):
        await leaf(number)
    return count


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def nothing() -> int:
    """Do nothing."""
    return 0


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def at_once(count: int) -> int:
    """Call so many steps at once."""
    return sum(await asyncio.gather(*(leaf(number) for number in range(count))))


class Dbos:
    """A client: a workflow runs in the task that calls it."""

    async def steps(self, id: str, count: int) -> None:
        with SetWorkflowID(id):
            await sequence(count)

    async def empty(self, id: str) -> None:
        with SetWorkflowID(id):
            await nothing()

    async def fan_out(self, id: str, count: int) -> None:
        with SetWorkflowID(id):
            await at_once(count)

    async def spawn(self, id: str, count: int) -> None:
        await self.fan_out(id, count)

    async def remote(self, id: str, count: int) -> None:
        raise NotImplementedError(NO_WORKERS)

    async def remote_fan_out(self, id: str, count: int) -> None:
        raise NotImplementedError(NO_WORKERS)


@asynccontextmanager
async def start(variant: str, folder: Path) -> AsyncIterator[Dbos]:
    """Start a worker."""
    url = f"sqlite:///{folder / 'dbos.sqlite'}"
    DBOS(config={"name": "benchmark", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})
    DBOS.launch()
    try:
        yield Dbos()
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    measuring.main(start)
