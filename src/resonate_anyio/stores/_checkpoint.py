"""The thread that moves what was committed from the write-ahead log into the database file.

Left to SQLite it happens inside a commit, which then waits for the disk. Here it happens in the background; commits go
on meanwhile, and only say how much they have written.

Copying the log disturbs nobody. A log that has been copied as a whole is written from its start again by the next
commit; but under an unbroken load there is no such moment, and the log would grow for ever. So when it has become too
long it is cut off, and commits wait at a gate for as long as it takes to copy the rest: some milliseconds.
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

#: A log of this many pages (64 MB) is cut off.
_TOO_LONG: Final = 16_384

#: How long a cut waits for a transaction under way, in seconds. Readers of old data can make it fail.
_PATIENCE: Final = 0.05


@define
class Checkpointer:
    """Moves the log of one database file into place, from `start` to `stop`."""

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
        # Connected now and not by the thread, and never so that it makes a file: by then this one may have been moved.
        self._connection = sqlite3.connect(
            f"{Path(self._path).as_uri()}?mode=rw",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
        self._gate.set()
        # A daemon: a program that forgets to close its store must still be able to end.
        self._thread = Thread(target=self._run, name=f"resonate-checkpoint {self._path}", daemon=True)
        self._thread.start()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the log from being cut off during a transaction; wait before it while that is being done."""
        self._gate.wait()
        # The gate alone would let through who is just before it when it closes, and SQLite refuses a second writer.
        with self._lock:
            yield

    def note(self, records: int) -> None:
        """Say, after a transaction, that so many records were written."""
        self._written += records
        if self._written >= self._batch:
            self._written = 0
            self._wanted.set()

    def stop(self) -> None:
        """End the thread, after the checkpoint that may be under way."""
        self._stopping = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        connection = self._connection
        # Only macOS knows the difference. Nobody waits for this thread, so it can afford to be certain.
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        limit = self._too_long
        while self._wait():
            try:
                limit = self._checkpoint(connection, limit)
            except sqlite3.Error:
                # The log keeps everything. A disk that is full or failing shows in the next commit, or at the next try.
                continue

        connection.close()

    def _wait(self) -> bool:
        self._wanted.wait()
        self._wanted.clear()
        return not self._stopping

    def _checkpoint(self, connection: sqlite3.Connection, limit: int) -> int:
        """Copy the log, cut it off if it is longer than `limit` pages, and give the next limit."""
        _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if pages <= limit or self._cut(connection):
            return self._too_long

        # Somebody reads old data for long. Trying again at every checkpoint would hold up the writer every time.
        return 2 * int(pages)

    def _cut(self, connection: sqlite3.Connection) -> bool:
        # A lock alone is not fair: under an unbroken load of commits its turn might not come.
        self._gate.clear()
        try:
            with self._lock:
                [busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._gate.set()

        return not busy
