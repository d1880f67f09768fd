"""`CancelCascade`: ending what is still pending below a promise that was settled from outside.

The promise itself is settled first, so that nobody can be told to run it any more. Whoever ran it may have had a
request under way just then, so the descendants are looked through until none is pending, and once more after a while.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from anyio import move_on_after
from attrs import define, field

from .._errors import RequestError, ResonateError
from .._protocol import Promise, PromiseSettle, PromiseState
from .._requests._queries import MAY_NOT_SEARCH, descendants, promise_of
from .._workflow._host import Drop
from .._workflow._reasons import PARENT, Reason

if TYPE_CHECKING:
    from .._execution._execution import Execution
    from ._worker import Worker

logger = logging.getLogger("resonate_anyio")

_AGAIN_AFTER: Final = 2.0
_CODE_PATIENCE: Final = 1.0
"""Seconds that local code is given to end before what is below it is settled; it can write nothing any more."""


@define(eq=False)
class CancelCascade:
    """See the module's docstring."""

    _worker: Worker
    _under_way: set[str] = field(factory=set, init=False)

    def begin(self, id: str) -> None:
        """Sweep below `id` in the background."""
        self._worker.background(self._insist, id, name=f"resonate sweep {id}")

    def settled(self, record: Promise) -> None:
        """Note what a promise was settled with from here, if it runs here: the log tells it."""
        if execution := self._worker.executions.get(record.id):
            execution.settled_by_cascade(record)

    async def end(self, id: str) -> None:
        """End the local code of a promise that was settled, and cancel every pending descendant, in id order.

        Detached subtrees are left alone.

        Raises:
            ResonateError: there was no answer, or a refusal.
        """
        for execution in self._worker.executions.values():
            execution.end_call(id)
        await self._end_local([id])
        await self._sweep(id)
        if id not in self._under_way:
            self._under_way.add(id)
            self._worker.background(self._once_more, id, name=f"resonate sweep {id}")

    async def _sweep(self, id: str) -> None:
        ask = self._worker.ask
        value = Reason(PARENT).encode(self._worker.codec)
        while pending := [record.id for record in await self._descendants(id) if record.pending]:
            for each in pending:
                request = PromiseSettle(id=each, state=PromiseState.CANCELED, value=value)
                self.settled(promise_of(request, await ask(request), each))
            await self._end_local(pending)

    async def _descendants(self, id: str) -> list[Promise]:
        try:
            return await descendants(self._worker.ask, id, self._worker.separators)
        except RequestError as exc:
            if exc.status not in MAY_NOT_SEARCH:
                raise
            logger.warning(
                "sweep.not_allowed id=%s: the server does not let this client search (%s), so what was called by it "
                "elsewhere runs on, until its deadline at most",
                id,
                exc,
            )
            return []

    async def _end_local(self, ids: list[str]) -> None:
        """End the executions of these roots that are here, and give their code a moment to be gone."""
        ended: list[Execution] = []
        for id in ids:
            if execution := self._worker.executions.get(id):
                execution.drop(Drop.SETTLED)
                ended.append(execution)
        with move_on_after(_CODE_PATIENCE):
            for execution in ended:
                await execution.ended.wait()

    async def _once_more(self, id: str) -> None:
        await self._worker.subscriptions.pause(_AGAIN_AFTER)
        self._under_way.discard(id)
        await self._insist(id, again=False)

    async def _insist(self, id: str, *, again: bool = True) -> None:
        backoff = self._worker.subscriptions.backoff()
        while not self._worker.draining:
            try:
                await (self.end(id) if again else self._sweep(id))
            except ResonateError as exc:
                logger.warning("sweep.unanswered id=%s retry_in=%.1f reason=%r", id, backoff.delay, exc)
                await backoff.pause()
            else:
                return
