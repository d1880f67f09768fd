"""Who waits for what in one worker: promises that settle elsewhere, pauses, the end of the worker itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView
from contextlib import contextmanager, suppress
from random import random
from typing import Final, TypeAlias

from anyio import CancelScope, Event, move_on_after
from attrs import define, field

from .._concurrency._backoff import FIRST, Backoff
from .._errors import NotRunning
from .._protocol import Promise

Listener: TypeAlias = Callable[[Promise], None]

STOPPED: Final = "the Resonate object was stopped; what runs under this id is kept and goes on at the next start"
"""What is told to those who wait for something when the worker stops."""


@define(eq=False)
class Inbox:
    """Where one waiter is told that its promise has settled."""

    changed: Event = field(factory=Event, init=False)
    _record: Promise | None = field(default=None, init=False)

    def put(self, record: Promise) -> None:
        self._record = record
        self.changed.set()

    def take(self) -> Promise | None:
        self.changed = Event()
        return self._record


@define(eq=False)
class Subscriptions:
    """All waits of one worker, so that messages can end one of them and stopping can end all.

    Attributes:
        stopping: the worker has begun to put things away.
        stopped: nothing runs any more, and nothing is waited for.
    """

    _random: Callable[[], float] = random
    stopping: bool = field(default=False, init=False)
    stopped: bool = field(default=False, init=False)
    _listeners: dict[str, list[Listener]] = field(factory=dict, init=False)
    _scopes: set[CancelScope] = field(factory=set, init=False)

    def subscribe(self, id: str, listener: Listener) -> None:
        """Call `listener` with the record of `id` once a message says that it has settled."""
        self._listeners.setdefault(id, []).append(listener)

    def unsubscribe(self, id: str, listener: Listener) -> None:
        listeners = self._listeners.get(id, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self._listeners.pop(id, None)

    @property
    def ids(self) -> KeysView[str]:
        """What is waited for."""
        return self._listeners.keys()

    @contextmanager
    def inbox(self, id: str) -> Iterator[Inbox]:
        """An inbox that is subscribed to `id` while the block lasts."""
        inbox = Inbox()
        self.subscribe(id, inbox.put)
        try:
            yield inbox
        finally:
            self.unsubscribe(id, inbox.put)

    def notify(self, record: Promise) -> None:
        """A promise has settled."""
        for listener in self._listeners.pop(record.id, []):
            listener(record)

    async def wait(self, event: Event) -> None:
        """Wait for `event`, or until everybody is to look again.

        Raises:
            NotRunning: the worker stopped.
        """
        self.check()
        # The event is somebody else's and means something to others: it is not set to wake who waits for it.
        with CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await event.wait()
            finally:
                self._scopes.remove(scope)
        self.check()

    def check(self) -> None:
        """See that the worker has not stopped.

        Raises:
            NotRunning: it has.
        """
        if self.stopped:
            raise NotRunning(STOPPED)

    async def pause(self, delay: float, unless: Event | None = None) -> None:
        """Wait so many seconds, or until `unless` is set, or the worker begins to stop."""
        event = Event() if unless is None else unless
        with move_on_after(delay), suppress(NotRunning):
            while not (self.stopping or event.is_set()):
                await self.wait(event)

    def backoff(self, first: float = FIRST) -> Backoff:
        """Return the delays between attempts that fail. Its pauses end when the worker begins to stop."""
        return Backoff(first, random=self._random, sleep=self.pause)

    def jittered(self, delay: float) -> float:
        """About `delay`: what has failed together is not to be tried again together."""
        return delay * (0.5 + self._random())

    def wake(self) -> None:
        """Make every waiter look again."""
        for scope in self._scopes:
            scope.cancel()

    def begin_to_stop(self) -> None:
        """End every pause."""
        self.stopping = True
        self.wake()

    def stop(self) -> None:
        """End every wait."""
        self.stopped = True
        self.wake()
