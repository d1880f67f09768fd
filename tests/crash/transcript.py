"""What the crash corpus asks the server for: a text that must not change when the engine's code is moved or rewritten.

`python -m tests.crash.transcript FILE` writes each request of each workflow, on both backends: of a life without a
crash, and of the lives that go on after some of its crash points. Two versions that record the same write the same.
"""

from __future__ import annotations

import logging
import re
import sys
from functools import partial
from pathlib import Path
from typing import Final

from resonate_anyio._protocol import Request
from resonate_anyio.testing import run_virtual
from tests.engine.harness import Wire
from tests.properties.play import scheduling

from . import lives
from .corpus import CORPUS
from .lives import Life, Platform, Watch, live
from .scenarios import Scenario
from .states import EMPTY, State

_EACH: Final = 7
"""Of so many crash points one is gone on from."""

_PROCESS: Final = re.compile(r"(?<=\.)[0-9a-f]{8}\b")


def main() -> None:
    """Write the transcript into the file that is named on the command line."""
    logging.disable()
    path = Path(sys.argv[1])
    names = sys.argv[2:] or list(CORPUS)
    with path.open("w", encoding="utf-8") as file:
        for name in names:
            for backend in ("asyncio", "trio"):
                for line in transcript(CORPUS[name], backend):
                    file.write(f"{name} {backend} {line}\n")


def transcript(scenario: Scenario, backend: str) -> list[str]:
    """Every request of the workflow's lives, one a line."""
    life, lines = _lived(scenario, EMPTY, backend)
    lines = [f"calm {line}" for line in lines]
    for index, point in list(enumerate(life.points))[:: 2 * _EACH]:
        _, after = _lived(scenario, point.state, backend)
        lines += [f"{index} {line}" for line in after]
    return lines


def _lived(scenario: Scenario, past: State, backend: str) -> tuple[Life, list[str]]:
    requests: list[str] = []
    before_watch = lives._watch

    def recording(wire: Wire, watch: Watch) -> None:
        before_watch(wire, watch)
        before = wire.before

        async def record(request: Request) -> None:
            requests.append(_PROCESS.sub("*", repr(request)))
            await before(request)

        wire.before = record

    lives._watch = recording
    try:
        with scheduling(0):
            life = run_virtual(partial(live, scenario, past, Platform()), backend=backend)
    finally:
        lives._watch = before_watch
    return life, requests


if __name__ == "__main__":
    main()
