"""`beside`: a task that lives as long as a block does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from anyio import create_task_group


@asynccontextmanager
async def beside(
    func: Callable[[], Coroutine[Any, Any, object]], end: Callable[[], object], *, name: str
) -> AsyncGenerator[None, None]:
    """Run `func` in a task of its own beside the block.

    An error comes out as it is, without a group around it. One of the task cancels the block and is raised after it.

    Args:
        func: what the task does; it is not shielded.
        end: called at the end of the block; it makes `func` return.
        name: of the task.
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
        # What the block raised is what came of it.
        raise broken from failure

    if failure is not None:
        raise failure
