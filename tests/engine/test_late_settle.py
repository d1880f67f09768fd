"""A worker that has lost its lease still records what its leaf has done, when the next holder has read the history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import anyio
import pytest
from attrs import define, field

from resonate_anyio import Context, NetworkError, Resonate
from resonate_anyio._protocol import PromiseCreate, Request, Response, TaskAcquire
from resonate_anyio.abc import Network

from .harness import Wire, World, creates, settles

SLOW = 1.0
Leaf: TypeAlias = Callable[[], Awaitable[str]]


@define(eq=False)
class Workers:
    """Two workers. The first loses its lease while its leaf's outcome is on its way, and the second takes over.

    The outcome arrives between the answer that gives the second worker the lease, and its first request after that.

    Attributes:
        ran: who has run a leaf, in order.
    """

    network: Network
    ran: list[str] = field(factory=list)
    first: Wire = field(init=False)
    second: Wire = field(init=False)
    _arrived: anyio.Event = field(factory=anyio.Event)
    _taken: anyio.Event = field(factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        self.first, self.second = Wire(self.network, lapsing=True), Wire(self.network, lapsing=True)
        self.first.before, self.first.after = self._hold_up, self._note
        self.second.after = self._wait

    async def _hold_up(self, request: Request) -> None:
        if settles("w.leaf-1")(request):
            await self._taken.wait()
        elif self.ran:
            raise NetworkError(request.kind, "", "the server is away")

    async def _note(self, request: Request, _: Response) -> None:
        if settles("w.leaf-1")(request):
            self._arrived.set()

    async def _wait(self, request: Request, response: Response) -> None:
        if isinstance(request, TaskAcquire) and request.id == "w" and response.status == 200:
            self._taken.set()
            await self._arrived.wait()

    async def run(self, make: Callable[[str], tuple[Callable[..., Any], ...]]) -> Any:
        """Run `flow` of what `make` gives each worker, and return what it returned at the second worker."""
        workers = {name: Resonate(network=wire, pid=name) for name, wire in (("a", self.first), ("b", self.second))}
        for name, resonate in workers.items():
            for function in make(name):
                resonate.register(function)
        async with workers["a"]:
            await workers["a"].rpc("w", "flow").spawn()
            await anyio.sleep(2 * SLOW)
            async with workers["b"]:
                try:
                    with anyio.fail_after(600):
                        return await (await workers["b"].get("w"))
                finally:
                    self._taken.set()
                    self._arrived.set()


@pytest.fixture
def workers(network: Network) -> Workers:
    """Two workers on one engine."""
    return Workers(network)


async def awaited(ctx: Context, leaf: Leaf) -> str:
    return await ctx.run(leaf)


async def spawned(ctx: Context, leaf: Leaf) -> str:
    return await (await ctx.run(leaf).spawn())


async def grouped(ctx: Context, leaf: Leaf) -> str:
    async with ctx.task_group() as tg:
        future = tg.run(leaf)
    return future.result()


async def raced(ctx: Context, leaf: Leaf) -> str:
    return (await ctx.first(ctx.run(leaf), ctx.sleep(3600)))[1] or "nothing"


@pytest.mark.parametrize("thread", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize("fails", [False, True], ids=["value", "error"])
@pytest.mark.parametrize("call", [awaited, spawned, grouped, raced])
async def test_outcome_that_arrives_late(
    workers: Workers, call: Callable[[Context, Leaf], Awaitable[str]], fails: bool, thread: bool
) -> None:
    """A leaf whose outcome arrives after the history was read does not run again: its outcome is what counts."""

    def make(name: str) -> tuple[Callable[..., Any], ...]:
        def blocking() -> str:
            workers.ran.append(name)
            if fails:
                raise ValueError(name)
            return name

        async def leaf() -> str:
            return blocking()

        blocking.__name__ = blocking.__qualname__ = "leaf"

        async def flow(ctx: Context) -> str:
            try:
                return await call(ctx, cast("Leaf", blocking) if thread else leaf)
            except (ValueError, ExceptionGroup) as exc:
                return f"{getattr(exc, 'exceptions', [exc])[0]} failed"

        return (flow,)

    assert ("a failed" if fails else "a") == await workers.run(make)
    assert ["a"] == workers.ran


async def test_what_it_costs(world: World) -> None:
    """A replay records the crash, asks once more for each leaf that is pending, and for nothing else."""

    async def leaf(number: int) -> int:
        await anyio.sleep(number)
        return number

    async def inner(ctx: Context) -> int:
        return await ctx.run(leaf, 100)

    async def flow(ctx: Context) -> int:
        done = await ctx.run(leaf, 1)
        futures = [await ctx.run(leaf, number).spawn() for number in (100, 101)]
        future = await ctx.run(inner).spawn()
        await ctx.run(leaf, 3)
        return done + sum([await each for each in futures]) + await future

    process = world.process(flow)
    process.kill_at(settles("w.leaf-4"), answered=True)
    await world.run_until_killed(process, "w", flow)
    async with world.process(flow) as process:
        await (await process.resonate.get("w")).result()
    pending = ["w.inner-1.leaf-1", "w.leaf-2", "w.leaf-3", "w.~life-2"]
    assert pending == sorted(process.wire.created())


async def test_cancelled_meanwhile(world: World) -> None:
    """A leaf whose code is cancelled while it is asked for once more is recorded as cancelled, and does not run."""
    ran: list[str] = []

    async def leaf() -> None:
        ran.append("leaf")
        await anyio.sleep(50)

    async def flow(ctx: Context) -> str:
        with anyio.move_on_after(10):
            await ctx.run(leaf)
            return "done"
        return "cancelled"

    process = world.process(flow)
    process.kill_at(creates("w.leaf-1"), answered=True)
    await world.run_until_killed(process, "w", flow)
    ran.clear()
    process = world.process(flow)

    async def slow(request: Request, _: Response) -> None:
        if creates("w.leaf-1")(request):
            await anyio.sleep(20)

    process.wire.after = slow
    async with process:
        with anyio.fail_after(100):
            assert "cancelled" == await (await process.resonate.get("w"))
        assert "rejected_canceled" == (await process.resonate.promises.get("w.leaf-1")).state
    assert [] == ran


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_while_the_record_is_asked_for(world: World) -> None:
    """A leaf that is pending in the history does not begin if its task was cancelled while the record was asked for.

    asyncio delivers such a cancellation once. It must not hit what the task does to clean up.
    """
    began: list[str] = []

    async def slow() -> None:
        began.append("slow")
        await anyio.sleep(50)

    async def fail() -> None:
        await anyio.sleep(2)
        msg = "no"
        raise ValueError(msg)

    async def undo() -> str:
        return "undone"

    async def w(ctx: Context) -> list[str]:
        got: list[str] = []

        async def other() -> None:
            try:
                await ctx.run(slow)
            finally:
                with anyio.CancelScope(shield=True):
                    got.append(await ctx.run(undo))

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(other())
                tasks.create_task(ctx.run(fail))
        except* ValueError:
            pass
        return got

    process = world.process(w, slow, fail, undo)
    process.kill_at(settles("w.fail-1"), answered=True)
    await world.run_until_killed(process, "w", w)
    began.clear()
    process = world.process(w, slow, fail, undo)

    async def late(request: Request, _: Response) -> None:
        if isinstance(request, PromiseCreate):
            await anyio.sleep(0.1)

    process.wire.after = late
    async with process:
        start = anyio.current_time()
        assert ["undone"] == await (await process.resonate.get("w"))
        assert anyio.current_time() - start < 5
    assert [] == began
