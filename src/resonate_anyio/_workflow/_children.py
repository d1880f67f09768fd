"""`Children`: what one run of a function has called and has to see end before it ends itself.

A function waits for all its children. If it fails or is cancelled, its unfinished ones are cancelled first, depth
first. No error is lost: what a child failed with and nobody has awaited is noted on the function's own error, or is it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from anyio import Event
from attrs import define, field

from .._protocol import PromiseState
from ._lanes import insist
from ._node import Node, cancel_all
from ._outcomes import Ending, Raised, add_note, text_of
from ._reasons import PARENT, Reason, reason_of
from ._scopes import instants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._frame import Frame

_MOST_NOTES: Final = 10
"""A thousand children may fail for one reason; their errors are on record each."""


@define(eq=False)
class Children:
    """The children of one frame (see the module's docstring)."""

    _frame: Frame
    _nodes: dict[str, Node] = field(factory=dict, init=False)
    _invocations: int = field(default=0, init=False)
    _opened: Event = field(factory=Event, init=False)

    @contextmanager
    def invoking(self) -> Iterator[None]:
        """Keep the frame from ending while a call is being put on record: it is no child yet."""
        self._invocations += 1
        try:
            yield
        finally:
            self._invocations -= 1
            self._opened.set()

    def adopt(self, child: Node, number: int) -> None:
        """Make `child`, which the call of that number has become, end before the frame does."""
        child.number = number
        self._nodes[child.id] = child

    def mark_seen(self, child: Node) -> None:
        """The outcome of `child` was handed to the code of the frame."""
        child.seen = True
        self._nodes.pop(child.id, None)

    async def join(self) -> None:
        """Wait for all of them. A task of the user's that outlives the function may call on meanwhile."""
        await self._all_opened()
        while pending := self._pending():
            for child in pending:
                await child.wait()
            await self._all_opened()

    async def cancel(self) -> None:
        """Cancel what is unfinished: functions that run here record their own end before the frame's is recorded."""
        if self._frame.execution.interrupted():
            return
        await insist(self._all_opened)
        await cancel_all(list(self._nodes.values()), Reason(PARENT))

    async def end_forgotten(self) -> None:
        """Cancel what an earlier run had started and this one, which has taken another way, has not come to."""
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

    # Failures that nobody has seen

    def with_unseen_failures(self, ending: Ending) -> Ending:
        """How the function ended, with what failed below it and was awaited by no one."""
        # In the order of the program, in which they need not have been put on record.
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
        msg = f"{len(unseen)} of the children of {self._frame.id!r} failed, and nobody awaited them"
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
