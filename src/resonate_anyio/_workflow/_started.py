"""`Started`: a durable call that is on its way, put on record already or about to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import Event, get_cancelled_exc_class
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, field

from .._errors import DurableCancelledError
from ._awaits import deliver, outcome
from ._reasons import SCOPE

if TYPE_CHECKING:
    from ._invocation import Invocation
    from ._node import Node
    from ._reasons import Reason
    from ._regions import Region


@define(eq=False)
class Started:
    """One call that was started and is not awaited in the same breath.

    Attributes:
        node: the child that it has become, once it is on record.
        group: the durable task group that it was started in, if any.
        forgone: what an await of it gives if it never was: its task group had ended before its turn came.
    """

    invocation: Invocation
    node: Node | None = None
    group: Region | None = None
    forgone: Exception | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)
    _changed: Event = field(factory=Event, init=False)

    @property
    def id(self) -> str:
        return self.invocation.id

    async def open(self) -> Node | None:
        """Put it on record, unless somebody else does that. None if that was in vain."""
        if self._begun:
            await self._until_opened()
            return self.node
        self._begun = True
        try:
            with self.invocation.frame.children.invoking():
                await self.invocation.meet()
                if self.invocation.void:
                    self.forgo(DurableCancelledError(self.id, SCOPE))
                    return None
                self.opened(await self.invocation.open())
        except Exception as exc:
            self.forgo(exc)
            raise
        except BaseException:
            self._begun = False
            raise
        return self.node

    async def open_cancelled(self, reason: Reason | None = None) -> None:
        """Put on record that it was cancelled before it began, if that is what has happened.

        Args:
            reason: why; None: because the running code is being cancelled.
        """
        if self.invocation.doubtful and not self.invocation.execution.interrupted():
            # It was not made the first time: the code that awaits it was cancelled before that.
            self.invocation.withdraw()
            self.forgo(DurableCancelledError(self.id, SCOPE))
        if self._begun or self.invocation.void or self.invocation.execution.interrupted():
            return
        self._begun = True
        self.opened(await self.invocation.open_cancelled(reason))

    async def cancel(self, reason: Reason) -> Node | None:
        """End it durably, begun or not, and give it once it has ended; None if it was never begun."""
        if self.node is None and self.forgone is None and not self.invocation.replayed:
            # One whose turn has not come never begins.
            await self.open_cancelled(reason)
        await self._begun_somehow()
        if self.node is not None and self.node.pending:
            await self.node.cancel(reason)
        return self.node

    def opened(self, node: Node) -> None:
        """It is on record."""
        node.start_in(self.group)
        self.node = node
        self._changed.set()

    def forgo(self, error: Exception) -> None:
        """It never will be."""
        self.invocation.follow()
        self.forgone = error
        self._changed.set()

    async def result(self) -> object:
        """Wait for its outcome, and hand it to the code that is running."""
        frame = self.invocation.frame
        node = self.node or await self._on_record()
        await outcome(frame, node)
        return await deliver(frame, node)

    async def settled(self) -> None:
        """Wait until it has ended somehow. Being cancelled here changes nothing about it."""
        await self._begun_somehow()
        if self.node is not None:
            await self.node.wait()

    async def _begun_somehow(self) -> None:
        """Wait until it is on record, or never will be."""
        if self.node is None and self.forgone is None:
            await (self.open() if self.invocation.replayed else self._until_opened())

    async def _until_opened(self) -> None:
        while self.node is None and self.forgone is None:
            await self.invocation.execution.wait(self._changed)

    async def _on_record(self) -> Node:
        # One that has an outcome is not waited for, not even until a task has looked it up (docs/semantics.md 3.1).
        if self.invocation.replayed and self.forgone is None:
            await self.open()
        try:
            await self._until_opened()
        except get_cancelled_exc_class():
            # To cancel the await of a call is to cancel the call, whether its turn has come or not.
            await self.open_cancelled()
            raise
        if self.node is None:
            if self.invocation.void:
                await checkpoint_if_cancelled()
            assert self.forgone is not None
            raise self.forgone
        return self.node
