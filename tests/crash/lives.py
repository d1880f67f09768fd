"""`live`: one life of a program on what an earlier one left behind, watched at every request that it makes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cached_property
from typing import Any, Final, TypeAlias

import anyio
from anyio import CancelScope
from attrs import define, field, frozen

from resonate_anyio import Info, Resonate, make_converter
from resonate_anyio._protocol import Request, Response
from resonate_anyio.abc import Clock, Store
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock
from tests.chosen import dotted, native, network_on
from tests.engine.harness import Wire, nothing

from .scenarios import ROOT, Outside, Scenario
from .states import EMPTY, Recorder, State

_CONVERTER: Final = make_converter()  # it takes longer to make than most of the corpus to run

PATIENCE: Final = 2 * 3600.0
"""Seconds after which a root will not settle any more."""

AFTERMATH: Final = 600.0
"""Seconds that what lies beside the root's tree may take to end after it."""

SECOND_LOOK: Final = 3.0
"""Seconds after which a program that cancels something has looked again at what is below (docs/semantics.md 8.2)."""

GROUP: Final = "default"
OUTSIDE: Final = "outside"
_GRACE: Final = 0.2
"""Seconds for a leaf to end when its worker stops: enough for a thread, whose time passes on the wall, to come back."""

Watch: TypeAlias = Callable[["Mark"], None]


@frozen
class Mark:
    """An instant at which a process may die: just before a request has its effect, or just after.

    Attributes:
        number: counts the requests of a life, from 1.
        answered: whether the request has had its effect; its answer is lost.
        request: what it asks for.
    """

    number: int
    answered: bool
    request: str

    def same(self, other: Mark) -> bool:
        """Whether this is the same place of another life, whatever is asked for there."""
        return (self.number, self.answered) == (other.number, other.answered)

    def __str__(self) -> str:
        return f"{'after' if self.answered else 'before'} request {self.number} ({self.request})"


@frozen
class Point:
    """The end of a life at a mark, and what it leaves behind.

    Attributes:
        runs: which leaves had begun by then in this life, and how often.
        state: what is on record.
        in_order: it was stopped there, and not killed.
    """

    mark: Mark
    runs: Counter[str]
    state: State
    in_order: bool = False

    def __str__(self) -> str:
        return f"{'stopped' if self.in_order else 'killed'} {self.mark}"


@define
class Journal:
    """Which leaves ran in one life. Leaves find it as a dependency."""

    runs: Counter[str] = field(factory=Counter)
    _attempts: dict[str, int] = field(factory=dict)

    def note(self, info: Info) -> None:
        """A leaf has begun."""
        if self.begins(info):
            self.runs[dotted(info.id)] += 1

    def begins(self, info: Info) -> bool:
        """Whether a run begins. Further attempts belong to it; runs that a crash has ended count as attempts."""
        last = self._attempts.get(info.id, info.attempt)
        self._attempts[info.id] = info.attempt
        return info.attempt <= last


@define(eq=False, kw_only=True, slots=False)
class Life:
    """What happened in one life of a program.

    Attributes:
        runs: which leaves ran, and how often.
        settled: whether the root came to an end.
        begun: the state when the process had started, and done nothing yet.
        quiet: the state when nothing happened any more, the process still living.
        final: the state after the process has stopped.
        errors: what was logged as an error.
        points: every request, before and after.
    """

    scenario: Scenario
    runs: Counter[str]
    settled: bool
    begun: State
    quiet: State
    final: State
    errors: list[str]
    points: list[Point] = field(factory=list)

    @cached_property
    def endings(self) -> dict[str, list[str]]:
        """How everything ended that has to end the same in every case (see `Scenario.endings`)."""
        return self.scenario.endings(self.final)

    @cached_property
    def orphans(self) -> list[str]:
        """What was pending, at any point, below something that had ended by its own code."""
        states = {id(point.state): point for point in self.points}
        return [f"{text}, {point.mark}" for point in states.values() for text in point.state.orphans]


@frozen(kw_only=True)
class Platform:
    """What every life of a world has in common.

    Attributes:
        store: makes an empty store.
        settings: for `Resonate`.
        downtime: seconds between a kill and the next start.
        outlived: the engine is a server, which outlives its workers: leases are not freed at the start, but lapse.
    """

    store: Callable[[], Store] = MemoryStore
    settings: Mapping[str, Any] = field(factory=dict)
    downtime: float = 0
    outlived: bool = False

    @property
    def exact(self) -> bool:
        """Whether the next process goes on at the instant of the kill, so that nothing may come out differently."""
        return not self.downtime and not self.outlived


async def live(scenario: Scenario, past: State, platform: Platform, *, stop_at: Mark | None = None) -> Life:
    """Start the program on what is left of its past, and let it live until there is nothing to do.

    Args:
        scenario: what it runs.
        past: what is left.
        platform: where it runs.
        stop_at: where it is told to stop before that, in order.
    """
    store, journal = Recorder(platform.store()), Journal()
    points: list[Point] = []
    past.restore(store)
    downtime = platform.downtime if past.records else 0
    clock = VirtualClock(epoch_ms=past.instant + int(downtime * 1000))

    body = CancelScope()

    def watch(mark: Mark) -> None:
        points.append(Point(mark, journal.runs.copy(), store.state(clock())))
        if stop_at is not None and stop_at.same(mark):
            body.cancel()

    with errors_logged() as errors:
        settled, begun, quiet = await run(scenario, store, clock, platform, journal, watch, body)
    final = State.found(store, clock())
    return Life(
        scenario=scenario,
        runs=journal.runs,
        settled=settled,
        begun=begun,
        quiet=quiet,
        final=final,
        errors=errors,
        points=points,
    )


async def run(
    scenario: Scenario,
    store: Store,
    clock: Clock,
    platform: Platform,
    journal: Journal,
    watch: Watch,
    body: CancelScope,
) -> tuple[bool, State, State]:
    """Run the program on a store that is not open, until all is quiet or `body` is cancelled.

    Returns whether the root has settled, the state when the program had started, and that before it stopped.
    """
    clock()
    wire = Wire(network_on(store, clock, keep_leases=platform.outlived))
    _watch(wire, watch)
    settled = False
    async with programs(scenario, wire, platform, journal) as running:
        begun = State.of(store, clock())
        with body:
            async with anyio.create_task_group() as tasks:
                if scenario.outside is not None:
                    tasks.start_soon(scenario.outside, Outside(running[OUTSIDE], _World(store, clock)))
                settled = await _to_its_end(scenario, store, clock, running[GROUP])
                tasks.cancel_scope.cancel()
            # What it says while it stops is of no interest: everything has ended.
            wire.before = wire.after = nothing
        return settled, begun, State.of(store, clock())


@define(eq=False)
class _World:
    """A store in this process, and a clock."""

    _store: Store
    _clock: Clock

    def age(self) -> float:
        return (self._clock() - EMPTY.instant) / 1000

    async def has(self, id: str) -> bool:
        return _exists(self._store, id)

    def named(self, id: str) -> str:
        return native(id)


async def _to_its_end(scenario: Scenario, store: Store, clock: Clock, program: Resonate) -> bool:
    if not _exists(store, ROOT):
        await start(scenario, program)
    settled = await _reached(lambda: _settled(store, ROOT), PATIENCE)
    await _reached(lambda: not State.of(store, clock()).pending, AFTERMATH)
    # A step that has just begun may not be on record yet.
    await anyio.sleep(SECOND_LOOK)
    await _reached(lambda: not State.of(store, clock()).pending, AFTERMATH)
    return settled


def _watch(wire: Wire, watch: Watch) -> None:
    marks: dict[int, Mark] = {}
    # An id is an object's as long as that lives.
    requests: list[Request] = []

    async def before(request: Request) -> None:
        requests.append(request)
        mark = Mark(len(requests), answered=False, request=_described(request))
        marks[id(request)] = mark
        watch(mark)

    async def after(request: Request, _: Response) -> None:
        mark = marks[id(request)]
        watch(Mark(mark.number, answered=True, request=mark.request))

    wire.before, wire.after = before, after


def _described(request: Request) -> str:
    action = getattr(request, "action", request)
    subject = next((found for name in ("id", "awaited", "cursor") if (found := getattr(action, name, None))), "")
    return f"{request.kind} {subject}"


def _exists(store: Store, id: str) -> bool:
    return store.read(lambda view: view.promise(id)) is not None


def _settled(store: Store, id: str) -> bool:
    promise = store.read(lambda view: view.promise(id))
    return promise is not None and not promise.pending


async def start(scenario: Scenario, program: Resonate) -> None:
    """Start the workflow, or join it."""
    call = program.run(ROOT, scenario.workflow, *scenario.args)
    await (call if scenario.timeout is None else call.timeout(scenario.timeout)).spawn()


async def _reached(condition: Callable[[], bool], patience: float) -> bool:
    """Wait until the condition holds. It is asked less and less often, since time that is virtual costs nothing."""
    delay = 0.05
    with anyio.move_on_after(patience):
        while not condition():
            await anyio.sleep(delay)
            delay = min(2 * delay, 3600)
    return condition()


@asynccontextmanager
async def programs(
    scenario: Scenario, wire: Wire, platform: Platform, journal: Journal
) -> AsyncIterator[Mapping[str, Resonate]]:
    """The worker groups of a scenario and the outsider, if there is one, running."""
    groups = {GROUP: (scenario.workflow, *scenario.functions), **scenario.others}
    if scenario.outside is not None:
        groups[OUTSIDE] = ()
    async with AsyncExitStack() as stack:
        started: dict[str, Resonate] = {}
        for group, functions in groups.items():
            resonate = Resonate(
                network=wire, group=group, pid=group, grace=_GRACE, converter=_CONVERTER, **platform.settings
            )
            resonate.with_dependency(journal, Journal)
            for function in functions:
                resonate.register(function)
            started[group] = await stack.enter_async_context(resonate)
        yield started


_OF_THE_PROGRAM: Final = ("execution.failed ", "execution.timed_out ")


@contextmanager
def threads_abandoned() -> Iterator[list[str]]:
    """Collect the warnings about threads of leaves that still ran when their worker had stopped."""
    with _logged(logging.WARNING, lambda message: message.startswith("worker.thread_abandoned")) as warnings:
        yield warnings


@contextmanager
def errors_logged() -> Iterator[list[str]]:
    """What the engine logs as an error: whatever else comes of it, nobody should have to read that.

    That the program's own functions fail, in a process that does not wait for them, is none.
    """
    with _logged(logging.ERROR, lambda message: not message.startswith(_OF_THE_PROGRAM)) as errors:
        yield errors


@contextmanager
def _logged(level: int, wanted: Callable[[str], bool]) -> Iterator[list[str]]:
    into: list[str] = []
    handler = _Collector(level, into, wanted)
    logger = logging.getLogger("resonate_anyio")
    logger.addHandler(handler)
    try:
        yield into
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, level: int, into: list[str], wanted: Callable[[str], bool]) -> None:
        super().__init__(level)
        self._into = into
        self._wanted = wanted

    def emit(self, record: logging.LogRecord) -> None:
        if self._wanted(record.getMessage()):
            self._into.append(self.format(record))
