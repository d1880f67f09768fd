"""The tasks of one worker: children of the host's task, out of reach of its cancellation, and all waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Final, TypeVar, cast

from anyio import CancelScope, Event
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field

from .._errors import NotRunning

T = TypeVar("T")

_ROUNDS: Final = 3


async def all_begun() -> None:
    """Wait until every task that was started before this call has begun, if it ever does.

    An interrupt may end a task before its first step, and asyncio cancels such tasks when it takes the loop down.
    """
    with CancelScope(shield=True):
        for _ in range(_ROUNDS):
            await checkpoint()


@define(eq=False)
class Supervisor:
    """Runs tasks, and knows when none is left.

    Each runs under a shield of its own, entered before its first checkpoint. So when the host leaves the task group,
    after `dismissed`, there is nothing left in it to wait for.
    """

    _group: TaskGroup
    _context: Context = field(factory=copy_context, init=False)
    _busy: int = field(default=0, init=False)
    _unstarted: int = field(default=0, init=False)
    _changed: Event = field(factory=Event, init=False)

    def spawn(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Run `func` in a task of its own, with the context variables of whoever calls."""
        self._busy += 1
        self._unstarted += 1
        try:
            self._group.start_soon(self._run, func, args, name=name)
        except BaseException:
            self._unstarted -= 1
            self._left()
            raise

    def start_background(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Run `func` in a task of its own, with the context variables of the host: it works for nobody in particular.

        A task that code of the user's happens to cause must not be taken for one of the user's.
        """
        self._context.copy().run(self.spawn, func, *args, name=name)

    async def run_to_completion(self, func: Callable[[], Awaitable[T]], *, name: str) -> T:
        """Run `func` in a task of its own and give its outcome. It runs to its end, although whoever waits may not."""
        errand = _Errand(func)
        self.start_background(errand.run, name=name)
        await errand.ended.wait()
        if errand.error is not None:
            raise errand.error
        return cast("T", errand.result)

    def start_last(self, func: Callable[[], Awaitable[None]], *, name: str) -> None:
        """Run the last task, which waits for the others and is not waited for by `dismissed`."""
        self._group.start_soon(self._run_last, func, name=name)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what another task does in the block as work of this crew."""
        self._busy += 1
        try:
            yield
        finally:
            self._left()

    async def wait_idle(self) -> None:
        """Wait until no task is left."""
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
        try:
            self._unstarted -= 1
            with CancelScope(shield=True):
                await func(*args)
        finally:
            self._left()

    def _left(self) -> None:
        self._busy -= 1
        self._changed.set()


@define(eq=False)
class _Errand:
    """What one task does for another."""

    _func: Callable[[], Awaitable[object]]
    ended: Event = field(factory=Event, init=False)
    result: object = field(default=None, init=False)
    error: Exception | None = field(default=None, init=False)

    async def run(self) -> None:
        try:
            self.result = await self._func()
        except Exception as exc:  # noqa: BLE001 - it is raised where it is waited for
            self.error = exc
        except BaseException:
            # The program ends. There is no result, and the waiting code must not take None for one.
            self.error = NotRunning("the program was interrupted while this was done")
            raise
        finally:
            self.ended.set()
