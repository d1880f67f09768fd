"""`Runner`: runs the executions of acquired tasks, each in a task of its own, and does what its end requires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from .._concurrency._interrupts import interrupt_in
from .._concurrency._supervisor import all_begun
from .._errors import NonDeterminismError
from .._execution import _events
from .._execution._lives import mark_stopped
from .._protocol import PromiseState, TaskHalt
from .._workflow._host import Drop

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._concurrency._supervisor import Supervisor
    from .._execution._execution import Execution
    from .._execution._services import Services
    from ._leases import Leases
    from ._residency import Residency
    from ._results import Results


@define(eq=False, kw_only=True, repr=False)
class Runner:
    """See the module's docstring.

    Attributes:
        services: the port of executions.
        supervisor: owns the tasks of the worker.
        executions: the executions in this process, by the ids of their roots.
        leases: releases the tasks of executions that have crashed.
        residency: parks and evicts executions.
        results: raises the error of a halted execution in the code that waits for it.
        when_ended: called when an execution has ended.
        interrupted: executions that were dropped because the program ends; the stop releases their leases.
    """

    services: Services
    supervisor: Supervisor
    executions: dict[str, Execution]
    leases: Leases
    residency: Residency
    results: Results
    when_ended: Callable[[], None]
    interrupted: list[Execution] = field(factory=list, init=False)

    def start(self, execution: Execution) -> None:
        """Run an execution whose task was acquired."""
        self.executions[execution.id] = execution
        self.residency.young.add(execution)
        observers = self.services.facilities.observers
        observers.refresh()
        if observers.lives:
            _events.execution_started(execution)
        self.supervisor.spawn_bare(self._run, execution, name=f"resonate {execution.id}")

    async def _run(self, execution: Execution) -> None:
        with self.supervisor.begun():
            cut_short = True
            try:
                try:
                    try:
                        await execution.run()
                    except Exception as exc:  # noqa: BLE001 - it is a crash of this execution, not of all
                        execution.drop(Drop.CRASHED, exc)
                    except BaseException as exc:
                        execution.interrupt(exc)
                        raise
                    if execution.dropped is Drop.HALTED:
                        await self._halt(execution)
                finally:
                    awaited = self.results.on_ended(execution.id)
                    self._forget(execution)
                    self.when_ended()
                await self._after_end(execution, awaited=awaited)
                cut_short = execution.dropped is Drop.INTERRUPTED or self.services.torn_down
            except BaseException as exc:
                # During a teardown the event loop was left by an interrupt already. A second one would disturb its end.
                if interrupt_in(exc) is None or not self.services.torn_down:
                    raise
            finally:
                if cut_short:
                    self.interrupted.append(execution)

    async def _after_end(self, execution: Execution, *, awaited: bool) -> None:
        self.services.facilities.observers.refresh()
        _tell_end(execution, awaited=awaited)
        if execution.ended_by is not None:
            # The interrupt ends the program, even if code on its way has caught it.
            raise execution.ended_by
        if execution.dropped is Drop.CRASHED:
            if self.services.facilities.observers.failures:
                _events.execution_dropped(execution)
            await mark_stopped(self.services, execution.root.record, execution.version)
            await self.leases.hand_back(execution.id, execution.version, repr(execution.error))
        else:
            self.leases.ended(execution.id)

    async def _halt(self, execution: Execution) -> None:
        assert isinstance(execution.error, NonDeterminismError)
        if self.services.facilities.observers.failures:
            _events.execution_halted(execution)
        await self.services.requester.request_until_answered(TaskHalt(id=execution.id))
        self.results.halt(execution.id, execution.error)

    def _forget(self, execution: Execution) -> None:
        self.executions.pop(execution.id, None)
        execution.lease.end()
        self.residency.on_ended(execution)
        execution.ended.set()

    async def forget_unstarted(self) -> None:
        """End the executions whose tasks never begin, because an interrupt came first."""
        await all_begun()
        for execution in list(self.executions.values()):
            if execution.task is None:
                execution.drop(Drop.UNLOADED)
                self._forget(execution)


def _tell_end(execution: Execution, *, awaited: bool) -> None:
    if execution.dropped is not Drop.SETTLED and not execution.root.pending:
        # This includes an execution that was dropped after its outcome was recorded.
        _tell_outcome(execution, awaited=awaited)
        return
    match execution.dropped:
        case None | Drop.HALTED | Drop.CRASHED:
            # Events of halts and crashes are made where these are handled.
            pass
        case Drop.SETTLED:
            _tell_outcome(execution, awaited=awaited)
        case Drop.UNLOADED | Drop.LOST | Drop.INTERRUPTED:
            if execution.facilities.observers.lives:
                _events.execution_dropped(execution)


def _tell_outcome(execution: Execution, *, awaited: bool) -> None:
    observers = execution.facilities.observers
    # The log writes failures at levels that are usually enabled.
    if observers.lives or (observers.failures and execution.root.record.state is not PromiseState.RESOLVED):
        _events.execution_ended(execution, awaited=awaited)
