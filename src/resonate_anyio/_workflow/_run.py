"""`Run`: the frame, as its parts see it: lanes, regions, children, positions."""

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
    """One run of a durable function. `Frame` is what implements it.

    Attributes:
        id: the id of its promise.
        execution: the execution that it belongs to.
        function: what is run.
        parent: the frame of its caller, if that runs in the same execution.
        record: what is known of its promise.
        scope: what cancels its code.
        replaying: whether calls are on record that this run has not come to yet.
        ended: whether its code has ended, so that no call of it may begin.
        order: the order of its tasks.
        lanes: the numbers of the lanes of its plain tasks.
        regions: the durable blocks that its code is inside of.
        expired: the instants of its durable scopes that have ended their blocks.
        instant: the deadline of its promise, in the server's milliseconds.
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
            WrongWorld: it is made from elsewhere, or too late.
        """
        ...

    def blocks_here(self) -> str:
        """Return the durable blocks of this frame around the running code, as a position has them."""
        ...

    async def end_expired(self, instant: int) -> NoReturn:
        """End this frame and those above whose deadline is not after `instant`, through any shield."""
        ...
