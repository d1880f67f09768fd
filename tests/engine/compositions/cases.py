"""What the workflows of this folder are made of, and what a case of user concurrency is.

A case is a workflow that uses one construct of anyio, asyncio or trio around durable calls, as the documentation of
that library has it. It returns what its code has seen, in an order that does not depend on which task ran first.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import anyio
from attrs import frozen

from resonate_anyio import Context, Info, Resonate
from resonate_anyio._api._calls import Call

from ..harness import Oops

How: TypeAlias = str
"""How the workflows make their calls: `run` or `rpc`."""


Leaf: TypeAlias = Callable[[Info], Awaitable[str]]


class Begun(list[str]):
    """The ids of the leaves that were started, in order."""


async def quick(info: Info) -> str:
    info.get_dependency(Begun).append(info.id)
    await anyio.sleep(1)
    return "quick"


async def slow(info: Info) -> str:
    info.get_dependency(Begun).append(info.id)
    await anyio.sleep(8)
    return "slow"


async def endless(info: Info) -> str:
    info.get_dependency(Begun).append(info.id)
    await anyio.sleep_forever()
    return "never"


async def broken(info: Info) -> str:
    info.get_dependency(Begun).append(info.id)
    await anyio.sleep(3)
    raise Oops


async def after(info: Info) -> str:
    info.get_dependency(Begun).append(info.id)
    await anyio.sleep(1)
    return "after"


LEAVES: Final[tuple[Leaf, ...]] = (quick, slow, endless, broken, after)


def knowing(resonate: Resonate, begun: Begun, workflow: Callable[..., Any]) -> Resonate:
    """Make a worker know a workflow and everything that it may call."""
    functions: list[Callable[..., Any]] = [*LEAVES, workflow]
    for function in functions:
        resonate.register(function)
    return resonate.with_dependency(begun)


async def ends(resonate: Resonate) -> dict[str, str]:
    """How the calls of the workflow have ended, by the names of their functions."""
    return {
        re.sub(r"^w\.([a-z]+)-.*", r"\1", record.id): record.state
        async for record in resonate.promises.search()
        if record.id != "w" and "~" not in record.id
    }


def call(ctx: Context, how: How, leaf: Leaf) -> Call[str]:
    """A call of one of these, as a step or as an execution of its own."""
    return ctx.run(leaf) if how == "run" else ctx.rpc(leaf)


Workflow: TypeAlias = Callable[[Context, How], Awaitable[list[str]]]


@frozen
class Case:
    """One construct.

    Attributes:
        workflow: uses it.
        seen: what the code sees, and the workflow returns.
        states: how the calls end on record, by the names of their functions.
        seconds: how long that takes.
        backend: the only one that has the construct, if it is one of a backend.
        replays: whether a replay sees the same, whenever the process has died.
        hidden: whether there is a deadline that the engine cannot see: it begins anew each time that an execution was
            unloaded to save memory, so it does not come if that is done again and again.
    """

    workflow: Workflow
    seen: list[str]
    states: dict[str, str]
    seconds: float
    backend: str | None = None
    replays: bool = True
    hidden: bool = False

    @property
    def name(self) -> str:
        return self.workflow.__name__


CASES: Final[list[Case]] = []

CANCELED: Final = "rejected_canceled"
REJECTED: Final = "rejected"
RESOLVED: Final = "resolved"


def case(
    *seen: str, seconds: float, backend: str | None = None, replays: bool = True, hidden: bool = False, **states: str
) -> Callable[[Workflow], Workflow]:
    """Declare a workflow to be a case; see `Case`."""

    def declare(workflow: Workflow) -> Workflow:
        CASES.append(Case(workflow, list(seen), states, seconds, backend, replays, hidden))
        return workflow

    return declare
