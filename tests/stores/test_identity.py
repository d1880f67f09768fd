"""A file has one name, is an ordinary file, and stays in place while it is in use."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from resonate_anyio import StoreError, StoreInUse, StoreLost
from resonate_anyio.stores import SQLiteStore, _lock, _sqlite
from resonate_anyio.stores._identity import refuse_unusual

from .records import ids, put


def refused(path: Path | str) -> str:
    """What a store says that does not take the file."""
    with pytest.raises(StoreError) as error:
        SQLiteStore(path).open()

    return str(error.value)


def test_a_file_with_two_names_is_refused(store: SQLiteStore, path: Path) -> None:
    """Through a hard link a second engine would not be noticed: it is refused, and the first goes on."""
    other = path.with_name("other.db")
    other.hardlink_to(path)
    assert "has 2 names (hard links)" in refused(other)
    put(store, "a")
    store.close()
    assert "has 2 names (hard links)" in refused(path)
    assert not Path(f"{other}-owner").exists()

    other.unlink()
    store.open()
    assert ["a"] == ids(store)


def test_a_name_that_is_made_while_it_is_opened_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is made between the first look and the lock is found by the second look; the lock is given back."""
    real = _lock.lock

    def lock(name: str) -> object:
        path.with_name("other.db").hardlink_to(path)
        return real(name)

    path.touch()
    monkeypatch.setattr(_sqlite, "lock", lock)
    assert "hard links" in refused(path)
    path.with_name("other.db").unlink()
    monkeypatch.undo()
    store = SQLiteStore(path)
    store.open()
    store.close()


def test_a_file_that_is_mounted_by_itself_is_refused(path: Path, tmp_path: Path) -> None:
    """A single file that is mounted at another place has its lock elsewhere; its directory can be mounted."""
    mounts = tmp_path / "mounts"
    path.touch()
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\n/dev/sda {path} ext4 rw 0 0\n")
    with pytest.raises(StoreError, match="Mount its directory instead"):
        refuse_unusual(str(path), mounts)

    mounts.write_text(f"/dev/sda {path.parent} ext4 rw 0 0\n")
    refuse_unusual(str(path), mounts)


@pytest.mark.parametrize(("kind", "words"), [("/dev/null", "a device"), ("pipe", "a pipe"), ("socket", "a socket")])
def test_what_is_no_file_is_refused(kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device, a pipe and a socket are called what they are, and nothing is put beside them."""
    # The path of a socket must be short.
    monkeypatch.chdir(tmp_path)
    if kind == "pipe":
        os.mkfifo(kind)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(kind)

    assert f"is {words}, not a file" in refused(kind)
    assert not Path(f"{kind}-owner").exists()


def remove(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(f"{path}-moved")


def replace(path: Path) -> None:
    move(path)
    path.touch()


@pytest.mark.parametrize("change", [remove, move, replace])
@pytest.mark.parametrize("suffix", ["", "-wal", "-owner"])
def test_a_file_that_goes_is_noticed_at_the_next_commit(
    store: SQLiteStore, path: Path, change: Callable[[Path], None], suffix: str
) -> None:
    """Nothing is reported as kept that went into a file which is not in its place any more."""
    put(store, "a")
    change(Path(f"{path}{suffix}"))
    with pytest.raises(StoreLost) as lost:
        put(store, "b")
    with pytest.raises(StoreLost):
        put(store, "b")

    assert f"engine.db{suffix} was" in str(lost.value) or f"the place of engine.db{suffix} while" in str(lost.value)
    assert str(path) == lost.value.path
    assert ["a"] == ids(store)
    store.close()


def test_reading_does_not_need_the_file_in_place(store: SQLiteStore, path: Path) -> None:
    """What was written can be read as long as the store is open."""
    put(store, "a")
    path.unlink()
    assert ["a"] == ids(store)


def test_a_copy_that_was_put_back_is_another_file(store: SQLiteStore, path: Path) -> None:
    """A backup that is restored over a file in use is noticed, and can be opened once the store is closed."""
    put(store, "a")
    backup = path.with_name("backup.db")
    store._used().connection.execute("VACUUM INTO ?", (str(backup),))
    put(store, "b")
    backup.replace(path)
    with pytest.raises(StoreLost, match=r"another file was put in the place of engine\.db"):
        put(store, "c")

    store.close()
    for name in ("-wal", "-shm"):
        Path(f"{path}{name}").unlink(missing_ok=True)
    store.open()
    assert ["a"] == ids(store)


def test_the_one_that_is_refused_is_told_how_to_share(store: SQLiteStore, path: Path) -> None:
    """Another process is told of the server that shares a file, and how to reach it."""
    text = str(StoreInUse(str(path), 7))
    assert f"resonate-anyio dev {path}" in text
    assert "RESONATE_URL=http://localhost:8001" in text
    assert "Resonate(url)" in text
