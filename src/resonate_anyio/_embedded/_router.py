"""Which connection of this process receives which message (docs/protocol.md 11.2).

An `execute` message that no connection can receive now waits for a connection that can. An `unblock` message is dropped
in this case: it is a hint, and a connection that waits for a promise asks for it again when it connects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, final

from anyio import lowlevel
from anyio.abc import ObjectReceiveStream
from attrs import define, field

from .._protocol import Execute, Message, Outbox, Outgoing, PollAddress, parse_poll
from ..abc import Identity

# Every message has an address, and there are few different ones.
_parse: Final = lru_cache(maxsize=1024)(parse_poll)


@final
class Mailbox(ObjectReceiveStream[Message]):
    """The messages for one connection. Closing the mailbox removes the connection from routing."""

    def __init__(self, identity: Identity, room: float, router: Router) -> None:
        self.identity = identity
        self._router = router
        self._room = room
        self._closed = False
        self._last: Outgoing | None = None
        self._given_back: list[Outgoing] = []
        # The backend has imported it; without one, it takes long.
        from anyio import create_memory_object_stream  # noqa: PLC0415

        self._send, self._receive = create_memory_object_stream[Outgoing](room)

    @property
    def has_room(self) -> bool:
        return self._room == math.inf or self._unread < self._room

    @property
    def closed(self) -> bool:
        """Whether the mailbox receives no more messages."""
        return self._closed

    @property
    def _unread(self) -> int:
        return self._receive.statistics().current_buffer_used

    def put(self, outgoing: Outgoing) -> None:
        """Add a message; there must be room."""
        self._send.send_nowait(outgoing)

    async def receive(self) -> Message:
        """Wait for the next message."""
        outgoing = self._last = await self._receive.receive()
        if self._room < math.inf and self._unread == 0:
            self._router.drained()

        return outgoing.message

    def give_back(self) -> None:
        """Count the message that was received last as unread. The mailbox is closed next."""
        if self._last is not None:
            self._given_back.append(self._last)
            self._last = None

    async def aclose(self) -> None:
        """Close the mailbox. Unread messages are sent to other connections."""
        self.close()
        await lowlevel.checkpoint()

    def close(self) -> None:
        """Close the mailbox, without a checkpoint."""
        self._closed = True
        self._send.close()
        self._router.leave(self)
        self._receive.close()

    def unread(self) -> list[Outgoing]:
        """Remove and return the unread messages."""
        given_back, self._given_back = self._given_back, []
        return given_back + [self._receive.receive_nowait() for _ in range(self._unread)]


@define(eq=False, repr=False)
class Router:
    """The mailboxes of this process by group, and the messages that wait for one.

    Attributes:
        waiting: the messages that no mailbox has received yet.
    """

    #: Called when a mailbox was closed.
    _on_leave: Callable[[], None] = field(default=lambda: None)
    # In the order of arrival: of several mailboxes with one name, the oldest receives the messages.
    _groups: dict[str, list[Mailbox]] = field(init=False, factory=dict)
    _turns: dict[str, int] = field(init=False, factory=dict)
    waiting: Outbox = field(init=False, factory=Outbox)
    # Messages to deliver later, by task, with the instant.
    _delayed: dict[str, tuple[int, Outgoing]] = field(init=False, factory=dict)
    _held: bool = field(init=False, default=False)

    def has(self, identity: Identity) -> bool:
        """Whether a mailbox of this name is open."""
        return any(mailbox.identity.pid == identity.pid for mailbox in self._groups.get(identity.group, ()))

    def join(self, identity: Identity, room: float = math.inf) -> Mailbox:
        """Open a mailbox for `room` messages. Messages that waited for it, or are delayed in its group, are sent."""
        mailbox = Mailbox(identity, room, self)
        self._groups.setdefault(identity.group, []).append(mailbox)
        # The new connection may have the function that the others lack.
        self._deliver_delayed(lambda _, outgoing: _group_of(outgoing) == identity.group)
        self.deliver(self.waiting.take())
        return mailbox

    def leave(self, mailbox: Mailbox) -> None:
        """Remove a mailbox, and send its unread messages to others."""
        members = self._groups.get(mailbox.identity.group, [])
        # A mailbox may be closed twice.
        if mailbox in members:
            members.remove(mailbox)
            if not members:
                del self._groups[mailbox.identity.group]

            self.deliver(mailbox.unread())
            self._on_leave()

    def drained(self) -> None:
        """Deliver the waiting messages, because a mailbox that may have been full is empty."""
        if len(self.waiting):
            self.deliver(self.waiting.take())

    def hold(self) -> None:
        """Make all messages wait until `release` is called."""
        self._held = True
        self._deliver_delayed(lambda *_: True)
        self._delayed.clear()

    def release(self) -> None:
        """Deliver the waiting messages, and all later ones."""
        self._held = False
        self.deliver(self.waiting.take())

    def forget(self) -> None:
        """Drop all waiting and unread messages."""
        self.waiting.clear()
        self._delayed.clear()
        for members in self._groups.values():
            for mailbox in members:
                mailbox.unread()

    def delay(self, outgoing: Outgoing, due: int) -> None:
        """Deliver an `execute` message when `deliver_due` is called at the instant `due` or later."""
        assert isinstance(outgoing.message, Execute)
        if self._held:
            self.waiting.add([outgoing])
        else:
            self._delayed[outgoing.message.task_id] = due, outgoing

    def withdraw(self, task_id: str) -> None:
        """Drop the delayed message of a task that is no longer pending."""
        self._delayed.pop(task_id, None)

    def deliver_due(self, now: int) -> None:
        """Deliver the messages that were delayed until `now` or earlier."""
        self._deliver_delayed(lambda due, _: due <= now)

    def next_due(self) -> int | None:
        """Return the instant at which the first delayed message is due, or None."""
        return min((due for due, _ in self._delayed.values()), default=None)

    def _deliver_delayed(self, chosen: Callable[[int, Outgoing], bool]) -> None:
        self.deliver([outgoing for due, outgoing in self._delayed.values() if chosen(due, outgoing)])

    def deliver(self, messages: Iterable[Outgoing]) -> None:
        """Put each message into the mailbox that its address names at this moment."""
        if self._held:
            self.waiting.add(messages)
            return

        for outgoing in messages:
            if self._delayed and isinstance(outgoing.message, Execute):
                # This message replaces a delayed one.
                self.withdraw(outgoing.message.task_id)
            address = _parse(outgoing.address)
            mailbox = None if address is None else self._choose(address)
            if mailbox is not None:
                mailbox.put(outgoing)
            elif address is not None and isinstance(outgoing.message, Execute):
                self.waiting.add([outgoing])

    def _choose(self, address: PollAddress) -> Mailbox | None:
        members = [mailbox for mailbox in self._groups.get(address.group, ()) if mailbox.has_room]
        named = next((mailbox for mailbox in members if mailbox.identity.pid == address.id), None)
        if named is not None or address.cast == "uni" or not members:
            return named

        turn = self._turns.get(address.group, 0) % len(members)
        self._turns[address.group] = turn + 1
        return members[turn]


def _group_of(outgoing: Outgoing) -> str | None:
    address = _parse(outgoing.address)
    return None if address is None else address.group
