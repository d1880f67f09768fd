"""A store that keeps its state in one SQLite file, owned by one engine at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Final, Literal, TypeAlias, TypeVar, final

from attrs import frozen

from .._errors import StoreError, UsageError
from .._protocol import Outcome, Step, View
from ..abc import Store
from ._checkpoint import Checkpointer
from ._faults import RowTooLarge, code_of, named, named_in_use
from ._identity import Files, refuse_unusual
from ._lock import lock, lock_file, open_for_reading, sign
from ._mounts import refuse_network
from ._schema import APPLICATION_ID, COLUMNS, INDEXES, SCHEMA, VERSION
from ._tables import Tables

T = TypeVar("T")

Durability: TypeAlias = Literal["process", "power"]

# A file of more bytes than this is opened and closed on a thread: its log may have to be copied, an index made.
_LARGE: Final = 16_000_000


@final
class SQLiteStore(Store):
    """Keeps everything in one SQLite file (with `-wal`, `-shm` and `-owner` beside it).

    One engine owns the file, from `open()` to `close()` or to the end of the process, however it ends. Reading it
    meanwhile with any SQLite tool is fine. A tool that holds its write lock makes the engine wait; nothing is lost.

    Args:
        path: the file; it is made if it does not exist, its directory is not.
        durability: what a finished `transact` survives. `"process"`: the death of the process at any instant, but a
            loss of power may take back the last transactions (never parts of one). `"power"`: a loss of power too; each
            commit then waits for the disk, so it is done on a thread, many requests at once.
    """

    def __init__(self, path: str | os.PathLike[str], *, durability: Durability = "process") -> None:
        name = os.fspath(path)
        if name in {"", ":memory:"}:
            msg = f"SQLiteStore needs the path of a file, not {name!r}; to keep everything in memory use MemoryStore()"
            raise UsageError(msg)

        if durability not in {"process", "power"}:
            msg = f"durability is 'process' or 'power', not {durability!r}"
            raise UsageError(msg)

        self._path = os.path.realpath(name)
        self._durability: Durability = durability
        self._use: _Use | None = None
        self.blocking: bool = durability == "power"

    @property
    def path(self) -> str:
        """The file, as an absolute path without symbolic links."""
        return self._path

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._path!r} {'closed' if self._use is None else 'open'}>"

    @property
    def slow_to_open(self) -> bool:
        """Whether `open` and `close` may take long."""
        return self.blocking or sum(map(_size_of, (self._path, f"{self._path}-wal"))) > _LARGE

    def open(self) -> None:
        """Become the owner of the file; make the file if there is none.

        Raises:
            StoreInUse: another engine owns it; `pid` tells which process.
            StoreUnavailable: another program holds its write lock.
            StoreError: it is not ours, from a newer version, damaged, on a network file system, open already, not an
                ordinary file, or has more than one name (hard links).
        """
        if self._use is not None:
            msg = f"{self._path} is open already; one engine uses a store at a time, so share its LocalNetwork"
            raise StoreError(msg)

        if os.path.isdir(self._path):  # noqa: PTH112 - a path is a str here, as SQLite wants it
            msg = f"{self._path} is a directory; name a file in it, e.g. {os.path.join(self._path, 'resonate.db')!r}"  # noqa: PTH118
            raise StoreError(msg)

        refuse_network(self._path)
        refuse_unusual(self._path)
        with _errors_named(self._path), ExitStack() as stack:
            _look_before(self._path)
            stack.enter_context(closing(lock(self._path)))
            # Another name may have been made, and opened, since it was looked at; the lock is held from here on.
            refuse_unusual(self._path)
            connection = stack.enter_context(closing(_connect(self._path)))
            _prepare(connection, self._path)
            _configure(connection, self._path, self._durability)
            sign(connection, os.getpid())
            files = Files.at(self._path, (self._path, f"{self._path}-wal", lock_file(self._path)))
            checkpointer = Checkpointer(self._path)
            checkpointer.start()
            stack.callback(checkpointer.stop)
            self._use = _Use(connection, Tables(connection), files, checkpointer, os.getpid(), stack.pop_all())

    def close(self) -> None:
        """Move the log into the file and give the file back."""
        use, self._use = self._use, None
        # The connections of a forked child are its parent's: what it did to them, it would do to the parent's file.
        if use is not None and use.pid == os.getpid():
            with _errors_named(self._path):
                use.resources.close()

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        """Run the steps in one transaction of the database.

        Raises:
            StoreUnavailable: another program holds the write lock, the disk is full, or it fails.
            StoreLost: the file was deleted, moved, replaced or damaged.
            StoreError: the database refused for another reason. Here as above nothing is changed.
        """
        use = self._used()
        with _errors_named(self._path, named_in_use), use.checkpointer.writing():
            try:
                use.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error:
                # Who holds the lock of a file that is gone may hold it for ever.
                use.files.check()
                raise

            try:
                outcomes = [_take(step, use.tables) for step in steps]
                # As late as can be: what is written into a file that is gone is lost.
                use.files.check()
                use.connection.execute("COMMIT")
            except BaseException:
                _roll_back(use.connection)
                raise

        use.checkpointer.note(sum(len(outcome.changes) for outcome in outcomes))
        return outcomes

    def read(self, query: Callable[[View], T]) -> T:
        """Give `query` a view of the present state and return its answer."""
        tables = self._used().tables
        with _errors_named(self._path, named_in_use):
            return query(tables)

    def _used(self) -> _Use:
        use = self._use
        if use is None:
            msg = f"{self._path} is not open; call open() first"
            raise StoreError(msg)

        if use.pid != os.getpid():
            msg = (
                f"{self._path} was opened by process {use.pid}, and this is its forked child {os.getpid()}; a SQLite "
                f"connection must not be carried over a fork. Fork before opening the store, or start the child with "
                f"multiprocessing's 'spawn' and give it a file of its own"
            )
            raise StoreError(msg)

        return use


@frozen
class _Use:
    """What the store holds between `open` and `close`. Closing `resources` gives all of it back."""

    connection: sqlite3.Connection
    tables: Tables
    files: Files
    checkpointer: Checkpointer
    pid: int
    resources: ExitStack


def _take(step: Step, tables: Tables) -> Outcome:
    outcome = step(tables)
    for change in outcome.changes:
        tables.write(change)

    return outcome


def _roll_back(connection: sqlite3.Connection) -> None:
    # A full disk makes SQLite roll back by itself.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def _errors_named(path: str, name: Callable[[str, sqlite3.Error], StoreError] = named) -> Generator[None, None, None]:
    try:
        yield
    except sqlite3.Error as error:
        raise name(path, error) from error
    except OverflowError as error:
        # Beyond 2 GB it is Python that refuses. Integers have been checked before.
        msg = f"{path}: {error}; nothing was written"
        raise RowTooLarge(msg) from error
    except UnicodeEncodeError as error:
        msg = f"{path}: a text is not Unicode ({error}); nothing was written"
        raise StoreError(msg) from error


def _connect(path: str) -> sqlite3.Connection:
    # Without patience for the locks of other programs: SQLite would sleep on the event loop. The engine tries again.
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a path is a str here, as SQLite wants it
    except OSError:
        return 0


def _look_before(path: str) -> None:
    # Without the right to write, so that a file that is not ours stays as it is, and nothing is put beside it.
    if not os.path.exists(path):  # noqa: PTH110 - a path is a str here, as SQLite wants it
        return

    try:
        with closing(open_for_reading(path)) as connection:
            _recognise(connection, path)
    except sqlite3.OperationalError as error:
        # What a crash has left half done cannot be read before it is rolled back: look again with the right to write.
        if code_of(error) not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
            raise


def _recognise(connection: sqlite3.Connection, path: str) -> bool:
    """Tell whether the file is one of ours, or (False) empty."""
    [application_id] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    if pages == 0:
        return False

    if application_id != APPLICATION_ID:
        msg = f"{path} is a SQLite database of another program; nothing was written to it. Choose another path"
        raise StoreError(msg)

    if version != VERSION:
        msg = (
            f"{path} has layout version {version}, and this resonate-anyio knows version {VERSION}; nothing was "
            f"written to it. Upgrade resonate-anyio, or use another file"
        )
        raise StoreError(msg)

    return True


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables in an empty file; see that any other is ours, and has all indexes."""
    if _recognise(connection, path):
        _complete(connection)
        return

    # Before anything is in the file, and before it gets a log: so the header on the disk always says whose it is.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.executescript(
        f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; {SCHEMA} COMMIT;"
    )


def _complete(connection: sqlite3.Connection) -> None:
    """Add what a file lacks that an older version has made. That version can go on with it."""
    missing = [
        f"ALTER TABLE {table} ADD COLUMN {column} {kind};"
        for table, columns in COLUMNS.items()
        for column, kind in columns.items()
        if not connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column)).fetchone()
    ]
    connection.executescript(f"BEGIN IMMEDIATE; {' '.join(missing)} {INDEXES} COMMIT;")


def _configure(connection: sqlite3.Connection, path: str, durability: Durability) -> None:
    [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        msg = f"{path} lies on a file system without shared memory (journal mode {mode}); put it on a local disk"
        raise StoreError(msg)

    connection.execute("PRAGMA wal_autocheckpoint = 0")
    if durability == "power":
        connection.execute("PRAGMA synchronous = FULL")
        # Without effect but on macOS, where a sync leaves the data in the disk's cache unless asked for more.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
    else:
        connection.execute("PRAGMA synchronous = NORMAL")
