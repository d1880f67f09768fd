"""The backend's own cancellation: raising it by hand, and telling whether anybody asked for it.

An execution that is put away is ended by cancelling its scope. A durable call that is made after that, or inside a
shield of the user's, has to end as well, and nothing but the backend's own cancellation may go through user code
(`except Exception` must not catch it, `finally` and `async with` must see what they always see). trio's `Cancelled`
cannot be constructed, so one is caught in a scope of our own and raised again outside of it: it then travels up to the
nearest regions_around scope that is cancelled, which is the execution's.
"""

from __future__ import annotations

import math
from typing import NoReturn, TypeVar

from anyio import CancelScope, current_effective_deadline, get_cancelled_exc_class
from anyio.lowlevel import checkpoint
from attrs import frozen

from ._tasks import cancelling, current_task, on_asyncio

T = TypeVar("T")


def is_requested() -> bool:
    """Whether a cancellation that has just been caught was asked for: by a scope around here, or (in asyncio) a caller.

    Otherwise it has escaped from some other task or future that was cancelled, and is a failure like any other.
    """
    if current_effective_deadline() == -math.inf:
        return True
    # anyio has no word for this: `asyncio.timeout` and `Task.cancel` leave a count, which trio's scopes do not need.
    return cancelling() > 0


@frozen
class Owed:
    """A cancellation that was caught and is still to be raised, at the next opportunity.

    Only asyncio needs it: it delivers each request for a cancellation once, and counts those that are not taken back.
    The scopes of anyio and of trio deliver theirs again and again.
    """

    _cancellation: BaseException
    _count: int

    @classmethod
    def of(cls, cancellation: BaseException) -> Owed | None:
        """Remember a cancellation that has just been caught, if anyone is waiting for it and does not ask again."""
        count = 0 if current_effective_deadline() == -math.inf else cancelling()
        return cls(cancellation, count) if count else None

    def collect(self) -> None:
        """Raise it, unless whoever had asked for it has given up."""
        if cancelling() >= self._count:
            raise self._cancellation


class Teardown:
    """Tells whether the event loop is being taken down around everybody.

    asyncio cancels every task when a program is interrupted a second time, the engine's own among them, in spite of
    all shields. A task that runs nothing of the user's and makes one of these knows such a cancellation from others.
    """

    def __init__(self) -> None:
        self._task = current_task() if on_asyncio() else None

    @property
    def begun(self) -> bool:
        """Whether the task was cancelled from outside of the engine."""
        return self._task is not None and self._task.cancelling() > 0


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
