"""`Threads`: worker threads for synchronous functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

from anyio import CapacityLimiter, from_thread, to_thread
from anyio.lowlevel import EventLoopToken, current_token
from attrs import define, field


@define(eq=False)
class Threads:
    """Runs synchronous functions in worker threads and bounds how many there are.

    A thread cannot be stopped. When its await is cancelled it is abandoned and its result dropped, but it is counted
    until it has really ended, so that the limit holds; the backends' own limiters differ in that.
    """

    _limiter: CapacityLimiter
    _running: set[Permit] = field(factory=set, init=False)

    async def permit(self, owner: object = None) -> Permit:
        """Wait until one more thread may run."""
        permit = Permit(self, owner)
        await self._limiter.acquire_on_behalf_of(permit)
        return permit

    async def run(self, call: Callable[[], Any], permit: Permit) -> object:
        """Call it in a thread and return what it returns. The permit is used up, whatever happens."""
        self._running.add(permit)
        thread = _Thread(call, permit.release, current_token())
        try:
            return await to_thread.run_sync(thread.body, abandon_on_cancel=True, limiter=CapacityLimiter(1))
        except BaseException:
            thread.give_up()
            raise

    @property
    def owners(self) -> list[object]:
        """The owners of the threads that have not ended, whether or not anything waits for them."""
        return [permit.owner for permit in self._running]

    def _release(self, permit: Permit) -> None:
        self._running.discard(permit)
        self._limiter.release_on_behalf_of(permit)


@define(eq=False)
class Permit:
    """The right to run one thread."""

    _threads: Threads
    owner: object = None

    def release(self) -> None:
        """Give it back."""
        self._threads._release(self)


@define(eq=False)
class _Thread:
    """One call in a worker thread. Exactly one of `body` and `give_up` calls `release`, in the event loop."""

    _call: Callable[[], Any]
    _release: Callable[[], None]
    _token: EventLoopToken
    _lock: Lock = field(factory=Lock, init=False)
    _begun: bool = field(default=False, init=False)
    _given_up: bool = field(default=False, init=False)

    def body(self) -> object:
        """Runs in the thread."""
        with self._lock:
            if self._given_up:
                return None
            self._begun = True
        try:
            return self._call()
        finally:
            # The loop may be gone by the time that an abandoned thread ends.
            with suppress(RuntimeError):
                from_thread.run_sync(self._release, token=self._token)

    def give_up(self) -> None:
        """Runs in the event loop, when the await has failed: a call that has not begun never begins."""
        with self._lock:
            if self._begun or self._given_up:
                return
            self._given_up = True
        self._release()
