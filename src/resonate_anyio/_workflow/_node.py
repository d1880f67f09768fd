"""Nodes of the call graph: the children that a frame waits for.

A `Node` is one promise below a frame, with what is recorded of it. `External` ones settle elsewhere: remote calls,
sleeps, promises that somebody outside settles. The other kind, a function that runs here, is `Frame`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import Event
from attrs import define, evolve, field

from .._errors import DurableTimeoutError
from .._protocol import Promise, PromiseState
from . import _log
from ._lanes import insist
from ._outcomes import failure_of, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from ._frame import Frame
    from ._host import Host
    from ._reasons import Reason
    from ._regions import Region


@define(eq=False, kw_only=True, repr=False)
class Node:
    """One promise that a frame waits for.

    Attributes:
        record: what is known of the promise. The record decides what the outcome is, never a value in memory.
        id: the id of the promise.
        pending: whether it has no outcome yet, as far as is known.
        type: what its value is decoded as.
        replayed: whether it had an outcome on record before this run of its frame.
        recancelled: set once an await of it was cancelled that had been before (see `_awaits`).
        seen: whether its outcome was handed to the code of its frame.
        known: whether that it has ended is on record for its frame, so that its outcome may be asked for at once.
        number: which of its frame's calls it was, in the order in which they were begun.
        group: the durable task group that it was started in, if any.
    """

    execution: Host
    record: Promise
    id: str = field(init=False)
    pending: bool = field(init=False)
    type: Any = Any
    replayed: bool = False
    recancelled: Event = field(factory=Event, init=False)
    seen: bool = False
    known: bool = field(default=False, init=False)
    number: int = field(default=0, init=False)
    live: TracebackType | None = None
    group: Region | None = field(default=None, init=False)
    _settled: Event = field(factory=Event, init=False)
    _error: Exception | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.id = self.record.id
        self.pending = self.record.state is PromiseState.PENDING

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.record.state.value}>"

    def settle(self, record: Promise) -> None:
        """Take over a settled record and wake all who wait."""
        first, self.pending = self.pending, record.state is PromiseState.PENDING
        self.record = record
        if first:
            _log.call_settled(self)
        self._settled.set()

    async def wait(self) -> None:
        """Wait until it is settled. Being cancelled here changes nothing about it."""
        while self.pending:
            await self.execution.wait(self._settled)

    @property
    def expired_at(self) -> int | None:
        """The deadline that has ended it, or None if something else has."""
        return self.record.timeout_at if self.record.state is PromiseState.TIMEDOUT else None

    def request_cancel(self, reason: Reason) -> None:
        """Begin to end it, if it runs here."""

    async def cancel(self, reason: Reason) -> None:
        """End it durably, and return once it has ended. Whatever was recorded first stays."""
        raise NotImplementedError

    async def forgo(self, reason: Reason) -> None:
        """End it durably before it has begun."""
        raise NotImplementedError

    async def time_out(self) -> None:
        """Its deadline has passed here: return once it has ended at the server as well."""
        raise NotImplementedError

    def value(self) -> object:
        """Its value; raises what it failed with."""
        error = self.failure()
        if error is not None:
            raise Exception.with_traceback(error, self.live)
        return value_of(self.record, self.type, self.execution.codec)

    def failure(self) -> Exception | None:
        """What it failed with, or None. The same object each time, so that it can be recognised."""
        if self._error is None:
            self._error = self._failure()
        return self._error

    def _failure(self) -> Exception | None:
        return failure_of(self.record, self.execution.codec, live=self.live)


async def cancel_all(nodes: Sequence[Node], reason: Reason) -> None:
    """End those that are pending durably: what runs here begins to end at once, and each is waited for."""
    pending = [node for node in nodes if node.pending]
    for node in pending:
        node.request_cancel(reason)
    for node in pending:
        if node.pending:
            await node.cancel(reason)


@define(eq=False, kw_only=True, repr=False)
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
        if self.cut_short and self.caller.instant <= self.record.timeout_at:
            # By the deadline of a frame above, which ends now, whatever shields this wait.
            await self.caller.end_expired(self.record.timeout_at)

    @property
    def cut_short(self) -> bool:
        """Whether it is a sleep that had to end before it was due, at a deadline of something around it."""
        return self.due is not None and self.record.state is PromiseState.RESOLVED and self.due > self.record.timeout_at

    @property
    def expired_at(self) -> int | None:
        return self.record.timeout_at if self.cut_short else super().expired_at

    def _failure(self) -> Exception | None:
        if self.cut_short:
            return DurableTimeoutError(self.id, self.record.timeout_at)
        return failure_of(self.record, self.execution.codec, elsewhere=True)

    def settle(self, record: Promise) -> None:
        Node.settle(self, record)
        self.execution.unlisten(self)

    async def cancel(self, reason: Reason) -> None:
        value = reason.encode(self.execution.codec)
        self.settle(await insist(partial(self.execution.journal.settle, self.id, PromiseState.CANCELED, value)))
        self.execution.journal.settled_here(self.record)
        if self.has_descendants and self.record.state is PromiseState.CANCELED:
            await self.execution.journal.cancel_below(self.id)

    async def forgo(self, reason: Reason) -> None:
        # Who was told of it may have begun already.
        await self.cancel(evolve(reason, started=False))

    async def time_out(self) -> None:
        self.settle(await insist(partial(self.execution.journal.confirm_timeout, self.record)))
