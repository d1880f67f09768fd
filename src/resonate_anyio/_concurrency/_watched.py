"""A future of asyncio. This module is imported only where asyncio runs, since asyncio takes long to import."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class WatchedFuture(asyncio.Future[None]):
    """A future that tells when the task that awaits it is cancelled. asyncio has no other way to learn it at once."""

    def __init__(self, on_cancel: Callable[[], object]) -> None:
        super().__init__()
        self._on_cancel = on_cancel

    def cancel(self, msg: object = None) -> bool:
        """Tell that the task is cancelled, and cancel the future."""
        self._on_cancel()
        return super().cancel(msg)
