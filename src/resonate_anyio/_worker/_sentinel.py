"""`Sentinel`: a task of the worker that runs no code of the user, so that a cancellation of it has one cause only.

asyncio cancels every task when a program is interrupted a second time, those of the worker included. The sentinel tells
such a teardown of the event loop from a cancellation that was meant for one task.
"""

from __future__ import annotations

from collections.abc import Callable

from anyio import CancelScope, Event
from attrs import define, field

from .._concurrency._cancellation import Teardown


@define(eq=False, repr=False)
class Sentinel:
    """See the module's docstring.

    Args:
        on_teardown: is called when a teardown begins, before any code of an execution runs again. The event loop does
            not run then.
    """

    _on_teardown: Callable[[], object]
    _teardown: Teardown | None = field(default=None, init=False)
    _started: Event = field(factory=Event, init=False)
    _dismissed: bool = field(default=False, init=False)
    _never_started: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Watch until `dismiss` is called."""
        self._teardown = Teardown(self._on_teardown)
        self._started.set()
        if not self._dismissed:
            await self._teardown.wait()

    async def started(self) -> None:
        """Wait until the task runs."""
        with CancelScope(shield=True):
            await self._started.wait()

    def on_exit(self) -> None:
        """Note that the block of the worker ends. If the task does not run by now, a teardown has prevented that."""
        self._never_started = not self._started.is_set()

    def dismiss(self) -> None:
        """End the task."""
        self._dismissed = True
        if self._teardown is not None:
            self._teardown.dismiss()

    @property
    def torn_down(self) -> bool:
        """Whether the event loop is being taken down, so that a cancellation means nothing."""
        return self._never_started or (self._teardown is not None and self._teardown.begun)
