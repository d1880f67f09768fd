"""Which files are taken, which are refused, and what happens when the disk does not do as it is told."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from resonate_anyio import StoreError, UsageError
from resonate_anyio._protocol import (
    Missed,
    Outcome,
    Promise,
    PromiseState,
    PutPromise,
    PutSchedule,
    PutTask,
    Schedule,
    Task,
    TaskState,
    Value,
    View,
)
from resonate_anyio.stores import SQLiteStore, _sqlite
from resonate_anyio.stores._mounts import refuse_network
from resonate_anyio.stores._schema import APPLICATION_ID, VERSION

from .records import ids, outcome, put, write


def ask(path: Path, pragma: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        [value] = connection.execute(f"PRAGMA {pragma}").fetchone()
        return value


def refused(path: Path) -> str:
    """What a store says that cannot use the file."""
    with pytest.raises(StoreError) as error:
        SQLiteStore(path).open()

    return str(error.value)


def test_the_file_says_whose_it_is(store: SQLiteStore, path: Path) -> None:
    """Header and settings of a new file are as they are documented."""
    store.close()
    assert APPLICATION_ID == ask(path, "application_id")
    assert VERSION == ask(path, "user_version")
    assert "wal" == ask(path, "journal_mode")
    assert 2 == ask(path, "auto_vacuum")


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
def test_durability_decides_how_commits_are_synced(durability: Any, synchronous: int, path: Path) -> None:
    """`process` is SQLite's NORMAL, `power` its FULL; only the latter waits for the disk."""
    store = SQLiteStore(path, durability=durability)
    store.open()
    assert store._use is not None
    [actual] = store._use.connection.execute("PRAGMA synchronous").fetchone()
    store.close()
    assert (synchronous, durability == "power") == (actual, store.blocking)


@pytest.mark.parametrize("path", [":memory:", ""])
def test_no_file_is_no_path(path: str) -> None:
    """`:memory:` is refused with a pointer to the store that means it."""
    with pytest.raises(UsageError, match="MemoryStore"):
        SQLiteStore(path)


def test_an_unknown_durability_is_refused(path: Path) -> None:
    """A misspelt setting does not become the default."""
    with pytest.raises(UsageError, match="'process' or 'power', not 'full'"):
        SQLiteStore(path, durability="full")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (x)")


def make_foreign_in_wal(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE precious (x)")


def make_text(path: Path) -> None:
    path.write_text("Dear diary, " * 100)


def make_newer(path: Path) -> None:
    store = SQLiteStore(path)
    store.open()
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_foreign, "another program"),
        (make_foreign_in_wal, "another program"),
        (make_text, "no SQLite database"),
        (make_newer, f"layout version {VERSION + 1}"),
    ],
)
def test_other_files_are_refused_and_left_alone(make: Callable[[Path], None], words: str, path: Path) -> None:
    """What is not ours or too new is named as such, and not one byte of it changes."""
    make(path)
    before = path.read_bytes()
    assert words in refused(path)
    assert before == path.read_bytes()


def test_nothing_is_put_beside_a_foreign_file(path: Path) -> None:
    """A file that is refused does not get a lock file."""
    make_foreign(path)
    refused(path)
    assert [path] == list(path.parent.iterdir())


def make_old(path: Path) -> None:
    """Make a file as the first version made it."""
    store = SQLiteStore(path)
    store.open()
    put(store, "a")
    write(store, PutSchedule(EVERY_MINUTE))
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX promises_by_state")
        connection.execute("ALTER TABLE schedules DROP COLUMN missed")


EVERY_MINUTE = Schedule(
    id="s", cron="* * * * *", promise_id="p", promise_timeout=1, created_at=0, next_run_at=1, promise_tags={"a": "b"}
)


def test_a_file_of_the_first_version_is_completed(path: Path) -> None:
    """What later versions rely on is added when the file is opened, once, and what is in it stays."""
    make_old(path)
    for _ in range(2):
        store = SQLiteStore(path)
        store.open()
        assert (["a"], EVERY_MINUTE) == (ids(store), store.read(lambda view: view.schedule("s")))
        write(store, PutSchedule(evolve(EVERY_MINUTE, id="t", missed=Missed.NONE)))
        assert Missed.NONE is store.read(lambda view: view.search_schedules(tags={}, after="s", limit=1))[0].missed
        store.close()
        assert ("1",) == _only(path, "SELECT count(*) || '' FROM sqlite_master WHERE name = 'promises_by_state'")

    # What the first version does with it: it names its columns, and knows this layout by its number.
    assert VERSION == ask(path, "user_version") == 1
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO schedules (id, cron, promise_id, promise_timeout, promise_tags, created_at, next_run_at) "
            "SELECT id, cron, promise_id, promise_timeout, promise_tags, created_at, 7 FROM schedules WHERE true "
            "ON CONFLICT (id) DO UPDATE SET next_run_at = excluded.next_run_at"
        )
    store = SQLiteStore(path)
    store.open()
    found = store.read(lambda view: view.search_schedules(tags={}, after=None, limit=9))
    assert [("s", 7, Missed.ALL), ("t", 7, Missed.NONE)] == [(one.id, one.next_run_at, one.missed) for one in found]
    store.close()


def _only(path: Path, sql: str) -> tuple[Any, ...]:
    with closing(sqlite3.connect(path)) as connection:
        [row] = connection.execute(sql).fetchall()
    return tuple(row)


def test_a_large_file_is_opened_on_a_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index may have to be made, or a long log be copied: a store says so by the size of its files."""
    monkeypatch.setattr(_sqlite, "_LARGE", 100_000)
    store = SQLiteStore(path)
    assert not store.slow_to_open
    store.open()
    assert not store.slow_to_open
    write(store, PutPromise(Promise(id="large", timeout_at=1, created_at=0, param=Value("x" * 100_000))))
    assert store.slow_to_open
    store.close()
    assert store.slow_to_open


SEARCHES: list[tuple[PromiseState | None, dict[str, str], str]] = [
    (PromiseState.PENDING, {}, "promises_by_state"),
    (PromiseState.REJECTED, {"a": "b"}, "promises_by_state"),
    (PromiseState.TIMEDOUT, {}, "promises_by_state"),
    (None, {"resonate:branch": "b", "a": "b"}, "promises_by_branch"),
    (PromiseState.RESOLVED, {}, "sqlite_autoindex_promises_1"),
]


@pytest.mark.parametrize(("state", "tags", "index"), SEARCHES)
def test_searches_use_an_index(
    store: SQLiteStore, state: PromiseState | None, tags: dict[str, str], index: str
) -> None:
    """A search by a state that is rare, or by branch, reads what it finds and not all there is."""
    statements: list[str] = []
    connection = store._used().connection
    connection.set_trace_callback(statements.append)
    store.read(lambda view: view.search_promises(state=state, tags=tags, after="a", until="z", limit=5))
    connection.set_trace_callback(None)
    [statement] = statements
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert [index] == [re.search(r"USING INDEX (\w+)", line)[1] for line in plan]  # type: ignore[index]


def test_an_empty_file_is_taken(path: Path) -> None:
    """A file of no length is as good as none."""
    path.touch()
    store = SQLiteStore(path)
    store.open()
    put(store, "a")
    assert ["a"] == ids(store)
    store.close()


def test_what_a_crash_left_half_done_is_rolled_back(store: SQLiteStore, path: Path) -> None:
    """A file that a crash left with a rollback journal, as when it is made, is opened at its last whole state."""
    put(store, "a")
    store.close()
    crashed = path.with_name("crashed.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        # Pages go to the disk before the commit, and the journal before them.
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("DELETE FROM promises")
        connection.execute("CREATE TABLE large AS SELECT zeroblob(100000)")
        shutil.copy(path, crashed)
        shutil.copy(f"{path}-journal", f"{crashed}-journal")

    survivor = SQLiteStore(crashed)
    survivor.open()
    assert ["a"] == ids(survivor)
    survivor.close()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """Directories are not made; the error says what to check."""
    assert "check that the directory exists" in refused(tmp_path / "absent" / "engine.db")


def test_a_damaged_file_is_named(store: SQLiteStore, path: Path) -> None:
    """Damage that is met when the file is in use becomes a StoreError with advice."""
    put(store, *map(str, range(500)))
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))

    with pytest.raises(StoreError, match=r"damaged.*\.recover"):
        _open_and_read(path)


def _open_and_read(path: Path) -> None:
    store = SQLiteStore(path)
    store.open()
    try:
        ids(store)
    finally:
        store.close()


def test_a_full_disk_keeps_nothing_and_the_store_goes_on(store: SQLiteStore) -> None:
    """A transaction that does not fit is undone as a whole; the store can be used as soon as there is room."""
    put(store, "a")
    assert store._use is not None
    connection = store._use.connection
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = PutPromise(Promise(id="large", timeout_at=1, created_at=0, param=Value("x" * 100_000)))
    with pytest.raises(StoreError, match="no room left") as error:
        store.transact([lambda _: outcome(PutTask(Task(id="t", state=TaskState.HALTED))), lambda _: outcome(large)])

    assert store.path in str(error.value)
    assert (["a"], None) == (ids(store), store.read(lambda view: view.task("t")))
    connection.execute("PRAGMA max_page_count = 1000000")
    write(store, large)
    assert ["a", "large"] == ids(store)


def test_a_foreign_writer_is_named(store: SQLiteStore, path: Path) -> None:
    """While another program holds the write lock a transaction fails with advice, and works again after that."""
    assert store._use is not None
    store._use.connection.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program holds the file's write lock"):
            put(store, "a")

    put(store, "b")
    assert ["b"] == ids(store)


def test_what_is_not_unicode_is_refused(store: SQLiteStore) -> None:
    """A lone surrogate, which JSON can smuggle in, is a StoreError and undoes its transaction."""
    with pytest.raises(StoreError, match="not Unicode"):
        put(store, "a", "\ud800")

    assert [] == ids(store)


def test_a_closed_store_says_so(path: Path) -> None:
    """Use before open names the file and the remedy."""
    with pytest.raises(StoreError, match=r"engine\.db is not open; call open\(\) first"):
        put(SQLiteStore(path), "a")


def test_a_fault_of_a_step_is_not_renamed(store: SQLiteStore) -> None:
    """What a step raises by itself comes out as it is."""

    def fail(_: View) -> Outcome:
        msg = "a fault of the machine"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="a fault of the machine"):
        store.transact([fail])

    put(store, "a")
    assert ["a"] == ids(store)


def test_only_the_file_and_its_lock_stay(store: SQLiteStore, path: Path) -> None:
    """Closing moves the log into the file and removes it."""
    put(store, "a")
    store.close()
    assert ["engine.db", "engine.db-owner"] == sorted(file.name for file in path.parent.iterdir())


MOUNTS = """\
/dev/sda / ext4 rw 0 0
server:/x /net nfs4 rw 0 0
/dev/sdb /net/local ext4 rw 0 0
server:/y /with\\040blank cifs rw 0 0
me@host: /home/ssh fuse.sshfs rw 0 0
tmpfs /over tmpfs rw 0 0
server:/z /over nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/net/a.db", "nfs4"),
        ("/net/deep/down/a.db", "nfs4"),
        ("/with blank/a.db", "cifs"),
        ("/home/ssh/a.db", "fuse.sshfs"),
        ("/over/a.db", "nfs"),
    ],
)
def test_network_file_systems_are_refused(path: str, kind: str, tmp_path: Path) -> None:
    """A path below a mount point of a network file system is refused, by the deepest and last mount."""
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    with pytest.raises(StoreError, match=rf"network file system \({kind}\)"):
        refuse_network(path, mounts)


@pytest.mark.parametrize("path", ["/a.db", "/net/local/a.db", "/network/a.db", "/home/a.db"])
def test_local_disks_are_taken(path: str, tmp_path: Path) -> None:
    """A local disk mounted below a network one is local, and a name that only begins alike is another."""
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    refuse_network(path, mounts)
    refuse_network(path, tmp_path / "absent")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """A directory is no file; the error says so and proposes one in it, and nothing is put beside it."""
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(StoreError, match=r"place is a directory; name a file in it, e\.g\. .*resonate\.db"):
        SQLiteStore(place).open()

    assert [place] == list(tmp_path.iterdir())
