"""`Shutdown`: putting away everything that a worker runs, in one order (docs/semantics.md 9.4).

1. The message stream is closed, so that the server sends elsewhere.
2. What only waits is suspended and unloaded: it goes on when what it waits for has settled, wherever that is.
3. Running leaves get a grace period, in which nothing else begins. What they have done is recorded.
4. The rest is unloaded: nothing is recorded of it, and it goes on from its last record.
5. The lease of each is released once its code has ended. Code that does not end keeps its lease until that lapses,
   so that nobody runs it beside us; it is named in the log, and waited for.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from anyio import Event, create_task_group, move_on_after
from attrs import define, field

from .._concurrency._supervisor import all_begun
from .._concurrency._tasks import Census, joins, stack_of
from .._workflow._frame import Frame
from .._workflow._host import Drop
from .._workflow._lanes import execution_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._execution._execution import Execution
    from ._worker import Worker

logger = logging.getLogger("resonate_anyio")

_ANSWER_LIMIT: Final = 5.0
"""Seconds that all suspends together, and all releases together, may take."""
_NAMED_EVERY: Final = 5.0
_MOMENT: Final = 0.5
"""Seconds in which code ends that does not resist."""


@define(eq=False)
class Shutdown:
    """See the module's docstring."""

    _worker: Worker
    _hurried: bool = field(default=False, init=False)
    _rushed: bool = field(default=False, init=False)
    _stirred: Event = field(factory=Event, init=False)

    def hurry(self) -> None:
        """Give no more grace, and let nobody wait for code that does not end."""
        self._hurried = True
        self.stir()

    def stir(self) -> None:
        """Something has ended that may be waited for."""
        self._stirred.set()

    async def run(self) -> None:
        """Do all of it."""
        await self._worker.close_messages()
        await self._suspend()
        await self._grace()
        await self._unload()

    async def _suspend(self) -> None:
        worker = self._worker
        worker.residency.park_all()
        await all_begun()
        for execution in list(worker.executions.values()):
            execution.suspension.abandon_unbegun()
        with move_on_after(_ANSWER_LIMIT):
            for execution in list(worker.executions.values()):
                await execution.suspension.wait_transferred()
        for execution in list(worker.executions.values()):
            execution.suspension.give_up()
            await execution.suspension.wait_transferred()
            if execution.suspension.unleased:
                execution.drop(Drop.UNLOADED)

    async def _grace(self) -> None:
        executions = self._worker.executions
        for execution in executions.values():
            execution.presence.tell_leaf_ended(self.stir)
        await self._wait_while(
            lambda: not self._hurried and any(each.busy for each in executions.values()), self._worker.grace
        )

    async def _unload(self) -> None:
        remaining = list(self._worker.executions.values())
        for execution in remaining:
            execution.drop(Drop.UNLOADED)
        await self._worker.forget_unstarted()
        released: set[Execution] = set()
        while remaining:
            await self._code_ended(remaining)
            ended = [each for each in remaining if each.ended.is_set()]
            await self._release(ended)
            released.update(ended)
            remaining = [each for each in remaining if not each.ended.is_set()]
            self._name(remaining)
        await self._release([each for each in self._worker.interrupted if each not in released])

    async def release_idle(self) -> None:
        """Release what an interrupt has kept from being run, or from being given back, when no task is left."""
        leases = self._worker.leases
        with move_on_after(_ANSWER_LIMIT):
            for id, version in list(leases.idle.items()):
                await leases.release(id, version)

    async def _code_ended(self, executions: list[Execution]) -> None:
        """Wait until all code has ended, or it is time to see to what has."""

        def at_work() -> bool:
            return not all(each.ended.is_set() for each in executions)

        await self._wait_while(lambda: at_work() and not self._hurried, _NAMED_EVERY)
        if self._hurried:
            await self._wait_while(at_work, _NAMED_EVERY if self._rushed else _MOMENT)
            self._rushed = True

    async def _wait_while(self, condition: Callable[[], bool], limit: float) -> None:
        with move_on_after(limit):
            while condition():
                self._stirred = Event()
                await self._stirred.wait()

    async def _release(self, executions: list[Execution]) -> None:
        with move_on_after(_ANSWER_LIMIT) as limit:
            async with create_task_group() as tasks:
                for execution in executions:
                    execution.suspension.abandon_unbegun()
                    if self._has_lease_to_release(execution):
                        tasks.start_soon(self._worker.leases.release, execution.id, execution.version)
        if limit.cancelled_caught:
            logger.warning("worker.release_timeout pid=%s", self._worker.identity.pid)

    def _has_lease_to_release(self, execution: Execution) -> bool:
        if execution.dropped in {Drop.SETTLED, Drop.LOST, Drop.HALTED} or execution.suspension.unleased:
            return False
        owners = self._worker.threads.owners
        abandoned = [leaf for leaf in owners if isinstance(leaf, Frame) and leaf.execution is execution]
        for leaf in abandoned:
            logger.warning("worker.thread_abandoned id=%s func=%s its thread runs on", leaf.id, leaf.function.name)
        # What is on record will not be run again beside the thread.
        return not any(leaf.pending for leaf in abandoned)

    @staticmethod
    def _name(executions: list[Execution]) -> None:
        for execution in executions:
            tasks = Census(execution_in).tasks_of(execution, execution.task)
            logger.warning(
                "worker.stuck id=%s its code does not end; it is waited for, and keeps its lease\n%s",
                execution.id,
                "".join(stack_of(task) for task in tasks if not joins(task)),
            )
