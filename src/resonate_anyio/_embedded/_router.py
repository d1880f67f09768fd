"""Which connection of this process receives which message (docs/protocol.md 11.2).

An `execute` that nobody here can receive now waits for a connection that can. An `unblock` in that case is dropped: it
is a hint, and whoever waits for a promise asks for it once more when it connects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, final

from anyio import create_memory_object_stream, lowlevel
from anyio.abc import ObjectReceiveStream
from attrs import define, field

from .._protocol import Execute, Message, Outbox, Outgoing, PollAddress, parse_poll
from ..abc import Identity

# There are few different addresses, and every message has one.
_parse: Final = lru_cache(maxsize=1024)(parse_poll)


@final
class Mailbox(ObjectReceiveStream[Message]):
    """The messages for one connection. Closing it takes the connection out of routing."""

    def __init__(self, identity: Identity, room: float, router: Router) -> None:
        self.identity = identity
        self._router = router
        self._room = room
        self._closed = False
        self._send, self._receive = create_memory_object_stream[Outgoing](room)

    @property
    def has_room(self) -> bool:
        return self._room == math.inf or self._unread < self._room

    @property
    def closed(self) -> bool:
        """Whether it receives nothing more."""
        return self._closed

    @property
    def _unread(self) -> int:
        return self._receive.statistics().current_buffer_used

    def put(self, outgoing: Outgoing) -> None:
        """Put in a message; there must be room."""
        self._send.send_nowait(outgoing)

    async def receive(self) -> Message:
        """Wait for the next message."""
        outgoing = await self._receive.receive()
        if self._room < math.inf and self._unread == 0:
            self._router.drained()

        return outgoing.message

    async def aclose(self) -> None:
        """Receive nothing more. What was not read is sent to others."""
        self.close()
        await lowlevel.checkpoint()

    def close(self) -> None:
        """Receive nothing more, now."""
        self._closed = True
        self._send.close()
        self._router.leave(self)
        self._receive.close()

    def unread(self) -> list[Outgoing]:
        """Take out what was not read."""
        return [self._receive.receive_nowait() for _ in range(self._unread)]


@define
class Router:
    """The mailboxes of this process by group, and the messages that wait for one."""

    # In the order of arrival: of several with one name the oldest is meant.
    _groups: dict[str, list[Mailbox]] = field(init=False, factory=dict)
    _turns: dict[str, int] = field(init=False, factory=dict)
    #: What nobody has received yet.
    waiting: Outbox = field(init=False, factory=Outbox)
    # What is to be delivered later, by task, with the instant.
    _paused: dict[str, tuple[int, Outgoing]] = field(init=False, factory=dict)
    _held: bool = field(init=False, default=False)
    #: Called when a mailbox was closed.
    on_leave: Callable[[], None] = field(init=False, default=lambda: None)

    def has(self, identity: Identity) -> bool:
        """Whether a mailbox of this name is open."""
        return any(mailbox.identity.pid == identity.pid for mailbox in self._groups.get(identity.group, ()))

    def join(self, identity: Identity, room: float = math.inf) -> Mailbox:
        """Open a mailbox for `room` messages, and put into it what waited for it, or paused in its group."""
        mailbox = Mailbox(identity, room, self)
        self._groups.setdefault(identity.group, []).append(mailbox)
        # The new connection may have the function that the others lack.
        self._deliver_paused(lambda _, outgoing: _group_of(outgoing) == identity.group)
        self.deliver(self.waiting.take())
        return mailbox

    def leave(self, mailbox: Mailbox) -> None:
        """Take a mailbox out, and send on what was not read."""
        members = self._groups.get(mailbox.identity.group, [])
        # Closing twice is fine.
        if mailbox in members:
            members.remove(mailbox)
            if not members:
                del self._groups[mailbox.identity.group]

            self.deliver(mailbox.unread())
            self.on_leave()

    def drained(self) -> None:
        """A mailbox that may have been full is empty."""
        if len(self.waiting):
            self.deliver(self.waiting.take())

    def hold(self) -> None:
        """Let all messages wait, until `release`."""
        self._held = True
        self._deliver_paused(lambda *_: True)
        self._paused.clear()

    def release(self) -> None:
        """Deliver what waits, and all that comes."""
        self._held = False
        self.deliver(self.waiting.take())

    def forget(self) -> None:
        """Drop what waits and what was not read."""
        self.waiting.clear()
        self._paused.clear()
        for members in self._groups.values():
            for mailbox in members:
                mailbox.unread()

    def pause(self, outgoing: Outgoing, due: int) -> None:
        """Deliver an `execute` when `deliver_due` is called at this instant or later."""
        assert isinstance(outgoing.message, Execute)
        if self._held:
            self.waiting.add([outgoing])
        else:
            self._paused[outgoing.message.task_id] = due, outgoing

    def withdraw(self, task_id: str) -> None:
        """Do not deliver what is paused for a task: it is pending no longer."""
        self._paused.pop(task_id, None)

    def deliver_due(self, now: int) -> None:
        """Deliver what was paused until now."""
        self._deliver_paused(lambda due, _: due <= now)

    def next_due(self) -> int | None:
        """Give the instant until which the first of what is paused is."""
        return min((due for due, _ in self._paused.values()), default=None)

    def _deliver_paused(self, chosen: Callable[[int, Outgoing], bool]) -> None:
        found = [outgoing for due, outgoing in self._paused.values() if chosen(due, outgoing)]
        self.deliver(found)

    def deliver(self, messages: Iterable[Outgoing]) -> None:
        """Put each message into the mailbox that its address means at this moment."""
        if self._held:
            self.waiting.add(messages)
            return

        for outgoing in messages:
            if self._paused and isinstance(outgoing.message, Execute):
                # This one takes the place of one that is paused.
                self.withdraw(outgoing.message.task_id)
            address = _parse(outgoing.address)
            mailbox = None if address is None else self._choose(address)
            if mailbox is not None:
                mailbox.put(outgoing)
            elif address is not None and isinstance(outgoing.message, Execute):
                self.waiting.add([outgoing])

    def _choose(self, address: PollAddress) -> Mailbox | None:
        everybody = self._groups.get(address.group, ())
        members = [mailbox for mailbox in everybody if mailbox.has_room]
        named = next((mailbox for mailbox in members if mailbox.identity.pid == address.id), None)
        if named is not None or address.cast == "uni" or not members:
            return named

        turn = self._turns.get(address.group, 0) % len(members)
        self._turns[address.group] = turn + 1
        return members[turn]


def _group_of(outgoing: Outgoing) -> str | None:
    address = _parse(outgoing.address)
    return None if address is None else address.group
