"""Floors: what remains if an engine does nothing but what it cannot avoid.

In memory, a step is one task of asyncio, its argument and its result as JSON, and two entries of a dict. On SQLite it
is two transactions of one row each besides, in WAL mode. A workflow is such a step around its steps.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from . import measuring


class Floor:
    """What keeps the records of steps."""

    def __init__(self, database: sqlite3.Connection | None) -> None:
        self._database = database
        self._records: dict[str, tuple[str, str | None]] = {}

    async def steps(self, id: str, count: int) -> None:
        self._begin(id, count)
        for number in range(count):
            await asyncio.create_task(self._step(f"{id}.{number}", number))
        self._end(id, count)

    async def empty(self, id: str) -> None:
        await self.steps(id, 0)

    async def fan_out(self, id: str, count: int) -> None:
        self._begin(id, count)
        await asyncio.gather(*(self._step(f"{id}.{number}", number) for number in range(count)))
        self._end(id, count)

    async def _step(self, id: str, number: int) -> None:
        self._begin(id, number)
        self._end(id, number)

    def _begin(self, id: str, value: int) -> None:
        param = json.dumps([value])
        self._records[id] = param, None
        if self._database is not None:
            with self._database:
                self._database.execute("INSERT INTO promises (id, param) VALUES (?, ?)", (id, param))
        json.loads(param)

    def _end(self, id: str, value: int) -> None:
        result = json.dumps(value)
        self._records[id] = self._records[id][0], result
        if self._database is not None:
            with self._database:
                self._database.execute("UPDATE promises SET value = ? WHERE id = ?", (result, id))
        json.loads(result)


@asynccontextmanager
async def start(variant: str, folder: Path) -> AsyncIterator[Floor]:
    """Open the file, unless the variant is `memory`."""
    if variant == "memory":
        yield Floor(None)
        return
    database = sqlite3.connect(folder / "floor.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {'FULL' if variant == 'power' else 'NORMAL'}")
    database.execute("CREATE TABLE promises (id TEXT PRIMARY KEY, param TEXT, value TEXT) WITHOUT ROWID")
    yield Floor(database)
    database.close()


if __name__ == "__main__":
    measuring.main(start)
