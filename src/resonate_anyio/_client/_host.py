"""`Host`: the task that a started `Resonate` object runs in, from its start to its stop.

The worker, its connection and all their tasks are children of this task. With `async with resonate` the task has a
parent; with `await resonate.start()` it has none. In both cases the task itself opens and closes the worker, because a
cancel scope or task group that was entered in one task cannot be left in another.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from anyio import CancelScope, Event, get_cancelled_exc_class
from anyio.lowlevel import EventLoopToken, current_token
from attrs import define, field

from .._concurrency._supervisor import all_begun
from .._concurrency._tasks import LoopEnd, Task, on_asyncio, spawn_alone
from .._errors import NotRunning
from .._worker._face import Face

logger = logging.getLogger("resonate_anyio")


@define(eq=False, kw_only=True, repr=False)
class Host:
    """One start of a `Resonate` object (see the module's docstring).

    Attributes:
        name: the name of the object, for messages.
        open: opens the worker, as a context manager.
        refuse: returns the error if a worker that was opened cannot be used.
        when_begun: called when the worker can be used.
        when_ended: called when nothing runs any more.
        alone: whether the task is without a parent.
        started_at: file and line of the code that has started it.
        token: the event loop.
        process: the process that it was made in.
        worker: the worker, from the moment when it can be used.
        failure: the exception that has ended it, unless it was stopped.
        ended: set when nothing runs any more and the connection is closed.
    """

    name: str
    open: Callable[[], AbstractAsyncContextManager[Face]]
    refuse: Callable[[Face], Exception | None]
    when_begun: Callable[[Face], None] = lambda _: None
    when_ended: Callable[[Host], None] = lambda _: None
    alone: bool = False
    started_at: tuple[str, int] = ("", 0)
    token: EventLoopToken = field(factory=current_token, init=False)
    process: int = field(factory=os.getpid, init=False)
    worker: Face | None = field(default=None, init=False)
    failure: BaseException | None = field(default=None, init=False)
    ended: Event = field(factory=Event, init=False)
    _begun: Event = field(factory=Event, init=False)
    _entered: bool = field(default=False, init=False)
    _stopping: bool = field(default=False, init=False)
    _scope: CancelScope = field(init=False)
    _task: Task = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        # A cancellation of the block around it reaches the body of the block only. What has no parent is cancelled
        # when its event loop ends.
        self._scope = CancelScope(shield=not self.alone)

    # From outside

    def spawn(self) -> None:
        """Begin, in a task without a parent."""
        self._task = spawn_alone(self._run_alone, name=self.name)

    async def begun(self) -> BaseException | None:
        """Wait until the worker can be used, and return the error if it cannot. A cancellation here ends the task."""
        try:
            await self._begun.wait()
        except BaseException:
            with CancelScope(shield=True):
                await self.stop()
            raise
        if self.worker is not None and not self._stopping:
            return None
        with CancelScope(shield=True):
            await self.ended.wait()
        return self.failure or NotRunning(f"{self.name} was stopped while it was starting")

    async def stop(self) -> None:
        """End it, and return when it has ended."""
        self._stopping = True
        if self.worker is None:
            self._scope.cancel()
        else:
            self.worker.begin_to_stop()
        with CancelScope(shield=True):
            await all_begun()
            if self._entered:
                await self.ended.wait()
            elif not self.ended.is_set():
                # An interrupt has ended the task before its first step: it will do nothing, this included.
                self._end()

    # The task

    async def run(self) -> None:
        """Run as a child of another task. A failure of the start is not raised here: `begun` returns it."""
        self._entered = True
        try:
            with self._scope:
                await self._live()
        except BaseException as exc:
            self.failure = exc
            if self.worker is not None or not isinstance(exc, Exception):
                raise
        finally:
            self._end()

    def _end(self) -> None:
        self.ended.set()
        self._begun.set()
        self.when_ended(self)

    async def _live(self) -> None:
        refusal: Exception | None = None
        async with self.open() as worker:
            refusal = self.refuse(worker)
            if refusal is None:
                self.worker = worker
                self.when_begun(worker)
                self._begun.set()
                await worker.wait_stopped()
        # Raised outside of the task groups inside, which would wrap it.
        if refusal is not None:
            raise refusal

    async def _run_alone(self) -> None:
        loop_end = LoopEnd(self._end_with_loop)
        try:
            await self.run()
        except get_cancelled_exc_class():
            self.failure = None
            if not self._stopping:
                self._warn()
            raise
        except Exception:
            # Kept, and raised by `stop` and `serve`.
            logger.exception("engine.failed %s has ended; its executions go on at the next start", self.name)
        except BaseException as exc:
            # The program is to end. On asyncio the event loop has seen this already, when the task ended that raised.
            if not on_asyncio() and not _passed_on(exc):
                raise
        finally:
            loop_end.withdraw()

    async def _end_with_loop(self) -> None:
        if not self._stopping:
            self._warn()
        await self.stop()

    def _warn(self) -> None:
        filename, line = self.started_at
        message = (
            f"{self.name} was still running when its event loop ended; it has been stopped. Call await resonate.stop() "
            f"before that, or use async with resonate"
        )
        # Where warnings are errors, this one has no caller to be raised in.
        try:
            warnings.warn_explicit(message, ResourceWarning, filename, line, source=self)
        except ResourceWarning:
            logger.error("engine.not_stopped at=%s:%d %s", filename, line, message)  # noqa: TRY400 - it has no cause

    def __repr__(self) -> str:
        return f"<Host of {self.name}>"


def _passed_on(exc: BaseException) -> bool:
    """Hand a KeyboardInterrupt to trio, which raises it in the main task. Return False for any other exception."""
    import signal  # noqa: PLC0415 - trio has imported it

    leaf = exc
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    handler = signal.getsignal(signal.SIGINT)
    if not isinstance(leaf, KeyboardInterrupt) or not getattr(handler, "__module__", "").startswith("trio."):
        return False
    signal.raise_signal(signal.SIGINT)
    return True


def sole(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what a task group has raised: the exception itself if there is only one, else the group."""
    return group.exceptions[0] if len(group.exceptions) == 1 else group
