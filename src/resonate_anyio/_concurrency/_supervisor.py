"""`Supervisor`: owner of the tasks of one worker: starts them, shields them from cancellation, waits for their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar, cast

from anyio import CancelScope, Event
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field

from .._errors import NotRunning

T = TypeVar("T")

_ROUNDS: Final = 3


async def all_begun() -> None:
    """Wait until every task that was started before this call has begun, or never will.

    An interrupt may end a task before its first step: asyncio cancels such tasks when it takes the loop down.
    """
    with CancelScope(shield=True):
        for _ in range(_ROUNDS):
            await checkpoint()


@define(eq=False, repr=False)
class Supervisor:
    """Runs tasks in a task group of the host, and knows when all of them have ended.

    Each task runs under a shield of its own, which it enters before its first checkpoint. So a cancellation of the host
    does not reach it. When the host leaves the task group, after `wait_idle`, no task is left in it.
    """

    _group: TaskGroup
    _context: Context = field(factory=copy_context, init=False)
    _busy: int = field(default=0, init=False)
    _unstarted: int = field(default=0, init=False)
    _changed: Event = field(factory=Event, init=False)

    def spawn(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Run `func` in a task of its own, with the context variables of the caller."""
        self.spawn_bare(self._run, func, args, name=name)

    def spawn_bare(self, func: Callable[..., Coroutine[Any, Any, None]], *args: object, name: str) -> None:
        """Do the same for a function all of whose code is in a block of `begun`.

        A task that is resumed often then enters one coroutine less each time.
        """
        self._busy += 1
        self._unstarted += 1
        try:
            self._group.start_soon(func, *args, name=name)
        except BaseException:
            self._unstarted -= 1
            self._left()
            raise

    def start_background(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Run `func` in a task of its own, with the context variables of the host.

        Context variables tell which execution a task belongs to. A task that is started here belongs to none, even if
        code of an execution has caused it.
        """
        self._context.copy().run(self.spawn, func, *args, name=name)

    async def run_to_completion(self, func: Callable[[], Awaitable[T]], *, name: str) -> T:
        """Run `func` in a task of its own, and return its result.

        If the caller is cancelled, `func` still runs to completion.
        """
        completion = _Completion(func)
        self.start_background(completion.run, name=name)
        await completion.ended.wait()
        if completion.error is not None:
            raise completion.error
        return cast("T", completion.result)

    def start_last(self, func: Callable[[], Awaitable[None]], *, name: str) -> None:
        """Run the task that stops the worker. It calls `wait_idle`, which does not wait for it."""
        self._group.start_soon(self._run_last, func, name=name)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Let `wait_idle` wait until the block has ended, which runs in a task that this object has not started."""
        self._busy += 1
        try:
            yield
        finally:
            self._left()

    async def wait_idle(self) -> None:
        """Wait until all tasks have ended."""
        while True:
            while self._busy > self._unstarted:
                self._changed = Event()
                await self._changed.wait()
            await all_begun()
            if self._busy == self._unstarted:
                return

    async def _run_last(self, func: Callable[[], Awaitable[None]]) -> None:
        with CancelScope(shield=True):
            await func()

    async def _run(self, func: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        with self.begun():
            await func(*args)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Shield the code of a task that was started here, and note its begin and its end."""
        try:
            self._unstarted -= 1
            with CancelScope(shield=True):
                yield
        finally:
            self._left()

    def _left(self) -> None:
        self._busy -= 1
        self._changed.set()


@define(eq=False, repr=False)
class _Completion:
    """The run of a function in a task of its own, and its outcome."""

    _func: Callable[[], Awaitable[object]]
    ended: Event = field(factory=Event, init=False)
    result: object = field(default=None, init=False)
    error: Exception | None = field(default=None, init=False)

    async def run(self) -> None:
        try:
            self.result = await self._func()
        except Exception as exc:  # noqa: BLE001 - it is raised in the task that waits for it
            self.error = exc
        except BaseException:
            # There is no result, and the waiting code must not take None for one.
            self.error = NotRunning("the program was interrupted during this call")
            raise
        finally:
            self.ended.set()
