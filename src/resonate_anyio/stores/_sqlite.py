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
from .._values import ValueObject
from ..abc import Store
from ._checkpoint import Checkpointer
from ._faults import code_of, error_in_use, error_on_open
from ._identity import Files, refuse_unusual
from ._lock import lock, lock_file, open_for_reading, sign
from ._mounts import refuse_network
from ._schema import APPLICATION_ID, COLUMNS, INDEXES, SCHEMA, VERSION
from ._tables import Tables
from ._too_large import RowTooLarge

T = TypeVar("T")

Durability: TypeAlias = Literal["process", "power"]

# A file of more bytes than this is opened and closed on a thread: its log may have to be copied, or an index created.
_LARGE: Final = 16_000_000


@final
class SQLiteStore(Store):
    """Keeps the state in one SQLite file (with `-wal`, `-shm` and `-owner` files beside it).

    One engine owns the file from `open()` to `close()`, or to the end of the process. Meanwhile any SQLite tool may
    read the file. A tool that holds its write lock makes the engine wait, and no record is lost.

    Args:
        path: the file. It is created if it does not exist; its directory is not.
        durability: what a finished `transact` survives. `"process"`: the end of the process at any instant; a loss of
            power may undo the last transactions (each as a whole). `"power"`: a loss of power too. Each commit then
            waits for the disk, so commits are made on a thread, each for many requests.
    """

    costly_transactions = True

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
        """Become the owner of the file. Create the file if it does not exist.

        Raises:
            StoreInUse: another engine owns the file; `pid` is its process id.
            StoreUnavailable: another program holds the write lock of the file.
            StoreError: the file was made by another program or by a newer version, is damaged, on a network file
                system, open already, not an ordinary file, or has more than one name (hard links).
        """
        if self._use is not None:
            msg = f"{self._path} is open already; one engine uses a store at a time, so share its LocalNetwork"
            raise StoreError(msg)

        if os.path.isdir(self._path):  # noqa: PTH112 - a path is a str here, as SQLite wants it
            msg = f"{self._path} is a directory; name a file in it, e.g. {os.path.join(self._path, 'resonate.db')!r}"  # noqa: PTH118
            raise StoreError(msg)

        refuse_network(self._path)
        refuse_unusual(self._path)
        with _translated_errors(self._path), ExitStack() as stack:
            _check_before_lock(self._path)
            stack.enter_context(closing(lock(self._path)))
            # A hard link may have been made, and opened, since the first check. From here on the lock is held.
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
        """Copy the log into the file, and release the file."""
        use, self._use = self._use, None
        # The connections in a forked child belong to its parent: closing them would change the parent's file.
        if use is not None and use.pid == os.getpid():
            with _translated_errors(self._path):
                use.resources.close()

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        """Run the steps in one transaction of the database.

        Raises:
            StoreUnavailable: another program holds the write lock, the disk is full, or it fails.
            StoreLost: the file was deleted, moved, replaced or damaged.
            StoreError: the database refused for another reason. In all cases nothing was changed.
        """
        use = self._used()
        with _translated_errors(self._path, error_in_use), use.checkpointer.writing():
            try:
                use.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error:
                # If the file is gone, its lock may be held for ever.
                use.files.check()
                raise

            # Another program may have written since.
            use.tables.forget()
            try:
                outcomes = [_run(step, use.tables) for step in steps]
                # As late as possible: records that are written into a file that is gone are lost.
                use.files.check()
                use.connection.execute("COMMIT")
            except BaseException:
                _roll_back(use.connection)
                raise
            finally:
                use.tables.forget()

        use.checkpointer.note(sum(len(outcome.changes) for outcome in outcomes))
        return outcomes

    def read(self, query: Callable[[View], T]) -> T:
        """Call `query` with a view of the present state and return its answer.

        Raises:
            StoreUnavailable: the disk fails.
            StoreLost: the file is damaged.
            StoreError: the database refused for another reason.
        """
        tables = self._used().tables
        tables.forget()
        with _translated_errors(self._path, error_in_use):
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


@frozen(eq=False, repr=False)
class _Use(ValueObject):
    """The resources of the store between `open` and `close`. Closing `resources` releases all of them."""

    connection: sqlite3.Connection
    tables: Tables
    files: Files
    checkpointer: Checkpointer
    pid: int
    resources: ExitStack


def _run(step: Step, tables: Tables) -> Outcome:
    outcome = step(tables)
    for change in outcome.changes:
        tables.write(change)

    return outcome


def _roll_back(connection: sqlite3.Connection) -> None:
    # On a full disk SQLite has rolled back by itself.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def _translated_errors(
    path: str, translate: Callable[[str, sqlite3.Error], StoreError] = error_on_open
) -> Generator[None, None, None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(path, error) from error
    except OverflowError as error:
        # Python's module refuses values beyond 2 GB. Integers were checked before.
        msg = f"{path}: {error}; nothing was written"
        raise RowTooLarge(msg) from error
    except UnicodeEncodeError as error:
        msg = f"{path}: a text is not Unicode ({error}); nothing was written"
        raise StoreError(msg) from error


def _connect(path: str) -> sqlite3.Connection:
    # Without a wait for the locks of other programs: SQLite would sleep on the event loop. The engine tries again.
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a path is a str here, as SQLite wants it
    except OSError:
        return 0


def _check_before_lock(path: str) -> None:
    # Read-only, so that a file of another program is not changed, and no files are created beside it.
    if not os.path.exists(path):  # noqa: PTH110 - a path is a str here, as SQLite wants it
        return

    try:
        with closing(open_for_reading(path)) as connection:
            _is_ours(connection, path)
    except sqlite3.OperationalError as error:
        # After a crash the file cannot be read before a rollback: it is checked again by a connection that may write.
        if code_of(error) not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
            raise


def _is_ours(connection: sqlite3.Connection, path: str) -> bool:
    """Return whether the file is one of this package (True) or empty (False). Raise an error for any other file."""
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
    """Create the tables in an empty file. Check that any other file is of this package, and add missing indexes."""
    if _is_ours(connection, path):
        _complete(connection)
        return

    # Before the file has any content, and before it has a log: so the header on the disk always names the program.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.executescript(
        f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; {SCHEMA} COMMIT;"
    )


def _complete(connection: sqlite3.Connection) -> None:
    """Add the columns and indexes that a file of an older version lacks. The older version can still use the file."""
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
