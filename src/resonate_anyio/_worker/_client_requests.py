"""`ClientRequests`: what a client asks for outside durable functions: settle, cancel, resume."""

from __future__ import annotations

from functools import partial
from os import urandom
from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint
from attrs import define, evolve

from .._errors import NetworkError, NotFound, ResonateError, UsageError
from .._protocol import Promise, PromiseSettle, PromiseState, TaskContinue, Value
from .._requests._queries import get_promise, promise_of, refusal

if TYPE_CHECKING:
    from collections.abc import Container

    from .._concurrency._supervisor import Supervisor
    from .._execution._services import Services
    from ._cascade import CancelCascade
    from ._results import Results

_ENDS: Final = {
    PromiseState.RESOLVED: "it has completed",
    PromiseState.REJECTED: "it has failed",
    PromiseState.CANCELED: "it was cancelled",
    PromiseState.TIMEDOUT: "its deadline has passed",
}

_SETTLED_BY: Final = "resonate-anyio:settled-by"
"""Header of a value: the mark of the request from outside that has settled the promise with it."""


@define(eq=False, repr=False)
class ClientRequests:
    """See the module's docstring."""

    _services: Services
    _supervisor: Supervisor
    _executions: Container[str]
    _cascade: CancelCascade
    _results: Results

    async def settle(self, id: str, state: PromiseState, value: Value) -> tuple[Promise, bool]:
        """Settle `id` from outside, end its local code, and cancel the pending calls below it.

        If the caller is cancelled after the first checkpoint, all of this still runs to completion.

        Returns:
            The record, and whether this request has settled it: the first settlement stands.

        Raises:
            NotFound: there is no such promise.
        """
        await checkpoint()
        return await self._supervisor.run_to_completion(
            partial(self._settle, id, state, value), name=f"resonate settle {id}"
        )

    async def _settle(self, id: str, state: PromiseState, value: Value) -> tuple[Promise, bool]:
        # An answer does not tell which request has settled the promise: several requests may carry the same value, and
        # one request may be sent twice.
        own = {_SETTLED_BY: urandom(8).hex()}
        request = PromiseSettle(id=id, state=state, value=evolve(value, headers={**(value.headers or {}), **own}))
        record = promise_of(request, await self._services.requester.request_with_retries(request), id)
        self._cascade.note_settlement(record)
        if state is PromiseState.CANCELED or id in self._executions:
            try:
                await self._cascade.run(id)
            except NetworkError:
                # The promise is settled, so the calls below it have to be cancelled sooner or later.
                self._cascade.start(id)
        return record, (record.value.headers or {}).get(_SETTLED_BY) == own[_SETTLED_BY]

    async def resume(self, id: str) -> None:
        """Let a halted task run again.

        Raises:
            NotFound: there is no such execution.
            UsageError: it is not halted.
            RequestError: the server refuses this client.
        """
        request = TaskContinue(id=id)
        response = await self._services.connection.request(request)
        if response.status in {404, 409}:
            raise await self._not_halted(id)
        if response.status != 200:
            raise refusal(request, response)
        self._results.resumed(id)

    async def _not_halted(self, id: str) -> ResonateError:
        """Return an error that says why an execution cannot be resumed."""
        try:
            record = await get_promise(self._services.requester.request_with_retries, id)
        except NotFound:
            return NotFound("execution", id)
        if record.target is None:
            return UsageError(f"{id!r} cannot be resumed: it is a promise that no function runs for")
        if record.pending:
            return UsageError(f"{id!r} cannot be resumed: it is not halted. It runs, waits, or is about to be run")
        return UsageError(
            f"{id!r} cannot be resumed: it is not halted, {_ENDS[record.state]}, which is final. To see how it ended: "
            f"await (await resonate.get({id!r})); to do its work again, run it under another id"
        )
