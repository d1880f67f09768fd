"""`Journal`: the writer of one execution's records.

Local calls are recorded without a fence, since each answer to a fenced request contains the whole branch. A call that
runs elsewhere is created only while this worker holds the task. The root is settled together with its task
(docs/distribution.md 1.2 and 1.4).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from anyio import CancelScope, Event, move_on_after
from attrs import define

from .._errors import ResonateError
from .._finished import as_call
from .._protocol import (
    EMPTY,
    Promise,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    PromiseState,
    Request,
    Response,
    TaskFence,
    TaskFulfill,
    Value,
)
from .._requests._queries import promise_of, refusal
from .._workflow._host import Drop, crash
from .._workflow._lanes import insist

if TYPE_CHECKING:
    from ._execution import Execution

_LARGE_BRANCH = 10_000  # a recovery then reads 3.5 MB, in a third of a second of a real server
_OF_TIMERS = frozenset({400, 422})
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 5.0
_FENCED_BRANCH_LIMIT = 100  # above it, a fence costs more bytes than an orphaned call

logger = logging.getLogger("resonate_anyio")


@define(eq=False, repr=False)
class Journal:
    """The writer of one execution's records (see the module's docstring)."""

    _execution: Execution

    async def create_local(self, request: PromiseCreate, *, again: bool = False, begun: bool = False) -> Promise:
        """Record a call that runs in this execution, and return its record.

        Args:
            request: the request.
            again: whether the call is on record already. Its present record is returned.
            begun: whether the call has begun already. Then it is recorded even while the worker stops.

        Raises:
            RequestError: `begun`, and the server refuses the request.
            TooLarge: the request is larger than the server accepts.
        """
        execution = self._execution
        response = await execution.request(request, settling=begun, finished=begun)
        if response.promise is None:
            await crash(execution, refusal(request, response))
        if not again and request.tags.get("resonate:branch") == execution.id:
            execution.count_record()
            if execution.local_records == _LARGE_BRANCH:
                self._warn_of_size()
        record = as_call(response.promise)
        execution.note_change(record.settled_at or record.created_at)
        return record

    def _warn_of_size(self) -> None:
        logger.warning(
            "execution.large id=%s local_records=%d: each recovery reads them all; give parts of the work to "
            "workflows of their own with ctx.rpc",
            self._execution.id,
            self._execution.local_records,
        )

    async def create_remote(self, request: PromiseCreate) -> Promise:
        """Record a call that runs elsewhere, if this worker still holds the task, and return its record."""
        if self._execution.local_records > _FENCED_BRANCH_LIMIT:
            return await self.create_local(request)
        execution = self._execution
        while True:
            version = execution.version
            fence = TaskFence(id=execution.id, version=version, action=request, action_id=request.id)
            response = await execution.request(fence)
            if response.status not in {404, 409}:
                break
            await execution.regain(version)
        assert response.action is not None
        if response.action.promise is None:
            raise refusal(request, response.action)
        return response.action.promise

    async def create_timer(self, request: PromiseCreate) -> Promise:
        """Record a promise whose deadline must fire even if no worker runs then, and return its record."""
        ask = partial(self._execution.request, taken=_OF_TIMERS)
        response = await self._execution.services.timer_promises.create(ask, request)
        assert response is not None
        if response.promise is None:
            raise refusal(request, response)
        return response.promise

    async def fresh(self, record: Promise) -> Promise:
        """Return the present state of `record`, which may say pending although its deadline has passed."""
        if not record.expired(self._execution.now()):
            return record
        # Its outcome is history, which is delivered even in a cancelled scope.
        return await insist(partial(self.confirm_timeout, record))

    async def confirm_timeout(self, record: Promise) -> Promise:
        """Return the record of a promise whose deadline has passed here, once it has passed at the server as well."""
        pause = _FIRST_PAUSE
        while True:
            request = PromiseGet(id=record.id)
            promise = await self._promise(request, await self._execution.request(request, settling=True))
            if not promise.pending:
                return promise
            left = (record.timeout_at - self._execution.now()) / 1000
            with move_on_after(left if left > 0 else pause):
                await self._execution.wait(Event())
            # This clock may be ahead of the server's by an unknown time.
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def settle(self, id: str, state: PromiseState, value: Value, *, finished: bool = False) -> Promise:
        """Record the end of a local call, and return its record.

        Args:
            id: the id of the call.
            state: the state to settle it in.
            value: its value or error.
            finished: whether this is the outcome of a leaf. That needs no lease: the first outcome that is recorded
                stands.

        Raises:
            RequestError: `finished`, and the server refuses this outcome.
            TooLarge: the value is larger than the server accepts.
        """
        execution, request = self._execution, PromiseSettle(id=id, state=state, value=value)
        response = await execution.request(request, settling=True, leased=not finished, finished=finished)
        if response.promise is None:
            await crash(execution, refusal(request, response))
        execution.note_change(response.promise.settled_at or 0)
        if finished:
            execution.leaf_ended()
        return as_call(response.promise)

    async def settle_late(
        self, id: str, state: PromiseState, value: Value, *, unrecorded: PromiseCreate | None = None
    ) -> None:
        """Record the outcome of a leaf although its execution was dropped, so that the leaf does not run again.

        Args:
            id: the id of the leaf.
            state: the state to settle it in.
            value: its value or error.
            unrecorded: the request that creates its promise, if that does not exist yet. Only the holder of the task
                may create it.

        Raises:
            ResonateError: the server has refused it, or has not answered for half a minute; or the task may not be held
                any more.
        """
        settle, send = PromiseSettle(id=id, state=state, value=value), self._execution.services.requester
        with CancelScope(shield=True):
            if unrecorded is not None:
                if not self._execution.lease.certain:
                    msg = "another worker may hold the task"
                    raise ResonateError(msg)
                promise_of(unrecorded, await send.request_with_retries(unrecorded), id)
            promise_of(settle, await send.request_with_retries(settle), id)

    async def fulfill(self, state: PromiseState, value: Value, *, finished: bool = False) -> Promise:
        """Record the end of the root, and return its record. For `finished` see `settle`."""
        execution = self._execution
        for id in execution.suspension.wakes:
            # A wake promise may not exist, if the request that makes it was not answered.
            await execution.request(PromiseSettle(id=id, state=PromiseState.RESOLVED, value=EMPTY), settling=True)
        # From here on the answer shows how the root was settled, and messages about it are ignored.
        execution.begin_to_fulfill()
        action = PromiseSettle(id=execution.id, state=state, value=value)
        while True:
            version = execution.version
            request = TaskFulfill(id=execution.id, version=version, action=action)
            response = await execution.request(request, settling=True, finished=finished)
            if response.status != 200:
                response = await execution.request(PromiseGet(id=execution.id), settling=True)
            promise = await self._promise(request, response)
            if not promise.pending:
                return promise
            await execution.regain(version)

    async def look_up(self, id: str) -> Promise | None:
        """Return the record of `id`, or None."""
        record = (await self._execution.request(PromiseGet(id=id))).promise
        return None if record is None else as_call(record)

    async def cancel_below(self, id: str) -> None:
        """Cancel all pending calls below a remote call that was cancelled."""
        execution = self._execution
        try:
            await insist(partial(execution.services.cancel_below, id))
        except ResonateError as exc:
            execution.drop(Drop.CRASHED, exc)
        await execution.check()

    def settled_here(self, record: Promise) -> None:
        """Note that this execution has settled a promise whose function may run in this process."""
        self._execution.services.settled_here(record)

    async def _promise(self, request: Request, response: Response) -> Promise:
        """Return the promise in an answer. If the server has lost the promise, drop the execution."""
        if response.promise is None:
            await crash(self._execution, refusal(request, response))
        return as_call(response.promise)
