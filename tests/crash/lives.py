"""`live`: one life of a program on what an earlier one left behind, watched at every request that it makes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
from attrs import define, field, frozen

from resonate_anyio import Info, Resonate
from resonate_anyio._protocol import Request, Response
from resonate_anyio.abc import Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import VirtualClock
from tests.engine.harness import Wire

from .scenarios import ROOT, Outside, Scenario
from .states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE: Final = 24 * 3600.0
"""Seconds after which a root will not settle any more."""
AFTERMATH: Final = 600.0
"""Seconds that what lies beside the root's tree may take to end after it."""


@define
class Journal:
    """Which leaves ran in one life. Leaves find it as a dependency."""

    runs: Counter[str] = field(factory=Counter)

    def note(self, info: Info) -> None:
        """A leaf has begun. Further attempts belong to the same run."""
        if info.attempt == 1:
            self.runs[info.id] += 1


@frozen
class Point:
    """One instant at which the process may die.

    Attributes:
        number: counts the requests of a life, from 1.
        answered: whether the request has had its effect; its answer is lost.
        runs: which leaves had begun by then in this life, and how often.
        state: what is left behind.
    """

    number: int
    answered: bool
    request: Request
    runs: Counter[str]
    state: State

    def __str__(self) -> str:
        when = "after" if self.answered else "before"
        return f"{when} request {self.number} ({self.request.kind} {_subject(self.request)})"


def _subject(request: Request) -> str:
    for name in ("action_id", "id", "awaited", "cursor"):
        if value := getattr(request, name, None):
            return str(value)
    action = getattr(request, "action", None)
    return str(getattr(action, "id", ""))


@define(eq=False)
class Life:
    """What happened in one life of the program.

    Attributes:
        points: every request, before and after.
        errors: what was logged as an error.
        settled: whether the root came to an end.
        quiet: the state when nothing happened any more, the process still living.
        final: the state after the process has stopped.
    """

    journal: Journal = field(factory=Journal)
    points: list[Point] = field(factory=list)
    errors: list[str] = field(factory=list)
    settled: bool = False
    quiet: State = field(init=False)
    final: State = field(init=False)


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


async def live(scenario: Scenario, past: State, platform: Platform) -> Life:
    """Start the program on what is left of its past, and let it live until there is nothing to do."""
    life = Life()
    store = platform.store()
    past.restore(store)
    downtime = platform.downtime if past.records else 0
    clock = VirtualClock(epoch_ms=past.instant + int(downtime * 1000))
    clock()
    wire = Wire(LocalNetwork(store, clock=clock, keep_leases=platform.outlived))
    numbers: dict[int, int] = {}

    def mark(request: Request, *, answered: bool) -> None:
        number = numbers[id(request)]
        life.points.append(Point(number, answered, request, life.journal.runs.copy(), State.of(store, clock())))

    async def before(request: Request) -> None:
        numbers[id(request)] = len(numbers) + 1
        mark(request, answered=False)

    async def after(request: Request, _: Response) -> None:
        mark(request, answered=True)

    wire.before, wire.after = before, after
    with _errors_logged(life.errors):
        async with (
            _programs(scenario, wire, platform, life.journal) as (main, outsider),
            anyio.create_task_group() as tasks,
        ):
            if scenario.outside is not None:
                tasks.start_soon(scenario.outside, Outside(outsider, store, clock))
            if ROOT not in past.promises:
                await _start(scenario, main)
            life.settled = await _reached(lambda: State.of(store, 0).settled(ROOT), PATIENCE)
            await _reached(lambda: not State.of(store, 0).pending, AFTERMATH)
            tasks.cancel_scope.cancel()
            wire.before = wire.after = _unseen
            life.quiet = State.of(store, clock())
    store.open()
    life.final = State.of(store, clock())
    store.close()
    return life


async def _start(scenario: Scenario, program: Resonate) -> None:
    call = program.run(ROOT, scenario.workflow, *scenario.args)
    await (call if scenario.timeout is None else call.timeout(scenario.timeout)).spawn()


async def _unseen(*_: object) -> None:
    pass


async def _reached(condition: Callable[[], bool], patience: float) -> bool:
    """Wait until the condition holds. It is asked less and less often, since time that is virtual costs nothing."""
    delay = 0.05
    with anyio.move_on_after(patience):
        while not condition():
            await anyio.sleep(delay)
            delay = min(2 * delay, 3600)
    return condition()


@asynccontextmanager
async def _programs(
    scenario: Scenario, wire: Wire, platform: Platform, journal: Journal
) -> AsyncIterator[tuple[Resonate, Resonate]]:
    """The worker groups of a scenario and the outsider, running."""
    groups = {"default": (scenario.workflow, *scenario.functions), **scenario.others, "outside": ()}
    async with AsyncExitStack() as stack:
        programs: dict[str, Resonate] = {}
        for group, functions in groups.items():
            resonate = Resonate(network=wire, group=group, pid=group, grace=0, **platform.settings)
            resonate.with_dependency(journal)
            for function in functions:
                resonate.register(function)
            programs[group] = await stack.enter_async_context(resonate)
        yield programs["default"], programs["outside"]


@contextmanager
def _errors_logged(into: list[str]) -> Iterator[None]:
    handler = _Collector(into)
    logger = logging.getLogger("resonate_anyio")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        self._into.append(self.format(record))
