"""A record of what was asked and answered, for those who check it against the specification (docs/protocol.md 15)."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from attrs import define, field

from .._protocol import Envelope

# The checkers know neither searches nor schedules, and nothing that is wrong in its form. None of these changes what
# the others are answered; only what schedules make by themselves is missing.
_LEFT_OUT: Final = ("schedule.", "promise.search", "task.search")


@define
class Trace:
    """Writes one line of JSON for each request that the machine decided, in the order in which they took effect.

    Left out are searches, schedules, debug operations, and whatever was answered with 400.

    Args:
        path: the file; what it holds is replaced.
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
        """Write one exchange. It is in the file, as far as this process goes, when this returns."""
        if answer["head"]["status"] == 400 or envelope.kind.startswith(_LEFT_OUT):
            return

        event = {"kind": envelope.kind, "now": now, "req": envelope.data, "res": answer}
        self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
        self._file.flush()
