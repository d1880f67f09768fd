"""One engine owns a file; everybody may read it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from resonate_anyio import StoreError, StoreInUse
from resonate_anyio.stores import SQLiteStore

from .records import ids, put

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start one of the programs on the file; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.stores.programs", program, str(path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_engine_in_the_process_is_refused(store: SQLiteStore, path: Path) -> None:
    """A second store on an open file is told which process has it, and the first goes on."""
    with pytest.raises(StoreInUse) as refused:
        SQLiteStore(path).open()

    put(store, "a")
    assert (os.getpid(), str(path.resolve())) == (refused.value.pid, refused.value.path)
    assert ["a"] == ids(store)


def test_an_owner_that_has_not_signed_yet_is_respected(path: Path) -> None:
    """A file whose lock is taken while it has no tables is refused, without a process id."""
    with closing(sqlite3.connect(f"{path}-owner", isolation_level=None)) as owner:
        owner.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreInUse, match="in use by another process") as refused:
            SQLiteStore(path).open()

    assert refused.value.pid is None


def test_the_lock_outlives_refusals(store: SQLiteStore, path: Path) -> None:
    """Being refused does not loosen the owner's lock."""
    for _ in range(3):
        with pytest.raises(StoreInUse):
            SQLiteStore(path).open()


def test_every_name_of_the_file_has_one_lock(store: SQLiteStore, path: Path) -> None:
    """A file that is reached through a symbolic link is the same file."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StoreInUse):
        SQLiteStore(link).open()


def test_closing_gives_the_file_back(store: SQLiteStore, path: Path) -> None:
    """After close another store takes over with everything that was written."""
    put(store, "a")
    store.close()
    other = SQLiteStore(path)
    other.open()
    assert ["a"] == ids(other)
    other.close()


def test_a_failed_open_gives_the_file_back(path: Path) -> None:
    """An open that fails after it took the lock leaves the file free."""
    path.mkdir()
    with pytest.raises(StoreError):
        SQLiteStore(path).open()

    path.rmdir()
    store = SQLiteStore(path)
    store.open()
    store.close()


@pytest.mark.wall
def test_a_second_engine_in_another_process_is_refused(
    store: SQLiteStore, run: Callable[[str], subprocess.Popen[str]]
) -> None:
    """A process that tries to open an open file is told the owner's process id."""
    assert str(os.getpid()) == line(run("try_to_open"))


@pytest.mark.wall
def test_the_lock_is_gone_with_its_process(path: Path, run: Callable[[str], subprocess.Popen[str]]) -> None:
    """After `kill -9` of the owner the file is free; until then it is refused in the owner's name."""
    owner = run("hold")
    assert "open" == line(owner)
    store = SQLiteStore(path)
    with pytest.raises(StoreInUse) as refused:
        store.open()

    assert owner.pid == refused.value.pid
    owner.kill()
    owner.wait()
    store.open()
    store.close()


@pytest.mark.wall
def test_what_was_acknowledged_survives_kill_9(path: Path, run: Callable[[str], subprocess.Popen[str]]) -> None:
    """Killed in a stream of transactions, a process leaves every acknowledged one, and none in part."""
    writer = run("write_for_ever")
    while line(writer) != "300":
        pass

    writer.kill()
    rest, _ = writer.communicate()
    acknowledged = max(map(int, rest.rpartition("\n")[0].split()), default=300)

    store = SQLiteStore(path)
    store.open()
    kept = set(ids(store))
    store.close()
    expected = {f"{number}.{half}" for number in range(acknowledged + 1) for half in "ab"}
    assert set() == expected - kept
    assert {f"{acknowledged + 1}.{half}" for half in "ab"} >= kept - expected
    assert 0 == len(kept) % 2


def test_readers_are_welcome(store: SQLiteStore, path: Path) -> None:
    """A plain SQLite connection reads while the engine writes, and sees one state for as long as it likes."""
    put(store, "a")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert [("a",)] == reader.execute("SELECT id FROM promises").fetchall()
        put(store, "b")
        assert [("a",)] == reader.execute("SELECT id FROM promises").fetchall()
        reader.execute("COMMIT")
        assert [("a",), ("b",)] == reader.execute("SELECT id FROM promises ORDER BY id").fetchall()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.wall
def test_a_forked_child_is_refused(store: SQLiteStore) -> None:
    """A child that inherits an open store is told so, can close it, and does not disturb its parent."""
    put(store, "a")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            ids(store)
        except StoreError as error:
            os.write(write, str(error).encode())
        finally:
            store.close()
            os._exit(0)

    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()

    os.waitpid(child, 0)
    assert f"was opened by process {os.getpid()}, and this is its forked child {child}" in said
    put(store, "b")
    assert ["a", "b"] == ids(store)
    with pytest.raises(StoreInUse):
        SQLiteStore(store.path).open()
