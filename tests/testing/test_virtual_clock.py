"""Virtual time: what jumps, what is waited for, and what the clock tells between two loops."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import threading
import time
from contextlib import closing

import anyio
import pytest
from anyio import CapacityLimiter, Event, create_task_group, fail_after, from_thread, move_on_after, sleep, to_thread

from resonate_anyio.testing import VirtualClock, VirtualEventLoop, run_virtual, virtual_backend
from resonate_anyio.testing._virtual_clock import DEFAULT_EPOCH_MS

SECOND = 1_000
HOUR = 3_600 * SECOND
YEAR = 365 * 24 * HOUR

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def sleep_a_year() -> None:
    await sleep(YEAR / SECOND)


async def test_a_year_passes_at_once(clock: VirtualClock) -> None:
    """A sleep of one year takes no time worth mentioning, and the clock tells that it has passed."""
    began, cpu_began = clock(), time.process_time()

    await sleep_a_year()

    assert began + YEAR == clock()
    assert time.process_time() - cpu_began < 5


async def test_a_century_passes_at_once() -> None:
    """Timers fire far from the start too, where the floats of a loop's time are coarse."""
    async with create_task_group() as tg:
        for year in range(100, 0, -7):
            tg.start_soon(sleep, year * YEAR / SECOND)

    assert 100 * YEAR / SECOND == pytest.approx(anyio.current_time(), abs=0.001)


async def test_timers_that_differ_by_one_float_both_fire() -> None:
    """Two timers as near to each other as floats can be, far from the start, do not keep time from passing."""
    first = YEAR / SECOND
    async with create_task_group() as tg:
        for instant in (first, math.nextafter(first, math.inf), first + 1):
            tg.start_soon(sleep, instant)

    assert first + 1 == pytest.approx(anyio.current_time(), abs=0.001)


async def test_timers_fire_in_the_order_of_their_deadlines() -> None:
    """Whichever timer was set first, the nearest one fires first."""
    fired: list[float] = []

    async def fire_after(delay: float) -> None:
        await sleep(delay)
        fired.append(delay)

    async with create_task_group() as tg:
        for delay in (86_400.5, 0.25, 3_600, 0.5, 86_400):
            tg.start_soon(fire_after, delay)

    assert [0.25, 0.5, 3_600, 86_400, 86_400.5] == fired


async def test_code_takes_no_time(clock: VirtualClock) -> None:
    """Time stands still while something is ready to run."""
    began = clock()

    for _ in range(100):
        await anyio.lowlevel.checkpoint()

    assert began == clock()


@pytest.mark.parametrize("delay_ms", [1, 7, 70, 290, 1_001, 4_350, 86_400_001])
async def test_a_timer_finds_its_millisecond_begun(clock: VirtualClock, delay_ms: int) -> None:
    """After a sleep of whole milliseconds the clock tells exactly those, however often it is done."""
    began = clock()

    for _ in range(100):
        await sleep(delay_ms / 1000)

    assert began + 100 * delay_ms == clock()


async def test_a_time_limit_that_is_met_first_ends_the_wait() -> None:
    """`fail_after` fires at its own deadline, not at that of what it limits."""
    began = anyio.current_time()

    with pytest.raises(TimeoutError), fail_after(60):
        await sleep_a_year()

    assert 60 == pytest.approx(anyio.current_time() - began)


async def test_a_time_limit_that_is_not_met_does_nothing() -> None:
    """What ends before its limit is not disturbed by it."""
    with move_on_after(60) as scope:
        await sleep(59.9)

    assert not scope.cancelled_caught


async def test_a_wait_without_timers_ends_only_when_something_happens() -> None:
    """A task that waits for another one is not woken by time."""
    event = Event()
    woken_at: list[float] = []

    async def wait() -> None:
        await event.wait()
        woken_at.append(anyio.current_time())

    async with create_task_group() as tg:
        tg.start_soon(wait)
        await sleep(3_600)
        event.set()

    assert [3_600.0] == pytest.approx(woken_at, abs=0.001)


async def test_a_worker_thread_is_waited_for() -> None:
    """Time does not jump over the work of a thread, whatever limiter it runs under."""

    def work() -> str:
        for _ in range(100):
            # Each turn leaves the loop idle for a moment, in which it could jump.
            from_thread.run_sync(anyio.current_time)
        return "done"

    with fail_after(3_600):
        assert "done" == await to_thread.run_sync(work)
        assert "done" == await to_thread.run_sync(work, limiter=CapacityLimiter(1))

    assert anyio.current_time() < 60


async def test_time_jumps_again_after_a_thread() -> None:
    """A thread that has ended holds nothing back."""
    await to_thread.run_sync(time.monotonic)
    cpu_began = time.process_time()

    await sleep_a_year()

    assert time.process_time() - cpu_began < 5


async def test_a_thread_may_wait_for_time_to_pass(clock: VirtualClock) -> None:
    """While a thread runs, time passes as on the wall, so a thread that waits for a timer is not stuck."""
    began = clock()

    await to_thread.run_sync(from_thread.run, sleep, 0.02)

    assert began + 20 <= clock()


async def test_the_clock_can_be_read_in_a_worker_thread(clock: VirtualClock) -> None:
    """A worker thread reads the instant of its loop."""
    began = clock()
    await sleep(3_600)

    told = await to_thread.run_sync(clock)

    assert HOUR <= told - began < HOUR + 10 * SECOND


@BACKENDS
def test_a_loop_with_nothing_to_do_rests(backend: str) -> None:
    """A wait for something outside, with no timer set, uses no processor time."""
    here, there = socket.socketpair()

    async def wait_for_the_peer() -> float:
        bell = threading.Timer(0.3, there.send, [b"!"])
        bell.start()
        began = time.thread_time()
        await anyio.wait_readable(here)
        bell.join()
        return time.thread_time() - began

    with closing(here), closing(there):
        assert run_virtual(wait_for_the_peer, backend=backend) < 0.15


@BACKENDS
def test_time_jumps_again_after_a_rest(backend: str) -> None:
    """A timer that is set after a wait without timers is jumped to."""
    here, there = socket.socketpair()

    async def rest_and_sleep() -> float:
        bell = threading.Timer(0.05, there.send, [b"!"])
        bell.start()
        await anyio.wait_readable(here)
        bell.join()
        await sleep_a_year()
        return anyio.current_time()

    with closing(here), closing(there):
        assert YEAR / SECOND == pytest.approx(run_virtual(rest_and_sleep, backend=backend))


async def test_what_is_ready_comes_before_the_next_timer() -> None:
    """A socket that has something to read is read before time jumps."""
    here, there = socket.socketpair()

    with closing(here), closing(there), fail_after(3_600):
        there.send(b"!")
        await anyio.wait_readable(here)

    assert anyio.current_time() < 1


@BACKENDS
def test_waiting_for_idle_tasks_comes_before_time(backend: str) -> None:
    """`wait_all_tasks_blocked` returns before the next timer fires."""
    reached: list[float] = []

    async def look() -> None:
        async with create_task_group() as tg:
            tg.start_soon(sleep, 3_600)
            await anyio.wait_all_tasks_blocked()
            reached.append(anyio.current_time())

    run_virtual(look, backend=backend)

    assert reached[0] < 3_600


@BACKENDS
def test_run_virtual_passes_arguments_and_returns_the_result(backend: str) -> None:
    """`run_virtual` is `anyio.run` with another time."""

    async def add(a: int, b: int) -> int:
        await sleep_a_year()
        return a + b

    assert 5 == run_virtual(add, 2, 3, backend=backend)


def test_an_unknown_backend_is_refused() -> None:
    """A backend that does not exist is named in the error."""
    with pytest.raises(LookupError, match="'curio'"):
        run_virtual(sleep_a_year, backend="curio")


def test_trio_is_needed_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trio, asking for it says how to install it."""
    monkeypatch.setitem(sys.modules, "resonate_anyio.testing._virtual_trio", None)

    with pytest.raises(LookupError, match=r"resonate-anyio\[trio\]"):
        virtual_backend("trio")


def test_a_loop_that_anyio_did_not_start_jumps_too() -> None:
    """The event loop works as the loop factory of asyncio's own runner."""
    with asyncio.Runner(loop_factory=VirtualEventLoop) as runner:
        runner.run(asyncio.sleep(YEAR / SECOND))

        assert YEAR / SECOND == pytest.approx(runner.get_loop().time())


def test_a_clock_begins_at_its_epoch() -> None:
    """A clock that no loop has moved tells the instant that it was made with."""
    assert DEFAULT_EPOCH_MS == VirtualClock()()
    assert 42 == VirtualClock(epoch_ms=42)()


@BACKENDS
def test_a_clock_goes_on_in_the_next_loop(backend: str) -> None:
    """What is started again finds itself later: each loop continues where the last one ended."""
    clock = VirtualClock()
    told: list[int] = []

    async def live() -> None:
        told.append(clock())
        await sleep(3_600)
        told.append(clock())

    run_virtual(live, backend=backend)
    run_virtual(live, backend=backend)

    assert [0, HOUR, HOUR, 2 * HOUR] == [instant - DEFAULT_EPOCH_MS for instant in told]


@BACKENDS
def test_a_clock_stands_still_outside_loops(backend: str) -> None:
    """Outside any loop the clock tells the instant at which the last loop ended, read or not."""
    clock = VirtualClock()

    async def live() -> None:
        clock()
        await sleep(3_600)

    run_virtual(live, backend=backend)

    assert HOUR == clock() - DEFAULT_EPOCH_MS
    assert HOUR == clock() - DEFAULT_EPOCH_MS


@BACKENDS
def test_downtime_passes_between_two_loops(backend: str) -> None:
    """`advance` moves what the next loop begins with."""
    clock = VirtualClock()

    async def live() -> int:
        began = clock()
        await sleep(1)
        return began

    run_virtual(live, backend=backend)
    clock.advance(HOUR)

    assert HOUR + SECOND == run_virtual(live, backend=backend) - DEFAULT_EPOCH_MS


async def test_a_clock_can_be_set_while_a_loop_runs(clock: VirtualClock) -> None:
    """Setting the clock, forth or back, moves no timer."""
    began = clock()

    clock.advance(-HOUR)
    await sleep(1)

    assert began - HOUR + SECOND == clock()
    assert 1 == pytest.approx(anyio.current_time(), abs=0.1)


@pytest.mark.wall(limit=10)
async def test_a_clock_follows_a_real_loop() -> None:
    """On a loop with real time the clock passes with it."""
    clock = VirtualClock()
    began = clock()

    await sleep(0.02)

    assert 20 <= clock() - began < 10 * SECOND
