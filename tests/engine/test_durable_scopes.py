"""`ctx.fail_after()` and `ctx.move_on_after()`: deadlines for blocks, live and after a crash (docs/semantics.md 5)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from resonate_anyio import (
    Context,
    DurableCancelledError,
    DurableFuture,
    DurableTimeoutError,
    InvalidArgument,
    Resonate,
    TooLate,
    UsageError,
    WrongWorld,
)
from resonate_anyio._protocol import Request
from tests.crash.corpus.leaves import Oops, fail, slow, step

from .harness import Wire, World, settles
from .replays import states, survives


async def nap(seconds: float = 100, value: str = "done") -> str:
    await anyio.sleep(seconds)
    return value


async def call(ctx: Context) -> None:
    await ctx.run(slow, 50, None)


def passed(since: float) -> float:
    return round(anyio.current_time() - since, 1)


# What ends with them


async def test_every_kind_of_call_ends_with_its_scope() -> None:
    """A call that is awaited in a scope ends when that does, and the code goes on behind the block."""

    async def child(ctx: Context) -> None:
        await ctx.run(slow, 50, None)

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        calls: list[Any] = [
            ctx.run(slow, 50, None),
            ctx.run(child),
            ctx.rpc("nobody").target("elsewhere"),
            ctx.sleep(50),
            ctx.promise(),
        ]
        for n, call in enumerate(calls):
            with ctx.move_on_after(2) as scope:
                await call
                got.append("not reached")
            got.append([n, scope.cancel_called, scope.cancelled_caught])
        return [*got, await ctx.run(step, "end")]

    endings = await survives(workflow, returns=[*([n, True, True] for n in range(5)), "end"])
    assert {
        "child-1": "rejected_timedout",
        "child-1.slow-1": "rejected_timedout",
        "nobody-1": "rejected_timedout",
        "promise-1": "rejected_timedout",
        "sleep-1": "resolved",
        "slow-1": "rejected_timedout",
        "step-1": "resolved",
    } == states(endings)


async def test_a_scope_that_does_not_expire() -> None:
    """It leaves no trace, and costs no request."""

    async def workflow(ctx: Context) -> list[object]:
        with ctx.fail_after(50) as scope:
            got = await ctx.run(slow, 2, "a")
        with ctx.move_on_after(timedelta(minutes=1)) as other:
            pass
        return [got, scope.cancel_called, scope.cancelled_caught, other.cancelled_caught]

    assert {"slow-1": "resolved"} == states(await survives(workflow, returns=["a", False, False, False]))


async def test_scopes_make_no_request(resonate: Resonate, wire: Wire) -> None:
    """A scope costs nothing, whether it expires or not."""

    async def workflow(ctx: Context) -> None:
        with ctx.fail_after(50), ctx.move_on_after(1):
            await anyio.sleep(5)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
        assert ["w"] == wire.created()


async def test_fail_after_raises_a_timeout() -> None:
    """`fail_after` raises the built-in `TimeoutError`, and not the error of the call."""

    async def workflow(ctx: Context) -> str:
        try:
            with ctx.fail_after(2):
                try:
                    await ctx.run(slow, 50, None)
                except Exception as exc:  # noqa: BLE001 - there must be none
                    return f"saw {exc!r}"
        except TimeoutError as exc:
            return type(exc).__name__ + await ctx.run(step, "!")
        return "not reached"

    await survives(workflow, returns="TimeoutError!")


async def test_failure_of_a_scope_that_leaves_the_workflow() -> None:
    """The error that nobody catches is the workflow's."""

    async def workflow(ctx: Context) -> None:
        with ctx.fail_after(2):
            await ctx.sleep(50)

    await survives(workflow, fails="TimeoutError: ")


async def test_code_in_a_scope_runs_until_the_instant(resonate: Resonate) -> None:
    """Plain code in a scope is cancelled by the clock; its clean-up runs, under a shield for as long as it takes."""
    got: list[object] = []

    async def workflow(ctx: Context) -> float:
        begun = anyio.current_time()
        with ctx.move_on_after(5) as scope:
            try:
                await anyio.sleep_forever()
            finally:
                got.append(passed(begun))
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3)
                    got.append(await ctx.run(nap, 1, "undone"))
        assert scope.cancelled_caught
        return passed(begun)

    resonate.register(workflow)
    async with resonate:
        assert 9 == await resonate.run("w", workflow)
    assert [5, "undone"] == got


async def test_own_failure_of_a_call_in_a_scope() -> None:
    """What a call fails with before the instant goes through the scope as it is, also its own timeout."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        with ctx.move_on_after(20) as scope:
            for call in (ctx.run(fail, "no", 1), ctx.run(slow, 50, None).timeout(3), ctx.promise().timeout(4)):
                try:
                    await call
                except Exception as exc:  # noqa: BLE001 - whatever it is
                    got.append(type(exc).__name__)
        return [*got, str(scope.cancel_called)]

    await survives(workflow, returns=["Oops", "DurableTimeoutError", "DurableTimeoutError", "False"])


async def test_call_with_the_very_deadline_of_its_scope() -> None:
    """Of two deadlines at one instant the outermost wins: the scope's, and not the call's own."""

    async def workflow(ctx: Context) -> str:
        with ctx.move_on_after(5):
            try:
                await ctx.run(slow, 50, None).timeout(5)
            except DurableTimeoutError:
                return "the call's"
        return await ctx.run(step, "the scope's")

    await survives(workflow, returns="the scope's")


async def same_instant(ctx: Context) -> str:
    await ctx.run(anyio.sleep, 100).timeout(5).spawn()
    with ctx.move_on_after(5):
        await ctx.promise()
    return "nobody knows"


async def test_own_deadline_at_the_instant_of_a_scope(resonate: Resonate) -> None:
    """A call that its own deadline has ended has failed, although some scope has ended at the same instant."""
    resonate.register(same_instant)
    async with resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("w", same_instant)
        assert ["w.sleep-1"] == [getattr(error, "id", None) for error in caught.value.exceptions]


async def test_swallowing_a_scope(resonate: Resonate) -> None:
    """Code that swallows the cancellation meets it again at the next durable call, as in anyio."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        with ctx.move_on_after(2):
            try:
                await ctx.sleep(50)
            except BaseException as exc:  # noqa: BLE001 - the point
                got.append(type(exc).__name__)
            got.append("on")
            await ctx.run(nap, 1).named("never")
            got.append("not reached")
        return got[1:]

    resonate.register(workflow)
    async with resonate:
        assert ["on"] == await resonate.run("w", workflow)


# Nesting


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        (2, 5, ["outer"]),
        (5, 2, ["inner", "between"]),
        (3, 3, ["outer"]),
    ],
    ids=["outer first", "inner first", "together"],
)
async def test_nested(outer: float, inner: float, expected: list[str]) -> None:
    """The earlier of two nested scopes fires; of two at one instant the outer one does, the inner one is only left."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        with ctx.move_on_after(outer) as around:
            with ctx.move_on_after(inner) as inside:
                await ctx.run(slow, 50, None)
            got.append("between")
            await ctx.run(step, 1)
        if inside.cancelled_caught:
            got.insert(0, "inner")
        if around.cancelled_caught:
            got.append("outer")
        return got

    await survives(workflow, returns=expected)


async def test_nested_failures() -> None:
    """The inner `fail_after` fails its block; the outer scope has time left for what handles it."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        with ctx.fail_after(10):
            try:
                with ctx.fail_after(2):
                    await ctx.sleep(50)
            except TimeoutError:
                got.append(await ctx.run(slow, 3, "handled"))
        return got

    await survives(workflow, returns=["handled"])


async def test_plain_scope_inside_of_a_durable_one() -> None:
    """A plain scope inside that fires first is what ends the call, and the durable one goes on."""

    async def workflow(ctx: Context) -> list[object]:
        with ctx.move_on_after(20) as scope:
            with anyio.move_on_after(2):
                await ctx.run(slow, 50, None)
            got = await ctx.run(slow, 2, "after")
        return [got, scope.cancelled_caught]

    endings = await survives(workflow, returns=["after", False])
    assert ("rejected_canceled", {"by": "scope"}) == endings["slow-1"]


async def test_durable_scope_inside_of_a_plain_one() -> None:
    """A plain scope around a durable one that fires first ends both."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        with anyio.move_on_after(2) as plain:
            with ctx.move_on_after(20) as scope:
                await ctx.run(slow, 50, None)
            got.append("not reached")
        return [*got, plain.cancelled_caught, scope.cancelled_caught, await ctx.run(step, "end")]

    endings = await survives(workflow, returns=[True, False, "end"])
    assert ("rejected_canceled", {"by": "scope"}) == endings["slow-1"]


async def test_scopes_of_the_caller_are_not_those_of_the_callee() -> None:
    """A call's own scopes are beside its caller's: whose instant comes first decides, wherever the code is."""

    async def child(ctx: Context) -> list[str]:
        got: list[str] = []
        with ctx.move_on_after(3):
            await ctx.run(slow, 50, None)
        got.append(await ctx.run(step, "child"))
        await ctx.sleep(20)
        return [*got, "not reached"]

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        with ctx.move_on_after(10) as scope:
            got += await ctx.run(child)
        return [*got, scope.cancelled_caught, await ctx.run(step, "end")]

    endings = await survives(workflow, returns=[True, "end"])
    assert {
        "child-1": "rejected_timedout",
        "child-1.sleep-1": "resolved",
        "child-1.slow-1": "rejected_timedout",
        "child-1.step-1": "resolved",
        "step-1": "resolved",
    } == states(endings)


# Instants


async def test_deadline_is_an_instant(resonate: Resonate) -> None:
    """`deadline` says when, in UTC; it is clamped to the scopes around it and to the function's own."""

    async def workflow(ctx: Context) -> list[float]:
        scope = ctx.move_on_after(5)
        with pytest.raises(UsageError, match="once it has been entered"):
            _ = scope.deadline
        with scope, ctx.move_on_after(100) as inner, ctx.move_on_after(1e6) as innermost:
            assert scope.deadline.tzinfo is UTC
            with ctx.move_on_after(2) as early:
                pass
            begun = early.deadline - timedelta(seconds=2)
        with ctx.move_on_after(1e6) as late:
            pass
        assert late.deadline == ctx.timeout_at
        return [round((one.deadline - begun).total_seconds(), 1) for one in (scope, inner, innermost)]

    resonate.register(workflow)
    async with resonate:
        assert [5, 5, 5] == await resonate.run("w", workflow).timeout(3600)


async def test_calls_are_clamped_to_their_scopes(resonate: Resonate) -> None:
    """A call made inside lives no longer than the earliest scope around it; one made outside is not."""

    async def remaining(ctx: Context) -> float:
        return ctx.timeout_at.timestamp()

    async def workflow(ctx: Context) -> list[float]:
        outside = ctx.run(remaining)
        begun = (await ctx.now()).timestamp()
        instants: list[float] = []
        with ctx.move_on_after(50), ctx.move_on_after(20):
            instants.append(await ctx.run(remaining))
            instants.append(await ctx.run(remaining).timeout(5))
            instants.append(await (await ctx.run(remaining).spawn()))
            async with ctx.task_group() as tg:
                instants.append(await tg.run(remaining))
        instants += [await outside, ctx.timeout_at.timestamp()]
        return [round(instant - begun) for instant in instants]

    resonate.register(workflow)
    async with resonate:
        assert [20, 5, 20, 20, 3600, 3600] == await resonate.run("w", workflow).timeout(3600)


async def test_not_extended_by_a_restart(world: World) -> None:
    """A scope fires at the instant that it had the first time, however often the process is restarted meanwhile."""

    async def workflow(ctx: Context) -> str:
        with ctx.move_on_after(60):
            await ctx.run(nap, 1)
            await ctx.promise()
        return "moved on"

    begun = anyio.current_time()
    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(20)
        process.kill()
    async with world.process(workflow) as process:
        await anyio.sleep(20)
        process.kill()
    async with world.process(workflow) as process:
        assert "moved on" == await (await process.resonate.get("w"))
        assert 60 == passed(begun)


async def test_fires_at_once_after_a_long_downtime(world: World) -> None:
    """A scope whose instant lies in the past fires where the history ends, and not before."""
    got: list[object] = []

    async def workflow(ctx: Context) -> object:
        got.clear()
        with ctx.move_on_after(60) as scope:
            for n in range(3):
                await checkpoint()
                await anyio.sleep(0.1)
                got.append(await ctx.run(nap, 1, f"{n}"))
            await checkpoint()
            got.append("waiting")
            await ctx.promise()
            got.append("not reached")
        return [scope.cancelled_caught, scope.deadline.timestamp() - ctx.timeout_at.timestamp() + 365 * 24 * 3600]

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(30)
        process.kill()
    await anyio.sleep(3600)
    async with world.process(workflow) as process:
        begun = anyio.current_time()
        assert [True, pytest.approx(60, abs=0.1)] == await (await process.resonate.get("w"))
        assert 1 > passed(begun)
    assert ["0", "1", "2", "waiting"] == got


@pytest.mark.parametrize("region", ["scope", "group"])
async def test_spawning_is_no_wait(world: World, region: str) -> None:
    """A call that was spawned and is still pending does not stand in the way of the history behind it."""
    got: list[str] = []

    async def body(ctx: Context) -> None:
        future = await ctx.promise().spawn()
        got.append(await ctx.run(nap, 1, "first"))
        await ctx.sleep(1000).spawn()
        got.append(await ctx.run(nap, 1, "second"))
        await future
        got.append("not reached")

    async def workflow(ctx: Context) -> str:
        got.clear()
        if region == "scope":
            with ctx.move_on_after(60):
                await body(ctx)
        else:
            try:
                async with ctx.task_group() as tg:
                    tg.promise()
                    await body(ctx)
            except ExceptionGroup as caught:
                return f"{len(caught.exceptions)} failed"
        return "after"

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(30)
        process.kill()
    if region == "group":
        # The group's member, which was started first.
        async with world.process() as process:
            await process.resonate.promises.reject("w.promise-1", "no")
            process.kill()
    await anyio.sleep(3600)
    async with world.process(workflow) as process:
        expected = "after" if region == "scope" else "1 failed"
        assert expected == await (await process.resonate.get("w"))
    assert ["first", "second"] == got


async def test_fires_after_a_crash_that_no_call_has_seen(world: World) -> None:
    """A scope that had no call made inside is not on record, so it begins anew."""

    async def workflow(ctx: Context) -> str:
        future = await ctx.promise().spawn()
        with ctx.move_on_after(10):
            await future
        return "moved on"

    begun = anyio.current_time()
    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(6)
        process.kill()
    async with world.process(workflow) as process:
        assert "moved on" == await (await process.resonate.get("w"))
        assert 16 == passed(begun)


async def test_expired_while_the_process_was_away(world: World) -> None:
    """Whatever has expired at the server meanwhile is what the scope has ended, on a replay too."""

    async def child(ctx: Context) -> None:
        await ctx.run(nap, 1)
        await ctx.promise()

    async def workflow(ctx: Context) -> list[object]:
        with ctx.move_on_after(20) as scope:
            await ctx.run(child)
        return [scope.cancelled_caught, await ctx.run(nap, 1, "after").named("after")]

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        process.kill()
    await anyio.sleep(100)
    async with world.process(workflow) as process:
        assert [True, "after"] == await (await process.resonate.get("w"))
        found = {id: (await process.resonate.promises.get(f"w.{id}")).state for id in ("child-1", "child-1.promise-1")}
    assert {"child-1": "rejected_timedout", "child-1.promise-1": "rejected_timedout"} == found


async def test_replayed_after_it_had_fired(world: World) -> None:
    """What was ended by a scope is ended by it on every replay, although time is long past it."""
    got: list[object] = []

    async def workflow(ctx: Context) -> list[object]:
        got.clear()
        for n in range(2):
            with ctx.move_on_after(5) as scope:
                await ctx.run(nap, 1, "x")
                await ctx.run(nap, 50)
                got.append("not reached")
            got.append([n, scope.cancelled_caught])
        await ctx.promise()
        return got

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(20)
        process.kill()
    await anyio.sleep(1000)
    async with world.process(workflow) as process:
        begun = anyio.current_time()
        await anyio.sleep(1)
        await process.resonate.promises.resolve("w.promise-1")
        assert [[0, True], [1, True]] == await (await process.resonate.get("w"))
        assert 2 > passed(begun)


async def test_record_and_scope_disagree(world: World) -> None:
    """A result that was recorded in time is delivered in spite of the scope, which fires at the next await."""
    held = anyio.Event()

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        with ctx.move_on_after(5) as scope:
            got.append(await ctx.run(nap, 4, "in time"))
            await ctx.run(nap, 50)
            got.append("not reached")
        return [*got, scope.cancelled_caught]

    async def late(request: Request, _: object) -> None:
        if settles("w.nap-1")(request):
            held.set()
            await anyio.sleep(10)

    async with world.process(workflow) as process:
        process.wire.after = late
        assert ["in time", True] == await process.resonate.run("w", workflow)
    assert held.is_set()


async def test_clamped_sleep_ends_as_the_timeout_of_the_scope() -> None:
    """A sleep that a scope cuts short is no sleep that was slept, wherever it is awaited."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        futures: list[DurableFuture[None]] = []
        with ctx.move_on_after(5):
            futures.append(await ctx.sleep(50).spawn())
        try:
            await futures[0]
        except DurableTimeoutError as exc:
            got.append(exc.id)
        return [*got, await ctx.run(step, "end")]

    endings = await survives(workflow, returns=["w.sleep-1", "end"])
    assert "resolved" == endings["sleep-1"][0]


# Futures, groups, tasks


async def test_spawned_inside_and_awaited_outside() -> None:
    """What is spawned in a scope ends with it too; awaited behind it, it has timed out."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        futures: list[DurableFuture[Any]] = []
        with ctx.move_on_after(3):
            futures += [await ctx.run(slow, 1, "quick").spawn(), await ctx.run(slow, 50, None).spawn()]
        quick, late = futures
        got.append(await quick)
        try:
            await late
        except DurableTimeoutError as exc:
            got.append(str(exc.id))
        return got

    endings = await survives(workflow, returns=["quick", "w.slow-2"])
    assert "rejected_timedout" == endings["slow-2"][0]


async def test_made_before_and_awaited_inside() -> None:
    """A future of an outer block that is awaited inside is cancelled by the scope, and says so to everybody else."""

    async def workflow(ctx: Context) -> list[object]:
        future = await ctx.run(slow, 50, None).spawn()
        with ctx.move_on_after(3) as scope:
            await ctx.run(step, "fixes the instant")
            await future
        try:
            await future
        except DurableCancelledError as exc:
            return [scope.cancelled_caught, exc.by]
        return []

    endings = await survives(workflow, returns=[True, "deadline"])
    assert "rejected_canceled" == endings["slow-1"][0]


async def test_groups_inside() -> None:
    """A group in a scope ends with it, whatever it has started, plain code included, and raises nothing."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        with ctx.move_on_after(5) as scope:
            async with ctx.task_group() as tg:
                quick = tg.run(slow, 1, "quick")
                tg.run(slow, 50, None)
                tg.sleep(50)
                tg.start_soon(call, ctx)
            got.append("not reached")
        return [*got, quick.result(), scope.cancelled_caught, await ctx.run(step, "end")]

    await survives(workflow, returns=["quick", True, "end"])


async def test_scopes_in_members_of_groups() -> None:
    """Plain code of a group has scopes of its own, which end nothing but it."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def row(n: int) -> None:
            with ctx.move_on_after(n):
                got.append(await ctx.run(slow, 3, f"{n}"))
            got.append(await ctx.run(step, f"{n} end"))

        async with ctx.task_group() as tg:
            for n in (2, 9):
                tg.start_soon(row, n)
        return sorted(got)  # type: ignore[type-var]

    await survives(workflow, returns=["2 end", "9", "9 end"])


async def test_scopes_in_a_plain_group() -> None:
    """So have tasks of a plain group, on a replay too."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def row(n: int) -> None:
            with ctx.move_on_after(n):
                got.append(await ctx.run(slow, 3, f"{n}"))
            got.append(await ctx.run(step, f"{n} end"))

        async with anyio.create_task_group() as tasks:
            for n in (2, 9):
                tasks.start_soon(row, n)
        return sorted(got)  # type: ignore[type-var]

    await survives(workflow, returns=["2 end", "9", "9 end"])


async def test_scope_around_a_plain_group() -> None:
    """A scope around a plain group ends the calls of all of its tasks."""

    async def workflow(ctx: Context) -> list[object]:
        with ctx.move_on_after(5) as scope:
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(call, ctx)
        return [scope.cancelled_caught, await ctx.run(step, "end")]

    await survives(workflow, returns=[True, "end"])


# By hand, and shields


async def test_cancelled_by_hand() -> None:
    """`cancel()` ends the block quietly, `fail_after` included, since no deadline has passed."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        for make in (ctx.move_on_after, ctx.fail_after):
            with make(50) as scope:
                got.append(await ctx.run(slow, 1, "a"))
                scope.cancel()
                await ctx.run(slow, 20, None)
                got.append("not reached")
            got.append([scope.cancel_called, scope.cancelled_caught])
        return [*got, await ctx.run(step, "end")]

    await survives(workflow, returns=["a", [True, True], "a", [True, True], "end"])


async def test_cancelled_by_another_task() -> None:
    """Another task may cancel it; a replay does it again."""

    async def workflow(ctx: Context) -> list[object]:
        with ctx.move_on_after(50) as scope:
            async with ctx.task_group() as tg:

                async def stop() -> None:
                    await ctx.sleep(3)
                    scope.cancel()

                tg.start_soon(stop)
                await ctx.run(slow, 20, None)
        return [scope.cancelled_caught, await ctx.run(step, "end")]

    await survives(workflow, returns=[True, "end"])


async def test_shielded_scope() -> None:
    """`shield` keeps cancellations from around the block out of it, but not its own deadline."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        with ctx.move_on_after(2):
            with ctx.move_on_after(11, shield=True) as shielded:
                got.append(await ctx.run(slow, 5, "shielded"))
                await ctx.run(slow, 50, None)
            got.append(shielded.cancelled_caught)
            await ctx.run(step, "not reached")
            got.append("not reached")
        return [*got, await ctx.run(step, "end")]

    await survives(workflow, returns=["shielded", True, "end"])


async def test_shielded_compensation_with_a_limit() -> None:
    """Compensation with a durable limit of its own runs in a cancelled group."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        try:
            async with ctx.task_group() as tg:
                tg.run(fail, "no", 1)
                try:
                    await ctx.sleep(50)
                finally:
                    with ctx.move_on_after(5, shield=True):
                        got.append(await ctx.run(slow, 2, "undone"))
                        await ctx.run(slow, 50, None)
        except* Oops:
            got.append("caught")
        return [*got, await ctx.run(step, "end")]

    await survives(workflow, returns=["undone", "caught", "end"])


async def test_compensation_beyond_the_deadline_of_the_function(resonate: Resonate) -> None:
    """In a call that its caller's scope has ended, a durable call says that it is too late."""
    seen: list[str] = []

    async def child(ctx: Context) -> None:
        try:
            await ctx.sleep(50)
        finally:
            with anyio.CancelScope(shield=True):
                with pytest.raises(TooLate):
                    await ctx.run(nap, 1)
                seen.append("too late")

    async def workflow(ctx: Context) -> str:
        with ctx.move_on_after(5):
            await ctx.run(child)
        return "moved on"

    resonate.register(workflow)
    async with resonate:
        assert "moved on" == await resonate.run("w", workflow)
    assert ["too late"] == seen


# Wrong use


async def test_entered_twice(resonate: Resonate) -> None:
    """A scope is for one block."""

    async def workflow(ctx: Context) -> None:
        scope = ctx.move_on_after(5)
        with scope:
            assert repr(scope).startswith("<DurableScope of w: 20")
        with pytest.raises(UsageError, match="is entered once"), scope:
            pass

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


@pytest.mark.parametrize("delay", [-1, float("nan"), "5", None])
async def test_delays_that_make_no_sense(resonate: Resonate, delay: Any) -> None:
    """A delay is a duration, and not negative."""

    async def workflow(ctx: Context) -> None:
        makes: list[Callable[[Any], object]] = [ctx.move_on_after, ctx.fail_after]
        for make in makes:
            with pytest.raises(InvalidArgument):
                make(delay)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


async def test_scope_without_time() -> None:
    """A delay of nothing is over at once: what is called inside is not begun."""

    async def workflow(ctx: Context) -> list[object]:
        with ctx.move_on_after(0) as scope:
            await ctx.run(slow, 1, None)
        return [scope.cancelled_caught, await ctx.run(step, "end")]

    await survives(workflow, returns=[True, "end"])


async def test_scope_of_another_frame(resonate: Resonate) -> None:
    """A scope is made and entered by its own function."""

    async def workflow(ctx: Context) -> None:
        scope = ctx.move_on_after(5)

        async def child(_: Context) -> None:
            with pytest.raises(WrongWorld, match="this ctx belongs to 'workflow'"):
                ctx.fail_after(1)
            with pytest.raises(WrongWorld, match="entering a durable scope"):
                scope.__enter__()

        await ctx.run(child)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
