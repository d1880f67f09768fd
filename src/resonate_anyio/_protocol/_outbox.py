"""The queue of messages between the commit that caused them and their delivery (docs/protocol.md 7.1)."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from ._messages import Execute, Outgoing


@define(eq=False, repr=False)
class Outbox:
    """Messages that have not been delivered yet.

    There is at most one `execute` for each task, the newest, and at most one `unblock` for each promise and address,
    the first.
    """

    _executes: dict[str, Outgoing] = field(init=False, factory=dict)
    _unblocks: dict[tuple[str, str], Outgoing] = field(init=False, factory=dict)

    def add(self, messages: Iterable[Outgoing]) -> None:
        for outgoing in messages:
            message = outgoing.message
            if isinstance(message, Execute):
                self._executes[message.task_id] = outgoing
            else:
                self._unblocks.setdefault((message.promise.id, outgoing.address), outgoing)

    def messages(self) -> list[Outgoing]:
        """Return all messages: every `execute`, by task, then every `unblock`, by promise and address."""
        executes = [self._executes[id] for id in sorted(self._executes)]
        return executes + [self._unblocks[key] for key in sorted(self._unblocks)]

    def take(self) -> list[Outgoing]:
        """Remove and return all messages, in the order of `messages`."""
        taken = self.messages()
        self.clear()
        return taken

    def clear(self) -> None:
        self._executes.clear()
        self._unblocks.clear()

    def __len__(self) -> int:
        return len(self._executes) + len(self._unblocks)
