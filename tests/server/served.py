"""The program `resonate-anyio dev` as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

PROGRAM = (sys.executable, "-m", "resonate_anyio")


@frozen
class Served:
    """A server that listens."""

    process: subprocess.Popen[str]
    url: str
    metrics_url: str | None

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and wait for the end; give the exit code and what was said on the way."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=100)
        return self.process.returncode, errors


def run(*arguments: object, code: str | None = None) -> tuple[int, str, str]:
    """Run the program to its end; give its exit code, output and errors."""
    program = PROGRAM if code is None else (sys.executable, "-c", code)
    ended = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@contextmanager
def served(*arguments: object, **options: Any) -> Iterator[Served]:
    """Start the program on a free port and wait until it listens."""
    command = [*PROGRAM, "dev", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stdout is not None
            metrics_url = None
            line = process.stdout.readline()
            if line.startswith("metrics on "):
                metrics_url, line = line.removeprefix("metrics on ").strip(), process.stdout.readline()
            assert line.startswith("listening on "), process.communicate()
            yield Served(process, line.removeprefix("listening on ").strip(), metrics_url)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
