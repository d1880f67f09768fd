"""`beside`: a background task that runs as long as a block."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from anyio import create_task_group


@asynccontextmanager
async def beside(
    func: Callable[[], Coroutine[Any, Any, object]], end: Callable[[], object], *, name: str
) -> AsyncGenerator[None, None]:
    """Run `func` in a background task while the block runs.

    Errors are raised without a group around them. An error of the task cancels the block, and is raised after it.

    Args:
        func: the function that the task runs, without a shield.
        end: called at the end of the block; makes `func` return.
        name: the name of the task.
    """
    failure: Exception | None = None
    broken: Exception | None = None

    async def task() -> None:
        nonlocal broken
        try:
            await func()
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the group
            broken = error
            tasks.cancel_scope.cancel()

    async with create_task_group() as tasks:
        tasks.start_soon(task, name=name)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the group
            failure = error
        finally:
            end()

    if broken is not None:
        # The error of the block is a consequence of the error of the task.
        raise broken from failure

    if failure is not None:
        raise failure
