"""`resonate-anyio dev` in a process of its own, on a store in memory. Its environment may differ from the client's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def server() -> Iterator[str]:
    """Serve, and give the URL. `SERVER_PYTHON` names the interpreter of the server."""
    command = [os.environ.get("SERVER_PYTHON", sys.executable), "-u", "-m", "resonate_anyio", "dev", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
