"""`Threads`: worker threads for synchronous functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import EventLoopToken, current_token
from attrs import define, field


@define(eq=False, repr=False)
class Threads:
    """Runs synchronous functions in a limited number of worker threads.

    A thread cannot be stopped. If the task that awaits it is cancelled, the thread is abandoned and its result is
    ignored. It still counts until it has ended, so that the limit holds; the limiters of the backends release it early.
    """

    _limiter: CapacityLimiter
    _running: set[Permit] = field(factory=set, init=False)

    async def permit(self, owner: object = None) -> Permit:
        """Wait until one more thread may run, and return the permit for it."""
        permit = Permit(self._release, owner)
        await self._limiter.acquire_on_behalf_of(permit)
        return permit

    async def run(self, call: Callable[[], Any], permit: Permit) -> object:
        """Call `call` in a thread and return its result. The permit is released when the thread has ended."""
        self._running.add(permit)
        thread = _Thread(call, permit.release, current_token())
        try:
            return await to_thread.run_sync(thread.body, abandon_on_cancel=True, limiter=CapacityLimiter(1))
        except BaseException:
            thread.give_up()
            raise

    @property
    def owners(self) -> list[object]:
        """The owners of the threads that have not ended, abandoned ones included."""
        return [permit.owner for permit in self._running]

    def _release(self, permit: Permit) -> None:
        self._running.discard(permit)
        self._limiter.release_on_behalf_of(permit)


@define(eq=False, repr=False)
class Permit:
    """The right to run one thread.

    Attributes:
        owner: for which object the thread runs.
    """

    _release: Callable[[Permit], None]
    owner: object = None

    def release(self) -> None:
        """Let another thread run."""
        self._release(self)


@define(eq=False, repr=False)
class _Thread:
    """One call in a worker thread. Exactly one of `body` and `give_up` calls `_release`, in the event loop."""

    _call: Callable[[], Any]
    _release: Callable[[], None]
    _token: EventLoopToken
    _lock: Lock = field(factory=Lock, init=False)
    _begun: bool = field(default=False, init=False)
    _given_up: bool = field(default=False, init=False)

    def body(self) -> object:
        """Make the call. This runs in the thread."""
        with self._lock:
            if self._given_up:
                return None
            self._begun = True
        try:
            return self._call()
        finally:
            from anyio import from_thread  # noqa: PLC0415 - few programs have synchronous leaves

            # The event loop may be closed when an abandoned thread ends.
            with suppress(RuntimeError):
                from_thread.run_sync(self._release, token=self._token)

    def give_up(self) -> None:
        """Prevent a call that has not begun. This runs in the event loop, when the await has failed."""
        with self._lock:
            if self._begun or self._given_up:
                return
            self._given_up = True
        self._release()
