"""`Trace`: a file of requests and answers, to be checked against the specification (docs/protocol.md 15)."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from attrs import define, field

from .._protocol import Envelope

# The checkers do not know searches, schedules, and requests of a wrong form. None of these changes the answers to other
# requests; only promises that schedules create are missing.
_LEFT_OUT: Final = ("schedule.", "promise.search", "task.search")


@define
class Trace:
    """Writes one line of JSON for each request that the state machine decided, in the order in which they took effect.

    Searches, requests about schedules, debug operations and requests that were answered with 400 are left out.

    Args:
        path: the file; its content is replaced.
    """

    path: Path
    _file: TextIO = field(init=False)

    def __enter__(self) -> Self:
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def record(self, envelope: Envelope, now: int, answer: dict[str, Any]) -> None:
        """Write one request with its answer, and pass it to the operating system."""
        if answer["head"]["status"] == 400 or envelope.kind.startswith(_LEFT_OUT):
            return

        event = {"kind": envelope.kind, "now": now, "req": envelope.data, "res": answer}
        self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
        self._file.flush()
