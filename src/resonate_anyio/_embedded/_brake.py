"""How soon a task is sent out again that its workers keep giving back.

A worker that lacks the function of a task, or fails at it, gives the task back. The next `execute` would reach it (or
one like it) a millisecond later, again and again. The Resonate Server sends a task at most ten times a second, because
it delivers messages every 100 milliseconds. Here messages are delivered at once, so the pace is set for each task.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen

_FIRST: Final = 100
_LONGEST: Final = 30_000
_DOUBLINGS: Final = 9
_FORGOTTEN_AFTER: Final = 600_000
_MOST: Final = 10_000


@frozen
class _Returns:
    count: int
    sent_at: int


@define
class Brake:
    """The tasks that were given back, with the instants at which they were sent out again.

    The first time a task is sent out again at once, as when its worker shuts down. From the second time on at least 100
    milliseconds lie between one message and the next, then twice as much each time, and 30 seconds at most. A task that
    has got on, or was not given back for ten minutes, begins anew. All of it is kept in memory only: after a restart
    each task is sent out once without a pause.
    """

    # In the order in which they were given back last.
    _tasks: dict[str, _Returns] = field(init=False, factory=dict)

    def due(self, id: str, now: int) -> int:
        """Give the instant at which to send out a task that is given back at `now`."""
        before = self._tasks.pop(id, None)
        if before is None or now - before.sent_at > _FORGOTTEN_AFTER:
            due, count = now, 1
        else:
            pause = min(_FIRST * 2 ** min(before.count - 1, _DOUBLINGS), _LONGEST)
            due, count = min(max(now, before.sent_at + pause), now + _LONGEST), before.count + 1

        self._tasks[id] = _Returns(count, due)
        if len(self._tasks) > _MOST:
            del self._tasks[next(iter(self._tasks))]

        return due

    def forget(self, id: str) -> None:
        """Begin anew for a task: it has got on."""
        self._tasks.pop(id, None)

    def __len__(self) -> int:
        return len(self._tasks)
