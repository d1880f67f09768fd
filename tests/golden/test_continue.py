"""Every file that an earlier version has left is continued by this one, and nothing in it runs twice."""

from __future__ import annotations

import json
import shutil
import sqlite3
from base64 import b64decode
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from resonate_anyio import Resonate
from resonate_anyio._finished import FINISHED_TAG
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import SQLiteStore
from resonate_anyio.testing import VirtualClock

from .make import FOLDER
from .program import ENDED_PROMISE, OPEN_PROMISE, OUTSIDE, ROOTS, SCHEDULE, Expected, Journal, program

FILES: Final = sorted(FOLDER.glob("*.db"))

AWAY: Final = 40 * 60
"""Seconds that the program is away for. The sleeps of hours and days are not over by then, some deadlines are."""

pytestmark = pytest.mark.embedded("files are opened by the engine in this process")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of a file, and what its maker has written about it."""
    source: Path = request.param
    path = tmp_path / source.name
    shutil.copyfile(source, path)
    return path, json.loads(source.with_suffix(".json").read_text())


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="parked"),
        pytest.param({"hot_for": 10**8}, id="hot"),
        pytest.param({"hot_for": 0, "parked_limit": 0}, id="unloaded"),
    ],
)
async def test_continue(golden: tuple[Path, dict[str, Any]], settings: dict[str, Any]) -> None:
    """Each execution ends as it has to; a leaf that had begun runs once more at most, one that had ended does not."""
    path, facts = golden
    before, finished, pending = Counter[str](facts["runs"]), _ids(path, pending=False), _ids(path, pending=True)
    journal, clock = Journal(), VirtualClock(epoch_ms=facts["instant"] + AWAY * 1000)
    network = LocalNetwork(SQLiteStore(path), clock=clock)
    async with program(Resonate(network=network, grace=0.2, **settings), journal) as resonate:
        await resonate.resume("fickle")
        for id, value in OUTSIDE.items():
            await resonate.promises.resolve(id, value)
        async with anyio.create_task_group() as tasks:
            for id, root in ROOTS.items():
                if root.since > path.stem:
                    continue
                tasks.start_soon(_check_ending, resonate, id, root)
        detached = await resonate.get(_detached(path), str)
        assert "alone after!" == await detached
        await _check_what_had_ended(resonate)
        assert SCHEDULE == (await resonate.schedules.get(SCHEDULE)).id
        assert "rejected_canceled" == (await resonate.promises.get("cancelled")).state
    assert set() == {id for id in journal.runs if id in finished}
    assert {1} == {count for id, count in journal.runs.items() if not id.startswith(SCHEDULE)}
    assert {id for id in journal.runs if before[id]} <= pending
    assert {id for id in before if id in pending} <= set(journal.runs)


def test_the_digest_of_large_arguments() -> None:
    """Files since 0.2.0 have a record of large arguments, with a digest of a sample."""
    files = [path for path in FILES if path.stem >= ROOTS["bulky"].since]

    assert files
    for path in files:
        assert "2:" == _digest(path, "bulky.total-1")[:2]


def test_the_records_of_short_steps() -> None:
    """Files since 0.2.0 have steps that were recorded once, and others."""
    files = [path for path in FILES if path.stem >= "0.2.0"]

    assert files
    for path in files:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT tags FROM promises WHERE state = 'resolved'").fetchall()
        assert {True, False} == {FINISHED_TAG in json.loads(tags) for (tags,) in rows}


async def _check_ending(resonate: Resonate, id: str, root: Expected) -> None:
    handle = await resonate.get(id, type(root.value) if id == "values" else Any)
    error, value = None, None
    try:
        value = await handle
    except Exception as exc:  # noqa: BLE001 - any error is compared
        error = type(exc).__name__
    assert (id, root.error, root.value) == (id, error, value)


async def _check_what_had_ended(resonate: Resonate) -> None:
    ended = await resonate.promises.get(ENDED_PROMISE)
    assert "rejected" == ended.state
    assert "pending" == (await resonate.promises.get(OPEN_PROMISE)).state
    assert "done!" == await (await resonate.get("done", str))


def _ids(path: Path, *, pending: bool) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT id FROM promises WHERE (state = 'pending') = ?", (pending,)).fetchall()
    return {id for (id,) in rows}


def _digest(path: Path, id: str) -> str:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        ((data, tags),) = connection.execute("SELECT param_data, tags FROM promises WHERE id = ?", (id,))
    # The tag of a short step has what is otherwise its param.
    finished = json.loads(tags).get(FINISHED_TAG)
    return str(json.loads(b64decode(data if finished is None else finished.split(" ")[4]))["digest"])


def _detached(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        ((id,),) = connection.execute("SELECT id FROM promises WHERE tags LIKE '%resonate-anyio:detached%'")
    return str(id)
