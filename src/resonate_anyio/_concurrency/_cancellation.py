"""The backend's own cancellation: how to raise it, and how to find out whether it was requested.

An execution is dropped by cancelling its scope. A durable call that is made after that, or inside a shield of the user,
has to end as well. Only the backend's own cancellation may pass through the code of the user: `except Exception` must
not catch it, and `finally` and `async with` must see the usual exception. trio's `Cancelled` cannot be constructed. So
one is caught in a scope of this module and raised again outside that scope: it then travels up to the nearest
enclosing scope that is cancelled, which is that of the execution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn, TypeVar

from anyio import CancelScope, Event, current_effective_deadline, get_cancelled_exc_class
from anyio.lowlevel import checkpoint
from attrs import frozen

from .._values import ValueObject
from ._tasks import cancelling, current_task, on_asyncio, watched_future

T = TypeVar("T")


def is_requested() -> bool:
    """Return whether a cancellation that was just caught was requested: by an enclosing scope or, in asyncio, a caller.

    If it was not, it comes from another task or future that was cancelled, and is a failure like any other.
    """
    if current_effective_deadline() == -math.inf:
        return True
    # `asyncio.timeout` and `Task.cancel` leave a count, which anyio does not show and trio does not need.
    return cancelling() > 0


@frozen(eq=False, repr=False)
class Owed(ValueObject):
    """A cancellation that was caught, and has to be raised at the next opportunity.

    Only asyncio needs this: it delivers each request for a cancellation once, and counts the requests that are not
    taken back. The scopes of anyio and of trio deliver theirs again and again.
    """

    _cancellation: BaseException
    _count: int

    @classmethod
    def of(cls, cancellation: BaseException) -> Owed | None:
        """Return a cancellation that was just caught; None if it does not have to be raised again by hand."""
        count = 0 if current_effective_deadline() == -math.inf else cancelling()
        return cls(cancellation, count) if count else None

    def collect(self) -> None:
        """Raise the cancellation, unless the request for it was taken back."""
        if cancelling() >= self._count:
            raise self._cancellation


def deliver_later(cancellation: BaseException) -> None:
    """Have a cancellation that was caught raised at the next checkpoint.

    This is for code whose effect was complete when the cancellation came. Only asyncio needs help: see `Owed`.
    """
    if Owed.of(cancellation) is not None:
        task = current_task()
        # The number of requests for a cancellation stays the same, on which `asyncio.timeout` relies.
        task.uncancel()
        task.cancel(*cancellation.args)


class Teardown:
    """Waits in a task, and tells whether the event loop is being taken down.

    When an interrupt leaves asyncio's event loop, asyncio cancels every task in spite of all shields, the tasks of this
    package included, and then lets them run in any order. An object of this class is made in a task that runs no code
    of the user: such a task is cancelled for no other reason.

    Args:
        on_begin: is called as soon as the task is cancelled, before any cancelled task has run. The event loop does not
            run then.
    """

    def __init__(self, on_begin: Callable[[], object]) -> None:
        self.begun = False
        self._on_begin = on_begin
        self._future = watched_future(self._begin) if on_asyncio() else None
        self._dismissed = Event()

    async def wait(self) -> None:
        """Wait until `dismiss` is called."""
        await (self._dismissed.wait() if self._future is None else self._future)

    def dismiss(self) -> None:
        """End the wait."""
        if self._future is None:
            self._dismissed.set()
        elif not self._future.done():
            self._future.set_result(None)

    def _begin(self) -> None:
        self.begun = True
        self._on_begin()


async def raise_cancelled() -> NoReturn:
    """Raise the backend's cancellation exception, whatever scopes are open."""
    caught: BaseException | None = None
    with CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except get_cancelled_exc_class() as exc:
            caught = exc
            raise
    assert caught is not None
    raise caught
