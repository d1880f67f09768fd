"""What asyncio and trio do each in its own way and anyio has no word for: the one module that knows them by name.

*Cancellation.* An execution that is put away is ended by cancelling its scope. A durable call that is made after that,
or inside a shield of the user's, has to end as well, and nothing but the backend's own cancellation may go through user
code (`except Exception` must not catch it, `finally` and `async with` must see what they always see). trio's
`Cancelled` cannot be constructed, so one is caught in a scope of our own and raised again outside of it: it then
travels up to the nearest enclosing scope that is cancelled, which is the execution's.

*Tasks.* An execution may be parked if none of its tasks can go on by itself, so its tasks have to be found, those that
the user's own code has started among them, and what each of them awaits.
"""

from __future__ import annotations

import asyncio
import gc
import math
import sys
from asyncio import TaskGroup
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from functools import cache
from pathlib import Path
from traceback import StackSummary
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

from anyio import CancelScope, create_task_group, current_effective_deadline, get_cancelled_exc_class
from anyio.lowlevel import checkpoint
from attrs import frozen

T = TypeVar("T")

Task: TypeAlias = Any
"""A task of the running backend's: an `asyncio.Task` or a `trio.lowlevel.Task`."""

_PACKAGE: Final = str(Path(__file__).parent.parent)


def _on_asyncio() -> bool:
    return get_cancelled_exc_class() is asyncio.CancelledError


def _trio() -> Any:
    """The module, which whoever runs trio has imported."""
    return sys.modules["trio"]


# Cancellation


def is_requested() -> bool:
    """Whether a cancellation that has just been caught was asked for: by a scope around here, or (in asyncio) a caller.

    Otherwise it has escaped from some other task or future that was cancelled, and is a failure like any other.
    """
    if current_effective_deadline() == -math.inf:
        return True
    # `asyncio.timeout` and `Task.cancel` leave a count, which trio's scopes do not need.
    return _cancelling() > 0


async def unbroken(step: Callable[[], Awaitable[T]], *, unless: Callable[[], bool]) -> tuple[T, Owed | None]:
    """Do a step to its end, whoever cancels the task meanwhile, and give what that leaves to be raised later.

    A shield holds up the scopes of anyio and of trio. What asyncio itself cancels (`asyncio.timeout`, `wait_for`, a
    `TaskGroup`, `Task.cancel`) comes through, each once, and the step is done again: it has to be one that may be.

    Args:
        step: what is to be done.
        unless: whether there is no point in that any more.
    """
    owed: Owed | None = None
    while True:
        count = _cancelling()
        try:
            with CancelScope(shield=True):
                return await step(), owed
        except get_cancelled_exc_class() as exc:
            if _cancelling() <= count or unless():
                raise
            owed = Owed.of(exc)


def _cancelling() -> int:
    task = asyncio.current_task() if _on_asyncio() else None
    return 0 if task is None else task.cancelling()


@frozen
class Owed:
    """A cancellation that was caught and is still to be raised, at the next opportunity.

    Only asyncio needs it: it delivers each request for a cancellation once, and counts those that are not taken back.
    The scopes of anyio and of trio deliver theirs again and again.
    """

    _cancellation: BaseException
    _count: int

    @classmethod
    def of(cls, cancellation: BaseException) -> Owed | None:
        """Remember a cancellation that has just been caught, if anyone is waiting for it."""
        count = _cancelling()
        return cls(cancellation, count) if count else None

    def collect(self) -> None:
        """Raise it, unless whoever had asked for it has given up."""
        if _cancelling() >= self._count:
            raise self._cancellation


class Teardown:
    """Tells whether the event loop is being taken down around everybody.

    asyncio cancels every task when a program is interrupted a second time, the engine's own among them, in spite of
    all shields. A task that runs nothing of the user's and makes one of these knows such a cancellation from others.
    """

    def __init__(self) -> None:
        self._task = asyncio.current_task() if _on_asyncio() else None

    @property
    def begun(self) -> bool:
        """Whether the task was cancelled from outside of the engine."""
        return self._task is not None and self._task.cancelling() > 0


async def raise_cancelled() -> NoReturn:
    """Raise the backend's cancellation exception, whatever scopes are open."""
    caught: BaseException | None = None
    with CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except get_cancelled_exc_class() as exc:
            caught = exc
            raise
    assert caught is not None
    raise caught


# Tasks


def current_task() -> Task:
    """The task that is running."""
    return asyncio.current_task() if _on_asyncio() else _trio().lowlevel.current_task()


def sees_every_deadline() -> bool:
    """Whether `current_effective_deadline` tells of every deadline there is. It does not know `asyncio.timeout`."""
    return not _on_asyncio()


class Census:
    """All tasks at this instant, by whom they work for.

    trio's tasks are a tree. Those of asyncio are not, but each has a context, inherited from the task that made it.

    Args:
        owner_in: tells from a task's context whom it works for, or gives None.
    """

    def __init__(self, owner_in: Callable[[Context], object | None]) -> None:
        self._owned: dict[object, list[Task]] = {}
        self._unknown: list[Task] = []
        if _on_asyncio():
            for task in asyncio.all_tasks():
                self._count(task, owner_in)

    def _count(self, task: asyncio.Task[Any], owner_in: Callable[[Context], object | None]) -> None:
        context = _context_of(task)
        if context is None:  # pragma: no cover - CPython's tasks have one
            self._unknown.append(task)
        elif (owner := owner_in(context)) is not None:
            self._owned.setdefault(owner, []).append(task)

    def tasks_of(self, owner: object, root: Task) -> set[Task]:
        """The tasks that work for `owner`, whose first one is `root`, and any that may."""
        if not _on_asyncio():
            return set(_tree(root))
        return {root, *self._owned.get(owner, ()), *self._unknown}


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    if sys.version_info >= (3, 12):
        return task.get_context()
    # Python 3.11 keeps it to itself, but shows it to the garbage collector.
    return next((each for each in gc.get_referents(task) if isinstance(each, Context)), None)


def _tree(root: Task) -> Iterator[Task]:
    yield root
    for nursery in root.child_nurseries:
        for task in nursery.child_tasks:
            yield from _tree(task)


def joins(task: Task) -> bool:
    """Whether the task waits for other tasks to end, at the exit of a task group or nursery: those tell the rest."""
    exits = _group_exits(on_asyncio=_on_asyncio())
    return any(isinstance(link, CoroutineType) and link.cr_code in exits for link in _await_chain(task))


@cache
def _group_exits(*, on_asyncio: bool) -> frozenset[CodeType]:
    """The code of the exits of all kinds of task groups of the running backend."""
    native = TaskGroup() if on_asyncio else _trio().open_nursery()
    groups: tuple[Any, ...] = (create_task_group(), native)
    return frozenset(type(group).__aexit__.__code__ for group in groups)


def _await_chain(task: Task) -> Iterator[object]:
    """What the task's function awaits, what that awaits, and so on inwards."""
    link = task.get_coro() if isinstance(task, asyncio.Task) else task.coro
    while link is not None:
        yield link
        link = _awaited_by(link)


def _awaited_by(link: object) -> object | None:
    match link:
        case CoroutineType():
            return link.cr_await
        case GeneratorType():
            return link.gi_yieldfrom
        case AsyncGeneratorType():
            return link.ag_await
        case _:
            # `coroutine.__await__()` and `asyncgenerator.__anext__()` give objects that do not say what is in them.
            inner = (each for each in gc.get_referents(link) if isinstance(each, (CoroutineType, AsyncGeneratorType)))
            return next(inner, None)


def stack_of(task: Task) -> str:
    """Where the task's code is, outermost call first, as in a traceback; without the frames of this package."""
    frames = [frame for link in _await_chain(task) if (frame := _frame_of(link)) is not None]
    theirs = [frame for frame in frames if not frame.f_code.co_filename.startswith(_PACKAGE)]
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
