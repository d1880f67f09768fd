"""Nodes of the call graph: the children that a frame waits for.

A `Node` is one promise below a frame, with what is recorded of it. `External` ones settle elsewhere: remote calls,
sleeps, promises that somebody outside settles. The other kind, a function that runs here, is `Frame`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio import CancelScope, Event
from attrs import define, field

from .._protocol import Promise, PromiseState
from ._outcomes import failure_of, value_of

if TYPE_CHECKING:
    from types import TracebackType

    from ._execution import Execution
    from ._frame import Frame


@define(eq=False, kw_only=True)
class Node:
    """One promise that a frame waits for.

    Attributes:
        record: what is known of the promise. The record decides what the outcome is, never a value in memory.
        type: what its value is decoded as.
        replayed: whether it had an outcome on record before this run of its frame.
        recancelled: set once an await of it was cancelled that had been before (see `Frame.deliver`).
        seen: whether its outcome was handed to the code of its frame.
    """

    execution: Execution
    record: Promise
    type: Any = Any
    replayed: bool = False
    recancelled: Event = field(factory=Event, init=False)
    seen: bool = False
    live: TracebackType | None = None
    _settled: Event = field(factory=Event, init=False)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def pending(self) -> bool:
        return self.record.pending

    def settle(self, record: Promise) -> None:
        """Take over a settled record and wake all who wait."""
        self.record = record
        self._settled.set()

    async def wait(self) -> None:
        """Wait until it is settled. Being cancelled here changes nothing about it."""
        while self.pending:
            await self.execution.wait(self._settled)

    async def cancel(self, by: str) -> None:
        """End it durably, and return once it has ended. Whatever was recorded first stays."""
        raise NotImplementedError

    def value(self) -> object:
        """Its value; raises what it failed with."""
        return value_of(self.record, self.type, self.execution.codec, live=self.live)

    def failure(self) -> Exception | None:
        """What it failed with, or None."""
        return failure_of(self.record, self.execution.codec, live=self.live)


@define(eq=False, kw_only=True)
class External(Node):
    """A promise that is settled elsewhere: by another execution, by its deadline, or by somebody outside.

    Attributes:
        caller: the frame that waits for it.
        due: for a sleep, the instant that was asked for. A promise cannot outlive its parent, so it may end before.
        has_descendants: whether something runs below it that has to end with it.
    """

    caller: Frame
    due: int | None = None
    has_descendants: bool = False
    _listening: bool = field(default=False, init=False)

    async def wait(self) -> None:
        if self.pending and not self._listening:
            # Before the request: others may wait for it meanwhile, and one listener serves them all.
            self._listening = True
            try:
                await self.execution.listen(self)
            except BaseException:
                self._listening = False
                raise
        await Node.wait(self)
        if self.due is not None and self.record.state is PromiseState.RESOLVED and self.due > self.record.timeout_at:
            # The sleep was cut short by the deadline of a frame above, which ends now, whatever shields this wait.
            await self.caller.time_out(self.record.timeout_at)

    def settle(self, record: Promise) -> None:
        self.execution.unlisten(self)
        Node.settle(self, record)

    async def cancel(self, by: str) -> None:
        with CancelScope(shield=True):
            value = self.execution.codec.encode({"by": by})
            self.settle(await self.execution.settle(self.id, PromiseState.CANCELED, value))
            if self.has_descendants and self.record.state is PromiseState.CANCELED:
                await self.execution.end_elsewhere(self.id)
