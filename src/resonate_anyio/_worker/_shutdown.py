"""`Shutdown`: ending everything that a worker runs, in one order (docs/semantics.md 9.4).

1. The message stream is closed, so that the server sends to other workers.
2. Executions that only wait are suspended and evicted. They continue, on any worker, when an awaited promise settles.
3. Running leaves get a grace period, in which no other call begins. Their outcomes are recorded.
4. All other executions are evicted: nothing more is recorded, and they continue from their last record.
5. Each lease is released once the code of its execution has ended. Code that does not end keeps its lease until that
   lapses, so that no other worker runs it at the same time. It is named in the log, and waited for.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event, create_task_group, move_on_after
from attrs import define, field

from .._concurrency._supervisor import all_begun
from .._concurrency._tasks import TaskSnapshot, joins, stack_of
from .._execution._lives import mark_stopped
from .._workflow._frame import Frame
from .._workflow._host import Drop
from .._workflow._lanes import execution_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._concurrency._supervisor import Supervisor
    from .._execution._execution import Execution
    from .._execution._services import Services
    from ._leases import Leases
    from ._residency import Residency
    from ._runner import Runner

logger = logging.getLogger("resonate_anyio")

_ANSWER_LIMIT: Final = 5.0
"""Seconds that all suspends together, and all releases together, may take."""
_NAMED_EVERY: Final = 5.0
"""Seconds between two warnings about code that does not end."""
_CODE_PATIENCE: Final = 0.5
"""Seconds in which cancelled code ends unless it ignores the cancellation."""


@define(eq=False, kw_only=True, repr=False)
class Shutdown:
    """See the module's docstring.

    Attributes:
        services: the port of executions.
        supervisor: owns the tasks of the worker.
        runner: runs the executions.
        residency: parks executions.
        leases: releases tasks.
        close_messages: closes the message streams.
        stop_background: makes the background tasks of the worker return, and stops its heartbeats.
        grace: seconds that running leaves get to end.
        stopped: set when nothing of the worker runs any more.
    """

    services: Services
    supervisor: Supervisor
    runner: Runner
    residency: Residency
    leases: Leases
    close_messages: Callable[[], Awaitable[None]]
    stop_background: Callable[[], None]
    grace: float
    stopped: Event = field(factory=Event, init=False)
    _running: bool = field(default=False, init=False)
    _hurried: bool = field(default=False, init=False)
    _waited_in_hurry: bool = field(default=False, init=False)
    _changed: Event = field(factory=Event, init=False)

    # The stop as a whole

    async def stop(self) -> None:
        """Stop the worker, and return when it has stopped. A second call waits for the first.

        A task of the worker does the work, so that it continues if the caller is interrupted.
        """
        self.begin()
        with CancelScope(shield=True):
            await all_begun()
            # After an interrupt of the program that task may never begin.
            await self._run()
            await self.stopped.wait()

    def begin(self) -> None:
        """Begin to stop, if that has not begun."""
        if not self.services.draining:
            self.services.subscriptions.begin_to_stop()
            self.supervisor.start_last(self._run, name=f"resonate {self.services.identity.pid} stop")

    def hurry(self) -> None:
        """End the grace period, and release leases without waiting for code that does not end."""
        self._hurried = True
        self.look_again()

    def look_again(self) -> None:
        """Look again whether what the stop waits for has ended."""
        self._changed.set()

    async def _run(self) -> None:
        if self._running:
            return
        self._running = True
        try:
            await self._run_phases()
        except BaseException:
            # The program was interrupted once more.
            self.hurry()
            await self._run_phases()
            raise
        finally:
            # Whatever has failed, code that waits for the end must not wait for ever.
            await self._finish()

    async def _run_phases(self) -> None:
        await self.close_messages()
        await self._suspend()
        await self._grant_grace()
        await self._unload_and_release()

    async def _finish(self) -> None:
        for execution in list(self.runner.executions.values()):
            execution.drop(Drop.UNLOADED)
        self.services.subscriptions.stop()
        self.stop_background()
        try:
            await self.supervisor.wait_idle()
            await self._release_idle()
        finally:
            self.stopped.set()

    # Its phases

    async def _suspend(self) -> None:
        """Suspend and evict the executions that only wait."""
        executions = self.runner.executions
        self.residency.park_all()
        await all_begun()
        for execution in list(executions.values()):
            execution.suspension.abandon_unbegun()
        with move_on_after(_ANSWER_LIMIT):
            for execution in list(executions.values()):
                await execution.suspension.wait_transferred()
        for execution in list(executions.values()):
            execution.suspension.give_up()
            await execution.suspension.wait_transferred()
            if execution.suspension.unleased:
                execution.drop(Drop.UNLOADED)

    async def _grant_grace(self) -> None:
        """Wait until no leaf runs, for the grace period at most."""
        executions = self.runner.executions
        for execution in executions.values():
            execution.presence.tell_leaf_ended(self.look_again)
        await self._wait_while(lambda: not self._hurried and any(each.busy for each in executions.values()), self.grace)

    async def _unload_and_release(self) -> None:
        """Evict all other executions, and release each lease when the code has ended."""
        remaining = list(self.runner.executions.values())
        for execution in remaining:
            execution.drop(Drop.UNLOADED)
        await self.runner.forget_unstarted()
        released: set[Execution] = set()
        while remaining:
            await self._code_ended(remaining)
            ended = [each for each in remaining if each.ended.is_set()]
            await self._release(ended)
            released.update(ended)
            remaining = [each for each in remaining if not each.ended.is_set()]
            _log_stuck(remaining)
        await self._release([each for each in self.runner.interrupted if each not in released])

    async def _release_idle(self) -> None:
        """Release the tasks whose execution, or whose release, an interrupt has prevented."""
        with move_on_after(_ANSWER_LIMIT):
            for id, version in list(self.leases.idle.items()):
                await self.leases.release(id, version)

    async def _code_ended(self, executions: list[Execution]) -> None:
        """Wait until all code has ended, or until it is time to release the leases of the code that has."""

        def at_work() -> bool:
            return not all(each.ended.is_set() for each in executions)

        await self._wait_while(lambda: at_work() and not self._hurried, _NAMED_EVERY)
        if self._hurried:
            await self._wait_while(at_work, _NAMED_EVERY if self._waited_in_hurry else _CODE_PATIENCE)
            self._waited_in_hurry = True

    async def _wait_while(self, condition: Callable[[], bool], limit: float) -> None:
        with move_on_after(limit):
            while condition():
                self._changed = Event()
                await self._changed.wait()

    # Leases

    async def _release(self, executions: list[Execution]) -> None:
        with move_on_after(_ANSWER_LIMIT) as limit:
            async with create_task_group() as tasks:
                for execution in executions:
                    execution.suspension.abandon_unbegun()
                    if self._has_lease_to_release(execution):
                        tasks.start_soon(self._put_away, execution)
        if limit.cancelled_caught:
            logger.warning("worker.release_timeout pid=%s", self.services.identity.pid)

    async def _put_away(self, execution: Execution) -> None:
        await mark_stopped(self.services, execution.root.record, execution.version)
        await self.leases.release(execution.id, execution.version)

    def _has_lease_to_release(self, execution: Execution) -> bool:
        if execution.dropped in {Drop.SETTLED, Drop.LOST, Drop.HALTED} or execution.suspension.unleased:
            return False
        owners = self.services.facilities.threads.owners
        abandoned = [leaf for leaf in owners if isinstance(leaf, Frame) and leaf.execution is execution]
        for leaf in abandoned:
            logger.warning("worker.thread_abandoned id=%s func=%s its thread runs on", leaf.id, leaf.function.name)
        # A leaf whose outcome is recorded does not run again while its thread still runs.
        return not any(leaf.pending for leaf in abandoned)


def _log_stuck(executions: list[Execution]) -> None:
    for execution in executions:
        tasks = TaskSnapshot(execution_in).tasks_of(execution, execution.task)
        logger.warning(
            "worker.stuck id=%s its code does not end; it is waited for, and keeps its lease\n%s",
            execution.id,
            "".join(stack_of(task) for task in tasks if not joins(task)),
        )
