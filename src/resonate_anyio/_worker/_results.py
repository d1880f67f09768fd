"""`Results`: waiting for the outcome of a promise outside of durable functions.

The record of an execution in this process is at hand when it ends. The outcome of any other promise comes in a message
or in an answer of the server.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define, field

from .._errors import NetworkError, NonDeterminismError, NotRunning, StoreError, StoreLost
from .._requests._subscriptions import STOPPED
from .._workflow._host import Drop

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from .._execution._execution import Execution
    from .._protocol import Promise
    from .._requests._subscriptions import Subscriptions
    from ._rechecks import Rechecks


@define(eq=False, repr=False)
class Results:
    """See the module's docstring.

    Attributes:
        halted: the errors of the executions whose replay was halted here, by id, until they are resumed.
    """

    _subscriptions: Subscriptions
    _rechecks: Rechecks
    _executions: Container[str]
    halted: dict[str, NonDeterminismError] = field(factory=dict, init=False)
    _waiters: dict[str, int] = field(factory=dict, init=False)
    _delivered: set[str] = field(factory=set, init=False)

    async def settled(self, id: str, execution: Execution | None) -> Promise:
        """Wait until `id` is settled, and return its record.

        Raises:
            NonDeterminismError: the replay of the execution was halted here.
            NotRunning: the worker stops before that.
        """
        with self._counted(id):
            record = await self._settled(id, execution)
        if id in self._executions:
            # A message came before the end of the execution.
            self._delivered.add(id)
        return record

    @contextmanager
    def _counted(self, id: str) -> Iterator[None]:
        self._waiters[id] = self._waiters.get(id, 0) + 1
        try:
            yield
        finally:
            if left := self._waiters.pop(id) - 1:
                self._waiters[id] = left

    def on_ended(self, id: str) -> bool:
        """Note the end of an execution here. Return whether code of this process waits for it, or has its outcome."""
        delivered = id in self._delivered
        self._delivered.discard(id)
        return delivered or id in self._waiters

    def halt(self, id: str, error: NonDeterminismError) -> None:
        """Raise `error` in the code that waits for the execution `id`."""
        self.halted[id] = error
        self._subscriptions.wake()

    def resumed(self, id: str) -> None:
        """Forget why the execution `id` was halted."""
        self.halted.pop(id, None)

    async def _settled(self, id: str, execution: Execution | None) -> Promise:
        if execution is not None:
            crash = await self._end_of(execution)
            if not execution.root.pending:
                return execution.root.record
            if crash is not None:
                raise crash
        return await self._settled_elsewhere(id)

    async def _end_of(self, execution: Execution) -> Exception | None:
        """Wait until an execution has ended here. Return the error that it crashed with during this wait, if any.

        A crashed execution is tried again, so later waits continue as usual.
        """
        crash: BaseException | None = None
        while not execution.ended.is_set():
            self._check_halted(execution.id)
            await self._subscriptions.wait(execution.ended)
            crash = execution.error if execution.dropped is Drop.CRASHED else None
        self._check_halted(execution.id)
        return crash if isinstance(crash, Exception) else None

    async def _settled_elsewhere(self, id: str) -> Promise:
        with self._subscriptions.inbox(id) as inbox:
            record = await self._register_listener(id)
            if record.pending:
                self._rechecks.ask_at_deadline(record)
            while record.pending:
                self._check_halted(id)
                await self._subscriptions.wait(inbox.changed)
                record = inbox.take() or record
            return record

    async def _register_listener(self, id: str) -> Promise:
        try:
            return await self._rechecks.register_listener(id)
        except StoreLost:
            raise
        except (NetworkError, StoreError) as exc:
            # A stopping worker gives up early, and its connection is closed in the end.
            if self._subscriptions.stopping:
                raise NotRunning(STOPPED) from exc
            raise

    def _check_halted(self, id: str) -> None:
        error = self.halted.get(id)
        if error is not None:
            raise NonDeterminismError(*error.args)
