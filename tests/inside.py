"""What white-box tests see of a `Resonate` object that runs."""

from __future__ import annotations

from resonate_anyio import Resonate
from resonate_anyio._worker._worker import Worker


def worker_of(resonate: Resonate) -> Worker:
    """The worker, which the client itself sees by its `Face` only."""
    running = resonate._running
    assert running is not None
    return running.worker.worker
