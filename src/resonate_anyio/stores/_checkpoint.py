"""The thread that copies committed records from the write-ahead log into the database file.

SQLite would do this inside a commit, which would then wait for the disk. Here it is done in the background: commits
continue meanwhile, and only report how many records they have written.

Copying the log blocks no commit. After the whole log was copied, the next commit starts to write it from its beginning.
But under a continuous load there is no such moment, and the log would grow without limit. So a log that has become too
long is truncated, and commits wait for the few milliseconds that it takes to copy the rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

from attrs import define, field

#: Records written between two checkpoints: about 4 MB of log.
_BATCH: Final = 1_000

#: A log of this many pages (64 MB) is truncated.
_TOO_LONG: Final = 16_384

#: Seconds for which a truncation waits for a transaction in progress. Readers of old data can make it fail.
_TRUNCATION_WAIT: Final = 0.05


@define(eq=False, repr=False)
class Checkpointer:
    """Copies the log of one database file into the file, from `start` to `stop`."""

    _path: str
    _too_long: int = field(default=_TOO_LONG, alias="too_long")
    _batch: int = field(default=_BATCH, alias="batch")
    _written: int = field(init=False, default=0)
    _wanted: Event = field(init=False, factory=Event)
    _gate: Event = field(init=False, factory=Event)
    _lock: Lock = field(init=False, factory=Lock)
    _stopping: bool = field(init=False, default=False)
    _connection: sqlite3.Connection = field(init=False)
    _thread: Thread = field(init=False)

    def start(self) -> None:
        """Connect to the file, which exists, and start the thread."""
        # Connected here and not by the thread, and without creating a file: the file may be moved at any time.
        self._connection = sqlite3.connect(
            f"{Path(self._path).as_uri()}?mode=rw",
            uri=True,
            timeout=_TRUNCATION_WAIT,
            isolation_level=None,
            check_same_thread=False,
        )
        self._gate.set()
        # A daemon, so that a program that does not close its store can end.
        self._thread = Thread(target=self._run, name=f"resonate-checkpoint {self._path}", daemon=True)
        self._thread.start()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Prevent a truncation of the log during a transaction. Wait for the end of a truncation in progress."""
        self._gate.wait()
        # The gate alone would let a transaction pass just when it closes, and SQLite refuses a second writer.
        with self._lock:
            yield

    def note(self, records: int) -> None:
        """Count the records that a transaction has written."""
        self._written += records
        if self._written >= self._batch:
            self._written = 0
            self._wanted.set()

    def stop(self) -> None:
        """End the thread, after a checkpoint in progress."""
        self._stopping = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        connection = self._connection
        # This makes a difference on macOS only. The thread may be slow, because no commit waits for it.
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        limit = self._too_long
        while self._wait():
            try:
                limit = self._checkpoint(connection, limit)
            except sqlite3.Error:
                # The log keeps all records. The next commit or checkpoint fails as well if the disk is full or failing.
                continue

        connection.close()

    def _wait(self) -> bool:
        self._wanted.wait()
        self._wanted.clear()
        return not self._stopping

    def _checkpoint(self, connection: sqlite3.Connection, limit: int) -> int:
        """Copy the log, truncate it if it is longer than `limit` pages, and return the next limit."""
        _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if pages <= limit or self._truncate(connection):
            return self._too_long

        # A reader of old data prevents the truncation. An attempt at each checkpoint would delay commits each time.
        return 2 * int(pages)

    def _truncate(self, connection: sqlite3.Connection) -> bool:
        # A lock alone is not fair: under a continuous load of commits this thread might never get it.
        self._gate.clear()
        try:
            with self._lock:
                [busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._gate.set()

        return not busy
