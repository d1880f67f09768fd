"""Deadlines are instants of the server's, kept although its clock and the event loop's part."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import anyio
import pytest

from resonate_anyio import Context, DurableTimeoutError, Resonate
from resonate_anyio._embedded import _clock
from resonate_anyio._protocol import PromiseGet
from resonate_anyio.networks import LocalNetwork, system_clock
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock

from ..inside import worker_of
from .harness import Wire

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


def test_clock_of_leases_is_never_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that goes an hour ahead and is put right again makes no lease longer than it is."""
    wall, boot = [1_000_000.0], [5_000.0]
    monkeypatch.setattr(time, "time_ns", lambda: int(wall[0] * 1e9))
    monkeypatch.setattr(_clock, "_since_boot", lambda: boot[0])
    elapsed = _clock.ElapsedClock(system_clock)
    wall[0] += 3600
    sent = elapsed()
    wall[0] -= 3600
    for clock in (wall, boot):
        clock[0] += 61
    assert elapsed() - sent >= 61


def test_clock_of_leases_does_not_run_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the clock of leases is read, a second on it is a second."""
    now = [1_000.0]
    monkeypatch.setattr(time, "time_ns", lambda: int(now[0] * 1e9))
    monkeypatch.setattr(_clock, "_since_boot", lambda: now[0])
    elapsed = _clock.ElapsedClock(system_clock)
    for _ in range(10_000):
        now[0] += 0.0001
        elapsed()
    assert pytest.approx(1, abs=0.05) == elapsed()


async def test_asking_whether_a_deadline_has_passed_is_no_busy_loop(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local clock that is a second ahead of the server's costs a few requests, not a thousand."""

    async def flow(ctx: Context) -> None:
        await ctx.run(anyio.sleep, 1000).timeout(5)

    wire = Wire(network, lapsing=True)
    resonate = Resonate(network=wire)
    resonate.register(flow)
    async with resonate:
        connection = worker_of(resonate).connection
        now = connection.now
        monkeypatch.setattr(type(connection), "now", lambda self: self._inner.now() + 900)
        del now
        with suppress(Exception):
            await resonate.run("w", flow)
    assert 20 > sum(isinstance(each.request, PromiseGet) for each in wire.exchanges)


async def test_a_large_execution_is_warned_about(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history that takes long to read at each recovery is named once in the log, with what to do."""
    monkeypatch.setattr("resonate_anyio._execution._journal._LARGE_BRANCH", 5)
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
