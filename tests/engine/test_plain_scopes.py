"""Plain scopes around awaits, live and on a replay (docs/semantics.md 3.2 and 3.5)."""

from __future__ import annotations

import anyio
import pytest

from resonate_anyio import Context, DurableCancelledError, NonDeterminismError, durable

from .harness import World


async def slow() -> str:
    """Take long."""
    await anyio.sleep(1000)
    return "done"


async def moves_on(ctx: Context) -> str:
    """Wait a while for a call, then go on without it."""
    with anyio.move_on_after(5):
        await ctx.run(slow)
        return "waited"
    await ctx.sleep(10)
    return "moved on"


@durable(name="moves_on")
async def waits_for_good(ctx: Context) -> str:
    """The same without the scope."""
    await ctx.run(slow)
    return "waited"


async def test_a_scope_is_waited_for_on_a_replay(world: World) -> None:
    """An await that a scope had cancelled is cancelled by that scope again, not by what is recorded."""
    first = world.process(moves_on, slow)
    async with first:
        await first.resonate.run("wf", moves_on).spawn()
        await anyio.sleep(8)
        first.kill()
    async with world.process(moves_on, slow) as second:
        begun = anyio.current_time()
        assert "moved on" == await (await second.resonate.get("wf", str))
        # The scope has taken its time again; the sleep has not.
        assert 7 == pytest.approx(anyio.current_time() - begun, abs=0.1)
        with pytest.raises(DurableCancelledError):
            await (await second.resonate.get("wf.slow-1"))


async def test_a_scope_that_is_gone_is_non_determinism(world: World) -> None:
    """If nothing cancels the await any more, the replay stops after as long as it had taken, and half a minute."""
    first = world.process(moves_on, slow)
    async with first:
        await first.resonate.run("wf", moves_on).spawn()
        await anyio.sleep(8)
        first.kill()
    async with world.process(waits_for_good, slow) as second:
        begun = anyio.current_time()
        with pytest.raises(NonDeterminismError, match=r"wf\.slow-1.*a scope around it had cancelled"):
            await (await second.resonate.get("wf", str))
        assert 35 == pytest.approx(anyio.current_time() - begun, abs=0.1)


async def two_wait(ctx: Context) -> list[str]:
    """Wait for one call from two tasks, of which one gives up, which cancels the call for both."""
    future = await ctx.run(slow).spawn()
    got: list[str] = []

    async def patient() -> None:
        try:
            await future
        except DurableCancelledError as exc:
            got.append(f"cancelled by the {exc.by}")

    async def hasty() -> None:
        with anyio.move_on_after(5):
            await future
        got.append("gave up")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(patient)
        await anyio.sleep(1)
        tasks.start_soon(hasty)
    await ctx.sleep(10)
    return sorted(got)


async def test_only_who_was_cancelled_is_cancelled_again(world: World) -> None:
    """Of several who wait for a call that a scope of one had cancelled, the others get its outcome, as they did."""
    first = world.process(two_wait, slow)
    async with first:
        await first.resonate.run("wf", two_wait).spawn()
        await anyio.sleep(8)
        first.kill()
    async with world.process(two_wait, slow) as second:
        assert ["cancelled by the scope", "gave up"] == await (await second.resonate.get("wf", list[str]))
