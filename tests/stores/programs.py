"""Programs that tests run as processes of their own: `python -m tests.stores.programs NAME PATH`."""

from __future__ import annotations

import sys
import time
from itertools import count

from resonate_anyio import StoreInUse
from resonate_anyio.stores import SQLiteStore

from .records import put


def say(fact: object) -> None:
    sys.stdout.write(f"{fact}\n")
    sys.stdout.flush()


def hold(path: str) -> None:
    """Own the file until the process is killed."""
    store = SQLiteStore(path)
    store.open()
    say("open")
    time.sleep(3600)


def try_to_open(path: str) -> None:
    """Say who owns the file."""
    try:
        SQLiteStore(path).open()
    except StoreInUse as refused:
        say(refused.pid)


def write_for_ever(path: str) -> None:
    """Write promises one by one, and say of each that it is kept."""
    store = SQLiteStore(path)
    store.open()
    for number in count():
        put(store, f"{number}.a", f"{number}.b")
        say(number)


if __name__ == "__main__":
    {program.__name__: program for program in (hold, try_to_open, write_for_ever)}[sys.argv[1]](sys.argv[2])
