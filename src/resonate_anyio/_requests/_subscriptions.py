"""`Subscriptions`: all waits of one worker: for promises that are settled elsewhere, for time, and for its end."""

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
"""Called with the record of a promise that was settled."""

STOPPED: Final = "the Resonate object was stopped; all records are kept, and the execution goes on at the next start"
"""The text of the error for code that waits when the worker stops."""


@define(eq=False, repr=False)
class Inbox:
    """The place where the record of a settled promise is put for one waiting task.

    Attributes:
        changed: set when a record is put here.
    """

    changed: Event = field(factory=Event, init=False)
    _record: Promise | None = field(default=None, init=False)

    def put(self, record: Promise) -> None:
        """Put a record here."""
        self._record = record
        self.changed.set()

    def take(self) -> Promise | None:
        """Return the record, if there is one, and wait for the next one from now on."""
        self.changed = Event()
        return self._record


@define(eq=False, repr=False)
class Subscriptions:
    """All waits of one worker, so that a message can end one of them, and a stop can end all.

    Attributes:
        stopping: whether the worker has begun to stop. Pauses end.
        stopped: whether nothing of the worker runs any more. All waits end.
    """

    _random: Callable[[], float] = random
    stopping: bool = field(default=False, init=False)
    stopped: bool = field(default=False, init=False)
    _listeners: dict[str, list[Listener]] = field(factory=dict, init=False)
    _scopes: set[CancelScope] = field(factory=set, init=False)

    # Promises

    def subscribe(self, id: str, listener: Listener) -> None:
        """Call `listener` with the record of `id` once that is known to be settled."""
        self._listeners.setdefault(id, []).append(listener)

    def unsubscribe(self, id: str, listener: Listener) -> None:
        """Do not call `listener` for `id` any more."""
        listeners = self._listeners.get(id, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self._listeners.pop(id, None)

    @property
    def ids(self) -> KeysView[str]:
        """The ids of the promises that have subscribers."""
        return self._listeners.keys()

    @contextmanager
    def inbox(self, id: str) -> Iterator[Inbox]:
        """Subscribe an inbox to `id` while the block runs."""
        inbox = Inbox()
        self.subscribe(id, inbox.put)
        try:
            yield inbox
        finally:
            self.unsubscribe(id, inbox.put)

    def notify(self, record: Promise) -> None:
        """Call the listeners of a promise that was settled, and forget them."""
        for listener in self._listeners.pop(record.id, []):
            listener(record)

    # Waits

    async def wait(self, event: Event) -> None:
        """Wait for `event`, or until `wake` is called.

        Raises:
            NotRunning: the worker has stopped.
        """
        self.check()
        # Other code may wait for the same event, so `wake` cancels a scope and does not set the event.
        with CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await event.wait()
            finally:
                self._scopes.remove(scope)
        self.check()

    def check(self) -> None:
        """Check that the worker has not stopped.

        Raises:
            NotRunning: it has.
        """
        if self.stopped:
            raise NotRunning(STOPPED)

    async def pause(self, delay: float, unless: Event | None = None) -> None:
        """Wait for `delay` seconds, or until `unless` is set, or until the worker begins to stop."""
        event = Event() if unless is None else unless
        with move_on_after(delay), suppress(NotRunning):
            while not (self.stopping or event.is_set()):
                await self.wait(event)

    def backoff(self, first: float = FIRST) -> Backoff:
        """Return the delays between attempts that fail. Its pauses end when the worker begins to stop."""
        return Backoff(first, random=self._random, sleep=self.pause)

    def jittered(self, delay: float) -> float:
        """Return `delay` changed at random by up to a half, so that attempts that failed together are spread."""
        return delay * (0.5 + self._random())

    def wake(self) -> None:
        """End every `wait`, so that the waiting code looks again at what it waits for."""
        for scope in self._scopes:
            scope.cancel()

    # The end

    def loop_ends(self) -> None:
        """Note that the event loop is being taken down, so that the worker stops. All waits are cancelled by that."""
        self.stopping = True

    def begin_to_stop(self) -> None:
        """End every pause."""
        self.stopping = True
        self.wake()

    def stop(self) -> None:
        """End every wait."""
        self.stopped = True
        self.wake()
