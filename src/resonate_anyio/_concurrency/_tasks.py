"""Tasks of asyncio and trio, as far as anyio does not offer access to them.

An execution may be parked if none of its tasks can continue by itself. So this module finds its tasks, including those
that code of the user has started, and what each of them awaits.

The backends are not imported here, because each takes longer to import than half of this package. The one that runs has
been imported by then.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from functools import cache, partial
from inspect import CO_COROUTINE
from threading import Thread
from traceback import StackSummary
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakSet

from anyio import create_task_group, get_cancelled_exc_class

from ._package import FOLDER

if TYPE_CHECKING:
    import asyncio

Task: TypeAlias = Any
"""A task of the running backend: an `asyncio.Task` or a `trio.lowlevel.Task`."""


def on_asyncio() -> bool:
    """Return whether the running backend is asyncio; else it is trio."""
    return get_cancelled_exc_class().__module__ == "asyncio.exceptions"


def _asyncio() -> Any:
    """Return the module `asyncio`, which is imported if it is the running backend."""
    import asyncio  # noqa: PLC0415 - see above

    return asyncio


def _trio() -> Any:
    """Return the module `trio`, which is imported if it is the running backend."""
    return sys.modules["trio"]


def _is_of_asyncio(task: Task) -> bool:
    """Return whether the task is one of asyncio; else it is one of trio."""
    return hasattr(task, "get_coro")


def current_task() -> Task:
    """Return the running task."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    return _asyncio().current_task()


def loop_time() -> float:
    """Return the same as `anyio.current_time()`, at a third of its cost."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return float(trio.current_time())
    return float(_asyncio().get_running_loop().time())


def caller() -> tuple[str, int]:
    """Return the file and line of the nearest stack frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(FOLDER):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def cancelling() -> int:
    """Return the number of requests to cancel the running task, which only asyncio counts."""
    if not on_asyncio():
        return 0
    task: asyncio.Task[Any] | None = _asyncio().current_task()
    return 0 if task is None else task.cancelling()


def spawn_alone(func: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> Task:
    """Run `func` in a task without a parent, and return the task; the caller has to keep a reference to it.

    On trio it is a system task, which is cancelled when the main task has ended, and must not raise. On asyncio,
    `asyncio.run` cancels it at its end; for programs that only close their loop there is `LoopEnd`.
    """
    if on_asyncio():
        return _asyncio().get_running_loop().create_task(func(), name=name)
    return _trio().lowlevel.spawn_system_task(func, name=name, context=copy_context())


def call_in_loop(token: object, func: Callable[[], object]) -> None:
    """Call `func` in an event loop soon. This function may be called in any thread, and outside any task.

    Args:
        token: the `native_token` of an `anyio.lowlevel.EventLoopToken`.
        func: the function; it must not raise.

    Raises:
        RuntimeError: the loop has ended.
    """
    native: Any = token
    if hasattr(native, "call_soon_threadsafe"):  # an event loop of asyncio
        native.call_soon_threadsafe(func)
    else:
        native.run_sync_soon(func)


class LoopEnd:
    """Runs a function in the running event loop before the loop is closed.

    asyncio has no hook for this, and a loop may be closed while it has tasks. These are garbage collected some time
    later, with errors in the log, and do not release what they hold. So the two methods that end a loop are wrapped, on
    that one loop, as long as there is a function to run. trio cancels its system tasks and waits for them, so that
    nothing has to be wrapped.

    Args:
        end: the function. If its work is done earlier, call `withdraw`.
    """

    def __init__(self, end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._end = end
        self._hooks: _Hooks | None = None
        # A loop whose attributes cannot be set is closed without a call of the function.
        if on_asyncio() and hasattr(loop := _asyncio().get_running_loop(), "__dict__"):
            self._hooks = _Hooks.of(loop)
            self._hooks.ends.append(end)

    def withdraw(self) -> None:
        """Do not run the function any more."""
        if self._hooks is not None:
            self._hooks.ends.remove(self._end)
            self._hooks.unhook_if_done()
            self._hooks = None


class _Hooks:
    """The wrapped methods of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._process = os.getpid()
        self._close = loop.close
        self._shutdown_asyncgens = loop.shutdown_asyncgens
        self.ends: list[Callable[[], Coroutine[Any, Any, None]]] = []
        # As attributes of the loop, so that the loop and this object can be garbage collected together.
        vars(loop).update(close=self.close, shutdown_asyncgens=self.shutdown_asyncgens)

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Hooks:
        """Return the wrapped methods of a loop; wrap them if that has not been done."""
        hooks = getattr(vars(loop).get("close"), "__self__", None)
        return hooks if isinstance(hooks, cls) else cls(loop)

    def unhook_if_done(self) -> None:
        """Unwrap the methods of the loop if there is no function left to run."""
        own = vars(self._loop)
        if not self.ends and own.get("close") == self.close:
            del own["close"], own["shutdown_asyncgens"]

    async def _end_all(self) -> None:
        # The child of a fork has a copy of this object. The functions belong to its parent.
        while self.ends and self._process == os.getpid():
            end = self.ends[-1]
            await end()
            if end in self.ends:  # pragma: no cover - the functions call `withdraw`
                self.ends.remove(end)

    async def shutdown_asyncgens(self) -> None:
        """Run the functions, then the method of the loop: code inside async generators has to end in order."""
        await self._end_all()
        await self._shutdown_asyncgens()

    def close(self) -> None:
        """Run the functions, then the method of the loop."""
        if self.ends and self._process == os.getpid() and not (self._loop.is_running() or self._loop.is_closed()):
            self._complete()
        self._close()

    def _complete(self) -> None:
        run = partial(self._loop.run_until_complete, self._end_all())
        try:
            _asyncio().get_running_loop()
        except RuntimeError:
            run()
        else:
            # Code of another loop, or the garbage collector while another loop runs, closes this one.
            thread = Thread(target=run, name="resonate loop end")
            thread.start()
            thread.join()


def watched_future(on_cancel: Callable[[], object]) -> asyncio.Future[None]:
    """Return a future of asyncio that calls the function when the task that awaits it is cancelled."""
    from ._watched import WatchedFuture  # noqa: PLC0415 - it imports asyncio

    return WatchedFuture(on_cancel)


_scheduled: Final[WeakSet[asyncio.Task[Any]]] = WeakSet()
"""Tasks that are known to be run by the event loop, and not inside the call that has started them."""


EAGER_TASKS: Final = sys.version_info >= (3, 12)
"""Whether asyncio may run a task inside the call that starts it (`asyncio.eager_task_factory`)."""


def is_being_started() -> bool:
    """Return whether the running task still runs inside the call that started it (`asyncio.eager_task_factory`)."""
    if sys.version_info < (3, 12) or not on_asyncio():
        return False
    task: asyncio.Task[Any] | None = _asyncio().current_task()
    if task is None or task in _scheduled:
        return False
    if _is_run_by_another(task):
        return True
    _scheduled.add(task)
    return False


def _is_run_by_another(task: asyncio.Task[Any]) -> bool:
    """Return whether code of another task is on the stack around the function of `task`."""
    first = getattr(task.get_coro(), "cr_frame", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not first:
        frame = frame.f_back
    while frame is not None:
        frame = frame.f_back
        if frame is not None and frame.f_code.co_flags & CO_COROUTINE:
            return True
    return False


def sees_every_deadline() -> bool:
    """Return whether `current_effective_deadline` knows every deadline. It does not know `asyncio.timeout`."""
    return not on_asyncio()


def after_this_round(callback: Callable[[], object]) -> None:
    """Call `callback` in the event loop once the tasks that are ready now have run."""
    if on_asyncio():
        _asyncio().get_running_loop().call_soon(callback)
    else:
        _trio().lowlevel.current_trio_token().run_sync_soon(callback)


class TaskSnapshot:
    """All tasks at one instant, by their owners: the executions that they belong to.

    The tasks of trio are a tree. Those of asyncio are not, but each has a context that it inherits from the task that
    has started it.

    Args:
        owner_in: returns the owner of a task from the task's context, or None.
    """

    def __init__(self, owner_in: Callable[[Context], object | None]) -> None:
        self._owned: dict[object, list[Task]] = {}
        self._unknown: list[Task] = []
        if on_asyncio():
            for task in _asyncio().all_tasks():
                self._count(task, owner_in)

    def _count(self, task: asyncio.Task[Any], owner_in: Callable[[Context], object | None]) -> None:
        context = _context_of(task)
        if context is None:  # pragma: no cover - CPython's tasks have one
            self._unknown.append(task)
        elif (owner := owner_in(context)) is not None:
            self._owned.setdefault(owner, []).append(task)

    def tasks_of(self, owner: object, root: Task) -> set[Task]:
        """Return the tasks of `owner`, whose first one is `root`, and those whose owner is unknown."""
        if not on_asyncio():
            return set(_tree(root))
        return {root, *self._owned.get(owner, ()), *self._unknown}


class RoundSnapshot:
    """A snapshot that is taken once in a round of the event loop, since it takes milliseconds with thousands of tasks.

    Args:
        owner_in: as for `TaskSnapshot`.
    """

    def __init__(self, owner_in: Callable[[Context], object | None]) -> None:
        self._owner_in = owner_in
        self._snapshot: TaskSnapshot | None = None

    def take(self) -> TaskSnapshot:
        """Return the snapshot of this round."""
        if self._snapshot is None:
            self._snapshot = TaskSnapshot(self._owner_in)
            after_this_round(self._forget)
        return self._snapshot

    def _forget(self) -> None:
        self._snapshot = None


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    if sys.version_info >= (3, 12):
        return task.get_context()
    # Python 3.11 has no method for it, but the garbage collector knows it.
    return next((each for each in gc.get_referents(task) if isinstance(each, Context)), None)


def _tree(root: Task) -> Iterator[Task]:
    yield root
    for nursery in root.child_nurseries:
        for task in nursery.child_tasks:
            yield from _tree(task)


def joins(task: Task) -> bool:
    """Return whether the task waits for other tasks, at the exit of a task group or nursery.

    Whether it can continue then depends on those tasks. Once they have ended, it does not wait any more.
    """
    chain = list(await_chain(task))
    exits = _group_exits(on_asyncio=on_asyncio())
    if not any(isinstance(link, CoroutineType) and link.cr_code in exits for link in chain):
        return False
    if not on_asyncio():
        return bool(task.child_nurseries) and bool(task.child_nurseries[-1].child_tasks)
    # The last link of the chain is the iterator of a future, which is found through it.
    return not any(isinstance(each, _asyncio().Future) and each.done() for each in gc.get_referents(chain[-1]))


def is_timed(task: Task) -> bool:
    """Return whether the task awaits inside `asyncio.timeout`, which `current_effective_deadline` does not know."""
    return _is_of_asyncio(task) and any(map(_is_inside_of_timeout, await_chain(task)))


def _is_inside_of_timeout(link: object) -> bool:
    # A suspended coroutine keeps the context managers that it has entered, or their `__aexit__`, on its stack.
    held = (getattr(each, "__self__", each) for each in gc.get_referents(link))
    return any(isinstance(each, _asyncio().Timeout) and _is_armed(each) for each in held)


def _is_armed(timeout: asyncio.Timeout) -> bool:
    return getattr(timeout, "_timeout_handler", timeout) is not None


@cache
def _group_exits(*, on_asyncio: bool) -> frozenset[CodeType]:
    """Return the code of `__aexit__` of all kinds of task groups of the running backend."""
    native = _asyncio().TaskGroup() if on_asyncio else _trio().open_nursery()
    groups: tuple[Any, ...] = (create_task_group(), native)
    return frozenset(type(group).__aexit__.__code__ for group in groups)


def coroutine_of(task: Task) -> Any:
    """Return the coroutine of a task."""
    return task.get_coro() if _is_of_asyncio(task) else task.coro


def await_chain(task: Task) -> Iterator[object]:
    """Return the coroutine of a task, the object that it awaits, the object that this one awaits, and so on."""
    link = coroutine_of(task)
    while link is not None:
        yield link
        link = _awaited_by(link)


def exceptions_of_groups(task: Task) -> Iterator[BaseException]:
    """Return the exceptions that the bodies and tasks of the task groups and nurseries of a task have raised so far.

    The backends have no public interface for this; exceptions that they keep elsewhere are not found.
    """
    if _is_of_asyncio(task):
        for each in _held_by(task):
            group = getattr(each, "__self__", each)
            if isinstance(group, _asyncio_groups()):
                yield from getattr(group, "_errors", None) or getattr(group, "_exceptions", None) or ()
    else:
        for nursery in task.child_nurseries:
            yield from getattr(nursery, "_pending_excs", ())


def _held_by(task: asyncio.Task[Any]) -> Iterator[object]:
    """Return what the code of a task refers to; of calls of the running task that execute, the local variables only."""
    if task is not _asyncio().current_task():
        for link in await_chain(task):
            yield from gc.get_referents(link)
        return
    first = getattr(coroutine_of(task), "cr_frame", None)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield from frame.f_locals.values()
        frame = None if frame is first else frame.f_back
    # A cancellation is thrown past the outer calls, which do not execute and are not all on the stack meanwhile. As in
    # any suspended call, what they await comes last.
    awaited: object = coroutine_of(task)
    while hasattr(awaited, "throw"):
        held = [each for each in gc.get_referents(awaited) if not isinstance(each, BaseException)]
        yield from held
        awaited = held[-1] if held else None


@cache
def _asyncio_groups() -> tuple[type, ...]:
    return (_asyncio().TaskGroup, type(create_task_group()))


def _awaited_by(link: object) -> object | None:
    match link:
        case CoroutineType():
            return link.cr_await
        case GeneratorType():
            return link.gi_yieldfrom
        case AsyncGeneratorType():
            return link.ag_await
        case _:
            # The iterators of `coroutine.__await__()` and `asyncgenerator.__anext__()` do not name what they wrap.
            inner = (each for each in gc.get_referents(link) if isinstance(each, (CoroutineType, AsyncGeneratorType)))
            return next(inner, None)


def stack_of(task: Task) -> str:
    """Return where the code of a task is, like a traceback, without the frames of this package."""
    frames = [frame for link in await_chain(task) if (frame := _frame_of(link)) is not None]
    theirs = [frame for frame in frames if not frame.f_code.co_filename.startswith(FOLDER)]
    return "".join(StackSummary.extract((frame, frame.f_lineno) for frame in theirs).format())


def _frame_of(link: object) -> FrameType | None:
    match link:
        case CoroutineType():
            return link.cr_frame
        case GeneratorType():
            return link.gi_frame
        case AsyncGeneratorType():
            return link.ag_frame
        case _:
            return None
