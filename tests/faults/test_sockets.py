"""Faults on real sockets, by the wall clock: what virtual time does not see."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from anyio import Event, create_task_group
from attrs import define, field

from resonate_anyio import Context, Info, Resonate
from resonate_anyio.networks import HttpNetwork

from ..engine.harness import Look
from .processes import deadline, served, started
from .proxy import Mode, Proxy

pytestmark = pytest.mark.wall
over_both = pytest.mark.usefixtures("each_transport")

PROGRAM: Final = Path(__file__).with_name("program.py")

REQUEST_TIMEOUT: Final = 0.5
TTL: Final = 2.0
STEPS: Final = 12


@define(eq=False)
class Steps:
    """Which steps have run.

    Attributes:
        runs: how often each was started.
        third: the third was started.
    """

    runs: Counter[str] = field(factory=Counter)
    third: Event = field(factory=Event)

    def note(self, id: str) -> None:
        """One was started."""
        self.runs[id] += 1
        if len(self.runs) == 3:
            self.third.set()


async def step(info: Info, number: int) -> int:
    """Be seen."""
    info.get_dependency(Steps).note(info.id)
    return number


async def flow(ctx: Context) -> int:
    """Steps, the last of them in another execution."""
    near = sum([await ctx.run(step, 1) for _ in range(STEPS)])
    return near + await ctx.rpc(last)


async def last(ctx: Context) -> int:
    """One more step."""
    return await ctx.run(step, 1)


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxy]:
    """A server as a process, and a proxy to it."""
    async with deadline(100), served() as server, Proxy.open(server.port) as proxy:
        yield proxy


def client(url: str, steps: Steps) -> Resonate:
    """A program that uses that server and is impatient."""
    resonate = Resonate(network=HttpNetwork(url, request_timeout=REQUEST_TIMEOUT), ttl=TTL).with_dependency(steps)
    for function in (flow, last):
        resonate.register(function)
    return resonate


@over_both
@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.PASS])
async def test_connections_that_fail(mode: Mode) -> None:
    """What happens to connections for a while, and their end after it, loses nothing and runs nothing twice."""
    steps = Steps()
    async with proxied() as proxy, client(proxy.url, steps) as resonate, create_task_group() as tasks:

        async def spoil() -> None:
            await steps.third.wait()
            await proxy.spoil(mode, times=3)

        tasks.start_soon(spoil)
        assert STEPS + 1 == await resonate.run("flow", flow)
    assert [1] * (STEPS + 1) == list(steps.runs.values())


@over_both
async def test_a_server_that_is_killed_and_started_again(tmp_path: Path) -> None:
    """A new server on the same file and port goes on where the killed one was, and so do its clients."""
    steps, file = Steps(), tmp_path / "server.db"
    async with (
        deadline(100),
        served(file) as first,
        Proxy.open(first.port) as proxy,
        client(proxy.url, steps) as resonate,
    ):
        handle = await resonate.run("flow", flow).spawn()
        await steps.third.wait()
        await first.kill()
        async with served(file) as second:
            proxy.to = second.port
            assert STEPS + 1 == await handle
            await resonate.stop()
    assert [1] * (STEPS + 1) == list(steps.runs.values())


async def test_a_blocked_loop_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Code that blocks the event loop for longer than a lease lasts keeps it, and is warned about with its place."""

    async def block(number: int) -> int:
        time.sleep(2.5 * TTL)  # noqa: ASYNC251 - what must not be done
        return number

    async def blocked(ctx: Context) -> int:
        return await ctx.run(block, 1) + await ctx.run(step, 1)

    steps = Steps()
    async with deadline(100), served() as server:
        resonate = client(server.url, steps)
        resonate.register(blocked)
        async with resonate:
            assert 2 == await resonate.run("blocked", blocked)
            # Whoever else had got it would have been given the next version.
            assert 1 == (await Look(resonate).task("blocked")).version
    [warning] = [each.getMessage() for each in caplog.records if "worker.loop_blocked" in each.getMessage()]
    assert "time.sleep" in warning


async def test_a_fork_is_refused(anyio_backend_name: str) -> None:
    """A child that was forked is told to make a client of its own; its parent goes on."""
    async with deadline(100), served() as server, started(PROGRAM, "fork", anyio_backend_name, server.url) as told:
        assert "before a fork" in await told.until("refused: ")
        assert "answered: p" == await told.until("answered: ")
