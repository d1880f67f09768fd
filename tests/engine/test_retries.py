"""Leaves are called again as their policy says: attempts are counted per run, and the deadline has the last word."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from resonate_anyio import (
    Constant,
    Context,
    DurableTimeoutError,
    Exponential,
    Info,
    InvalidArgument,
    Linear,
    Resonate,
    durable,
)

from .harness import Oops, Wire, World


class Flaky:
    """A leaf that fails so many times, and remembers when it was called and as which attempt."""

    def __init__(self, failures: int, error: type[Exception] = Oops) -> None:
        self.failures = failures
        self.error = error
        self.calls: list[tuple[int, float]] = []
        self.start = anyio.current_time()

    async def __call__(self, info: Info) -> int:
        self.calls.append((info.attempt, round(anyio.current_time() - self.start, 1)))
        if len(self.calls) <= self.failures:
            raise self.error
        return len(self.calls)

    @property
    def times(self) -> list[float]:
        return [time for _, time in self.calls]

    @property
    def attempts(self) -> list[int]:
        return [attempt for attempt, _ in self.calls]


async def test_no_policy(resonate: Resonate) -> None:
    """Without a policy a failure is final."""
    flaky = Flaky(1)

    @durable(name="step")
    async def step(info: Info) -> int:
        return await flaky(info)

    resonate.register(step)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("r", step)
    assert [1] == flaky.attempts


@pytest.mark.parametrize(
    ("policy", "times"),
    [
        (Constant(delay=2, attempts=4), [0, 2, 4, 6]),
        (Linear(delay=2, attempts=4), [0, 2, 6, 12]),
        (Linear(delay=2, max_delay=3, attempts=4), [0, 2, 5, 8]),
        (Exponential(delay=2, attempts=4, jitter=0), [0, 2, 6, 14]),
        (Exponential(delay=2, factor=10, max_delay=5, attempts=4, jitter=0), [0, 2, 7, 12]),
    ],
    ids=["constant", "linear", "linear with a cap", "exponential", "exponential with a cap"],
)
async def test_policies(resonate: Resonate, policy: Constant | Linear | Exponential, times: list[float]) -> None:
    """The policy says when the next attempt is made; each attempt is told its number."""
    flaky = Flaky(3)

    async def step(info: Info) -> int:
        return await flaky(info)

    async def workflow(ctx: Context) -> int:
        return await ctx.run(step).retry(policy)

    resonate.register(workflow)
    async with resonate:
        flaky.start = anyio.current_time()
        assert 4 == await resonate.run("w", workflow)
    assert times == flaky.times
    assert [1, 2, 3, 4] == flaky.attempts


async def test_last_attempt(resonate: Resonate) -> None:
    """When the attempts are used up the last error is the outcome."""
    flaky = Flaky(100)

    @durable(retry=Constant(attempts=3))
    async def step(info: Info) -> int:
        return await flaky(info)

    resonate.register(step)
    async with resonate:
        with pytest.raises(Oops):
            await resonate.run("r", step)
        assert "rejected" == (await resonate.promises.get("r")).state
    assert [1, 2, 3] == flaky.attempts


async def test_one_record_for_all_attempts(resonate: Resonate, wire: Wire) -> None:
    """Attempts are not recorded: however many there are, the call is created and settled once."""
    expected = {
        "task.create": 1, "promise.create": 1, "promise.settle": 1, "task.fulfill": 1,
        # after half a second, of the root and of the call
        "promise.register_listener": 2,
    }  # fmt: skip
    flaky = Flaky(5)

    async def step(info: Info) -> int:
        return await flaky(info)

    async def workflow(ctx: Context) -> int:
        return await ctx.run(step).retry(Constant())

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
    assert expected == wire.counts()


async def test_filter(resonate: Resonate) -> None:
    """An error that the policy is not for is final at once."""
    flaky = Flaky(100, KeyError)

    @durable(retry=Constant(on=(OSError, Oops)))
    async def step(info: Info) -> int:
        return await flaky(info)

    resonate.register(step)
    async with resonate:
        with pytest.raises(KeyError):
            await resonate.run("r", step)
    assert [1] == flaky.attempts


async def test_deadline_ends_the_back_off(resonate: Resonate) -> None:
    """A back-off ends with the deadline, at that moment, and no attempt follows."""
    flaky = Flaky(100)

    async def step(info: Info) -> int:
        return await flaky(info)

    async def workflow(ctx: Context) -> int:
        return await ctx.run(step).retry(Constant(delay=4)).timeout(10)

    resonate.register(workflow)
    async with resonate:
        flaky.start = anyio.current_time()
        with pytest.raises(DurableTimeoutError):
            await resonate.run("w", workflow)
        assert 10 == round(anyio.current_time() - flaky.start, 1)
    assert [0, 4, 8] == flaky.times


async def test_call_overrides_the_function(resonate: Resonate) -> None:
    """`.retry()` replaces what `@durable` says, None included."""
    flaky = Flaky(2)

    @durable(retry=Constant(attempts=5))
    async def step(info: Info) -> int:
        return await flaky(info)

    async def workflow(ctx: Context) -> int:
        with pytest.raises(Oops):
            await ctx.run(step).retry(None)
        return await ctx.run(step)

    resonate.register(workflow)
    async with resonate:
        assert 3 == await resonate.run("w", workflow)
    assert [1, 1, 2] == flaky.attempts


async def test_only_leaves(resonate: Resonate) -> None:
    """A workflow cannot be retried as a whole, and the error says what can."""

    async def child(ctx: Context) -> None: ...

    async def workflow(ctx: Context) -> None:
        with pytest.raises(InvalidArgument, match="retry the leaves that it calls instead"):
            ctx.run(child).retry(Constant())

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


async def test_attempts_across_a_crash(world: World) -> None:
    """After a crash the policy counts anew; a run that the crash has ended is one attempt in `Info.attempt`."""
    flaky = Flaky(100)

    @durable(retry=Constant(delay=10, attempts=3))
    async def step(info: Info) -> int:
        return await flaky(info)

    async with world.process(step) as process:
        await process.resonate.run("r", step).spawn()
        await anyio.sleep(15)
        process.kill()
    assert [1, 2] == flaky.attempts
    async with world.process(step) as process:
        with pytest.raises(Oops):
            await (await process.resonate.get("r"))
    assert [1, 2, 2, 3, 4] == flaky.attempts


async def test_shutdown_ends_the_back_off(world: World) -> None:
    """A back-off does not hold up the end of the block; the call goes on in the next process."""
    flaky = Flaky(1)

    @durable(retry=Constant(delay=1000))
    async def step(info: Info) -> int:
        return await flaky(info)

    async with world.process(step) as process:
        await process.resonate.run("r", step).spawn()
        await anyio.sleep(1)
    assert 2 > anyio.current_time() - flaky.start
    async with world.process(step) as process:
        assert 2 == await (await process.resonate.get("r"))


async def test_jitter_shortens(resonate: Resonate) -> None:
    """Jitter takes away up to its fraction of a delay, and adds nothing."""
    flaky = Flaky(20)

    @durable(retry=Constant(delay=10, jitter=0.5))
    async def step(info: Info) -> int:
        return await flaky(info)

    resonate.register(step)
    async with resonate:
        await resonate.run("r", step)
    delays = [after - before for before, after in pairwise(flaky.times)]
    assert all(4.9 <= delay <= 10.1 for delay in delays)
    assert 1 < len(set(delays))
