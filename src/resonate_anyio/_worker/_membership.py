"""`Membership`: how a client becomes a worker of its group when its first function is registered.

A process without functions is a client: it connects in a group of its own, so that the server sends it no tasks. With
the first function it opens a second connection, in the worker group; the first one stays open for messages that are
meant for the client.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from anyio import Event
from anyio.lowlevel import EventLoopToken, current_token
from attrs import define, evolve, field

from .._concurrency._tasks import call_in_loop
from .._errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._concurrency._supervisor import Supervisor
    from .._requests._subscriptions import Subscriptions
    from ..abc import Connection, Identity, Network
    from ._messages import Messages


@define(eq=False, kw_only=True, repr=False)
class Membership:
    """See the module's docstring.

    Attributes:
        identity: the identity of this process at the server.
        group: the worker group.
        network: the network to connect to a second time.
        connection: the first connection.
        supervisor: owns the tasks of the worker.
        subscriptions: the waits of the worker.
        messages: handles the messages of the second connection.
        when_registered: called in the event loop with the name of each function that is registered.
    """

    identity: Identity
    group: str
    network: Network
    connection: Connection
    supervisor: Supervisor
    subscriptions: Subscriptions
    messages: Messages
    when_registered: Callable[[str], None]
    _second: Connection | None = field(default=None, init=False)
    _joining: bool = field(default=False, init=False)
    _joined: Event = field(factory=Event, init=False)
    _token: EventLoopToken = field(factory=current_token, init=False)
    _new_functions: deque[str] = field(factory=deque, init=False)
    _changed: Event = field(factory=Event, init=False)

    def function_registered(self, name: str) -> None:
        """Take note of a function that was just registered, in any thread, or by code outside any task."""
        self._new_functions.append(name)
        # If the event loop is closed, the worker has ended.
        with suppress(RuntimeError):
            call_in_loop(self._token.native_token, self._wake)

    def _wake(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Handle registrations until the worker has stopped."""
        with suppress(NotRunning):
            while True:
                self._changed = Event()
                while self._new_functions:
                    name = self._new_functions.popleft()
                    if not self.subscriptions.stopping:
                        self._begin_to_join()
                        self.when_registered(name)
                await self.subscriptions.wait(self._changed)

    async def join(self) -> None:
        """Join the worker group, and wait until this process receives the group's messages."""
        self._begin_to_join()
        while self._joining and not self._joined.is_set():
            await self.subscriptions.wait(self._joined)

    def _begin_to_join(self) -> None:
        if self.identity.group != self.group and not self._joining:
            self._joining = True
            self.supervisor.start_background(self._connect_again, name=f"resonate {self.identity.pid} group")

    async def _connect_again(self) -> None:
        identity = evolve(self.identity, group=self.group)
        try:
            async with self.network.connect(identity) as connection:
                self._second, self.identity = connection, identity
                self._joined.set()
                if not self.subscriptions.stopping:
                    await self.messages.receive(connection)
        finally:
            self._joined.set()

    async def close_messages(self) -> None:
        """Receive no further messages: the server sends those for the group to other workers."""
        await self.connection.messages.aclose()
        if self._second is not None:
            await self._second.messages.aclose()
