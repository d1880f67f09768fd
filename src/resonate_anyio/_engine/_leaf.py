"""Running a leaf: attempts, back-off, worker threads for synchronous functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, Event, from_thread, move_on_after, to_thread
from anyio.lowlevel import EventLoopToken, current_token
from attrs import define, field

from . import _log
from ._functions import Kind
from ._protection import exposed

if TYPE_CHECKING:
    from ._execution import Execution
    from ._frame import Frame


async def run_leaf(frame: Frame) -> object:
    """Call the function until it returns, or until its retry policy gives up; then its last exception is raised.

    Attempts are counted for this run: after a crash the count begins anew.
    """
    number = 1
    while True:
        try:
            return await _attempt(frame, number)
        except Exception as exc:
            delay = None if frame.retry is None else frame.retry.delay(number, exc, frame.execution.random())
            if delay is None:
                raise
            _log.call_retried(frame, number, delay, exc)
        with move_on_after(delay):
            await frame.execution.wait(Event())
        number += 1


async def _attempt(frame: Frame, number: int) -> object:
    function, execution = frame.function, frame.execution
    first = (frame.attempt(number),) if function.kind is Kind.INFO_LEAF else ()
    call = partial(function.func, *first, *frame.args, **frame.kwargs)
    if not function.is_async:
        return await _attempt_in_thread(frame, call)
    await execution.gate()
    with execution.leaf_running():
        return await exposed(call)


async def _attempt_in_thread(frame: Frame, call: Callable[[], Any]) -> object:
    execution = frame.execution
    permit = await execution.threads.permit(frame)
    try:
        # After the permit: a worker that stops meanwhile lets nothing start.
        await execution.gate()
    except BaseException:
        permit.release()
        raise
    with execution.leaf_running():
        return await execution.threads.run(call, permit)


@define(eq=False)
class Threads:
    """Runs synchronous functions in worker threads and bounds how many there are.

    A thread cannot be stopped. When its await is cancelled it is abandoned and its result dropped, but it is counted
    until it has really ended, so that the limit holds; the backends' own limiters differ in that.
    """

    _limiter: CapacityLimiter
    _running: set[Permit] = field(factory=set, init=False)

    async def permit(self, leaf: Frame | None = None) -> Permit:
        """Wait until one more thread may run."""
        permit = Permit(self, leaf)
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

    def running_for(self, execution: Execution) -> list[Frame]:
        """The leaves of an execution whose threads have not ended, whether or not anybody waits for them."""
        leaves = [permit.leaf for permit in self._running]
        return [leaf for leaf in leaves if leaf is not None and leaf.execution is execution]

    def _release(self, permit: Permit) -> None:
        self._running.discard(permit)
        self._limiter.release_on_behalf_of(permit)


@define(eq=False)
class Permit:
    """The right to run one thread."""

    _threads: Threads
    leaf: Frame | None = None

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
