"""The log is moved into the file in the background, and does not grow for ever."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from resonate_anyio.stores import SQLiteStore
from resonate_anyio.stores._checkpoint import Checkpointer

from .records import ids, put


@pytest.fixture
def log(store: SQLiteStore) -> Path:
    """The log of a store that holds some promises which are not in the file yet."""
    put(store, *map(str, range(200)))
    return Path(store.path + "-wal")


@pytest.fixture
def connection(store: SQLiteStore) -> Iterator[sqlite3.Connection]:
    """A connection as the thread has one."""
    with closing(sqlite3.connect(store.path, timeout=0, isolation_level=None)) as connection:
        yield connection


def test_a_short_log_is_copied(store: SQLiteStore, log: Path, connection: sqlite3.Connection) -> None:
    """A checkpoint puts the log into the file, whose pages then hold everything, and leaves its length."""
    length, before = log.stat().st_size, Path(store.path).stat().st_size
    assert 1000 == Checkpointer(store.path, too_long=1000)._checkpoint(connection, 1000)
    assert (length, True) == (log.stat().st_size, Path(store.path).stat().st_size > before)


def test_a_long_log_is_cut_off(store: SQLiteStore, log: Path, connection: sqlite3.Connection) -> None:
    """A log beyond its limit is cut to nothing, and what was in it is still there."""
    assert 1 == Checkpointer(store.path, too_long=1)._checkpoint(connection, 1)
    assert 0 == log.stat().st_size
    put(store, "more")
    assert 201 == len(ids(store))


def test_a_reader_puts_the_cut_off(store: SQLiteStore, log: Path, connection: sqlite3.Connection) -> None:
    """While somebody reads old data the log stays, and the cut is not tried again before it is twice as long."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM promises").fetchone()
        put(store, "more")
        pages = (log.stat().st_size - 32) // (4096 + 24)
        assert 2 * pages == Checkpointer(store.path, too_long=1)._checkpoint(connection, 1)

    assert 201 == len(ids(store))


@pytest.mark.wall
def test_commits_go_on_while_the_log_is_cut(path: Path) -> None:
    """With a checkpoint after every record and a cut at every checkpoint, nothing is lost or stuck."""
    store = SQLiteStore(path)
    store.open()
    checkpointer = Checkpointer(store.path, too_long=1, batch=1)
    checkpointer.start()
    for number in range(300):
        with checkpointer.writing():
            put(store, str(number))
        checkpointer.note(1)

    checkpointer.stop()
    assert 300 == len(ids(store))
    store.close()
