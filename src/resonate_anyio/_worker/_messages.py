"""`Messages`: receives the messages of the server, and hands each to the part of the worker that it concerns."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from anyio import ClosedResourceError, EndOfStream
from attrs import define

from .._finished import as_call
from .._protocol import Execute, Message, Unblock
from ..abc import Gap

if TYPE_CHECKING:
    from .._execution._services import Services
    from ..abc import Connection
    from ._rechecks import Rechecks


@define(eq=False, repr=False)
class Messages:
    """See the module's docstring."""

    _services: Services
    _rechecks: Rechecks

    async def receive(self, connection: Connection) -> None:
        """Handle the messages of a connection until its stream is closed."""
        with suppress(EndOfStream, ClosedResourceError):
            while True:
                message = await connection.messages.receive()
                self.handle(message)

    def handle(self, message: Message | Gap) -> None:
        """Handle one message."""
        match message:
            case Gap():
                name = f"resonate {self._services.identity.pid} gap"
                self._services.background(self._rechecks.recheck_all, name=name)
            case Execute(task_id, version):
                self._services.acquire(task_id, version)
            case Unblock(promise):
                # A message with a pending promise is wrong; subscribers continue to wait.
                if not promise.pending:
                    self._services.subscriptions.notify(as_call(promise))
