"""When a task that its workers keep returning is sent again.

A worker that lacks the function of a task, or fails at it, returns the task. The next `execute` message would reach
this worker (or a similar one) a millisecond later, again and again. The Resonate Server sends a task at most ten times
a second, because it delivers messages every 100 milliseconds. The embedded engine delivers messages at once, so it
delays the messages of each returned task.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen

from .._values import ValueObject

_FIRST_DELAY: Final = 100
_LONGEST_DELAY: Final = 30_000
_DOUBLINGS: Final = 9
_FORGET_AFTER: Final = 600_000
_MAX_TASKS: Final = 10_000


@frozen(eq=False, repr=False)
class _Returns(ValueObject):
    count: int
    sent_at: int


@define(eq=False, repr=False)
class Redelivery:
    """The returned tasks, with the instant at which each was last sent again.

    A task that is returned for the first time is sent again at once: its worker may be shutting down. From the second
    time on at least 100 milliseconds lie between two messages, then twice as long each time, and at most 30 seconds.
    The count starts again when the task makes progress, or was not returned for ten minutes. All of this is kept in
    memory only: after a restart each task is sent once without a delay.
    """

    # In the order in which the tasks were last returned.
    _tasks: dict[str, _Returns] = field(init=False, factory=dict)

    def next_delivery(self, id: str, now: int) -> int:
        """Return the instant at which to send a task that was returned at `now`."""
        previous = self._tasks.pop(id, None)
        if previous is None or now - previous.sent_at > _FORGET_AFTER:
            due, count = now, 1
        else:
            delay = min(_FIRST_DELAY * 2 ** min(previous.count - 1, _DOUBLINGS), _LONGEST_DELAY)
            due, count = min(max(now, previous.sent_at + delay), now + _LONGEST_DELAY), previous.count + 1

        self._tasks[id] = _Returns(count, due)
        if len(self._tasks) > _MAX_TASKS:
            del self._tasks[next(iter(self._tasks))]

        return due

    def reset(self, id: str) -> None:
        """Start the count of a task again, because the task made progress."""
        self._tasks.pop(id, None)

    def __len__(self) -> int:
        return len(self._tasks)
