"""Deadlines are instants of the server's, kept although its clock and the event loop's part."""

from __future__ import annotations

import logging

import anyio
import pytest

from resonate_anyio import Context, DurableTimeoutError, Resonate
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock

HOUR = 3600


async def waits() -> None:
    """Wait for longer than any deadline here."""
    await anyio.sleep(100 * HOUR)


async def waits_below(ctx: Context) -> None:
    """Wait in a leaf with a deadline of its own."""
    await ctx.run(waits).timeout(HOUR)


async def test_a_clock_that_jumps_ahead_brings_deadlines_forward(clock: VirtualClock) -> None:
    """After a suspension of the computer, a deadline that has passed is found at the next look at the clocks."""
    resonate = Resonate(network=LocalNetwork(MemoryStore(), clock=clock, safety_sweep=30))
    resonate.register(waits_below)
    async with resonate:
        handle = await resonate.run("wf", waits_below).spawn()
        await anyio.sleep(1)
        clock.advance(HOUR * 1000)
        begun = anyio.current_time()
        with pytest.raises(DurableTimeoutError, match=r"wf\.waits-1"):
            await handle

        assert anyio.current_time() - begun < 35


async def test_a_loop_that_runs_ahead_does_not_end_a_call_early(clock: VirtualClock) -> None:
    """When a scope's deadline fires before the server's clock agrees, the engine asks until it does."""
    slow = _HalfSpeed(clock)
    resonate = Resonate(network=LocalNetwork(MemoryStore(), clock=slow, safety_sweep=30))
    resonate.register(waits_below)
    async with resonate:
        begun = slow()
        with pytest.raises(DurableTimeoutError):
            await resonate.run("wf", waits_below)

        assert slow() - begun >= HOUR * 1000


async def test_a_large_execution_is_warned_about(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history that takes long to read at each recovery is named once in the log, with what to do."""
    monkeypatch.setattr("resonate_anyio._engine._ledger._LARGE_BRANCH", 5)
    resonate = Resonate(network=LocalNetwork(MemoryStore(), clock=clock))
    resonate.register(makes_steps)
    with caplog.at_level(logging.WARNING, logger="resonate_anyio"):
        async with resonate:
            await resonate.run("wf", makes_steps, 12)

    assert 1 == sum("execution.large id=wf local_records=5" in record.getMessage() for record in caplog.records)
    assert "ctx.rpc" in caplog.text


async def step() -> None:
    """Do nothing."""


async def makes_steps(ctx: Context, count: int) -> None:
    """Make so many local calls."""
    for _ in range(count):
        await ctx.run(step)


class _HalfSpeed:
    """A wall clock that runs at half the speed of the loop's."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._start = clock()

    def __call__(self) -> int:
        return self._start + (self._clock() - self._start) // 2
