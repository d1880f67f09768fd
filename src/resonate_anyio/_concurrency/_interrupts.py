"""Whether the program is being interrupted: an exception that ends it is on its way through the code of an execution.

KeyboardInterrupt, SystemExit and GeneratorExit are no outcome of anything. The function that they leave is dropped as
in a crash. But on their way they may cancel other tasks (a task group or nursery that they pass does) and run `finally`
blocks, and nothing that comes of that may be recorded. So before a cancellation, an error that came with one, or a new
call is recorded, the engine looks for an interrupt that is still on its way. It can be in four places:

* The running task handles it (`finally`, `except BaseException`, `async with`): the interpreter tells.
* Another task handles it, and is suspended in that: the coroutine holds the exception.
* A task group or nursery has caught it and waits for its tasks: the group, or the coroutine of its exit, holds it.
* An error has replaced it: the error has it as its context.

An interrupt that a task of asyncio's ends with leaves the event loop at once; what runs after that is the end of the
loop, which cancels every task (see `Teardown`). One that comes to code of the engine's itself is told by the `except`
clauses around all tasks that the engine starts.

That is every way that an interrupt can take from where it is raised to where it leaves the execution, so it is found as
long as it is on its way. Code that catches it ends that way. Not found is

* an interrupt that code of the user's swallows, or a SystemExit that a function handles which names it;
* what a `finally` block tells other tasks without cancelling them (it sets an event, say), if it then waits for
  something that is not durable: they go on meanwhile, and what they call is recorded.
"""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Iterable, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType
from typing import Final

from ._tasks import Task, await_chain, coroutine_of, current_task, exceptions_of_groups

INTERRUPTS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)

_GENERATORS: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_LONGEST_CHAIN: Final = 100


def interrupt_in(exc: object) -> BaseException | None:
    """The interrupt that `exc` is, or that a group has in it."""
    if isinstance(exc, INTERRUPTS):
        return exc
    if isinstance(exc, BaseExceptionGroup) and not isinstance(exc, ExceptionGroup):
        return next(filter(None, map(interrupt_in, exc.exceptions)), None)
    return None


def interrupt_here() -> BaseException | None:
    """The interrupt that the running code handles, in a `finally` block, say."""
    if (innermost := sys.exception()) is None:
        # As at nearly every durable call.
        return None
    for handled in _with_contexts(innermost):
        if (found := interrupt_in(handled)) is not None:
            inside, _ = _stack()
            frame = _handling(handled)
            if frame is not None and frame in inside and not _is_meant(found, frame.f_code, handled):
                return found
    return None


def interrupt_behind(error: BaseException) -> BaseException | None:
    """The interrupt that `error` has replaced: it was raised while that was on its way."""
    cause: BaseException | None = error
    for context in _with_contexts(error.__context__):
        # What was raised from another error, on purpose, is that program's word on it.
        meant = cause is not None and cause.__cause__ is context
        cause = context
        if (found := interrupt_in(context)) is None or (meant and not isinstance(found, KeyboardInterrupt)):
            continue
        _, outside = _stack()
        frame = _handling(context)
        if frame is None or not (frame in outside or _is_meant(found, frame.f_code, context)):
            return found
    return None


def interrupt_among(tasks: Iterable[Task]) -> BaseException | None:
    """The interrupt that one of the tasks, or a task group of theirs, has on its way while it is suspended."""
    for task in tasks:
        for exc in exceptions_of_groups(task):
            if (found := interrupt_in(exc)) is not None:
                return found
        for link in await_chain(task):
            for held in gc.get_referents(link):
                if (found := interrupt_in(held)) is not None and not _is_meant(found, _code_of(link), held):
                    return found
    return None


def _with_contexts(exc: BaseException | None) -> Iterator[BaseException]:
    """An exception, what was handled when it was raised, and so on."""
    for _ in range(_LONGEST_CHAIN):
        if exc is None:
            return
        yield exc
        exc = exc.__context__


def _handling(exc: BaseException) -> FrameType | None:
    """The frame that an exception has come to."""
    return None if exc.__traceback__ is None else exc.__traceback__.tb_frame


def _stack() -> tuple[set[FrameType], set[FrameType]]:
    """The frames of the running task, and those around the event loop: a program may run it while it handles one."""
    task = current_task()
    first = getattr(coroutine_of(task), "cr_frame", None) if task is not None else None
    inside: set[FrameType] = set()
    outside: set[FrameType] = set()
    into, frame = inside, sys._getframe()
    while frame is not None:
        into.add(frame)
        if frame is first:
            into = outside
        frame = frame.f_back  # type: ignore[assignment]
    return inside, outside


def _is_meant(interrupt: BaseException, code: CodeType | None, exc: object) -> bool:
    """Whether the code that handles it has made it an ordinary exception.

    An asynchronous generator that is closed handles a GeneratorExit, and that is how it ends. SystemExit is what some
    parsers of arguments raise: code that names it expects it. Nothing expects a KeyboardInterrupt.
    """
    if isinstance(interrupt, GeneratorExit):
        traceback = exc.__traceback__ if isinstance(exc, BaseException) else None
        while traceback is not None and traceback.tb_frame.f_code.co_flags & _GENERATORS:
            traceback = traceback.tb_next
        return traceback is None and (code is None or bool(code.co_flags & _GENERATORS))
    return isinstance(interrupt, SystemExit) and code is not None and "SystemExit" in code.co_names


def _code_of(link: object) -> CodeType | None:
    match link:
        case CoroutineType():
            return link.cr_code
        case AsyncGeneratorType():
            return link.ag_code
        case _:
            return None
