"""Runs one example in virtual time: a plan, and what goes wrong meanwhile. Tells what came of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import anyio
import trio
from anyio import Event, create_task_group
from attrs import define, field, frozen

from resonate_anyio import Resonate
from resonate_anyio._protocol import Promise, PromiseState
from resonate_anyio._worker import _residency
from resonate_anyio.testing import VirtualClock, run_virtual

from ..chosen import network_on
from ..engine.harness import Unreachable, is_mark
from .chaos import Chaos, ChaoticNetwork, Point, Script
from .graphs import ROOT, UNIT, WHOLE_LIFE, Plan
from .interpreter import FUNCTIONS, flow
from .ledger import CODEC, SOON_MS, Ledger
from .outside import Outside

_CALM: Final = Script()

_LEASE: Final = 100 * UNIT
"""Nobody dies without being noticed here, and each renewal costs a sweep: leases are long."""

_AGAIN: Final = 5.0
"""Seconds after which whoever starts the root tries again."""

_QUIET: Final = 600.0
"""Seconds in which what is still under way at the end has to end as well."""


@frozen
class Story:
    """What came of one example.

    Attributes:
        outcomes: of every promise, by id, as far as they are determined. (Several share one id if they differ in the
            number of a task only, which is chance.)
        faults: what must not have happened, in words.
        requests: everything that was asked for, or would have been after a crash, in order.
        messages: everything that was told, in order.
        happened: what went wrong on purpose.
        lasted: the virtual seconds it took.
    """

    outcomes: Mapping[str, Any]
    faults: Sequence[str]
    requests: Sequence[Point]
    messages: Sequence[Point]
    happened: Sequence[str]
    lasted: float

    def script(self, **troubles: Any) -> Script:
        """A script with these fields, for a run of the same plan."""
        return Script(requests=self.requests, messages=self.messages, **troubles)


def play(plan: Plan, backend: str, script: Script = _CALM) -> Story:
    """Run an example and tell what came of it. The same example has the same story."""
    with _silence(), scheduling(script.order), _rarely_blind():
        return run_virtual(_play, plan, Chaos.of(script), backend=backend)


@contextmanager
def _silence() -> Iterator[None]:
    """What goes wrong is told in the log, at length; here it is meant to."""
    logger = logging.getLogger("resonate_anyio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def scheduling(order: int) -> Iterator[None]:
    """Let trio, which shuffles its tasks on purpose, do so in the same way each time.

    It has this switch for tests, and no public way to use it.
    """
    run = trio._core._run
    before, state = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    run._r.seed(order)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        run._r.setstate(state)


@contextmanager
def _rarely_blind() -> Iterator[None]:
    """On asyncio, what is put away is looked after every ten minutes: too often for months to pass at once."""
    before = _residency._BLIND_WAIT_MS
    _residency._BLIND_WAIT_MS = round(_LEASE * 1000)  # type: ignore[misc]
    try:
        yield
    finally:
        _residency._BLIND_WAIT_MS = before  # type: ignore[misc]


async def _play(plan: Plan, chaos: Chaos) -> Story:
    clock = VirtualClock()
    ledger = Ledger(clock)
    drama = _Drama(plan, chaos, clock, ledger, Outside(plan, ledger))
    await drama.run()
    return drama.story()


@define(eq=False)
class _Drama:
    _plan: Plan
    _chaos: Chaos
    _clock: VirtualClock
    _ledger: Ledger
    _outside: Outside
    _quiet: Event = field(factory=Event, init=False)
    _faults: list[str] = field(factory=list, init=False)

    async def run(self) -> None:
        self._ledger.on_create = self._outside.notice
        self._ledger.on_commit = self._look
        async with create_task_group() as tasks:
            tasks.start_soon(self._outside.act)
            with anyio.move_on_after(3 * WHOLE_LIFE) as scope:
                while not self._quiet.is_set():
                    await self._live()
            if scope.cancelled_caught:
                self._faults.append(f"these do not end: {', '.join(self._ledger.pending)}")
            tasks.cancel_scope.cancel()

    def _look(self) -> None:
        if self._ledger.quiet:
            self._quiet.set()

    async def _live(self) -> None:
        network = ChaoticNetwork(network_on(self._ledger, self._clock), self._chaos, self._chaos.lifetime())
        resonate = Resonate(network=network, pid="p", grace=0, ttl=_LEASE, **self._chaos.settings)
        resonate.with_dependency(self._outside)
        for function in FUNCTIONS:
            resonate.register(function)
        async with resonate, create_task_group() as tasks:
            tasks.start_soon(self._start, resonate, network)
            tasks.start_soon(self._end_with, network, tasks.cancel_scope)
            with self._outside.living(resonate):
                await self._quiet.wait()
                await anyio.sleep(_QUIET)
            tasks.cancel_scope.cancel()
        if network.died.is_set():
            await anyio.sleep(network.downtime)

    @staticmethod
    async def _end_with(network: ChaoticNetwork, scope: anyio.CancelScope) -> None:
        await network.died.wait()
        scope.cancel()

    async def _start(self, resonate: Resonate, network: ChaoticNetwork) -> None:
        while ROOT not in self._ledger.promises and not network.died.is_set():
            try:
                await resonate.run(ROOT, flow, self._plan.flow).timeout(WHOLE_LIFE).spawn()
            except Unreachable:
                await anyio.sleep(_AGAIN)

    def _outcomes(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for id, promise in sorted(self._ledger.promises.items()):
            if not (self._cut_off(promise) or _is_unmade(promise) or _is_late(promise) or _is_of_lives(id)):
                found.setdefault(_common(id), []).append(self._outcome(promise))
        return {id: sorted(outcomes, key=repr) for id, outcomes in found.items()}

    def _outcome(self, promise: Promise) -> tuple[str, Any]:
        """How a promise ended, without what differs from run to run."""
        if promise.expired(self._clock()):
            # By some servers' rules a deadline that has passed is on record when somebody has asked for it.
            return PromiseState.TIMEDOUT.value, None
        caller = next(self._ledger.above(promise.id), None)
        if caller is not None and promise.state is caller.state is PromiseState.CANCELED:
            # Which of the calls that end together is told first is chance, and with it what it takes for the reason.
            return promise.state.value, None
        value = _lasting(CODEC.decode(promise.value))
        if isinstance(value, dict) and value.get("by") in {"group", "parent"}:
            # A frame that fails and a group in it end at one instant, in any order: either cancels the call.
            return promise.state.value, "by group or parent"
        return promise.state.value, value

    def _cut_off(self, promise: Promise) -> bool:
        """Whether it was cancelled at the instant of its start, or something above was: how far that got is chance."""
        calls = (promise, *self._ledger.above(promise.id))
        cancelled = (call for call in calls if call.state is PromiseState.CANCELED)
        return any((call.settled_at or 0) - call.created_at < SOON_MS for call in cancelled)

    def story(self) -> Story:
        ledger = self._ledger
        unfinished = [f"the task {task} at the end" for task in ledger.unfinished_tasks()]
        pending = [f"{id} is pending at the end" for id in ledger.pending]
        return Story(
            outcomes=self._outcomes(),
            faults=[*ledger.faults, *self._outside.faults, *self._faults, *pending, *unfinished],
            requests=sorted(set(self._chaos.requests) | set(_recoveries(ledger))),
            messages=sorted(self._chaos.messages),
            happened=self._chaos.happened,
            lasted=anyio.current_time(),
        )


def _is_of_lives(id: str) -> bool:
    """Whether it tells how a life began or ended: how many there are depends on what goes wrong."""
    return ".~wake-" in id or is_mark(id)


_CHANCE: Final = re.compile(r"(?<=[0-9]t)p[0-9]+|(?<=\.d)[A-Za-z0-9_-]{22}|(?<=\.~)[A-Za-z0-9_-]{22}")


def _is_unmade(promise: Promise) -> bool:
    """Whether it is a choice that was cancelled before it was made: where a process died meanwhile it has no record."""
    content = CODEC.decode(promise.param)
    return isinstance(content, dict) and "fact" in content and "cancelled" in content


def _is_late(promise: Promise) -> bool:
    """Whether it was made after its deadline: a call in a block that has expired may be refused without a record."""
    return promise.state is PromiseState.TIMEDOUT and promise.timeout_at <= promise.created_at


def _common(text: str) -> str:
    """A text without the numbers of tasks of plain nurseries, which trio starts in any order. Hashes have them too."""
    return _CHANCE.sub("p", text)


def _lasting(value: Any) -> Any:
    match value:
        case dict():
            return {key: _lasting(inner) for key, inner in value.items() if key not in _passing(value)}
        case list():
            return [_lasting(inner) for inner in value]
        case str():
            return _common(value)
        case _:
            return value


def _passing(value: Mapping[str, Any]) -> set[str]:
    """What differs from run to run: tracebacks, and instants, which what went wrong before them may have put off."""
    if value.get("name") == "DurableTimeoutError":
        return {"stack", "args"}
    return {"instant", "started"} if "by" in value else {"stack"}


def _recoveries(ledger: Ledger) -> list[Point]:
    """What only a process asks for that takes up what another has left."""
    roots = [id for id in ledger.tasks if not {"resonate:timer", "resonate:external"} & ledger.promises[id].tags.keys()]
    kinds = ("task.acquire", "task.get", "task.release")
    return [(kind, id) for id in roots for kind in kinds] + [("promise.search", f"{id}.") for id in roots]
