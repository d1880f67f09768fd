"""`CancelCascade`: cancelling all pending calls below a promise that was settled from outside.

The promise itself is settled first, so that the server sends its task to no worker any more. Its last holder may have
had a request under way at that moment. So the descendants are searched until none is pending, and once more later.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from anyio import move_on_after
from attrs import define, field

from .._errors import RequestError, ResonateError
from .._ids import SEPARATORS
from .._protocol import Promise, PromiseSettle, PromiseState
from .._requests._queries import MAY_NOT_SEARCH, descendants, promise_of
from .._workflow._host import Drop
from .._workflow._reasons import PARENT, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._execution._execution import Execution
    from .._execution._services import Services

logger = logging.getLogger("resonate_anyio")

_AGAIN_AFTER: Final = 2.0
"""Seconds until the descendants are searched once more."""
_CODE_PATIENCE: Final = 1.0
"""Seconds that local code gets to end before the calls below it are settled. It can record nothing any more."""


@define(eq=False, repr=False)
class CancelCascade:
    """See the module's docstring."""

    _services: Services
    _executions: Mapping[str, Execution]
    _to_repeat: set[str] = field(factory=set, init=False)

    def start(self, id: str) -> None:
        """Cancel everything below `id` in the background, and try until that is done."""
        self._services.background(self._try_until_done, id, name=f"resonate cancel below {id}")

    def note_settlement(self, record: Promise) -> None:
        """Note the record that a request of this worker has settled, for the log, if its execution is here."""
        if execution := self._executions.get(record.id):
            execution.settled_by_cascade(record)

    async def run(self, id: str) -> None:
        """End the local code of a settled promise, and cancel every pending descendant, in the order of their ids.

        Detached calls are left alone.

        Raises:
            ResonateError: a request was not answered, or was refused.
        """
        for execution in self._executions.values():
            execution.end_call(id)
        await self._end_local([id])
        await self._cancel_descendants(id)
        if id not in self._to_repeat:
            self._to_repeat.add(id)
            self._services.background(self._repeat, id, name=f"resonate cancel below {id}")

    async def _cancel_descendants(self, id: str) -> None:
        ask = self._services.requester.request_with_retries
        value = Reason(PARENT).encode(self._services.facilities.codec)
        while pending := [record.id for record in await self._descendants(id) if record.pending]:
            for each in pending:
                request = PromiseSettle(id=each, state=PromiseState.CANCELED, value=value)
                self.note_settlement(promise_of(request, await ask(request), each))
            await self._end_local(pending)

    async def _descendants(self, id: str) -> list[Promise]:
        try:
            return await descendants(self._services.requester.request_with_retries, id, self._separators())
        except RequestError as exc:
            if exc.status not in MAY_NOT_SEARCH:
                raise
            logger.warning(
                "sweep.not_allowed id=%s: the server does not let this client search (%s), so the calls that it made "
                "to other workers continue until their deadlines",
                id,
                exc,
            )
            return []

    def _separators(self) -> Sequence[str]:
        """Return the separators that ids of descendants may have: that of this worker first.

        A server that does not interpret ids lets each SDK have its own.
        """
        connection, own = self._services.connection, self._services.separator
        others = connection.dialect.origins_mix and not connection.keeps_leases
        return (own, *(SEPARATORS - {own} if others else ()))

    async def _end_local(self, ids: list[str]) -> None:
        """Drop the executions of these roots that are here, and give their code a moment to end."""
        dropped: list[Execution] = []
        for id in ids:
            if execution := self._executions.get(id):
                execution.drop(Drop.SETTLED)
                dropped.append(execution)
        with move_on_after(_CODE_PATIENCE):
            for execution in dropped:
                await execution.ended.wait()

    async def _repeat(self, id: str) -> None:
        await self._services.subscriptions.pause(_AGAIN_AFTER)
        self._to_repeat.discard(id)
        await self._try_until_done(id, again=False)

    async def _try_until_done(self, id: str, *, again: bool = True) -> None:
        backoff = self._services.subscriptions.backoff()
        while not self._services.draining:
            try:
                await (self.run(id) if again else self._cancel_descendants(id))
            except ResonateError as exc:
                logger.warning("sweep.unanswered id=%s retry_in=%.1f reason=%r", id, backoff.delay, exc)
                await backoff.pause()
            else:
                return
