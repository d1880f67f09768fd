"""Choices that are recorded before the code sees them (docs/semantics.md 4.11).

The order in which calls ended, and the present time, cannot be found out afterwards. Each such choice is a promise of
its own: it is born resolved, is made with one request, and its param is the choice. A wait for a choice that is
cancelled is recorded in place of the choice.
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


@define(kw_only=True, eq=False, repr=False)
class RecordedChoice(Invocation):
    """A choice that is recorded and settled with one request.

    The param of its promise is the choice. The first `create` of the promise decides: later ones get that choice.
    """

    operation = CHOICE

    _planned_at: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        Invocation.__attrs_post_init__(self)
        self._planned_at = self.execution.now()

    @classmethod
    def plan(cls, frame: Frame, place: Place, fact: str) -> RecordedChoice:
        """Return a planned choice, which may be on record already: see `recorded`.

        Args:
            frame: the frame of the running code.
            place: the place of the choice in the code.
            fact: the kind of choice, as it is recorded: `ctx.first`, `ctx.as_completed` or `ctx.now`.
        """
        return cls(frame=frame, place=place, param=frame.execution.codec.encode({"fact": fact}))

    async def choose(self, choice: Callable[[], Awaitable[int]], among: Collection[int] | None = None) -> int:
        """Return the choice on record. If there is none yet, make the choice now and record it.

        The execution is halted if the choice on record is not in `among`, or is not a number.

        If the code is cancelled during the wait, the cancellation is recorded: a replay might find the choice without a
        wait, and go on.
        """
        await self.meet()
        if self.recorded is None and self.execution.history.may_lack(self.frame.id, self.operation.scope):
            await self._look_up()
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
            self._set_param(value=await choice())
        except get_cancelled_exc_class():
            if condemned and not self.execution.interrupted():
                self.withdraw()
            elif not self.execution.interrupted() and not self.frame.settles_before(self.execution.now()):
                await self.open_cancelled()
            raise

    def _set_param(self, **facts: object) -> None:
        codec = self.execution.codec
        self.param = codec.encode({"fact": codec.decode(self.param)["fact"], **facts})

    async def open_cancelled(self, why: Reason | None = None) -> Node:
        reason = why or reason_for(self.frame)
        if reason.by == SCOPE:
            self.frame.pin()
        self._set_param(cancelled=reason.fields(), waited=self.execution.now() - self._planned_at)
        with CancelScope(shield=True):
            record = await insist(partial(self.create, self._request(0)))
        return self._node(record)

    async def _create_interrupted(self, cancellation: BaseException) -> Promise | None:
        if self.execution.interrupted() or self.frame.settles_before(self.execution.now()):
            return None
        node = await self.open_cancelled()
        if self._cancellation(node.record) is not None:
            return None
        # The choice was on record already: it stands, and the cancellation stays owed.
        lane_of(self.frame).owe(Owed.of(cancellation))
        return node.record

    def _cancellation(self, record: Promise) -> tuple[Reason, int] | None:
        """Return the reason and the waited milliseconds that were recorded in place of a choice, or None."""
        content = content_of(record, self.execution.codec)
        reason, waited_ms = Reason.of(content.get("cancelled")), count_of(content.get("waited"))
        return None if reason is None else (reason, waited_ms or 0)

    def _numbered(self) -> Mapping[str, str]:
        # A choice is not a call: its return to the task is what the order records.
        return {}

    def _same_call(self, record: Promise) -> bool:
        codec = self.execution.codec
        return identity_of(record, codec).operation == str(codec.decode(self.param)["fact"])

    def _timeout_at(self, now: int) -> int:
        del now
        # An instant that is in the past by the server's clock, so that the promise is born resolved.
        return self.frame.record.created_at

    def _node(self, record: Promise) -> External:
        return External(execution=self.execution, caller=self.frame, record=record, replayed=True)
