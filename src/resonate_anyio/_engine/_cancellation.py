"""Raising the backend's own cancellation by hand.

An execution that is put away is ended by cancelling its scope. A durable call that is made after that, or inside a
shield of the user's, has to end as well, and nothing but the backend's own cancellation may go through user code
(`except Exception` must not catch it, `finally` and `async with` must see what they always see). trio's `Cancelled`
cannot be constructed, so one is caught in a scope of our own and raised again outside of it: it then travels up to the
nearest enclosing scope that is cancelled, which is the execution's.
"""

from __future__ import annotations

from typing import NoReturn

from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import checkpoint


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
