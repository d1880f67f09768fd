"""The durable functions of these tests, which every worker knows, in this process and in others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
from attrs import define, field

from resonate_anyio import Context, DurableTimeoutError, Info


@define
class Journal:
    """What runs, in the order in which it begins."""

    lines: list[str] = field(factory=list)
    tell: Callable[[str], object] = field(default=lambda _: None)

    def note(self, line: str) -> None:
        self.lines.append(line)
        self.tell(line)


def note(info: Info | Context, what: str) -> None:
    info.get_dependency(Journal).note(what)


async def step(info: Info, text: str) -> str:
    """Be seen, and give the text back with a mark."""
    note(info, text)
    await anyio.lowlevel.checkpoint()
    return f"{text}!"


async def hang(info: Info) -> None:
    """Work until told to end."""
    note(info, "hanging")
    try:
        await anyio.sleep_forever()
    finally:
        note(info, "let go")


async def block(info: Info, seconds: float) -> str:
    """Keep the whole event loop busy, as no code should."""
    note(info, "blocking")
    time.sleep(seconds)  # noqa: ASYNC251 - that is what is tested
    return "unblocked"


async def remote(ctx: Context, text: str) -> str:
    """Make a step as an execution of its own."""
    return await ctx.run(step, text)


async def tour(ctx: Context, elsewhere: str) -> list[str]:
    """One of each: a step, a call to another group, a sleep, a promise that somebody else settles."""
    here = await ctx.run(step, "here")
    there = await ctx.rpc(remote, "there").target(elsewhere)
    await ctx.sleep(1)
    said = await ctx.promise().returns(str)
    return [here, there, await ctx.run(step, said)]


async def nap(ctx: Context, seconds: float) -> str:
    """Sleep between two steps."""
    await ctx.run(step, "before")
    await ctx.sleep(seconds)
    return await ctx.run(step, "after")


async def ask(ctx: Context) -> str:
    """Wait for an answer between two steps."""
    await ctx.run(step, "asked")
    return await ctx.run(step, await ctx.promise().returns(str))


async def row(ctx: Context, pause: float) -> list[str]:
    """Steps with time to die between them."""
    results = []
    for n in range(4):
        results.append(await ctx.run(step, f"step {n}"))
        await ctx.sleep(pause)
    return results


async def tree(ctx: Context, elsewhere: str) -> None:
    """Have work at hand, work elsewhere, a sleep and a question, all at once."""
    await ctx.rpc(branch).target(elsewhere).spawn()
    await ctx.run(branch).spawn()
    await ctx.sleep(600)


async def branch(ctx: Context) -> None:
    """Have some things that do not end by themselves."""
    await ctx.promise().spawn()
    await ctx.sleep(600).spawn()
    await ctx.run(hang)


async def begin(ctx: Context, elsewhere: str) -> str:
    """Start something that goes on by itself."""
    return await ctx.detached(nap, 1).target(elsewhere)


async def late(ctx: Context, elsewhere: str) -> list[str]:
    """Whatever is waited for, a second is enough."""
    outcomes = []
    calls = {
        "leaf": ctx.run(hang),
        "local": ctx.run(branch),
        "remote": ctx.rpc(branch).target(elsewhere),
        "nobody": ctx.rpc("nobody").target(f"{elsewhere}-nobody"),
        "promise": ctx.promise(),
    }
    for name, call in calls.items():
        try:
            await call.timeout(1)
        except DurableTimeoutError:
            outcomes.append(name)
    with ctx.move_on_after(1) as scope:
        await ctx.sleep(60)
    return [*outcomes, f"scope {scope.cancelled_caught}"]


FUNCTIONS: tuple[Callable[..., Any], ...] = (
    step,
    hang,
    block,
    remote,
    tour,
    nap,
    ask,
    row,
    tree,
    branch,
    begin,
    late,
)
