"""`Lifecycle`: the start, the run and the stop of a `Resonate` object."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING

import anyio
from anyio import create_task_group, get_cancelled_exc_class
from anyio.lowlevel import current_token
from attrs import frozen

from .._api._context import Context
from .._codec import Codec
from .._concurrency._tasks import caller
from .._errors import NotRunning, UsageError
from .._functions._dependencies import Dependencies
from .._functions._registry import Registry
from .._ids import prefix_refusal
from .._values import ValueObject
from .._worker._face import Face
from .._worker._settings import Settings
from ..abc import Network
from ._host import Host, sole
from ._worlds import check_world

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Lifecycle:
    """The start, the run and the stop of a `Resonate` object, which inherits from this.

    One start is one `Host`. Calls and handles reach the worker of the present start with `_worker_for`.
    """

    def __init__(self, settings: Settings, network: Network, codec: Codec) -> None:
        self._settings = settings
        self._network = network
        self._codec = codec
        self._registry = Registry()
        self._dependencies = Dependencies()
        self._host: Host | None = None
        self._block: AsyncExitStack | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._check_idle("async with resonate")
        host = self._host = self._new_host(alone=False)
        failure: BaseException | None = None
        try:
            async with AsyncExitStack() as stack:
                tasks = await stack.enter_async_context(create_task_group())
                tasks.start_soon(host.run, name=host.name)
                failure = await host.begun()
                if failure is None:
                    self._block = stack.pop_all()
        finally:
            if self._block is None:
                self._host = None
        # Raised outside of the task group, which would wrap it.
        if failure is not None:
            raise failure
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After `stop` no task is left. The exception of the block is kept away from the task group inside, which would
        # wrap it.
        assert self._host is not None
        assert self._block is not None
        try:
            try:
                await self._host.stop()
            finally:
                await self._block.aclose()
        except BaseExceptionGroup as group:
            raise sole(group) from None
        finally:
            self._host = self._block = None

    async def start(self) -> Self:
        """Start it without a block: for notebooks, fixtures of tests, and frameworks with a hook for start and stop.

        It runs in a task of its own until any task of the event loop calls `stop()`. If the loop ends first, it is
        stopped then, with a `ResourceWarning`. A failure meanwhile is logged; `serve()` and `stop()` raise it, and
        other calls raise `NotRunning`.

        Returns:
            The object itself.

        Raises:
            UsageError: it is running already.
            StoreError: the database file cannot be used (`StoreInUse`: another engine owns it).
            RequestError: the server refuses this client, e.g. its token.
        """
        self._check_idle("resonate.start()")
        self._failure = None
        host = self._host = self._new_host(alone=True)
        host.spawn()
        failure = await host.begun()
        if failure is not None:
            self._failure = None
            raise failure
        return self

    async def stop(self) -> None:
        """Stop in order, as leaving the block does, and return when that is done and the file is closed.

        Any task of the event loop may call it, after `start()` or inside a block, and may call it again. Tasks of this
        process that wait for a result get `NotRunning`. After that the object can be started again: at once if it was
        started with `start()`, and after its block has been left otherwise.

        Raises:
            NotRunning: it runs in another event loop.
            BaseException: the failure that had ended it before, after `start()`. It is raised once.
        """
        check_world("resonate.stop()", None)
        host = self._host
        if host is not None:
            self._check_loop(host)
            await host.stop()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _new_host(self, *, alone: bool) -> Host:
        return Host(
            name=f"<Resonate {self._settings.group}/{self._settings.pid}>",
            open=self._open,
            refuse=lambda worker: prefix_refusal(self._settings.prefix, worker.separator),
            when_begun=self._when_begun,
            when_ended=self._when_ended if alone else lambda _: None,
            alone=alone,
            started_at=caller(),
        )

    def _when_begun(self, worker: Face) -> None:
        # Functions may have been registered while it was starting.
        for name in self._registry.bare_names:
            worker.registered(name)

    def _when_ended(self, host: Host) -> None:
        self._host = None
        failure = host.failure
        # Groups show the tasks that it passed through, which the log has as well.
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        self._failure = None if isinstance(failure, get_cancelled_exc_class()) else failure

    def _check_idle(self, call: str) -> None:
        check_world(call, None)
        host = self._host
        if host is None:
            return
        if host.process != os.getpid():
            msg = f"{call}: this Resonate object was started before a fork; make another one in this process"
        elif host.token != current_token():
            msg = f"{call}: this Resonate object is running already, in another event loop; make one for each loop"
        else:
            msg = (
                f"{call}: this Resonate object is running already; it is started once at a time, and ended by "
                f"await resonate.stop() or by leaving its block. For a second one make another object"
            )
        raise UsageError(msg)

    def _open(self) -> AbstractAsyncContextManager[Face]:
        return Face.open(self._network, self._settings, self._registry, self._codec, self._dependencies, Context)

    async def serve(self) -> None:
        """Run until it is stopped: by `stop()`, by a cancellation, or by SIGINT or SIGTERM.

        A second signal ends the grace of running leaves, and releases the leases of executions that have ended while
        other code still does not end. A third signal is handled by the interpreter. No other function of this package
        installs signal handlers.

        Raises:
            BaseException: the failure that has ended it, after `start()`. In a block, such a failure ends the block.
        """
        check_world("resonate.serve()", None)
        worker, host = self._worker(), self._host
        assert host is not None
        async with create_task_group() as tasks:
            tasks.start_soon(_stop_on_signal, worker)
            await host.ended.wait()
            tasks.cancel_scope.cancel()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _tell_worker(self, name: str) -> None:
        """Report a new function to the worker, if there is one: it may run what waits for that function."""
        running = self._running
        if running is not None and running.host.process == os.getpid():
            running.worker.registered(name)

    def _worker_for(self, call: str, instead: str | None) -> Face:
        """Return the worker, for a call that is only allowed outside of durable functions."""
        check_world(call, instead)
        return self._worker()

    def _worker(self) -> Face:
        running = self._running
        if running is None:
            raise NotRunning(self._why_not_running()) from self._failure
        self._check_loop(running.host)
        if running.worker.draining:
            msg = "this Resonate object has been stopped; leave its block and enter it again"
            if running.host.alone:
                msg = "this Resonate object is being stopped; await resonate.start() when that has ended"
            raise NotRunning(msg)
        return running.worker

    @property
    def _running(self) -> _Running | None:
        host = self._host
        return None if host is None or host.worker is None else _Running(host.worker, host)

    def _why_not_running(self) -> str:
        if self._failure is not None:
            return (
                f"this Resonate object has failed ({type(self._failure).__name__}: {self._failure}) and runs no more; "
                f"await resonate.start() begins anew"
            )
        return (
            "this Resonate object is not running; calls are made inside its block (async with resonate: ...), or "
            "after await resonate.start()"
        )

    @staticmethod
    def _check_loop(host: Host) -> None:
        if host.process != os.getpid():
            msg = "this Resonate object was started before a fork; make another one in this process"
            raise NotRunning(msg)
        if current_token() != host.token:
            msg = "this Resonate object runs in another event loop; make one for each loop"
            raise NotRunning(msg)

    def __repr__(self) -> str:
        state = "running" if self._running is not None else "not running"
        return f"<Resonate {self._settings.group}/{self._settings.pid} {state}>"


@frozen(eq=False, repr=False)
class _Running(ValueObject):
    """The objects that exist between the start and the stop."""

    worker: Face
    host: Host


async def _stop_on_signal(worker: Face) -> None:
    import signal  # noqa: PLC0415 - the backends have imported it

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        worker.begin_to_stop()
        await anext(signals)
        worker.hurry()
