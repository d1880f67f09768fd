"""`Run`: the frame, as the modules below it see it: lanes, regions, children, positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol

if TYPE_CHECKING:
    from anyio import CancelScope

    from .._functions._function import Function
    from .._protocol import Promise
    from ._host import Host
    from ._lanes import Lanes
    from ._order import Order
    from ._regions import Region


class Run(Protocol):
    """One run of a durable function; `Frame` implements it.

    Attributes:
        id: the id of its promise.
        execution: the execution that it belongs to.
        function: the function that runs.
        parent: the frame of its caller, if that runs in the same execution.
        record: the record of its promise, as this worker knows it.
        scope: the cancel scope of its code.
        replaying: whether calls are on record that this run has not reached yet.
        ended: whether its code has ended, so that it can make no further call.
        order: the order of its tasks.
        lanes: the numbers of the lanes of its plain tasks.
        regions: the regions that its code is inside of.
        expired: the instants of its durable scopes that have ended their blocks.
        instant: the deadline of its promise, in milliseconds of the server's time.
        cancel_called: whether its code was cancelled, by its deadline or by its caller.
    """

    @property
    def id(self) -> str: ...
    @property
    def execution(self) -> Host: ...
    @property
    def function(self) -> Function: ...
    @property
    def parent(self) -> Run | None: ...
    @property
    def record(self) -> Promise: ...
    @property
    def scope(self) -> CancelScope: ...
    @property
    def replaying(self) -> bool: ...
    @property
    def ended(self) -> bool: ...
    @property
    def order(self) -> Order: ...
    @property
    def lanes(self) -> Lanes: ...
    @property
    def regions(self) -> set[Region]: ...
    @property
    def expired(self) -> set[int]: ...
    @property
    def instant(self) -> int: ...
    @property
    def cancel_called(self) -> bool: ...

    def check_current(self, call: str) -> None:
        """Refuse a durable call that is not made by this frame's own running code.

        Raises:
            WrongWorld: the call is made by other code, or too late.
        """
        ...

    def blocks_here(self) -> str:
        """Return the regions of this frame around the running code, as a position encodes them."""
        ...

    async def end_expired(self, instant: int) -> NoReturn:
        """Cancel this frame and those above whose deadline is not after `instant`, through any shield."""
        ...
