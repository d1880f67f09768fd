"""The tasks of one function share memory: a replay runs them in the order in which they ran (docs/semantics.md 2.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream
from attrs import evolve

from resonate_anyio import Context
from resonate_anyio._history import ORDER_TAG, Numbered
from resonate_anyio._protocol import Outcome, Promise, PutPromise, Response
from resonate_anyio.abc import Clock
from tests.chosen import dotted
from tests.crash.corpus.leaves import Oops, fail, slow, step

from .harness import Look, World, creates, settles
from .replays import survives


def queue_of(*items: str) -> MemoryObjectReceiveStream[str]:
    """A queue that has these items, and will have no more."""
    send, receive = anyio.create_memory_object_stream[str](len(items))
    for item in items:
        send.send_nowait(item)
    send.close()
    return receive


async def nap(seconds: float, value: str) -> str:
    await anyio.sleep(seconds)
    return value


async def two_takers(ctx: Context) -> dict[str, str]:
    """Two tasks take from one queue; `a` is slow."""
    found: dict[str, str] = {}
    queue = queue_of("a", "b", "c", "d")

    async def take(items: ObjectReceiveStream[str]) -> None:
        async with items:
            async for item in items:
                found[item] = await ctx.run(nap, 10 if item == "a" else 2, f"{item}!")

    async with ctx.task_group() as tg, queue:
        tg.start_soon(take, queue.clone())
        tg.start_soon(take, queue.clone())
    return found


async def test_one_task_has_no_order(world: World) -> None:
    """The records of a function with one task carry nothing for it."""

    async def workflow(ctx: Context) -> None:
        future = await ctx.run(step, "a").spawn()
        async with ctx.task_group() as tg:
            tg.run(step, "b")
        await ctx.gather(ctx.run(step, "c"), ctx.sleep(1))
        await future

    process = world.process(workflow)
    async with process:
        process.resonate.with_dependency(_journal())
        await process.resonate.run("w", workflow)
        look = Look(process.resonate)
        assert set() == {id for id in await look.states() if ORDER_TAG in (await look.promise(id)).tags}


def _journal() -> Any:
    from tests.crash.lives import Journal  # noqa: PLC0415 - only where leaves of the corpus run in tests of the engine

    return Journal()


async def _orders(process: Any) -> dict[str, str]:
    look = Look(process.resonate)
    promises = [await look.promise(id) for id in await look.states()]
    return {dotted(promise.id): promise.tags[ORDER_TAG] for promise in promises if ORDER_TAG in promise.tags}


async def test_what_is_recorded(world: World) -> None:
    """Each call is numbered, and lists the returns since the number before, unless its own task had the only one."""

    async def workflow(ctx: Context) -> None:
        done = anyio.Event()

        async def first() -> None:
            await ctx.run(nap, 3, "a").named("a")
            done.set()

        async def second() -> None:
            await ctx.run(nap, 1, "b").named("b")
            await ctx.run(nap, 1, "c").named("c")
            await done.wait()
            await ctx.run(nap, 1, "d").named("d")

        await ctx.run(nap, 1, "before").named("before")
        async with ctx.task_group() as tg:
            tg.start_soon(first)
            await anyio.sleep(0.1)
            tg.start_soon(second)
        await ctx.run(nap, 1, "after").named("after")

    process = world.process(workflow)
    async with process:
        await process.resonate.run("w", workflow)
        # The second task has its second return at 2 s, and waits for what the first one does with its own at 3 s.
        assert {
            "w.a": "1 1 0.1 1.0",
            "w.b": "2 2",
            "w.c": "3 2",
            "w.d": "4 2 2.2 1.1",
            "w.after": "5 0 2.3 0.2",
        } == await _orders(process)


@pytest.mark.parametrize("item", ["b", "c"])
async def test_a_call_returns_when_it_is_its_turn(world: World, item: str) -> None:
    """After a crash each task takes the items again that it had taken, however fast its calls return."""
    process = world.process(two_takers)
    process.kill_at(_settles_value(f"{item}!", process), answered=True)
    await world.run_until_killed(process, "w", two_takers)
    process = world.process(two_takers)
    async with process:
        assert {item: f"{item}!" for item in "abcd"} == await process.resonate.run("w", two_takers)


def _settles_value(value: str, process: Any) -> Callable[[Any], bool]:
    encoded = process.resonate._codec.encode(value)

    def wanted(request: Any) -> bool:
        return bool(getattr(request, "value", None) == encoded)

    return wanted


async def test_what_an_event_tells(world: World) -> None:
    """A task that waits in memory for another one is not waited for by that one."""

    async def workflow(ctx: Context) -> list[str]:
        told, found = anyio.Event(), list[str]()

        async def teller() -> None:
            found.append(await ctx.run(slow, 2, "a"))
            told.set()

        async def listener() -> None:
            await told.wait()
            found.append(await ctx.run(slow, 1, "b"))

        async with ctx.task_group() as tg:
            tg.start_soon(listener)
            tg.start_soon(teller)
        return found

    await survives(workflow, returns=["a", "b"])


async def test_what_does_not_come_is_not_waited_for_for_ever(
    world: World, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A replay that waits for a task which never comes there says so, and goes on after half a minute."""

    async def workflow(ctx: Context) -> list[str]:
        found: list[str] = []

        async def one(first: str, second: str) -> None:
            found.append(await ctx.run(nap, 1, first).named(first))
            if changed and second == "d":
                await anyio.sleep(100)
            found.append(await ctx.run(nap, 1, second).named(second))

        async with ctx.task_group() as tg:
            tg.start_soon(one, "a", "c")
            tg.start_soon(one, "b", "d")
        return found

    changed = False
    process = world.process(workflow)
    process.kill_at(settles("w.c"), answered=True)
    await world.run_until_killed(process, "w", workflow)
    changed = True
    process, before = world.process(workflow), clock()
    async with process:
        assert ["a", "b", "c", "d"] == sorted(await process.resonate.run("w", workflow))
    assert 100 <= (clock() - before) / 1000 < 105
    assert 1 == sum(record.message.startswith("replay.order_lost id=w lane=2") for record in caplog.records)


@pytest.mark.parametrize("lost", ["all", "w.nap-1t1", "w.nap-1t2", "w.nap-2t2"])
async def test_what_is_not_on_record(world: World, clock: Clock, lost: str) -> None:
    """Records of a version that knew no order are replayed at once; a number that is missing costs seconds at most."""

    async def workflow(ctx: Context) -> dict[str, str]:
        found: dict[str, str] = {}

        async def take(*items: str) -> None:
            for item in items:
                found[item] = await ctx.run(nap, 10 if item == "a" else 2, f"{item}!")

        async with ctx.task_group() as tg:
            tg.start_soon(take, "a", "d")
            tg.start_soon(take, "b", "c", "e")
        return found

    process = world.process(workflow)
    process.kill_at(_settles_value("c!", process), answered=True)
    await world.run_until_killed(process, "w", workflow)
    _forget_order(world, None if lost == "all" else lost)
    process, before = world.process(workflow), clock()
    async with process:
        assert {item: f"{item}!" for item in "abcde"} == await process.resonate.run("w", workflow)
    # That is what the two calls of one task take that had not ended, and no more than two seconds.
    assert (clock() - before) / 1000 < 10 + 2 + 2


async def test_what_was_lost_with_the_process_is_listed_by_the_next_call(world: World) -> None:
    """A call that had not been recorded when its process died tells the order all the same: the next one lists it."""

    async def workflow(ctx: Context) -> dict[str, str]:
        letters, taken = iter("abcd"), dict[str, str]()

        async def count(seconds: float) -> None:
            for _ in range(2):
                letter = next(letters)
                taken[letter] = await ctx.run(nap, seconds, letter)
                for _ in range(5):
                    await checkpoint()

        async with ctx.task_group() as tg:
            tg.start_soon(count, 1.5)
            tg.start_soon(count, 1)
        return taken

    process, lost = world.process(workflow), creates("w.nap-2t2")
    process.kill_at(creates("w.nap-2t1"), answered=True)
    kills = process.wire.before

    async def before(request: Any) -> None:
        if lost(request):
            await anyio.sleep(60)
        await kills(request)

    process.wire.before = before
    await world.run_until_killed(process, "w", workflow)
    process = world.process(workflow)
    async with process:
        assert {letter: letter for letter in "abcd"} == await process.resonate.run("w", workflow)


@pytest.mark.parametrize("by", ["deadline", "failure"])
async def test_tasks_are_cancelled_again_in_the_same_order(by: str) -> None:
    """What the tasks of a group do when it is cancelled may share memory, too, and what they give back is in order."""

    async def workflow(ctx: Context) -> int:
        numbers, given_back, found = iter(range(8)), list[int](), list[tuple[int, int]]()

        async def work(task: int) -> None:
            try:
                await ctx.sleep(100)
            finally:
                given_back.append(task)
                with CancelScope(shield=True):
                    number = next(numbers)
                    found.append((number, await ctx.run(step, number)))

        try:
            with ctx.move_on_after(3):
                async with ctx.task_group() as tg:
                    for task in range(4):
                        tg.start_soon(work, task)
                    await ctx.sleep(2)
                    if by == "failure":
                        await ctx.run(fail, "too much")
        except* Oops:
            pass
        for task in given_back:
            found.append((task, await ctx.run(step, task)))
        return sum(number != value for number, value in found)

    await survives(workflow, returns=0, varies=("w.*",))


def _forget_order(world: World, id: str | None) -> None:
    """Take the tag from the record `id`, or from all."""
    world.store.open()
    ids = ["w.nap-1t1", "w.nap-1t2", "w.nap-2t2"]
    records = [record for each in ids if (record := world.store.read(lambda view: view.promise(each))) is not None]  # noqa: B023
    assert 3 == len([record for record in records if ORDER_TAG in record.tags])
    changes = tuple(
        PutPromise(evolve(record, tags={tag: text for tag, text in record.tags.items() if tag != ORDER_TAG}))
        for record in records
        if id in {None, record.id}
    )
    world.store.transact([lambda _: Outcome(response=Response(status=200), changes=changes)])
    world.store.close()


def test_the_tag_of_another_shape() -> None:
    """A tag that this version does not understand is as good as none."""
    for tag in ("", "1", "x 1", "1 1 2", "1 1 2.", "-1 0", "2- 1", "1 1 1.1 ", "1 1  1.1", "٣ 1"):
        promise = Promise(id="w.a", timeout_at=0, created_at=0, tags={ORDER_TAG: tag})
        assert Numbered.of(promise) is None, tag
    assert Numbered(12, "p1", (("0", 3), ("1-2", 4)), 7, 12) == Numbered.of(
        Promise(id="w.a", timeout_at=0, created_at=7, tags={ORDER_TAG: "12 p1 0.3 1-2.4"})
    )
