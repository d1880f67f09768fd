"""Floors: what remains if an engine does nothing but what it cannot avoid.

In memory, a step is one task in a task group of anyio, its call and its result as JSON in base64, there and back, and
an entry of a dict. On SQLite it is two transactions besides, each of which reads and writes one row of the columns that
a promise has, in WAL mode. If the disk is waited for, it is one hop to a thread and one commit there, after the step. A
workflow is such a step around its steps.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from . import measuring

NO_WORKERS: Final = "it has no calls that another worker takes"

_TABLE: Final = """
CREATE TABLE promises (
    id TEXT PRIMARY KEY, state TEXT, param TEXT, value TEXT, tags TEXT, timeout_at INTEGER, created_at INTEGER
) WITHOUT ROWID
"""
_TAGS: Final = {"resonate:scope": "local", "resonate:origin": "w", "resonate:branch": "w", "resonate:parent": "w"}
_INSERT: Final = "INSERT INTO promises VALUES (?, ?, ?, ?, ?, 0, 0)"
_UPDATE: Final = "UPDATE promises SET state = ?, value = ? WHERE id = ?"


class Floor:
    """What keeps the records of steps."""

    def __init__(self, database: sqlite3.Connection | None, *, on_thread: bool = False) -> None:
        self._database = database
        self._on_thread = on_thread
        self._records: dict[str, tuple[str, str | None]] = {}

    async def steps(self, id: str, count: int) -> None:
        self._begin(id, count)
        for number in range(count):
            async with anyio.create_task_group() as group:
                group.start_soon(self._step, f"{id}.{number}", number)
        await self._end(id, count)

    async def empty(self, id: str) -> None:
        await self.steps(id, 0)

    async def fan_out(self, id: str, count: int) -> None:
        self._begin(id, count)
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(self._step, f"{id}.{number}", number)
        await self._end(id, count)

    async def spawn(self, id: str, count: int) -> None:
        await self.fan_out(id, count)

    async def remote(self, id: str, count: int) -> None:
        raise NotImplementedError(NO_WORKERS)

    async def remote_fan_out(self, id: str, count: int) -> None:
        raise NotImplementedError(NO_WORKERS)

    async def _step(self, id: str, number: int) -> None:
        self._begin(id, number)
        await self._end(id, number)

    def _begin(self, id: str, value: int) -> None:
        param = _encoded({"func": "leaf", "args": [value], "version": 1})
        self._records[id] = param, None
        if self._database is not None and not self._on_thread:
            with self._database:
                self._database.execute("SELECT state FROM promises WHERE id = ?", (id,)).fetchone()
                self._database.execute(_INSERT, (id, "pending", param, None, json.dumps(_TAGS)))
        _decoded(param)

    async def _end(self, id: str, value: int) -> None:
        result = _encoded(value)
        param, _ = self._records[id]
        self._records[id] = param, result
        if self._on_thread:
            await anyio.to_thread.run_sync(self._write_once, id, param, result)
        elif self._database is not None:
            with self._database:
                self._database.execute("SELECT state FROM promises WHERE id = ?", (id,)).fetchone()
                self._database.execute(_UPDATE, ("resolved", result, id))
        _decoded(result)

    def _write_once(self, id: str, param: str, result: str) -> None:
        assert self._database is not None
        with self._database:
            self._database.execute(_INSERT, (id, "resolved", param, result, json.dumps(_TAGS)))


def _encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _decoded(text: str) -> Any:
    return json.loads(base64.b64decode(text))


@asynccontextmanager
async def start(variant: str, folder: Path) -> AsyncIterator[Floor]:
    """Open the file, unless the variant is `memory`."""
    if variant == "memory":
        yield Floor(None)
        return
    power = variant == "power"
    # One thread at a time uses it, as the limiter below has one.
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    database = sqlite3.connect(folder / "floor.db", check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {'FULL' if power else 'NORMAL'}")
    database.execute(_TABLE)
    yield Floor(database, on_thread=power)
    database.close()


if __name__ == "__main__":
    measuring.main(start)
