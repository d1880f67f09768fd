"""Interrupts: finding a KeyboardInterrupt, SystemExit or GeneratorExit on its way through the code of an execution.

An interrupt ends the program. It is not the outcome of a call: the function that it leaves is dropped as in a crash.
But on its way it may cancel other tasks (a task group or nursery that it passes does that) and run `finally` blocks.
None of the consequences may be recorded. So before a cancellation, an error that came with one, or a new call is
recorded, the worker looks for an interrupt that is still on its way. It can be in four places:

* The running task handles it (`finally`, `except BaseException`, `async with`): the interpreter knows it.
* Another task handles it, and is suspended meanwhile: the coroutine of that task holds the exception.
* A task group or nursery has caught it and waits for its tasks: the group, or the coroutine of its exit, holds it.
* An error has replaced it: it is the context of the error.

An interrupt that ends a task of asyncio leaves the event loop at once. The code that runs after that belongs to the end
of the loop, which cancels every task (see `Teardown`). An interrupt in the code of this package itself is found by the
`except` clauses around all tasks that the worker starts.

These are all ways of an interrupt from the place where it is raised to the place where it leaves the execution, so it
is found as long as it is on its way. If code catches it, its way ends there. Two cases are not found:

* code of the user swallows the interrupt, or a function that names SystemExit handles it;
* a `finally` block signals other tasks without cancelling them (for example, it sets an event) and then waits for
  something that is not durable. The other tasks continue meanwhile, and their calls are recorded.
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
    """Return the interrupt that `exc` is, or that is in it if it is a group."""
    if isinstance(exc, INTERRUPTS):
        return exc
    if isinstance(exc, BaseExceptionGroup) and not isinstance(exc, ExceptionGroup):
        return next(filter(None, map(interrupt_in, exc.exceptions)), None)
    return None


def interrupt_here() -> BaseException | None:
    """Return the interrupt that the running code handles, for example in a `finally` block."""
    if (innermost := sys.exception()) is None:
        # This is the case at nearly every durable call.
        return None
    for handled in _with_contexts(innermost):
        if (found := interrupt_in(handled)) is not None:
            inside, _ = _stack()
            frame = _handling(handled)
            if frame is not None and frame in inside and not _is_meant(found, frame.f_code, handled):
                return found
    return None


def interrupt_behind(error: BaseException) -> BaseException | None:
    """Return the interrupt that `error` has replaced, because it was raised while the interrupt was on its way."""
    cause: BaseException | None = error
    for context in _with_contexts(error.__context__):
        # `raise ... from` shows that the program has replaced the interrupt on purpose.
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
    """Return an interrupt that is on its way in one of the suspended tasks, or in a task group of theirs."""
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
    """Return an exception, the exception that was being handled when it was raised, and so on."""
    for _ in range(_LONGEST_CHAIN):
        if exc is None:
            return
        yield exc
        exc = exc.__context__


def _handling(exc: BaseException) -> FrameType | None:
    """Return the outermost frame that an exception has reached."""
    return None if exc.__traceback__ is None else exc.__traceback__.tb_frame


def _stack() -> tuple[set[FrameType], set[FrameType]]:
    """Return the frames of the running task, and those around the event loop: they may handle an exception too."""
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
    """Return whether the code that handles an interrupt expects it, so that it does not end the program.

    An asynchronous generator that is closed ends with a GeneratorExit. Some parsers of arguments raise SystemExit, and
    code that names SystemExit expects it. No code is taken to expect a KeyboardInterrupt.
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
