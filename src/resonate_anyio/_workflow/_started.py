"""`Started`: a durable call that was started, and that is on record or is about to be."""

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


@define(eq=False, repr=False)
class Started:
    """One call that was started and is awaited later, if ever.

    Attributes:
        invocation: the call.
        node: the child that it has become, once it is on record.
        group: the durable task group that it was started in, or None.
        forgone: the exception that an await of it raises if it is never recorded; else None.
    """

    invocation: Invocation
    node: Node | None = None
    group: Region | None = None
    forgone: Exception | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)
    _changed: Event | None = field(default=None, init=False)

    @property
    def id(self) -> str:
        return self.invocation.id

    async def open(self) -> Node | None:
        """Record the call, or wait until another task has recorded it, and return its node; None if it was given up."""
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
        """Record that the call was cancelled before it began, if it has not begun.

        Args:
            reason: the reason; None for the reason of the cancellation in progress.
        """
        if self.invocation.doubtful and not self.invocation.execution.interrupted():
            # The first run did not make the call: the code that awaits it was cancelled before that.
            self.invocation.withdraw()
            self.forgo(DurableCancelledError(self.id, SCOPE))
        if self._begun or self.invocation.void or self.invocation.execution.interrupted():
            return
        self._begun = True
        self.opened(await self.invocation.open_cancelled(reason))

    async def cancel(self, reason: Reason) -> Node | None:
        """Cancel the call durably, begun or not, and return its node once it has ended; None if it never began."""
        if self.node is None and self.forgone is None and not self.invocation.replayed:
            # A call whose turn has not come never begins.
            await self.open_cancelled(reason)
        await self._wait_recorded()
        if self.node is not None and self.node.pending:
            await self.node.cancel(reason)
        return self.node

    def opened(self, node: Node) -> None:
        """Note that the call is on record."""
        node.start_in(self.group)
        self.node = node
        if self._changed is not None:
            self._changed.set()

    def forgo(self, error: Exception) -> None:
        """Note that the call is never recorded; an await of it raises `error`."""
        self.invocation.follow()
        self.forgone = error
        if self._changed is not None:
            self._changed.set()

    async def result(self) -> object:
        """Wait for the outcome, and deliver it to the running code: return the value or raise the failure."""
        frame = self.invocation.frame
        node = self.node or await self._on_record()
        await outcome(frame, node)
        return await deliver(frame, node)

    async def settled(self) -> None:
        """Wait until the call has ended. A cancellation of this wait does not cancel the call."""
        await self._wait_recorded()
        if self.node is not None:
            await self.node.wait()

    async def _wait_recorded(self) -> None:
        """Wait until the call is on record, or was given up."""
        if self.node is None and self.forgone is None:
            await (self.open() if self.invocation.replayed else self._until_opened())

    async def _until_opened(self) -> None:
        while self.node is None and self.forgone is None:
            self._changed = self._changed or Event()
            await self.invocation.execution.wait(self._changed)

    async def _on_record(self) -> Node:
        # An outcome on record is not waited for, not even until another task has looked it up (docs/semantics.md 3.1).
        if self.invocation.replayed and self.forgone is None:
            await self.open()
        try:
            await self._until_opened()
        except get_cancelled_exc_class():
            # To cancel the await of a call is to cancel the call, even if its turn has not come.
            await self.open_cancelled()
            raise
        if self.node is None:
            if self.invocation.void:
                await checkpoint_if_cancelled()
            assert self.forgone is not None
            raise self.forgone
        return self.node
