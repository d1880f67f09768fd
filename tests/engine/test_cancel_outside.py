"""Cancellation from outside: whoever cancels, and wherever the execution is, code stops and nothing is left pending."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio
import pytest
from anyio import CancelScope
from attrs import define, field

from resonate_anyio import Context, DurableCancelledError, Resonate
from resonate_anyio._protocol import PromiseCreate, PromiseSearch, PromiseSettle, Request, TaskState
from resonate_anyio.networks import LocalNetwork

from .harness import Look, Unreachable, Wire, nothing


@define
class Cast:
    """Who takes part: a holder, two workers below it, somebody who only looks on.

    Attributes:
        stopped: which functions have been cancelled, in order.
    """

    network: LocalNetwork
    settings: dict[str, Any] = field(factory=dict)
    stopped: list[str] = field(factory=list)
    holder: Resonate = field(init=False)
    below: Resonate = field(init=False)
    bystander: Resonate = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.holder = Resonate(network=self.network, group="holder", pid="h", grace=0, **self.settings)
        self.below = Resonate(network=self.network, group="below", pid="b", grace=0, **self.settings)
        self.bystander = Resonate(network=self.network, group="bystander", pid="s")
        self.holder.register(self.waiting)
        self.holder.register(self.working)
        self.below.register(self.branch)
        self.below.register(self.leaf)

    async def _until_stopped(self, name: str, wait: Awaitable[object]) -> None:
        # One that is too young to know of its root may learn first that what it waits for was cancelled.
        try:
            await wait
        except (anyio.get_cancelled_exc_class(), DurableCancelledError):
            self.stopped.append(name)
            raise

    async def waiting(self, ctx: Context) -> None:
        """Wait for a remote workflow, beside a sleep and an external promise."""
        await ctx.sleep(10_000).spawn()
        await ctx.promise().spawn()
        await self._until_stopped("waiting", ctx.rpc("branch").target("below"))

    async def working(self, ctx: Context) -> None:
        """Run a leaf, beside a remote workflow."""
        await ctx.rpc("branch").target("below").spawn()
        await self._until_stopped("working", ctx.run(self.work))

    async def work(self) -> None:
        await self._until_stopped("work", anyio.sleep_forever())

    async def branch(self, ctx: Context) -> None:
        """A remote workflow with a remote call of its own."""
        await ctx.rpc("leaf").target("below").spawn()
        await self._until_stopped("branch", ctx.sleep(10_000))

    async def leaf(self) -> None:
        await self._until_stopped("leaf", anyio.sleep_forever())


async def left(resonate: Resonate) -> list[str]:
    """What is pending."""
    return [id for id, state in (await Look(resonate).states()).items() if state == "pending"]


async def by_handle(resonate: Resonate) -> None:
    await (await resonate.get("w")).cancel()


async def by_id(resonate: Resonate) -> None:
    await resonate.cancel("w")


async def by_promise(resonate: Resonate) -> None:
    await resonate.promises.cancel("w")


WAYS: Final = [by_handle, by_id, by_promise]

HOT: Final[dict[str, Any]] = {"hot_for": 1_000_000}
PARKED: Final[dict[str, Any]] = {"hot_for": 1}
UNLOADED: Final[dict[str, Any]] = {"hot_for": 1, "parked_limit": 0}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("canceller", ["holder", "bystander"])
@pytest.mark.parametrize(
    ("settings", "state"), [(HOT, TaskState.ACQUIRED), (PARKED, TaskState.SUSPENDED), (UNLOADED, TaskState.SUSPENDED)]
)
async def test_waiting_workflow(
    network: LocalNetwork,
    settings: dict[str, Any],
    state: TaskState,
    canceller: str,
    way: Callable[[Resonate], Awaitable[None]],
) -> None:
    """Hot, parked or unloaded, here or elsewhere: within a second all code has stopped and all promises are settled."""
    cast = Cast(network, settings)
    async with cast.holder, cast.below, cast.bystander:
        handle = await cast.holder.run("w", "waiting").spawn()
        await anyio.sleep(30)
        look = Look(cast.bystander)
        assert state is (await look.task("w")).state
        assert state is (await look.task("w.branch-1")).state
        # What was unloaded has stopped then.
        before = list(cast.stopped)
        await way(getattr(cast, canceller))
        await anyio.sleep(1)
        assert [] == await left(cast.bystander)
        assert sorted({"waiting", "branch", "leaf"} - set(before)) == sorted(cast.stopped[len(before) :])
        with pytest.raises(DurableCancelledError):
            await handle
        states = await look.states()
        assert {"rejected_canceled"} == {states[id] for id in states if "~" not in id}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("canceller", ["holder", "bystander"])
async def test_running_leaf(network: LocalNetwork, canceller: str, way: Callable[[Resonate], Awaitable[None]]) -> None:
    """A leaf that runs is cancelled within a second, its workflow with it, and what runs elsewhere."""
    cast = Cast(network)
    async with cast.holder, cast.below, cast.bystander:
        handle = await cast.holder.run("w", "working").spawn()
        await anyio.sleep(10)
        await way(getattr(cast, canceller))
        await anyio.sleep(1)
        assert ["branch", "leaf", "work", "working"] == sorted(cast.stopped)
        assert [] == await left(cast.bystander)
        with pytest.raises(DurableCancelledError):
            await handle


@pytest.mark.parametrize(("canceller", "within"), [("bystander", 1), ("holder", 0.4)])
async def test_young_execution(network: LocalNetwork, canceller: str, within: float) -> None:
    """One that is too young to listen to its root is ended within a second all the same; where it runs, at once."""
    cast = Cast(network)
    async with cast.holder, cast.below, cast.bystander:
        await cast.holder.run("w", "working").spawn()
        await anyio.sleep(0.2)
        await getattr(cast, canceller).cancel("w")
        assert (canceller == "holder") == ("work" in cast.stopped)
        await anyio.sleep(within)
        assert ["branch", "leaf", "work", "working"] == sorted(cast.stopped)
        assert [] == await left(cast.bystander)


async def test_nobody_runs_it(network: LocalNetwork) -> None:
    """What no process holds is cancelled as well, and not run by those who come later."""
    cast = Cast(network)
    async with cast.bystander:
        async with cast.holder, cast.below:
            await cast.holder.run("w", "working").spawn()
            await anyio.sleep(10)
        assert "w" in await left(cast.bystander)
        stopped = sorted(cast.stopped)
        await cast.bystander.cancel("w")
        assert [] == await left(cast.bystander)
        async with cast.holder, cast.below:
            await anyio.sleep(100)
            assert [] == await left(cast.bystander)
    assert stopped == sorted(cast.stopped)


async def test_by_another_program(network: LocalNetwork) -> None:
    """Somebody who only settles the root leaves the rest to the holder, who hears of it."""
    cast = Cast(network)
    async with cast.holder, cast.below, cast.bystander:
        await cast.holder.run("w", "waiting").spawn()
        await anyio.sleep(10)
        await Look(cast.bystander).settle("w", None, cast.bystander, "rejected_canceled")
        await anyio.sleep(1)
        assert ["branch", "leaf", "waiting"] == sorted(cast.stopped)
        assert [] == await left(cast.bystander)


@pytest.mark.parametrize("settings", [HOT, PARKED])
async def test_resolved_from_outside(network: LocalNetwork, settings: dict[str, Any]) -> None:
    """A root that is resolved from outside has that result, and what runs below it ends."""
    cast = Cast(network, settings)
    async with cast.holder, cast.below, cast.bystander:
        handle = await cast.holder.run("w", "waiting").spawn()
        await anyio.sleep(30)
        await cast.bystander.promises.resolve("w")
        assert (await handle) is None
        await anyio.sleep(1)
        assert ["branch", "leaf", "waiting"] == sorted(cast.stopped)
        assert [] == await left(cast.bystander)


async def test_branch_alone(network: LocalNetwork) -> None:
    """A remote call that is cancelled takes along what is below it, and its caller is told."""
    cast = Cast(network)
    async with cast.holder, cast.below, cast.bystander:
        handle = await cast.holder.run("w", "waiting").spawn()
        await anyio.sleep(10)
        await cast.bystander.cancel("w.branch-1")
        await anyio.sleep(1)
        assert ["branch", "leaf", "waiting"] == sorted(cast.stopped)
        with pytest.raises(DurableCancelledError):
            await handle


async def test_detached_call_is_left_alone(network: LocalNetwork) -> None:
    """What was detached goes on, also what is parked."""

    async def workflow(ctx: Context) -> None:
        await ctx.detached("branch").target("below")
        await ctx.sleep(10_000)

    cast = Cast(network, PARKED)
    cast.holder.register(workflow)
    async with cast.holder, cast.below, cast.bystander:
        await cast.holder.run("w", workflow).spawn()
        await anyio.sleep(30)
        await cast.bystander.cancel("w")
        await anyio.sleep(10)
        assert [] == cast.stopped
        pending = await left(cast.bystander)
    assert not any(id.startswith("w.sleep") for id in pending)
    assert any(id.startswith("w.d") for id in pending)


async def test_nothing_is_written_under_a_settled_root(network: LocalNetwork) -> None:
    """Code that is cancelled because its root was settled makes no durable call any more."""
    wire = Wire(network)
    tried: list[str] = []

    async def step() -> None:
        tried.append("ran")

    async def workflow(ctx: Context) -> None:
        try:
            await ctx.promise()
        finally:
            tried.append("cleaning up")
            with CancelScope(shield=True):
                await ctx.run(step)

    holder = Resonate(network=wire, pid="h")
    bystander = Resonate(network=network, pid="s")
    holder.register(workflow)
    async with holder, bystander:
        await holder.run("w", workflow).spawn()
        await anyio.sleep(10)
        wire.forget()
        await bystander.cancel("w")
        await anyio.sleep(10)
    assert ["cleaning up"] == tried
    assert [] == wire.created()


async def test_call_made_over_the_cancellation(network: LocalNetwork, clock: Any) -> None:
    """A descendant that is created just after the first pass is found by a later one."""
    wire = Wire(network)
    bystander = Resonate(network=wire)
    async with bystander:
        look = Look(bystander)
        await bystander.promises.create("w", clock() + 1_000_000)

        async def create_late(request: Request, _: object) -> None:
            if isinstance(request, PromiseSearch):
                wire.after = nothing
                tags = {"resonate:parent": "w", "resonate:origin": "w", "resonate:branch": "w"}
                await look.request(PromiseCreate(id="w.late-1", timeout_at=clock() + 1_000_000, tags=tags))

        wire.after = create_late
        await bystander.cancel("w")
        assert ["w.late-1"] == await left(bystander)
        await anyio.sleep(2.1)
        assert [] == await left(bystander)


async def test_call_made_during_a_pass(network: LocalNetwork, clock: Any) -> None:
    """A descendant that is created while others are being settled is found at once."""
    wire = Wire(network)
    bystander = Resonate(network=wire)
    async with bystander:
        look = Look(bystander)
        tags = {"resonate:parent": "w", "resonate:origin": "w", "resonate:branch": "w"}
        await bystander.promises.create("w", clock() + 1_000_000)
        await bystander.promises.create("w.b-1", clock() + 1_000_000, tags=tags)

        async def create_late(request: Request, _: object) -> None:
            if isinstance(request, PromiseSettle) and request.id == "w.b-1":
                await look.request(PromiseCreate(id="w.a-1", timeout_at=clock() + 1_000_000, tags=tags))

        wire.after = create_late
        await bystander.cancel("w")
        assert [] == await left(bystander)


async def test_sweep_that_is_not_answered(network: LocalNetwork) -> None:
    """The holder who hears of it tries until what is below is settled."""
    wire = Wire(network)
    holder = Resonate(network=wire, pid="h")
    bystander = Resonate(network=network, pid="s")

    async def workflow(ctx: Context) -> None:
        await ctx.promise()

    async def fail(request: Request) -> None:
        if isinstance(request, PromiseSettle):
            raise Unreachable

    holder.register(workflow)
    async with holder, bystander:
        await holder.run("w", workflow).spawn()
        await anyio.sleep(10)
        wire.before = fail
        await Look(bystander).settle("w", None, bystander, "rejected_canceled")
        await anyio.sleep(10)
        assert ["w.promise-1"] == await left(bystander)
        wire.before = nothing
        await anyio.sleep(30)
        assert [] == await left(bystander)


async def test_code_that_does_not_end_holds_up_nothing(network: LocalNetwork) -> None:
    """What is below is settled within a second or two although the code itself goes on in a shield."""
    ended: list[int] = []

    async def workflow(ctx: Context) -> None:
        await ctx.promise().spawn()
        with CancelScope(shield=True):
            await anyio.sleep(100)
        ended.append(1)

    holder = Resonate(network=network, pid="h")
    holder.register(workflow)
    async with holder:
        await holder.run("w", workflow).spawn()
        await anyio.sleep(10)
        start = anyio.current_time()
        await holder.cancel("w")
        assert anyio.current_time() - start <= 1.1
        assert [] == await left(holder)
        assert [] == ended


async def test_stop_ends_the_second_look(network: LocalNetwork) -> None:
    """The look that is still due after a cancellation does not hold up the end of the block."""

    async def workflow(ctx: Context) -> None:
        await ctx.promise()

    holder = Resonate(network=network, pid="h")
    holder.register(workflow)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(holder)
        await holder.run("w", workflow).spawn()
        await anyio.sleep(1)
        await holder.cancel("w")
        start = anyio.current_time()
    assert 0 == pytest.approx(anyio.current_time() - start, abs=0.01)
