"""How many instructions a durable call takes: `python -m tests.benchmarks.bench_instructions`, which needs valgrind.

Each figure is the difference of two runs that make another number of calls, so neither imports nor start and end are
in it. Time is virtual, the store is in memory, and strings have the same hashes each time: what differs from run to run
is less than 0.1 %. It takes five minutes. `tests/costs` compares the figures with a table.
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import Final

from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock, run_virtual

from .works import WORKS, live

COUNTS: Final = (100, 300)
"""Of how many units the two runs are."""

YARDSTICK: Final = "yardstick"

_MODULE: Final = ("-m", "tests.benchmarks.bench_instructions")


def yardstick(rounds: int) -> None:
    """Do what tells one build of Python from another: call, loop, and use text, dicts and objects."""
    for number in range(rounds):
        words = {f"{number}-{each}": str(each).encode() for each in range(100)}
        sorted(words, key=lambda word: word[::-1])
        sum(len(word) for word in words.values())


def run_work(name: str, count: int, lives: int) -> None:
    """Do one kind of work in so many processes that follow each other on one store."""
    store = MemoryStore()

    def network(clock: VirtualClock) -> LocalNetwork:
        return LocalNetwork(store, clock=clock)

    run_virtual(partial(live, WORKS[name], count, lives, network))


@cache
def _bytecode() -> TemporaryDirectory[str]:
    """Return a folder for bytecode of our own: others may write theirs between the two runs of one figure."""
    folder = TemporaryDirectory()
    environment = {**_environment(), "PYTHONPYCACHEPREFIX": folder.name}
    for name, work in WORKS.items():
        subprocess.run([sys.executable, *_MODULE, name, "1", str(work.lives)], env=environment, check=True)
    return folder


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONHASHSEED": "0"}


def instructions(name: str, count: int, lives: int) -> int:
    """Return how many a process of its own takes."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", sys.executable]
    environment = {**_environment(), "PYTHONPYCACHEPREFIX": _bytecode().name}
    work = [*_MODULE, name, str(count), str(lives)]
    done = subprocess.run([*command, *work], env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def _difference(name: str, lives: int) -> int:
    few, many = COUNTS
    return instructions(name, many, lives) - instructions(name, few, lives)


def per_unit(name: str) -> float:
    """Return how many instructions one unit of a kind of work takes."""
    few, many = COUNTS
    work = WORKS[name]
    taken = _difference(name, work.lives)
    if work.without:
        taken -= _difference(name, work.without)
    return taken / (many - few)


def per_yardstick() -> float:
    """Return how many instructions this Python takes for one round of code that does not change."""
    few, many = COUNTS
    return _difference(YARDSTICK, 0) / (many - few)


def main() -> None:
    """Print the figures, or be one of the processes that are measured."""
    match sys.argv[1:]:
        case [name, count, lives]:
            gc.freeze()
            if name == YARDSTICK:
                yardstick(int(count))
            else:
                run_work(name, int(count), int(lives))
        case _:
            for name in (YARDSTICK, *WORKS):
                taken = per_yardstick() if name == YARDSTICK else per_unit(name)
                sys.stdout.write(f"{name:20} {taken:12,.0f} instructions\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
