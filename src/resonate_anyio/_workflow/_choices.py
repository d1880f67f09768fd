"""Facts: choices that are made once and for all, and recorded before the code sees them (docs/semantics.md 4.11).

Which of several calls came first is known to nobody afterwards, and neither is what time it was. Each such choice is a
promise of its own: born resolved, made with one request, its param the choice. A wait for it that is cancelled is
recorded in its place.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from anyio import CancelScope, get_cancelled_exc_class
from attrs import define, field

from .._concurrency._cancellation import Owed
from .._errors import NonDeterminismError
from .._protocol import Promise
from ._awaits import interrupt_again
from ._host import halt
from ._invocation import Invocation
from ._lanes import insist, lane_of
from ._node import External, Node
from ._operations import CHOICE, content_of, cut, identity_of
from ._reasons import SCOPE, Reason, count_of
from ._regions import reason_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from ._frame import Frame
    from ._lanes import Place


@define(kw_only=True, eq=False)
class RecordedChoice(Invocation):
    """Something that is chosen once and for all: recorded, and settled, with one request.

    The param is the choice. Whoever creates the promise first has chosen; everybody else gets that.
    """

    operation = CHOICE

    _planned_at: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        Invocation.__attrs_post_init__(self)
        self._planned_at = self.execution.now()

    @classmethod
    def plan(cls, frame: Frame, place: Place, fact: str) -> RecordedChoice:
        """A choice that may have been made already: see `recorded`."""
        return cls(frame=frame, place=place, param=frame.execution.codec.encode({"fact": fact}))

    async def choose(self, choice: Callable[[], Awaitable[int]], among: Collection[int] | None = None) -> int:
        """The choice on record. If there is none yet it is made now, and stands from now on.

        The execution is halted if what is on record cannot be chosen: if it is none of `among`, or no number.

        If the code is cancelled meanwhile, that stands: a replay might find that it need not wait any more, and go on.
        """
        await self.meet()
        if self.recorded is None:
            await self._make(choice)
        node = await self.open()
        cancelled = self._cancellation(node.record)
        if cancelled is not None:
            reason, waited_ms = cancelled
            await interrupt_again(self.frame, node, reason, lived_ms=waited_ms)
        value = content_of(node.record, self.execution.codec).get("value")
        chosen = count_of(value)
        if chosen is None or (among is not None and chosen not in among):
            fact = self.execution.codec.decode(self.param)["fact"]
            recorded, requested = f"{fact}() with the choice {cut(repr(value))}", f"{fact}()"
            if among is not None:
                requested += f" with a choice of {cut(repr(list(among)))}"
            await halt(self.execution, NonDeterminismError(self.id, recorded, requested, self.execution.id))
        return chosen

    async def _make(self, choice: Callable[[], Awaitable[int]]) -> None:
        condemned = self.is_condemned()
        try:
            self._state(value=await choice())
        except get_cancelled_exc_class():
            if condemned and not self.execution.interrupted():
                self.withdraw()
            elif not self.execution.interrupted() and not self.frame.settled_early:
                await self.open_cancelled()
            raise

    def _state(self, **facts: object) -> None:
        codec = self.execution.codec
        self.param = codec.encode({"fact": codec.decode(self.param)["fact"], **facts})

    async def open_cancelled(self, why: Reason | None = None) -> Node:
        reason = why or reason_for(self.frame)
        if reason.by == SCOPE:
            self.frame.pin()
        self._state(cancelled=reason.fields(), waited=self.execution.now() - self._planned_at)
        with CancelScope(shield=True):
            record = await insist(partial(self.create, self._request(0)))
        return self._node(record)

    async def _create_interrupted(self, cancellation: BaseException) -> Promise | None:
        if self.execution.interrupted() or self.frame.settled_early:
            return None
        node = await self.open_cancelled()
        if self._cancellation(node.record) is not None:
            return None
        # It was on record already: the choice stands, and the cancellation has to come again.
        lane_of(self.frame).owe(Owed.of(cancellation))
        return node.record

    def _cancellation(self, record: Promise) -> tuple[Reason, int] | None:
        """What was recorded instead of a choice, if the code was cancelled: why, and after how many milliseconds."""
        content = content_of(record, self.execution.codec)
        reason, waited_ms = Reason.of(content.get("cancelled")), count_of(content.get("waited"))
        return None if reason is None else (reason, waited_ms or 0)

    def _numbered(self) -> Mapping[str, str]:
        # It is no call; what it chooses returns to its task, and that is in the order.
        return {}

    def _same_call(self, record: Promise) -> bool:
        codec = self.execution.codec
        return identity_of(record, codec).operation == str(codec.decode(self.param)["fact"])

    def _timeout_at(self, now: int) -> int:
        del now
        # In the past for certain, by the server's clock: it is born resolved.
        return self.frame.record.created_at

    def _node(self, record: Promise) -> External:
        return External(execution=self.execution, caller=self.frame, record=record, replayed=True)
