"""What a run of a function needs of the execution that it belongs to."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Drop(Enum):
    """Why an execution was put away."""

    UNLOADED = "unloaded"
    """The worker stops, or has too many in memory: the task runs on elsewhere, or here when it is sent for."""
    SETTLED = "settled"
    """Its promise was settled from outside."""
    LOST = "lost"
    """Another worker holds the task, or may."""
    HALTED = "halted"
    """A replay asked for something else than what is recorded."""
    CRASHED = "crashed"
    """The engine failed in a way that is no outcome."""
    INTERRUPTED = "interrupted"
    """KeyboardInterrupt, SystemExit or the like is on its way through its code: the program ends."""


class Deadline(Protocol):
    """An instant at which something in an execution ends."""

    @property
    def instant(self) -> int:
        """The instant, in the server's milliseconds."""
        ...

    def map_deadline(self) -> None:
        """Map it to the loop's clock, which may have parted from the server's."""
        ...
