"""`Started`: a durable call that is on its way, put on record already or about to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import Event, get_cancelled_exc_class
from attrs import define, field

from ._awaits import deliver, outcome

if TYPE_CHECKING:
    from .._errors import DurableCancelledError
    from ._nodes import Node
    from ._openings import Opening


@define(eq=False)
class Started:
    """One call that was started and is not awaited in the same breath.

    Attributes:
        node: the child that it has become, once it is on record.
        forgone: what an await of it gives if it never was: its task group had ended before its turn came.
    """

    opening: Opening
    node: Node | None = None
    forgone: DurableCancelledError | None = None
    _opened: Event = field(factory=Event, init=False)

    @property
    def id(self) -> str:
        return self.opening.id

    def opened(self, node: Node) -> None:
        """It is on record."""
        self.node = node
        self._opened.set()

    def forgo(self, error: DurableCancelledError) -> None:
        """It never will be."""
        self.forgone = error
        self._opened.set()

    async def result(self) -> object:
        """Wait for its outcome, and hand it to the code that is running."""
        frame = self.opening.frame
        node = self.node or await self._on_record()
        await outcome(frame, node)
        return await deliver(frame, node)

    async def settled(self) -> None:
        """Wait until it has ended somehow. Being cancelled here changes nothing about it."""
        await self._until_opened()
        if self.node is not None:
            await self.node.wait()

    async def _until_opened(self) -> None:
        while self.node is None and self.forgone is None:
            await self.opening.execution.wait(self._opened)

    async def _on_record(self) -> Node:
        try:
            await self._until_opened()
        except get_cancelled_exc_class():
            # To cancel the await of a call is to cancel the call, whether its turn has come or not.
            if self.node is None and not self.opening.execution.interrupted():
                self.opened(await self.opening.open_cancelled())
            raise
        if self.node is None:
            assert self.forgone is not None
            raise self.forgone
        return self.node
