"""Who plays in the tests of the table: calls that write into a diary what becomes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import anyio

from resonate_anyio import Context, DurablePromise, Info, Resonate
from resonate_anyio._ids import detached_id
from resonate_anyio.abc import Network

from ..harness import Process, Wire

Start: TypeAlias = Callable[[Any], Awaitable[Any]]

DETACHED: Final = detached_id("w", "w", "branch-1")
"""The id of what a workflow `w` starts with `ctx.detached(branch)`."""

DETACHED_STEP: Final = f"{DETACHED}.step-1"
"""The id of its leaf."""


class Diary(list[str]):
    """What the functions of a test have done, in order, each by its id."""

    @contextmanager
    def tells(self, id: str) -> Iterator[None]:
        """Write down when the block begins, and in a `finally` of the user's how it ends."""
        self.append(f"{id} begun")
        how = "unwound"
        try:
            yield
            how = "returned"
        finally:
            self.append(f"{id} {how}")

    def of(self, id: str) -> list[str]:
        """What happened to one of them."""
        return [entry.removeprefix(f"{id} ") for entry in self if entry.startswith(f"{id} ")]


async def step(info: Info, seconds: float = 10) -> str:
    """A leaf that takes its time."""
    with info.get_dependency(Diary).tells(info.id):
        await anyio.sleep(seconds)
    return "done"


async def branch(ctx: Context, seconds: float = 10) -> str:
    """A workflow that waits for a leaf."""
    with ctx.get_dependency(Diary).tells(ctx.id):
        return await ctx.run(step, seconds)


def knowing(resonate: Resonate, diary: Diary, *functions: Callable[..., Any]) -> Resonate:
    """Make a worker know the functions of this module, and more of them."""
    known: list[Callable[..., Any]] = [step, branch, *functions]
    for function in known:
        resonate.register(function)
    return resonate.with_dependency(diary)


def process(network: Network, diary: Diary, *functions: Callable[..., Any]) -> Process:
    """One life of the worker that runs the workflow, on an engine that outlives it."""
    wire = Wire(network)
    return Process(knowing(Resonate(network=wire, pid="p", grace=0), diary, *functions), wire)


async def endings(resonate: Resonate) -> dict[str, str]:
    """How every promise stands: its state and, if it was cancelled, by whom according to the record.

    Those by which executions are woken are left out: they come and go.
    """
    ids = [record.id async for record in resonate.promises.search() if "~" not in record.id]
    return {id: _ending(await resonate.promises.get(id)) for id in ids}


def _ending(record: DurablePromise) -> str:
    by = record.value.get("by") if isinstance(record.value, dict) else None
    return record.state if by is None else f"{record.state} by {by}"


def passed(begun: float) -> float:
    """Seconds since then, to a tenth."""
    return round(anyio.current_time() - begun, 1)
