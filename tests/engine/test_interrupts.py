"""What ends a program is no outcome: nothing that KeyboardInterrupt, SystemExit or GeneratorExit causes is recorded.

Each program here is interrupted once, in its first life, at a place of its own choice. The second life goes on from
what is on record.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import anyio
import pytest
from attrs import define, field

from resonate_anyio import Context, Info, Resonate
from resonate_anyio._concurrency._interrupts import interrupt_among
from resonate_anyio._concurrency._tasks import Task
from resonate_anyio._execution import _execution
from resonate_anyio._protocol import Outcome, Promise, Step
from resonate_anyio.abc import Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock, run_virtual

from ..crash.corpus.own_concurrency import native_group, start
from ..crash.scenarios import content_of
from ..crash.states import State

pytestmark = [
    pytest.mark.embedded("each life has an event loop of its own"),
    # What has not begun when a program ends never does.
    pytest.mark.filterwarnings("ignore:.* was never awaited:RuntimeWarning"),
]

KINDS = [KeyboardInterrupt, SystemExit, GeneratorExit]
Body: TypeAlias = Callable[[Context, "Program"], Awaitable[object]]


class Odd(Exception):
    """What a program fails with on its way out."""


@define(eq=False)
class Program:
    """A program that runs one workflow, and is interrupted once."""

    body: Body
    kind: type[BaseException]
    backend: str
    clock: VirtualClock = field(factory=VirtualClock)
    store: Store = field(factory=MemoryStore)
    runs: Counter[str] = field(factory=Counter)
    struck: bool = False

    def strike(self) -> None:
        """Here the program is interrupted, the first time that it comes here."""
        if not self.struck:
            self.struck = True
            raise self.kind

    def live(self) -> object:
        """Run until the workflow ends, or the interrupt ends the program."""
        return run_virtual(self._live, backend=self.backend)

    async def _live(self) -> object:
        resonate = Resonate(network=LocalNetwork(self.store, clock=self.clock), pid="p", grace=0)
        resonate.with_dependency(self, Program)
        for function in (workflow, leaf, elsewhere):
            resonate.register(function)
        async with resonate:
            return await resonate.run("w", workflow)

    def live_interrupted(self) -> State:
        """Live until the interrupt, and give what is on record then."""
        with pytest.raises(BaseException) as ended:  # noqa: PT011 - a group may have been put around it
            self.live()
        assert self.struck
        assert _contains(ended.value, self.kind), ended.value
        return State.found(self.store, self.clock())


def _contains(exc: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return any(_contains(each, kind) for each in exc.exceptions)
    return isinstance(exc, kind)


async def workflow(ctx: Context) -> Any:
    program = ctx.get_dependency(Program)
    return await program.body(ctx, program)


async def leaf(info: Info, name: str, seconds: float = 0) -> str:
    info.get_dependency(Program).runs[name] += 1
    await anyio.sleep(seconds)
    return name


async def failing() -> None:
    refuse()


def refuse() -> None:
    raise Odd


async def elsewhere(ctx: Context) -> str:
    await ctx.sleep(5)
    return await ctx.run(leaf, "elsewhere")


# Constructs around the interrupt


async def durable_group(ctx: Context, program: Program) -> object:
    async with ctx.task_group() as tg:
        future = tg.run(leaf, "long", 5)
        tg.start_soon(_member, ctx)
        await ctx.run(leaf, "body")
        await anyio.sleep(1)
        program.strike()
        await ctx.run(leaf, "after")
    return await future


async def _member(ctx: Context) -> None:
    await ctx.sleep(3)
    await ctx.run(leaf, "member")


async def durable_group_member(ctx: Context, program: Program) -> object:
    async def striking() -> None:
        await anyio.sleep(1)
        program.strike()

    async with ctx.task_group() as tg:
        tg.start_soon(_member, ctx)
        tg.start_soon(striking)
        return await ctx.run(leaf, "body", 4)


async def plain_group(ctx: Context, program: Program) -> object:
    return await _in_group(ctx, program, anyio.create_task_group())


async def own_native_group(ctx: Context, program: Program) -> object:
    return await _in_group(ctx, program, native_group())


async def _in_group(ctx: Context, program: Program, group: Any) -> object:
    async with group as tg:
        start(tg, _member, ctx)
        await ctx.run(leaf, "body")
        await anyio.sleep(1)
        program.strike()
        return await ctx.run(leaf, "after", 4)


async def plain_group_member(ctx: Context, program: Program) -> object:
    return await _in_group_member(ctx, program, anyio.create_task_group())


async def own_native_group_member(ctx: Context, program: Program) -> object:
    return await _in_group_member(ctx, program, native_group())


async def _in_group_member(ctx: Context, program: Program, group: Any) -> object:
    async def striking() -> None:
        await anyio.sleep(1)
        program.strike()

    async with group as tg:
        start(tg, _member, ctx)
        start(tg, striking)
        return await ctx.run(leaf, "body", 4)


async def durable_group_host(ctx: Context, program: Program) -> object:
    return await _in_group_host(ctx, program, ctx.task_group())


async def plain_group_host(ctx: Context, program: Program) -> object:
    return await _in_group_host(ctx, program, anyio.create_task_group())


async def own_native_group_host(ctx: Context, program: Program) -> object:
    return await _in_group_host(ctx, program, native_group())


async def _in_group_host(ctx: Context, program: Program, group: Any) -> object:
    """Only the task that has opened the group is cancelled: no other one can tell it of the interrupt."""

    async def striking() -> None:
        await anyio.sleep(1)
        program.strike()

    async with group as tg:
        start(tg, striking)
        return await ctx.run(leaf, "body", 4)


async def groups_in_groups(ctx: Context, program: Program) -> object:
    async with ctx.task_group() as outer:
        outer.run(leaf, "outer", 5)
        async with anyio.create_task_group() as tg:
            tg.start_soon(_member, ctx)
            async with ctx.task_group() as inner:
                inner.run(leaf, "inner", 5)
                await anyio.sleep(1)
                program.strike()
    return await ctx.run(leaf, "after")


async def _striking_child(ctx: Context, name: str) -> str:
    program = ctx.get_dependency(Program)
    await ctx.run(leaf, f"begun {name}")
    await anyio.sleep(1)
    if name == "a":
        program.strike()
    return await ctx.run(leaf, name, 1)


async def gathered(ctx: Context, program: Program) -> object:
    return await ctx.gather(ctx.run(_striking_child, "a"), ctx.run(leaf, "b", 3), ctx.sleep(3))


async def mapped(ctx: Context, program: Program) -> object:
    return await ctx.map(_striking_child, ["b", "a", "c"], limit=2)


async def first(ctx: Context, program: Program) -> object:
    return await ctx.first(ctx.run(_striking_child, "a"), ctx.run(leaf, "b", 30))


async def as_completed(ctx: Context, program: Program) -> object:
    calls = ctx.as_completed(ctx.run(leaf, "soon"), ctx.run(_striking_child, "a"), ctx.run(leaf, "b", 30))
    return [await future async for future in calls]


async def spawned(ctx: Context, program: Program) -> object:
    future = await ctx.run(_striking_child, "a").spawn()
    await ctx.run(leaf, "beside", 5)
    return await future


async def scopes(ctx: Context, program: Program) -> object:
    results: list[str] = []
    with ctx.fail_after(100), anyio.move_on_after(50), ctx.move_on_after(90):
        future = await ctx.run(leaf, "long", 5).spawn()
        await anyio.sleep(1)
        program.strike()
        results.append(await future)
    return results


async def calls_in_flight(ctx: Context, program: Program) -> object:
    await ctx.detached(elsewhere)
    remote = await ctx.rpc(elsewhere).spawn()
    async with anyio.create_task_group() as tg:
        tg.start_soon(_member, ctx)
        await anyio.sleep(1)
        program.strike()
    return await remote


async def compensated(ctx: Context, program: Program) -> object:
    try:
        await anyio.sleep(1)
        program.strike()
        return await ctx.run(leaf, "done")
    finally:
        await ctx.run(leaf, "cleaned")


async def compensated_in_a_handler(ctx: Context, program: Program) -> object:
    try:
        await anyio.sleep(1)
        program.strike()
    except BaseException:
        try:
            refuse()
        except Odd:
            # The interrupt is on its way, below an error that is handled in its place.
            await ctx.run(leaf, "undone")
        raise
    return await ctx.run(leaf, "done")


@contextlib.asynccontextmanager
async def _lent(ctx: Context) -> AsyncIterator[None]:
    await ctx.run(leaf, "taken")
    try:
        yield
    finally:
        await ctx.run(leaf, "given back")


async def context_manager(ctx: Context, program: Program) -> object:
    async with _lent(ctx):
        await anyio.sleep(1)
        program.strike()
    return await ctx.run(leaf, "done")


async def replaced_by_an_error(ctx: Context, program: Program) -> object:
    first_time = not program.struck
    try:
        program.strike()
    finally:
        if first_time:
            raise Odd
    return await ctx.run(leaf, "done")


async def shielded_cleanup(ctx: Context, program: Program) -> object:
    async with anyio.create_task_group() as tg:
        tg.start_soon(_member, ctx)
        try:
            await anyio.sleep(1)
            program.strike()
        except BaseException:
            # The members are cancelled while the interrupt is held up here.
            tg.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            raise
    return await ctx.run(leaf, "done")


async def in_a_leaf(ctx: Context, program: Program) -> object:
    async def striking() -> str:
        await anyio.sleep(1)
        program.strike()
        return "struck"

    async with ctx.task_group() as tg:
        tg.run(leaf, "beside", 3)
        return await tg.run(striking)


CONSTRUCTS: list[Body] = [
    durable_group, durable_group_member, plain_group, own_native_group, plain_group_member, own_native_group_member,
    durable_group_host, plain_group_host, own_native_group_host, groups_in_groups, gathered, mapped, first,
    as_completed, spawned, scopes, calls_in_flight, compensated, compensated_in_a_handler, context_manager,
    replaced_by_an_error, shielded_cleanup, in_a_leaf,
]  # fmt: skip


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", CONSTRUCTS, ids=lambda body: body.__name__)
def test_interrupt(body: Body, kind: type[BaseException], backend: str) -> None:
    """The record is what a crash would have left; the next start continues, and runs no finished leaf again."""
    expected = Program(body, kind, backend, struck=True)
    result = expected.live()
    program = Program(body, kind, backend)

    left = program.live_interrupted()

    assert [] == [id for id, promise in left.promises.items() if promise.state.value not in {"pending", "resolved"}]
    assert {} == left.leases
    done = {name for name in program.runs if any(_is_result_of(name, promise) for promise in left.promises.values())}
    before = program.runs.copy()
    assert result == program.live()
    assert {} == {name: program.runs[name] for name in done if program.runs[name] > before[name]}
    assert expected.runs.keys() == program.runs.keys()


def _is_result_of(name: str, promise: Promise) -> bool:
    return promise.state.value == "resolved" and content_of(promise) == name


# What is no interrupt


def parse() -> None:
    """Refuse arguments as `argparse` does."""
    raise SystemExit(2)


async def expects_system_exit(ctx: Context, program: Program) -> object:
    try:
        parse()
    except SystemExit:
        return await ctx.run(leaf, "told")
    return "not refused"


async def converts_system_exit(ctx: Context, program: Program) -> object:
    def parse_well() -> None:
        try:
            parse()
        except SystemExit:
            # Not from it, on purpose: many programs forget to say that.
            raise Odd  # noqa: B904

    try:
        parse_well()
    except Odd:
        return await ctx.run(leaf, "told")
    return "not refused"


async def closes_a_generator(ctx: Context, program: Program) -> object:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await ctx.run(leaf, "closed")

    async with contextlib.aclosing(numbers()) as them:  # type: ignore[type-var]
        return await anext(them)


async def fails_in_a_generator(ctx: Context, program: Program) -> object:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise Odd

    try:
        async with contextlib.aclosing(numbers()) as them:  # type: ignore[type-var]
            await anext(them)
    except Odd:
        return await ctx.run(leaf, "told")
    return "not refused"


async def fails(ctx: Context, program: Program) -> object:
    with anyio.move_on_after(1):
        await ctx.run(leaf, "cut", 5)
    try:
        return await ctx.run(failing)
    finally:
        await ctx.run(leaf, "cleaned")


EXPECTED: dict[Body, object] = {
    expects_system_exit: "told",
    converts_system_exit: "told",
    closes_a_generator: 1,
    fails_in_a_generator: "told",
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("body", EXPECTED, ids=lambda body: body.__name__)
def test_no_interrupt(body: Body, backend: str) -> None:
    """A function that names SystemExit may handle it, and a generator may be closed; on a replay, too."""
    program = Program(body, KeyboardInterrupt, backend, struck=True)
    assert EXPECTED[body] == program.live()
    runs = program.runs.copy()
    assert EXPECTED[body] == program.live()
    assert runs == program.runs


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_event_loop_in_a_handler(backend: str) -> None:
    """A program that runs its event loop while it handles an interrupt is not taken for one that is interrupted."""
    program = Program(fails, KeyboardInterrupt, backend, struck=True)
    try:
        Program(fails, KeyboardInterrupt, backend).strike()
    except KeyboardInterrupt:
        with pytest.raises(Odd):
            program.live()
    ended = {promise.state.value for promise in State.found(program.store, program.clock()).promises.values()}
    assert {"rejected", "rejected_canceled", "resolved"} == ended


# An interrupt that leaves the event loop at once, which cancels every task at its end


async def cleans_up(ctx: Context, program: Program) -> object:
    try:
        await anyio.sleep(10)
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.run(leaf, "cleaned")
    return await ctx.run(leaf, "done")


async def goes_on(ctx: Context, program: Program) -> object:
    with contextlib.suppress(asyncio.CancelledError):
        await anyio.sleep(10)
    return await ctx.run(leaf, "done")


async def cleans_up_below(ctx: Context, program: Program) -> object:
    return await ctx.run(cleaning)


async def cleaning(ctx: Context) -> object:
    return await cleans_up(ctx, ctx.get_dependency(Program))


async def chooses(ctx: Context, program: Program) -> object:
    try:
        await anyio.sleep(10)
    finally:
        with anyio.CancelScope(shield=True):
            await ctx.now()
    return await ctx.run(leaf, "done")


async def waits_in_a_scope(ctx: Context, program: Program) -> object:
    try:
        await anyio.sleep(10)
    finally:
        with anyio.CancelScope(shield=True), ctx.move_on_after(5):
            await ctx.sleep(1)
    return await ctx.run(leaf, "done")


@pytest.mark.parametrize("body", [cleans_up, goes_on, cleans_up_below, chooses, waits_in_a_scope])
def test_interrupt_outside_of_all_tasks(body: Body) -> None:
    """Code that is cancelled because the event loop ends makes no durable call, on asyncio."""
    expected = Program(body, SystemExit, "asyncio", struck=True)
    result = expected.live()
    program = Program(body, SystemExit, "asyncio")

    async def interrupted() -> None:
        asyncio.get_running_loop().call_later(5, program.strike)
        await program._live()

    with pytest.raises(SystemExit):
        run_virtual(interrupted, backend="asyncio")
    left = State.found(program.store, program.clock())
    begun = left.promises["w"].created_at
    assert {("pending", begun)} == {(promise.state.value, promise.created_at) for promise in left.promises.values()}
    assert {} == left.leases
    assert result == program.live()
    assert expected.runs == program.runs


# How it is found


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cost(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls are cancelled at once, all tasks are looked through a few times."""
    looks: list[int] = []

    def counting(tasks: set[Task]) -> BaseException | None:
        looks.append(len(tasks))
        return interrupt_among(tasks)

    monkeypatch.setattr(_execution, "interrupt_among", counting)

    async def many(ctx: Context, program: Program) -> object:
        with anyio.move_on_after(1):
            async with anyio.create_task_group() as tg:
                for _ in range(200):
                    tg.start_soon(_member, ctx)
        return "done"

    assert "done" == Program(many, KeyboardInterrupt, backend, struck=True).live()
    assert 1 <= len(looks) <= 20, looks


# Ctrl-C itself


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", range(1, 14))
def test_signal_in_the_engine(backend: str, number: int) -> None:
    """Ctrl-C while the engine writes interrupts the program's main task: nothing is left half done, and no lease."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    program = Program(calls_in_flight, KeyboardInterrupt, backend, struck=True)
    store = _Interrupting(program.store, number)
    program.store = store
    try:
        with pytest.raises(BaseException) as ended:  # noqa: PT011 - a group may have been put around it
            program.live()
        assert _contains(ended.value, KeyboardInterrupt), ended.value
        left = State.found(store, program.clock())
        assert {} == left.leases
        assert {"pending", "resolved"} >= {promise.state.value for promise in left.promises.values()}
        assert "elsewhere" == program.live()
    finally:
        signal.signal(signal.SIGINT, before)


class _Interrupting(Store):
    """Sends a signal in the middle of one transaction."""

    def __init__(self, inner: Store, number: int) -> None:
        self._inner = inner
        self._number = number

    def open(self) -> None:
        self._inner.open()

    def close(self) -> None:
        self._inner.close()

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        self._number -= 1
        if self._number == 0:
            signal.raise_signal(signal.SIGINT)
        return self._inner.transact(steps)

    def read(self, query: Callable[[Any], Any]) -> Any:
        return self._inner.read(query)
