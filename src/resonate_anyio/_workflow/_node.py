"""Nodes of the call graph: the children that a frame waits for.

A `Node` is one promise below a frame, with its record. `External` nodes are settled elsewhere: remote calls, sleeps,
and promises that are settled from outside. A function that runs in this execution is a `Frame`.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from anyio import Event
from attrs import define, evolve, field

from .._errors import DurableTimeoutError
from .._protocol import Promise, PromiseState
from . import _events
from ._lanes import insist
from ._outcomes import Raised, add_note, failure_of, text_of, value_of
from ._reasons import PARENT, Reason, reason_of
from ._scopes import instants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from ._host import Host
    from ._outcomes import Ending
    from ._regions import Region
    from ._run import Run


_MOST_NOTES: Final = 10
"""The largest number of notes about failed children on an error. A thousand children may fail for one reason; the error
of each is on record."""


@define(eq=False, kw_only=True, repr=False)
class Node:
    """One promise that a frame waits for.

    Attributes:
        record: its record, as this worker knows it. The record decides the outcome, never a value in memory.
        id: the id of the promise.
        pending: whether it has no outcome yet, as far as this worker knows.
        type: the type that its value is decoded as.
        replayed: whether it had an outcome on record before this run of its frame.
        seen: whether its outcome was delivered to the code of its frame.
        known: whether its end is on record for its frame, so that `future.result()` may return the outcome.
        number: the number of the call among the calls of its frame, in the order in which they began.
        live: the traceback of its failure in this run, or None.
        group: the durable task group that it was started in, or None.
    """

    execution: Host
    record: Promise
    id: str = field(init=False)
    pending: bool = field(init=False)
    type: Any = Any
    replayed: bool = False
    seen: bool = False
    known: bool = field(default=False, init=False)
    number: int = field(default=0, init=False)
    live: TracebackType | None = None
    group: Region | None = field(default=None, init=False)
    # Events are made for tasks that wait: most calls never have any.
    _settled: Event | None = field(default=None, init=False)
    _recancelled: Event | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.id = self.record.id
        self.pending = self.record.state is PromiseState.PENDING

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.record.state.value}>"

    def settle(self, record: Promise) -> None:
        """Take over a settled record and wake all waiters."""
        first, self.pending = self.pending, record.state is PromiseState.PENDING
        self.record = record
        if self._settled is not None:
            self._settled.set()
        if first and self.execution.facilities.observers.calls:
            _events.call_settled(self)

    def cancelled_again(self) -> None:
        """Note that a replay has cancelled the code where it awaits this node: other awaits get the outcome."""
        self.replayed = False
        if self._recancelled is not None:
            self._recancelled.set()

    def start_in(self, group: Region | None) -> None:
        """Note the durable task group that the call was started in, or None."""
        self.group = group

    def mark_known(self) -> None:
        """Note that the end of the call is on record for its frame, so that the outcome may be read at once."""
        self.known = True

    async def wait(self) -> None:
        """Wait until the promise is settled. A cancellation of this wait does not cancel the promise."""
        while self.pending:
            self._settled = self._settled or Event()
            await self.execution.wait(self._settled)

    async def wait_cancelled_again(self) -> None:
        """Wait for `cancelled_again`."""
        self._recancelled = self._recancelled or Event()
        await self.execution.wait(self._recancelled)

    @property
    def expired_at(self) -> int | None:
        """The deadline that has ended the promise, or None if something else has."""
        return self.record.timeout_at if self.record.state is PromiseState.TIMEDOUT else None

    def request_cancel(self, reason: Reason) -> None:
        """Begin to cancel the call, if it runs in this execution."""

    async def cancel(self, reason: Reason) -> None:
        """Cancel the call durably, and return once it has ended. An outcome that was recorded first stands."""
        raise NotImplementedError

    async def forgo(self, reason: Reason) -> None:
        """Cancel the call durably before it has begun."""
        raise NotImplementedError

    async def time_out(self) -> None:
        """Return once the promise has timed out at the server as well; its deadline has passed here."""
        raise NotImplementedError

    def value(self) -> object:
        """Return the value of the promise, or raise its failure."""
        error = self.failure()
        if error is not None:
            raise Exception.with_traceback(error, self.live)
        return value_of(self.record, self.type, self.execution.codec)

    def failure(self) -> Exception | None:
        """Return the failure of the promise, or None: the same object each time, so that it can be recognised."""
        if self._error is None:
            self._error = self._failure()
        return self._error

    def _failure(self) -> Exception | None:
        return failure_of(self.record, self.execution.codec, live=self.live)


async def cancel_all(nodes: Sequence[Node], reason: Reason) -> None:
    """Cancel the pending nodes durably: local calls begin to end at once, and each node is waited for."""
    pending = [node for node in nodes if node.pending]
    for node in pending:
        node.request_cancel(reason)
    for node in pending:
        if node.pending:
            await node.cancel(reason)


@define(eq=False, kw_only=True, repr=False)
class External(Node):
    """A promise that is settled elsewhere: by another execution, by its deadline, or from outside.

    Attributes:
        caller: the frame that waits for it.
        due: for a sleep, the instant that was asked for. The sleep may end earlier, since a promise cannot outlive its
            parent.
        has_descendants: whether another execution runs below it, which has to end with it.
    """

    caller: Run
    due: int | None = None
    has_descendants: bool = False
    _listening: bool = field(default=False, init=False)

    async def wait(self) -> None:
        if self.pending and not self._listening:
            # Before the request, since other tasks may wait for it meanwhile, and one listener serves them all.
            self._listening = True
            try:
                await self.execution.listen(self)
            except BaseException:
                self._listening = False
                raise
        await Node.wait(self)
        if self.cut_short and self.caller.instant <= self.record.timeout_at:
            # The deadline of a frame above has cut it short. That frame ends now, even if a shield is around this wait.
            await self.caller.end_expired(self.record.timeout_at)

    @property
    def cut_short(self) -> bool:
        """Whether this is a sleep that ended before it was due, at a deadline of something around it."""
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
        # A worker that received it may have begun it already.
        await self.cancel(evolve(reason, started=False))

    async def time_out(self) -> None:
        self.settle(await insist(partial(self.execution.journal.confirm_timeout, self.record)))


@define(eq=False, repr=False)
class Children:
    """The calls of one frame, which have to end before the frame ends.

    If the function fails or is cancelled, its unfinished children are cancelled first, the deepest first. A failure of
    a child that was not awaited is not lost: it becomes a note on the function's own error, or the function's failure.
    """

    _frame: Run
    _nodes: dict[str, Node] = field(factory=dict, init=False)
    _invocations: int = field(default=0, init=False)
    _opened: Event | None = field(default=None, init=False)

    @contextmanager
    def invoking(self) -> Iterator[None]:
        """Keep the frame from ending while a call is being recorded and is not a child yet."""
        self._invocations += 1
        try:
            yield
        finally:
            self._invocations -= 1
            if self._opened is not None:
                self._opened.set()

    def adopt(self, child: Node, number: int) -> None:
        """Make `child`, the call with that number, a call that has to end before the frame ends."""
        child.number = number
        self._nodes[child.id] = child

    def mark_seen(self, child: Node) -> None:
        """Note that the outcome of `child` was delivered to the code of the frame."""
        child.seen = True
        self._nodes.pop(child.id, None)

    async def join(self) -> None:
        """Wait for all children. A task of the user's code that outlives the function may make calls meanwhile."""
        await self._all_opened()
        while pending := self._pending():
            for child in pending:
                await child.wait()
            await self._all_opened()

    async def cancel(self) -> None:
        """Cancel all unfinished children. Functions that run here record their own end before the frame does."""
        if self._frame.execution.interrupted():
            return
        await insist(self._all_opened)
        await cancel_all(list(self._nodes.values()), Reason(PARENT))

    async def end_forgotten(self) -> None:
        """Cancel children that an earlier run started and this replay never reached."""
        if not self._frame.replaying:
            return
        execution = self._frame.execution
        value = Reason(PARENT).encode(execution.codec)
        for record in execution.history.forgotten(self._frame.id):
            await execution.journal.settle(record.id, PromiseState.CANCELED, value)
            if record.tags.get("resonate:scope") == "global":
                await execution.journal.cancel_below(record.id)

    async def _all_opened(self) -> None:
        while self._invocations:
            self._opened = Event()
            await self._frame.execution.wait(self._opened)

    def _pending(self) -> list[Node]:
        return [child for child in self._nodes.values() if child.pending]

    # Failures that were not seen

    def with_unseen_failures(self, ending: Ending) -> Ending:
        """Return the ending of the function, with the failures of children that no code has awaited."""
        # In the order of the program; children may have been recorded in another order.
        children = sorted(self._nodes.values(), key=lambda child: child.number)
        unseen = [(child.id, error) for child in children if (error := self._unseen(child)) is not None]
        if not unseen:
            return ending
        if isinstance(ending, Raised):
            for id, error in unseen[:_MOST_NOTES]:
                add_note(ending.error, f"its child {id!r} failed as well: {text_of(error)}")
            if len(unseen) > _MOST_NOTES:
                add_note(ending.error, f"... and {len(unseen) - _MOST_NOTES} more of its children failed")
            return ending
        msg = f"{len(unseen)} of the children of {self._frame.id!r} failed, and no code awaited them"
        return Raised(ExceptionGroup(msg, [error for _, error in unseen]))

    def _unseen(self, child: Node) -> Exception | None:
        if child.pending or child.seen or self._cancelled_here(child) or self._expired_here(child):
            return None
        return child.failure()

    def _expired_here(self, child: Node) -> bool:
        return child.expired_at in self._frame.expired and child.expired_at in instants(child.record)

    def _cancelled_here(self, child: Node) -> bool:
        record = child.record
        return record.state is PromiseState.CANCELED and reason_of(record, self._frame.execution.codec) is not None
