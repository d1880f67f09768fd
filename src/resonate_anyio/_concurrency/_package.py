"""Where the source of this package is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

NAME: Final = __name__.partition(".")[0]
"""The name of the package."""

FOLDER: Final = str(Path(__file__).parent.parent)
"""The folder of the package's source. Code in files of this folder is the package's own."""
