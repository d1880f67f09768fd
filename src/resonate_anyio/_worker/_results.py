"""`Results`: what came of promises, for those who wait outside of durable functions.

An execution that runs here tells its result itself; of any other promise a message tells, or the server.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field

from .._errors import NetworkError, NonDeterminismError, NotRunning, StoreError, StoreLost
from .._protocol import Promise
from .._requests._subscriptions import STOPPED
from .._workflow._host import Drop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._execution._execution import Execution
    from ._worker import Worker


@define(eq=False)
class Results:
    """See the module's docstring.

    Attributes:
        halted: the executions whose replay was halted here, each with the reason, until they are resumed.
    """

    _worker: Worker
    halted: dict[str, NonDeterminismError] = field(factory=dict, init=False)
    _waiters: dict[str, int] = field(factory=dict, init=False)
    _delivered: set[str] = field(factory=set, init=False)

    async def settled(self, id: str, execution: Execution | None) -> Promise:
        """Wait until `id` has settled, and return its record.

        Raises:
            NonDeterminismError: its replay here has been halted.
            NotRunning: the worker stops before that.
        """
        with self._subscriptions(id):
            record = await self._settled(id, execution)
        if id in self._worker.executions:
            # A message was quicker than the execution, which has yet to end.
            self._delivered.add(id)
        return record

    @contextmanager
    def _subscriptions(self, id: str) -> Iterator[None]:
        self._waiters[id] = self._waiters.get(id, 0) + 1
        try:
            yield
        finally:
            if left := self._waiters.pop(id) - 1:
                self._waiters[id] = left

    def ended(self, id: str) -> bool:
        """An execution is over here. Returns whether code of this process waits for it, or has been told of its end."""
        told = id in self._delivered
        self._delivered.discard(id)
        return told or id in self._waiters

    async def _settled(self, id: str, execution: Execution | None) -> Promise:
        if execution is not None:
            crash = await self._end_of(execution)
            if not execution.root.pending:
                return execution.root.record
            if crash is not None:
                raise crash
        return await self._settled_elsewhere(id)

    async def _end_of(self, execution: Execution) -> Exception | None:
        """Wait until an execution runs here no more. Gives what it crashed with, if that is news: it is tried again."""
        crash: BaseException | None = None
        while not execution.ended.is_set():
            self._check_halted(execution.id)
            await self._worker.subscriptions.wait(execution.ended)
            crash = execution.error if execution.dropped is Drop.CRASHED else None
        self._check_halted(execution.id)
        return crash if isinstance(crash, Exception) else None

    async def _settled_elsewhere(self, id: str) -> Promise:
        with self._worker.subscriptions.inbox(id) as inbox:
            record = await self._register_listener(id)
            if record.pending:
                self._worker.ask_at_deadline(record)
            while record.pending:
                self._check_halted(id)
                await self._worker.subscriptions.wait(inbox.changed)
                record = inbox.take() or record
            return record

    async def _register_listener(self, id: str) -> Promise:
        try:
            return await self._worker.register_listener(id)
        except StoreLost:
            raise
        except (NetworkError, StoreError) as exc:
            # A worker that stops does not ask for long, and has no connection in the end.
            if self._worker.draining:
                raise NotRunning(STOPPED) from exc
            raise

    def _check_halted(self, id: str) -> None:
        error = self.halted.get(id)
        if error is not None:
            raise NonDeterminismError(*error.args)
