"""Where the source of this package is, and which stack frames are its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

NAME: Final = __name__.partition(".")[0]
"""The name of the package."""

FOLDER: Final = str(Path(__file__).parent.parent)
"""The folder of the package's source."""


def caller() -> tuple[str, int]:
    """Return the file and line of the nearest stack frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(FOLDER):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
