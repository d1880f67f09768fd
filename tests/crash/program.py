"""A workflow of the corpus as a process of its own, which kills itself over one of its requests, as `kill -9` would.

    python -m tests.crash.program SCENARIO BACKEND FILE LOG NOW [REQUEST before|after]

It runs in virtual time from the instant NOW (in milliseconds) on. Each leaf that begins is a line in LOG. If it lives
to the end, it writes to its standard output what there is to know about its life besides what is in FILE.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from anyio import CancelScope
from attrs import define, field

from resonate_anyio import Info
from resonate_anyio.stores import SQLiteStore
from resonate_anyio.testing import VirtualClock, run_virtual

from .corpus import CORPUS
from .lives import Journal, Mark, Platform, errors_logged, run


@define
class LoggedJournal(Journal):
    """Keeps the journal where it outlives the process."""

    log: Path = field(kw_only=True)

    def note(self, info: Info) -> None:
        if self.begins(info):
            with self.log.open("a", encoding="utf-8") as lines:
                lines.write(f"{info.id}\n")


def killer(number: int, *, answered: bool) -> Callable[[Mark], None]:
    """Dies at a mark, without a word."""

    def watch(mark: Mark) -> None:
        if mark.number == number and mark.answered == answered:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


async def main(name: str, file: str, log: str, now: str, number: str = "0", when: str = "before") -> None:
    """Live, on what is in the file."""
    journal = LoggedJournal(log=Path(log))
    watch = killer(int(number), answered=when == "after")
    with errors_logged() as errors:
        store, clock = SQLiteStore(file), VirtualClock(epoch_ms=int(now))
        settled, *_ = await run(CORPUS[name], store, clock, Platform(), journal, watch, CancelScope())
    sys.stdout.write(json.dumps({"settled": settled, "errors": errors}))


if __name__ == "__main__":
    _, scenario, backend, *rest = sys.argv
    run_virtual(partial(main, scenario, *rest), backend=backend)
