"""`ctx.task_group()`: a nursery of durable calls, live and after a crash at any point (docs/semantics.md 4)."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from resonate_anyio import (
    Context,
    DurableCancelledError,
    DurableFuture,
    DurableTimeoutError,
    InvalidArgument,
    Resonate,
    UsageError,
    WrongWorld,
)
from resonate_anyio._protocol import Request
from resonate_anyio.networks import LocalNetwork
from tests.crash.corpus.leaves import Oops, fail, slow, step
from tests.crash.scenarios import Outside

from .harness import Look, Wire, World, creates, settles
from .replays import states, survives

BY_GROUP = {"by": "group", "depth": 0}

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


class Interrupt(BaseException):
    """As good as `KeyboardInterrupt`, which asyncio does not let a test catch."""


def oops(text: str) -> NoReturn:
    """Fail, where a statement is to be short."""
    raise Oops(text)


async def nap(seconds: float = 100, value: str = "done") -> str:
    await anyio.sleep(seconds)
    return value


async def call(ctx: Context) -> None:
    await ctx.run(slow, 60, None)


async def broken(seconds: float = 1, text: str = "") -> None:
    await anyio.sleep(seconds)
    raise Oops(text)


def texts(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """What is in a group, in its order."""
    return [f"{type(error).__name__}: {error}" for error in group.exceptions]


# Starting


async def test_start_returns_at_once(resonate: Resonate, wire: Wire) -> None:
    """Every way of starting returns without a checkpoint, the id known; all creates are under way together."""
    under_way: set[str] = set()
    together = anyio.Event()

    async def before(request: Request) -> None:
        for id in ("nap-1", "nap-2", "nap-3", "nobody-1", "sleep-1", "promise-1", "nap-1t1"):
            if creates(f"w.{id}")(request):
                under_way.add(id)
        if len(under_way) == 7:
            together.set()
        if under_way and not together.is_set():
            await together.wait()

    async def plain(ctx: Context) -> None:
        await ctx.run(nap, 1)

    async def workflow(ctx: Context) -> list[str]:
        async with ctx.task_group() as tg:
            begun = anyio.current_time()
            futures: list[DurableFuture[Any]] = [
                tg.start(ctx.run(nap, 1)),
                tg.run(nap, 1),
                tg.run(nap, seconds=1),
                tg.rpc("nobody"),
                tg.sleep(1),
                tg.promise(param="p"),
            ]
            tg.start_soon(plain, ctx)
            ids = [future.id for future in futures]
            assert anyio.current_time() == begun
            with anyio.fail_after(10):
                await together.wait()
        return ids

    resonate.register(workflow)
    wire.before = before
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        for id in ("w.nobody-1", "w.promise-1"):
            await resonate.promises.resolve(id)
        assert ["w.nap-1", "w.nap-2", "w.nap-3", "w.nobody-1", "w.sleep-1", "w.promise-1"] == await handle
        assert "p" == (await resonate.promises.get("w.promise-1")).param


async def test_results_once_the_block_has_ended() -> None:
    """The block waits for all that it has started; then each result is there without an await."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as tg:
            futures = [tg.run(slow, 3, "a"), tg.run(slow, 1, "b"), tg.start(ctx.run(step, "c").named("c"))]
            nap = tg.sleep(2)
        return [*(future.result() for future in futures), nap.result(), futures[0].exception()]

    assert {"c": "resolved", "sleep-1": "resolved", "slow-1": "resolved", "slow-2": "resolved"} == states(
        await survives(workflow, returns=["a", "b", "c", None, None])
    )


async def test_result_is_no_question_before_that(resonate: Resonate) -> None:
    """Inside of the block a future has no result before it was awaited, whether the answer is there or not."""

    async def workflow(ctx: Context) -> str:
        async with ctx.task_group() as tg:
            future = tg.run(nap, 1, "x")
            await anyio.sleep(10)
            with pytest.raises(UsageError, match=r"result\(\) of 'w.nap-1' was asked for before"):
                future.result()
            with pytest.raises(UsageError, match=r"exception\(\) of 'w.nap-1' was asked for before"):
                future.exception()
            await future
            assert "x" == future.result()
        return future.result()

    resonate.register(workflow)
    async with resonate:
        assert "x" == await resonate.run("w", workflow)


async def test_awaited_inside_outside_and_twice() -> None:
    """A future gives its result wherever and however often it is awaited, in several tasks too."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def wait(future: DurableFuture[Any]) -> None:
            got.append(await future)

        futures: list[DurableFuture[str]] = []
        async with ctx.task_group() as tg:
            futures += [tg.run(slow, 1, "a"), tg.run(slow, 5, "b")]
            got += [await futures[0], await futures[0]]
            tg.start_soon(wait, futures[1])
            tg.start_soon(wait, futures[1])
        first, second = futures
        got += [await first, await second, await second]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, first)
            tasks.start_soon(wait, first)
        got.append(await ctx.run(step, "end"))
        return got

    await survives(workflow, returns=["a", "a", "b", "b", "a", "b", "b", "a", "a", "end"])


async def test_group_that_starts_nothing(resonate: Resonate, wire: Wire) -> None:
    """An empty group costs nothing."""

    async def workflow(ctx: Context) -> str:
        async with ctx.task_group() as tg:
            assert repr(tg) == "<DurableTaskGroup of w, 0 started>"
        return "done"

    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)
        assert ["task.create", "task.fulfill"] == wire.kinds


async def test_builder_is_used_by_a_group(resonate: Resonate) -> None:
    """A builder that was started in a group cannot be awaited or started again."""

    async def workflow(ctx: Context) -> str:
        call = ctx.run(nap, 1)
        async with ctx.task_group() as tg:
            tg.start(call)
            with pytest.raises(UsageError, match="started already"):
                await call
            with pytest.raises(UsageError, match="started already"):
                tg.start(call)
        return "done"

    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)


# Failing


async def test_first_failure_cancels_the_rest() -> None:
    """Whatever else runs is ended by the first failure, of whatever kind it is, and recorded so; what won is kept."""

    async def child(ctx: Context) -> None:
        await ctx.run(slow, 50, None)

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        futures: list[DurableFuture[Any]] = []
        try:
            async with ctx.task_group() as tg:
                futures += [
                    tg.run(slow, 1, "won"),
                    tg.run(fail, "no", 2),
                    tg.run(slow, 60, "never"),
                    tg.run(child),
                    tg.start(ctx.rpc("nobody").target("elsewhere")),
                    tg.sleep(30),
                    tg.promise(),
                ]
                await ctx.sleep(20)
                got.append("not reached")
        except ExceptionGroup as caught:
            got += texts(caught)
        got.append(futures[0].result())
        got += [type(future.exception()).__name__ for future in futures[1:]]
        return [*got, await ctx.run(step, "after")]

    endings = await survives(workflow, returns=["Oops: no", "won", "Oops", *["DurableCancelledError"] * 5, "after"])
    cancelled = ("rejected_canceled", BY_GROUP)
    assert {
        "child-1": cancelled,
        "child-1.slow-1": cancelled,
        "nobody-1": cancelled,
        "promise-1": cancelled,
        "sleep-1": cancelled,
        "sleep-2": cancelled,
        "slow-1": ("resolved", "won"),
        "slow-2": cancelled,
        "step-1": ("resolved", "after"),
    } == {id: ending for id, ending in endings.items() if id != "fail-1"}
    assert "rejected" == endings["fail-1"][0]


async def test_failures_are_in_the_order_in_which_they_were_started() -> None:
    """All that failed are raised together: calls and plain code as they were started, the body's own last."""

    async def cleanup(ctx: Context, text: str) -> None:
        try:
            await ctx.run(slow, 100, None)
        finally:
            raise Oops(text)

    async def workflow(ctx: Context) -> list[str]:
        try:
            async with ctx.task_group() as tg:
                tg.run(cleanup, "first")
                tg.start_soon(cleanup, ctx, "second")
                tg.run(fail, "third", 1)
                tg.run(slow, 50, "cancelled")
                try:
                    await ctx.sleep(10)
                finally:
                    oops("body")
        except ExceptionGroup as caught:
            return [caught.message, *texts(caught)]
        return []

    await survives(
        workflow,
        returns=[
            "4 of what a task group of 'w' has started failed",
            "Oops: first",
            "Oops: second",
            "Oops: third",
            "Oops: body",
        ],
    )


async def test_body_that_raises_what_a_child_raised() -> None:
    """A body that awaits a failing call and lets the failure out adds nothing to the group."""

    async def workflow(ctx: Context) -> list[str]:
        try:
            async with ctx.task_group() as tg:
                tg.run(slow, 50, None)
                await tg.run(fail, "no", 1)
        except ExceptionGroup as caught:
            return texts(caught)
        return []

    await survives(workflow, returns=["Oops: no"])


async def test_body_that_catches_what_a_child_raised() -> None:
    """Catching it in the body does not undo the failure: the body goes on to its next await, and the group fails."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        try:
            async with ctx.task_group() as tg:
                tg.run(slow, 50, None)
                try:
                    await tg.run(fail, "no", 1)
                except Oops:
                    got.append("caught")
                await ctx.run(step, "not reached")
                got.append("not reached")
        except ExceptionGroup as caught:
            got += texts(caught)
        return [*got, await ctx.run(step, "end")]

    await survives(workflow, returns=["caught", "Oops: no", "end"])


async def test_body_of_its_own_fails() -> None:
    """A body that raises cancels everything, and is in the group alone."""

    async def workflow(ctx: Context) -> list[str]:
        try:
            async with ctx.task_group() as tg:
                tg.run(slow, 50, None)
                tg.sleep(50)
                tg.start_soon(ctx.sleep, 50)
                await ctx.run(step, 1)
                oops("body")
        except ExceptionGroup as caught:
            return [*texts(caught), await ctx.run(step, "end")]
        return []

    endings = await survives(workflow, returns=["Oops: body", "end"])
    assert ("rejected_canceled", BY_GROUP) == endings["slow-1"]


async def test_body_that_fails_before_anything_has_begun(resonate: Resonate, wire: Wire) -> None:
    """What was started in vain has never run, and its future tells that it was cancelled."""

    async def in_vain(ctx: Context, futures: list[DurableFuture[str]]) -> None:
        async with ctx.task_group() as tg:
            futures.append(tg.run(nap))
            oops("at once")

    async def workflow(ctx: Context) -> str:
        futures: list[DurableFuture[str]] = []
        with pytest.raises(ExceptionGroup) as caught:
            await in_vain(ctx, futures)
        (future,) = futures
        assert ["Oops: at once"] == texts(caught.value)
        with pytest.raises(DurableCancelledError, match=r"w.nap-1"):
            future.result()
        with pytest.raises(DurableCancelledError, match=r"w.nap-1"):
            await future
        assert isinstance(future.exception(), DurableCancelledError)
        return "done"

    resonate.register(workflow)
    async with resonate:
        assert "done" == await resonate.run("w", workflow)


async def test_child_that_times_out_by_itself_is_a_failure() -> None:
    """A member past its own deadline fails the group, whatever kind it is."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        for call in (
            ctx.run(slow, 100, None).timeout(5),
            ctx.rpc("nobody").target("elsewhere").timeout(5),
            ctx.promise().timeout(5),
        ):
            try:
                async with ctx.task_group() as tg:
                    tg.start(call)
                    tg.run(slow, 50, None)
            except* DurableTimeoutError as caught:
                got += [type(error).__name__ for error in caught.exceptions]
        return got

    endings = await survives(workflow, returns=["DurableTimeoutError"] * 3)
    assert {
        "nobody-1": "rejected_timedout",
        "promise-1": "rejected_timedout",
        "slow-1": "rejected_timedout",
        "slow-2": "rejected_canceled",
        "slow-3": "rejected_canceled",
        "slow-4": "rejected_canceled",
    } == states(endings)


async def test_child_cancelled_from_outside_is_a_failure() -> None:
    """A member that somebody else has cancelled fails the group."""

    async def outside(world: Outside) -> None:
        await world.exists("w.promise-1")
        await world.at(3)
        await world.withdraw("w.promise-1")

    async def workflow(ctx: Context) -> list[str]:
        try:
            async with ctx.task_group() as tg:
                tg.promise()
                tg.run(slow, 50, None)
        except ExceptionGroup as caught:
            return [str(error.id) for error in caught.exceptions if isinstance(error, DurableCancelledError)]
        return []

    endings = await survives(workflow, returns=["w.promise-1"], outside=outside)
    assert "rejected_canceled" == endings["slow-1"][0]


async def test_child_that_is_awaited_and_given_up_is_no_failure() -> None:
    """Cancelling the await of a member cancels that member alone: the group goes on and does not fail."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as tg:
            given_up, kept = tg.run(slow, 50, None), tg.run(slow, 10, "kept")
            with anyio.move_on_after(2):
                await given_up
        return [kept.result(), type(given_up.exception()).__name__]

    endings = await survives(workflow, returns=["kept", "DurableCancelledError"])
    assert ("rejected_canceled", {"by": "scope"}) == endings["slow-1"]


async def test_failures_by_type() -> None:
    """`except*` takes a group apart by type, and what is left over goes on."""

    async def odd(ctx: Context) -> None:
        try:
            await ctx.sleep(100)
        finally:
            raise KeyError(ctx.func_name)

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        try:
            try:
                async with ctx.task_group() as tg:
                    tg.run(odd)
                    tg.run(fail, "no", 1)
            except* Oops as caught:
                got += texts(caught)
        except* KeyError as caught:
            got += texts(caught)
        return got

    await survives(workflow, returns=["Oops: no", "KeyError: 'odd'"])


async def test_failure_that_leaves_the_workflow() -> None:
    """A group's failure that nobody catches is the workflow's, and nothing is told twice."""

    async def workflow(ctx: Context) -> None:
        async with ctx.task_group() as tg:
            tg.run(fail, "no", 1)
            tg.run(slow, 50, None)

    await survives(workflow, fails="ExceptionGroup: 1 of what a task group of 'w' has started failed*")


async def test_no_notes_for_what_is_in_the_group(resonate: Resonate) -> None:
    """What the group has raised, or has cancelled, was seen: the workflow's failure has no notes about it."""

    async def workflow(ctx: Context) -> None:
        async with ctx.task_group() as tg:
            tg.run(broken, 1, "a")
            tg.run(nap)
            tg.sleep(100)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("w", workflow)
    assert ["Oops: a"] == texts(caught.value)
    assert [] == getattr(caught.value, "__notes__", [])


# Nesting


async def test_groups_in_groups() -> None:
    """A failure goes out through each group around it, one layer for each, and ends what is beside it."""

    async def workflow(ctx: Context) -> list[object]:
        beside: DurableFuture[None] | None = None
        try:
            async with ctx.task_group() as outer:
                beside = outer.run(slow, 50, None)
                async with ctx.task_group() as inner:
                    inner.run(slow, 40, None)
                    inner.run(fail, "no", 1)
        except ExceptionGroup as caught:
            inside = [text for one in caught.exceptions if isinstance(one, ExceptionGroup) for text in texts(one)]
            return [len(caught.exceptions), *inside, type(beside and beside.exception()).__name__]
        return []

    endings = await survives(workflow, returns=[1, "Oops: no", "DurableCancelledError"])
    assert ("rejected_canceled", {"by": "group", "depth": 0}) == endings["slow-1"]
    assert ("rejected_canceled", {"by": "group", "depth": 1}) == endings["slow-2"]


async def test_inner_group_that_fails_and_is_caught() -> None:
    """A failure that is caught around the inner group leaves the outer one alone."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as outer:
            beside = outer.run(slow, 10, "beside")
            try:
                async with ctx.task_group() as inner:
                    inner.run(slow, 40, None)
                    inner.run(fail, "no", 1)
            except* Oops:
                pass
            after = outer.run(step, "after")
        return [beside.result(), after.result(), await ctx.run(step, "end")]

    await survives(workflow, returns=["beside", "after", "end"])


async def test_outer_failure_ends_the_inner_group() -> None:
    """The failure of the outer group ends the inner one, which has nothing to raise of its own."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        futures: list[DurableFuture[None]] = []
        try:
            async with ctx.task_group() as outer:
                outer.run(fail, "no", 2)
                try:
                    async with ctx.task_group() as inner:
                        futures.append(inner.run(slow, 40, None))
                        await ctx.sleep(30)
                except ExceptionGroup:
                    got.append("not raised")
                got.append("not reached")
        except ExceptionGroup as caught:
            got += texts(caught)
        return [*got, type(futures[0].exception()).__name__, await ctx.run(step, "end")]

    endings = await survives(workflow, returns=["Oops: no", "DurableCancelledError", "end"])
    assert ("rejected_canceled", {"by": "group", "depth": 0}) == endings["slow-1"]


async def test_groups_in_members_of_groups() -> None:
    """A member that is a workflow has groups of its own; a failure around it goes down to theirs, with clean-up."""

    async def child(ctx: Context, n: int) -> int:
        try:
            async with ctx.task_group() as tg:
                futures = [tg.run(slow, n * 10 + k, k) for k in (1, 2)]
            return sum(future.result() for future in futures)
        finally:
            with anyio.CancelScope(shield=True):
                await ctx.run(step, "undone").named("undo")

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        quick: DurableFuture[int] | None = None
        try:
            async with ctx.task_group() as tg:
                quick = tg.run(child, 0)
                tg.run(child, 5)
                tg.run(fail, "no", 20)
        except* Oops as caught:
            got += texts(caught)
        assert quick is not None
        return [*got, quick.result()]

    endings = await survives(workflow, returns=["Oops: no", 3])
    assert ("rejected_canceled", BY_GROUP) == endings["child-2"]
    assert ("resolved", "undone") == endings["child-2.undo"]
    assert "rejected_canceled" == endings["child-2.slow-1"][0]


async def test_groups_in_plain_code_of_groups() -> None:
    """Plain code that was started in a group may open groups of its own and start more in the outer one."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[list[str]] = []

        async def row(n: int) -> None:
            async with ctx.task_group() as own:
                first, second = own.run(slow, n, f"{n}a"), own.run(slow, 1, f"{n}b")
            got.append([first.result(), second.result()])
            tg.start_soon(last, n)

        async def last(n: int) -> None:
            got.append([await ctx.run(slow, n, f"{n}z")])

        async with ctx.task_group() as tg:
            tg.start_soon(row, 2)
            tg.start_soon(row, 4)
        return [text for texts in sorted(got) for text in texts]

    endings = await survives(workflow, returns=["2a", "2b", "2z", "4a", "4b", "4z"])
    assert ["slow-1t1", "slow-1t1-1", "slow-1t2", "slow-1t2-1", "slow-2t1", "slow-2t2"] == sorted(endings)


# Plain code


async def test_plain_code_counts_by_itself() -> None:
    """Each task of `start_soon` is a lane numbered by the program's text; its failures are the group's."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []

        async def row(n: int) -> None:
            got.append(await ctx.run(slow, n, f"{n}a"))
            got.append(await ctx.run(slow, 0.5, f"{n}b"))

        async def failing() -> None:
            await ctx.run(slow, 5, "before")
            oops("plain")

        async def waiting() -> None:
            await ctx.sleep(50)
            got.append("not reached")

        try:
            async with ctx.task_group() as tg:
                for n in (2, 1):
                    tg.start_soon(row, n)
                tg.start_soon(failing)
                tg.start_soon(waiting, name="waiting")
                got.append(await ctx.run(slow, 3, "body"))
        except* Oops as caught:
            got += texts(caught)
        # Between tasks there is no order.
        return sorted(got)

    endings = await survives(workflow, returns=["1a", "1b", "2a", "2b", "Oops: plain", "body"])
    assert {
        "sleep-1t4": "rejected_canceled",
        "slow-1": "resolved",
        "slow-1t1": "resolved",
        "slow-1t2": "resolved",
        "slow-1t3": "resolved",
        "slow-2t1": "resolved",
        "slow-2t2": "resolved",
    } == states(endings)


async def test_plain_code_that_makes_no_call(resonate: Resonate) -> None:
    """Plain code without durable calls is joined and cancelled like any other."""
    got: list[str] = []

    async def workflow(ctx: Context) -> None:
        async def waiting() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                got.append("cancelled")

        async def failing() -> None:
            await anyio.sleep(1)
            oops("plain")

        async with ctx.task_group() as tg:
            tg.start_soon(waiting)
            tg.start_soon(failing)

    resonate.register(workflow)
    async with resonate:
        with pytest.raises(ExceptionGroup) as caught:
            await resonate.run("w", workflow)
    assert (["cancelled"], ["Oops: plain"]) == (got, texts(caught.value))


# Cancelling


async def test_group_cancelled_by_its_body() -> None:
    """`cancel_scope.cancel()` ends everything quietly; what has won is kept, what has not is cancelled."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        futures: list[DurableFuture[Any]] = []
        async with ctx.task_group() as tg:
            futures += [tg.run(slow, 1, "won"), tg.run(slow, 50, None)]
            got.append(await futures[0])
            tg.cancel_scope.cancel()
            await ctx.sleep(10)
            got.append("not reached")
        won, lost = futures
        with pytest.raises(DurableCancelledError):
            await lost
        return [*got, won.result(), tg.cancel_scope.cancelled_caught, await ctx.run(step, "end")]

    endings = await survives(workflow, returns=["won", "won", True, "end"])
    assert ("rejected_canceled", BY_GROUP) == endings["slow-2"] == endings["sleep-1"]


async def test_group_cancelled_by_its_plain_code() -> None:
    """A task of the group may cancel it, too."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as tg:
            lost = tg.run(slow, 50, None)

            async def stop() -> None:
                await ctx.sleep(2)
                tg.cancel_scope.cancel()

            tg.start_soon(stop)
        return [type(lost.exception()).__name__, await ctx.run(step, "end")]

    await survives(workflow, returns=["DurableCancelledError", "end"])


async def test_cancelled_group_that_fails_in_its_clean_up() -> None:
    """A group that was cancelled by hand raises what has failed besides."""

    async def child(ctx: Context) -> None:
        try:
            await ctx.sleep(100)
        finally:
            oops("cleanup")

    async def workflow(ctx: Context) -> list[str]:
        try:
            async with ctx.task_group() as tg:
                tg.run(child)
                await ctx.sleep(1)
                tg.cancel_scope.cancel()
        except ExceptionGroup as caught:
            return texts(caught)
        return []

    await survives(workflow, returns=["Oops: cleanup"])


@pytest.mark.parametrize("kind", ["plain", "durable", "asyncio"])
async def test_scope_around_a_group(kind: str, anyio_backend_name: str) -> None:
    """A deadline around a group ends it, with all that it has started; the group has nothing to raise."""
    if kind == "asyncio" and anyio_backend_name != "asyncio":
        pytest.skip("only on asyncio")

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def body() -> None:
            async with ctx.task_group() as tg:
                quick = tg.run(slow, 1, "quick")
                futures = [tg.run(slow, 50, None), tg.sleep(50), tg.promise()]
                got.append(await quick)
                got.extend(futures)
                await ctx.sleep(40)
                got.append("not reached")

        try:
            match kind:
                case "plain":
                    with anyio.fail_after(5):
                        await body()
                case "durable":
                    with ctx.fail_after(5):
                        await body()
                case _:
                    async with asyncio.timeout(5):
                        await body()
        except TimeoutError:
            got.append("late")
        kinds = [type(one.exception()).__name__ if isinstance(one, DurableFuture) else one for one in got]
        return [*kinds, await ctx.run(step, "end")]

    error = "DurableTimeoutError" if kind == "durable" else "DurableCancelledError"
    endings = await survives(workflow, returns=["quick", error, error, error, "late", "end"])
    state = "rejected_timedout" if kind == "durable" else "rejected_canceled"
    lost = {"promise-1": state, "sleep-1": state, "sleep-2": state, "slow-2": state}
    if kind == "durable":
        # Timers end as they do, and are read as the timeout of what has cut them short.
        lost |= {"sleep-1": "resolved", "sleep-2": "resolved"}
    assert {**lost, "slow-1": "resolved", "step-1": "resolved"} == states(endings)


@pytest.mark.parametrize("kind", ["plain", "asyncio"])
async def test_scope_around_the_end_of_a_group(kind: str, anyio_backend_name: str) -> None:
    """So does one that passes while the group waits for its members; a replay does not go on behind the block."""
    if kind == "asyncio" and anyio_backend_name != "asyncio":
        pytest.skip("only on asyncio")

    async def workflow(ctx: Context) -> str:
        async def body() -> str:
            async with ctx.task_group() as tg:
                tg.sleep(50)
                tg.sleep(60)
                tg.run(slow, 50, None)
                tg.start_soon(call, ctx)
            return await ctx.run(step, "not reached")

        try:
            if kind == "plain":
                with anyio.fail_after(5):
                    return await body()
            async with asyncio.timeout(5):
                return await body()
        except TimeoutError:
            return await ctx.run(step, "late")

    endings = await survives(workflow, returns="late")
    by_scope = ("rejected_canceled", {"by": "scope"})
    assert [by_scope] * 4 == [endings[id] for id in ("sleep-1", "sleep-2", "slow-1", "slow-1t1")]


async def test_deadline_of_the_frame_around_a_group() -> None:
    """A group in a call that misses its deadline ends with it."""

    async def child(ctx: Context) -> None:
        async with ctx.task_group() as tg:
            tg.run(slow, 50, None)
            tg.rpc("nobody")
            tg.start_soon(call, ctx)
            await ctx.sleep(30)

    async def workflow(ctx: Context) -> str:
        with pytest.raises(DurableTimeoutError, match=r"w\.child-1"):
            await ctx.run(child).timeout(5)
        return await ctx.run(step, "end")

    await survives(workflow, returns="end", others={"elsewhere": ()})


async def test_failing_parent_of_a_group() -> None:
    """A group in a spawned call whose caller fails is cancelled, depth first, with its compensation."""

    async def child(ctx: Context) -> None:
        try:
            async with ctx.task_group() as tg:
                tg.run(slow, 50, None)
                await ctx.sleep(30)
        finally:
            with anyio.CancelScope(shield=True):
                await ctx.run(step, "undone").named("undo")

    async def workflow(ctx: Context) -> None:
        await ctx.run(child).spawn()
        await ctx.sleep(3)
        oops("no")

    endings = await survives(workflow, fails="Oops: no")
    assert ("resolved", "undone") == endings["child-1.undo"]
    assert ("rejected_canceled", {"by": "parent"}) == endings["child-1"]


async def test_compensation_in_members() -> None:
    """A member that is cancelled by the group may do durable work under a shield; the group waits for it."""

    async def child(ctx: Context, text: str) -> str:
        try:
            return await ctx.run(slow, 50, text)
        finally:
            with anyio.CancelScope(shield=True):
                await ctx.sleep(2)
                await ctx.run(step, f"undo {text}").named("undo")

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        try:
            async with ctx.task_group() as tg:
                tg.run(child, "a")
                tg.run(child, "b")
                tg.run(fail, "no", 3)
        except* Oops:
            got.append(await ctx.run(step, "end"))
        return got

    endings = await survives(workflow, returns=["end"])
    assert [("resolved", "undo a"), ("resolved", "undo b")] == [endings[f"child-{n}.undo"] for n in (1, 2)]
    assert ("rejected_canceled", BY_GROUP) == endings["child-1"] == endings["child-2"]


async def test_compensation_in_the_body() -> None:
    """The body of a cancelled group may do durable work under a shield, and start nothing new in the group after it."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        try:
            async with ctx.task_group() as tg:
                tg.run(fail, "no", 3)
                try:
                    await ctx.sleep(100)
                finally:
                    with anyio.CancelScope(shield=True):
                        got.append(await ctx.run(slow, 2, "undone"))
        except* Oops as caught:
            got += texts(caught)
        return [*got, await ctx.run(step, "end")]

    await survives(workflow, returns=["undone", "Oops: no", "end"])


async def test_plain_code_compensates() -> None:
    """So may its plain code."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []

        async def careful() -> None:
            try:
                await ctx.run(slow, 100, None)
            finally:
                with anyio.CancelScope(shield=True):
                    got.append(await ctx.run(slow, 2, "undone"))

        try:
            async with ctx.task_group() as tg:
                tg.start_soon(careful)
                tg.run(fail, "no", 3)
        except* Oops as caught:
            got += texts(caught)
        return [*got, await ctx.run(step, "end")]

    await survives(workflow, returns=["undone", "Oops: no", "end"])


async def nothing_much() -> None:
    pass


async def late_oops() -> None:
    await anyio.sleep(2)
    raise Oops


async def careful_code(ctx: Context) -> str:
    async def code() -> None:
        with CancelScope(shield=True):
            await ctx.sleep(10)

    try:
        async with ctx.task_group() as tg:
            tg.run(late_oops)
            tg.start_soon(code)
            await anyio.sleep(0.1)
            tg.run(nothing_much)
    except ExceptionGroup:
        return "failed"
    return "not reached"


async def test_shield_in_a_group_that_is_condemned(world: World) -> None:
    """A replay of a failed group goes on in a shield of one of its tasks, as the first run did."""
    process = world.process(careful_code)
    async with process:
        await process.resonate.run("w", careful_code).spawn()
        await anyio.sleep(5)
        process.kill()
    async with world.process(careful_code) as process:
        with anyio.fail_after(3600):
            assert "failed" == await process.resonate.run("w", careful_code)


async def test_calls_started_in_a_cancelled_group() -> None:
    """What is started once the group is cancelled is not begun, and nothing of it stays behind."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        futures: list[DurableFuture[str]] = []
        try:
            async with ctx.task_group() as tg:
                tg.run(fail, "no", 3)
                try:
                    await ctx.sleep(100)
                finally:
                    futures.append(tg.run(slow, 1, "never"))
        except* Oops as caught:
            got += texts(caught)
        return [*got, type(futures[0].exception()).__name__, await ctx.run(step, "end")]

    await survives(workflow, returns=["Oops: no", "DurableCancelledError", "end"], varies=("w.slow-1",))


async def test_program_that_is_interrupted(world: World) -> None:
    """`KeyboardInterrupt` in a group is no outcome: nothing is recorded, and the next process goes on."""
    runs: list[str] = []

    async def interrupted() -> str:
        runs.append("run")
        await anyio.sleep(2)
        if len(runs) == 1:
            raise Interrupt
        return "done"

    async def workflow(ctx: Context) -> list[str]:
        async with ctx.task_group() as tg:
            futures = [tg.run(nap, 1, "a"), tg.run(interrupted), tg.run(nap, 3, "b")]
        return [future.result() for future in futures]

    with pytest.raises(BaseExceptionGroup) as caught:
        async with world.process(workflow) as process:
            await process.resonate.run("w", workflow)
    assert caught.group_contains(Interrupt)
    async with world.process(workflow) as process:
        assert ["a", "done", "b"] == await (await process.resonate.get("w"))
    assert ["run", "run"] == runs


# Awaiting members


async def test_await_of_a_member_whose_turn_has_not_come() -> None:
    """To give up waiting for a member that has not begun is to cancel it: it never runs."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group(limit=1) as tg:
            first, second, third = (tg.run(slow, 5, n) for n in (1, 2, 3))
            with anyio.move_on_after(2):
                await second
            got = await third
        return [first.result(), type(second.exception()).__name__, got]

    endings = await survives(workflow, returns=[1, "DurableCancelledError", 3])
    assert ("rejected_canceled", {"by": "scope"}) == endings["slow-2"]


async def test_await_of_a_member_in_a_durable_scope() -> None:
    """A durable deadline around the await of a member cancels that member; only calls made inside fix its instant."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as tg:
            future, kept = tg.run(slow, 50, None), tg.run(slow, 10, "kept")
            with ctx.move_on_after(2) as scope:
                await future
            after = await ctx.run(step, "after")
        return [type(future.exception()).__name__, kept.result(), scope.cancelled_caught, after]

    endings = await survives(workflow, returns=["DurableCancelledError", "kept", True, "after"], varies=("w.slow-1",))
    assert "deadline" == endings["slow-1"][1]["by"]  # type: ignore[index]


async def test_a_member_is_awaited_by_another() -> None:
    """Members may wait for each other's results, through the plain code of the group."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as tg:
            first = tg.run(slow, 3, "a")

            async def second() -> None:
                got.append(await ctx.run(step, await first + "b"))

            got: list[str] = []
            tg.start_soon(second)
            tg.start_soon(second)
        return list(got)

    await survives(workflow, returns=["ab", "ab"])


async def test_failing_member_awaited_in_plain_code() -> None:
    """Plain code that fails with what a member has failed with adds nothing to the group."""

    async def workflow(ctx: Context) -> list[str]:
        try:
            async with ctx.task_group() as tg:
                failing = tg.run(fail, "no", 2)

                async def wait() -> None:
                    await failing

                tg.start_soon(wait)
                tg.run(slow, 50, None)
        except ExceptionGroup as caught:
            return texts(caught)
        return []

    await survives(workflow, returns=["Oops: no"])


# Limits


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_limit(limit: int) -> None:
    """At most so many run at once, calls and plain code alike, in the order in which they were started."""
    running: set[str] = set()
    most = 0

    async def counted(ctx: Context, n: int) -> int:
        nonlocal most
        running.add(ctx.id)
        most = max(most, len(running))
        try:
            return await ctx.run(slow, 5 - n, n)
        finally:
            running.discard(ctx.id)

    async def workflow(ctx: Context) -> list[object]:
        running.clear()
        got: list[object] = []

        async def plain(n: int) -> None:
            got.append(await ctx.run(counted, n))

        async with ctx.task_group(limit=limit) as tg:
            futures = []
            for n in range(4):
                futures.append(tg.run(counted, n))
                tg.start_soon(plain, n)
        return [[future.result() for future in futures], sorted(got)]  # type: ignore[type-var]

    await survives(workflow, returns=[[0, 1, 2, 3], [0, 1, 2, 3]])
    assert limit == most


async def test_limit_and_failure() -> None:
    """Those whose turn has not come when the group fails never begin."""

    async def workflow(ctx: Context) -> list[object]:
        got: list[object] = []
        futures: list[DurableFuture[Any]] = []
        try:
            async with ctx.task_group(limit=2) as tg:
                futures += [tg.run(slow, 1, 0), tg.run(fail, "no", 2), *(tg.run(slow, 50, n) for n in (1, 2, 3))]
        except* Oops as caught:
            got += texts(caught)
        return [*got, futures[0].result(), *(type(future.exception()).__name__ for future in futures[2:])]

    endings = await survives(workflow, returns=["Oops: no", 0, *["DurableCancelledError"] * 3], varies=("w.slow-[34]",))
    assert {"fail-1": "rejected", "slow-1": "resolved", "slow-2": "rejected_canceled"} == states(endings)


async def test_limit_that_was_lower(world: World) -> None:
    """After a crash, what has ended takes no turn, and the others have theirs in the order of the text."""

    async def workflow(ctx: Context) -> list[int]:
        async with ctx.task_group(limit=1) as tg:
            futures = [tg.run(nap, 5, str(n)) for n in range(4)]
        return [int(future.result()) for future in futures]

    process = world.process(workflow)
    process.kill_at(settles("w.nap-2"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    async with world.process(workflow) as process:
        begun = anyio.current_time()
        assert [0, 1, 2, 3] == await (await process.resonate.get("w"))
        assert 10 == pytest.approx(anyio.current_time() - begun, abs=0.1)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
async def test_limits_that_make_no_sense(resonate: Resonate, limit: Any) -> None:
    """A limit is a positive whole number."""

    async def workflow(ctx: Context) -> None:
        for make in (ctx.task_group, ctx.gather, lambda **limits: ctx.map(nap, [], **limits)):
            with pytest.raises(InvalidArgument, match="at least 1"):
                make(limit=limit)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


# Wrong use


async def test_group_used_before_and_after_its_block(resonate: Resonate) -> None:
    """Outside of its block a group starts nothing, is not entered again, and says so."""

    async def workflow(ctx: Context) -> None:
        tg = ctx.task_group()
        with pytest.raises(UsageError, match=r"has a cancel scope once it has been entered"):
            _ = tg.cancel_scope
        for use, what in ((lambda: tg.sleep(1), "start"), (lambda: tg.start_soon(ctx.sleep, 1), "start_soon")):
            with pytest.raises(UsageError, match=rf"tg\.{what}\(\): this task group has not been entered"):
                use()
        async with tg:
            pass
        for use, what in ((lambda: tg.sleep(1), "start"), (lambda: tg.start_soon(ctx.sleep, 1), "start_soon")):
            with pytest.raises(UsageError, match=rf"tg\.{what}\(\): this task group has ended"):
                use()
        with pytest.raises(UsageError, match="is entered once"):
            await tg.__aenter__()

    resonate.register(workflow)
    async with resonate:
        with pytest.warns(RuntimeWarning, match="was never awaited"):
            await resonate.run("w", workflow)


async def test_group_starts_calls_only(resonate: Resonate) -> None:
    """Coroutines, futures and calls of other frames are refused with what to write instead."""

    async def child(ctx: Context, tg: Any) -> None:
        with pytest.raises(WrongWorld, match="this ctx belongs to 'workflow'"):
            tg.sleep(1)
        with pytest.raises(WrongWorld, match="this ctx belongs to 'workflow'"):
            tg.start_soon(ctx.sleep, 1)

    async def workflow(ctx: Context) -> None:
        async with ctx.task_group() as tg:
            future = tg.sleep(1)
            for wrong in (future, nap, 3):
                with pytest.raises(UsageError, match=r"tg\.start\(\) takes a call such as .*start_soon"):
                    tg.start(wrong)  # type: ignore[arg-type]
            await ctx.run(child, tg)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


async def test_function_that_cannot_be_called_so(resonate: Resonate) -> None:
    """A call that fails before there is a coroutine is a failure of the group like any other."""

    async def code(x: int) -> None:
        del x

    async def workflow(ctx: Context) -> list[str]:
        try:
            async with ctx.task_group() as tg:
                tg.start_soon(code)  # type: ignore[arg-type]
                await ctx.sleep(10)
        except ExceptionGroup as group:
            return [group.message, *(type(error).__name__ for error in group.exceptions)]
        return []

    resonate.register(workflow)
    async with resonate:
        message = "1 of what a task group of 'w' has started failed"
        assert [message, "TypeError"] == await resonate.run("w", workflow)


async def test_only_functions_are_started_soon(resonate: Resonate) -> None:
    """A durable call given to `start_soon` is refused, and the error says what takes it."""

    async def workflow(ctx: Context) -> None:
        async with ctx.task_group() as tg:
            call = ctx.run(nothing_much)
            try:
                with pytest.raises(UsageError, match=r"tg\.start\(call\)"):
                    tg.start_soon(call)  # type: ignore[arg-type]
            finally:
                await call

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


async def test_group_of_another_frame(resonate: Resonate) -> None:
    """A group is opened by the function whose context has made it."""

    async def workflow(ctx: Context) -> None:
        group = ctx.task_group()

        async def makes(_: Context) -> None:
            with pytest.raises(WrongWorld, match="this ctx belongs to 'workflow'"):
                ctx.task_group()

        async def enters(_: Context) -> None:
            with pytest.raises(WrongWorld, match="entering a task group"):
                await group.__aenter__()

        await ctx.run(makes)
        await ctx.run(enters)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)


# Replays


async def test_history_cancels_at_the_first_await_without_an_outcome(world: World) -> None:
    """A failure that is read from history cancels the body where it did at the earliest: not at a plain checkpoint."""
    got: list[str] = []

    async def workflow(ctx: Context) -> str:
        got.clear()
        try:
            async with ctx.task_group() as tg:
                tg.run(broken, 1, "no")
                for n in range(3):
                    await checkpoint()
                    await anyio.sleep(0.1)
                    await ctx.run(nap, 0.1, f"{n}")
                    got.append(f"{n}")
                await checkpoint()
                got.append("waiting")
                await ctx.sleep(100)
                got.append("not reached")
        except* Oops as caught:
            got.extend(texts(caught))
        return await ctx.run(nap, 1, "after").named("after")

    process = world.process(workflow)
    process.kill_at(creates("w.after"), answered=False)
    await world.run_until_killed(process, "w", workflow)
    assert ["0", "1", "2", "waiting", "Oops: no"] == got
    async with world.process(workflow) as process:
        assert "after" == await (await process.resonate.get("w"))
    assert ["0", "1", "2", "waiting", "Oops: no"] == got


async def test_pending_sibling_is_settled_without_being_started(world: World) -> None:
    """After a crash between a failure and the end of its siblings, these are cancelled without running again."""
    runs: list[str] = []

    async def long(text: str) -> None:
        runs.append(text)
        await anyio.sleep(100)

    async def parent(ctx: Context) -> None:
        runs.append("parent")

    async def workflow(ctx: Context) -> str:
        try:
            async with ctx.task_group() as tg:
                tg.run(long, "before")
                tg.run(parent)
                tg.run(broken, 1, "no")
                tg.run(long, "after")
        except* Oops:
            return_value = "failed"
        else:
            return_value = "not reached"
        return return_value

    process = world.process(workflow)
    process.kill_at(settles("w.broken-1"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    assert ["after", "before", "parent"] == sorted(runs)
    async with world.process(workflow) as process:
        begun = anyio.current_time()
        assert "failed" == await (await process.resonate.get("w"))
        assert begun == pytest.approx(anyio.current_time(), abs=0.1)
        assert ["rejected_canceled"] * 2 == [(await process.resonate.promises.get(f"w.long-{n}")).state for n in (1, 2)]
    assert ["after", "before", "parent"] == sorted(runs)


async def test_group_survives_a_long_downtime(world: World) -> None:
    """Sleeps in a group are instants: after a long time without a process the group ends at once."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as tg:
            nap, promise = tg.sleep(60), tg.promise()
            result = await promise
        return [nap.result(), result]

    async with world.process(workflow) as process:
        await process.resonate.run("w", workflow).spawn()
        await anyio.sleep(5)
        process.kill()
    await anyio.sleep(3600)
    async with world.process(workflow) as process:
        begun = anyio.current_time()
        await process.resonate.promises.resolve("w.promise-1", "ok")
        assert [None, "ok"] == await (await process.resonate.get("w"))
        assert begun == pytest.approx(anyio.current_time(), abs=0.5)


async def test_no_warning_of_a_plain_deadline(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """Groups and durable scopes, failing and cancelled, are no plain deadlines, and are not warned about."""

    async def workflow(ctx: Context) -> None:
        with ctx.move_on_after(50):
            try:
                async with ctx.task_group() as tg:
                    tg.run(broken, 1, "no")
                    try:
                        await ctx.sleep(100)
                    finally:
                        await ctx.sleep(5)
            except* Oops:
                pass
            await ctx.sleep(100)

    resonate.register(workflow)
    async with resonate:
        await resonate.run("w", workflow)
    assert "plain_deadline" not in caplog.text


async def test_group_that_waits_is_parked(network: LocalNetwork) -> None:
    """An execution that waits at the end of a group, for members and plain code of it, is parked; so is a race."""

    async def workflow(ctx: Context) -> list[object]:
        async with ctx.task_group() as tg:
            tg.sleep(100)
            tg.start_soon(ctx.sleep, 200)
        return list(await ctx.first(ctx.sleep(100), ctx.promise()))

    wire = Wire(network)
    resonate = Resonate(network=wire, pid="p", hot_for=1)
    resonate.register(workflow)
    async with resonate:
        handle = await resonate.run("w", workflow).spawn()
        for _ in range(3):
            wire.forget()
            await anyio.sleep(80)
            assert "task.suspend" in wire.kinds
            await anyio.sleep(10)
        assert [0, None] == await handle


# Detached calls


async def waits(ctx: Context) -> str:
    await ctx.sleep(20)
    return "waited"


async def test_detached_calls_are_started_only() -> None:
    """A group waits for a detached call to be on record, and its future gives the id; a failure does not reach it."""

    async def workflow(ctx: Context) -> list[str]:
        got: list[str] = []
        futures: list[DurableFuture[str]] = []
        try:
            async with ctx.task_group(limit=1) as tg:
                future = tg.start(ctx.detached(waits))
                futures.append(future)
                got.append("the same" if future.id == await future else "another")
                tg.run(fail, "no", 1)
                tg.run(slow, 5, "late")
        except* Oops:
            got.append("failed")
        return [*got, *("the same" if future.result() == future.id else "another" for future in futures)]

    endings = await survives(
        workflow, returns=["the same", "failed", "the same"], functions=(waits,), varies=("w.slow-1",)
    )

    [detached] = [id for id in endings if id.startswith("d") and "." not in id]
    assert ("resolved", "waited") == endings[detached]


async def test_detached_calls_in_a_cancelled_scope(resonate: Resonate) -> None:
    """One that was reached in a cancelled scope is recorded as cancelled; one that was started before goes on."""

    async def workflow(ctx: Context) -> list[str]:
        ids = [await ctx.detached(waits)]
        with CancelScope() as scope:
            scope.cancel()
            ids.append(await ctx.detached(waits))
        return ids

    resonate.register(workflow)
    resonate.register(waits)
    async with resonate:
        [started] = await resonate.run("w", workflow)
        found = await Look(resonate).states()
    detached = {id: state for id, state in found.items() if id.startswith("w.d") and "." not in id[2:]}
    assert "pending" == detached.pop(started)
    assert ["rejected_canceled"] == list(detached.values())
