"""Interrupt a scenario's program at points of its life, let the next one go on, and judge what comes of it.

A point is a resumption of one of its tasks, which gets the interrupt thrown into it instead of what it has waited for:
that is what KeyboardInterrupt does, and SystemExit in the handler of a signal. Each life has an event loop of its own,
which the interrupt ends.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, Literal, TypeAlias, TypeVar

import anyio
import trio
from anyio import CancelScope
from attrs import define, evolve, field, frozen

from resonate_anyio._concurrency._tasks import await_chain
from resonate_anyio._protocol import PromiseState
from resonate_anyio._workflow._lanes import current_lane
from resonate_anyio.testing import VirtualClock, run_virtual, virtual_backend
from resonate_anyio.testing._virtual_asyncio import VirtualEventLoop

from .lives import Journal, Life, Mark, Platform, Point, errors_logged, live, run, threads_abandoned
from .scenarios import Scenario, without_lanes
from .states import EMPTY, Recorder, State
from .verdicts import Past, verdict

T = TypeVar("T")

Whose: TypeAlias = Literal["program", "engine"]

WHOSE: Final[tuple[Whose, ...]] = ("program", "engine")
INTERRUPTS: Final = (KeyboardInterrupt, SystemExit)

_TRIOS_ORDER: Final[random.Random] = vars(trio._core._run)["_r"]
"""What trio shuffles the tasks with that are ready."""


@frozen
class Interruption:
    """Which resumption of a task is an interruption instead.

    Attributes:
        whose: tasks of the program's run code of its workflows; all others of a worker are the engine's.
        number: counts resumptions of either, from 1.
        interrupt: what is thrown.
    """

    whose: Whose
    number: int
    interrupt: type[BaseException]

    def __str__(self) -> str:
        return f"{self.interrupt.__name__} at resumption {self.number} of the {self.whose}'s tasks"


@define(eq=False)
class Interrupter:
    """Counts resumptions, and says which one is to be an interruption.

    Attributes:
        planned: that one, if any.
        happens: is called with the name of the task, just before.
    """

    planned: Interruption | None = None
    happens: Callable[[str], None] = lambda _: None
    counts: Counter[str] = field(factory=Counter, init=False)

    def at(self, context: Context, task: str) -> BaseException | None:
        """The interrupt that a task is to get that is about to be resumed, if any."""
        whose = _owner(context, task)
        if whose is None:
            return None
        self.counts[whose] += 1
        planned = self.planned
        if planned is None or (whose, self.counts[whose]) != (planned.whose, planned.number):
            return None
        self.happens(task)
        return planned.interrupt()


def _owner(context: Context, task: str) -> Whose | None:
    """Whose task it is; None for those of the tests and of the backend."""
    if context.get(current_lane) is not None:
        return "program"
    return None if task.startswith(("tests.", "trio.", "<", "Task-")) else "engine"


# The two backends


class _OnTrio(trio.abc.Instrument):
    def __init__(self, interrupter: Interrupter) -> None:
        self._interrupter = interrupter

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if inspect.getcoroutinestate(task.coro) == inspect.CORO_CREATED or _leaves_nursery(task):
            return
        if (interrupt := self._interrupter.at(task.context, task.name)) is not None:
            task._next_send_fn = task.coro.throw
            task._next_send = interrupt


def _leaves_nursery(task: trio.lowlevel.Task) -> bool:
    # trio keeps interrupts away from the exits of its nurseries; they would not survive one.
    return any(getattr(link, "__name__", "") == "_nested_child_finished" for link in await_chain(task))


class _Interruptible(Coroutine[Any, Any, Any]):
    """The coroutine of one of asyncio's tasks."""

    __slots__ = ("_coroutine", "_interrupter", "_started", "task")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], interrupter: Interrupter) -> None:
        self._coroutine = coroutine
        self._interrupter = interrupter
        self._started = False
        self.task: asyncio.Task[Any] | None = None

    def send(self, value: Any) -> Any:
        interrupt = self._interrupt()
        return self._coroutine.send(value) if interrupt is None else self._coroutine.throw(interrupt)

    def throw(self, *exc: Any) -> Any:
        interrupt = self._interrupt()
        return self._coroutine.throw(*exc) if interrupt is None else self._coroutine.throw(interrupt)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        # What is looked at to see where a task is.
        return getattr(self._coroutine, name)

    def _interrupt(self) -> BaseException | None:
        started, self._started = self._started, True
        assert self.task is not None
        return self._interrupter.at(copy_context(), self.task.get_name()) if started else None


class _Loop(VirtualEventLoop):
    def __init__(self, interrupter: Interrupter) -> None:
        super().__init__()

        def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **settings: Any) -> asyncio.Task[Any]:
            interruptible = _Interruptible(coroutine, interrupter)
            interruptible.task = asyncio.Task(interruptible, loop=loop, **settings)
            return interruptible.task

        self.set_task_factory(make)
        # What asyncio has to say about tasks that end with an interrupt is of no interest.
        self.set_exception_handler(lambda _, __: None)


def _run(func: Callable[[], Awaitable[T]], backend: str, interrupter: Interrupter) -> T:
    name, options = virtual_backend(backend)
    if name == "trio":
        _TRIOS_ORDER.seed(0)
        options["instruments"].append(_OnTrio(interrupter))
    else:
        options["loop_factory"] = partial(_Loop, interrupter)
    return anyio.run(func, backend=name, backend_options=options)


# Lives


@define(eq=False)
class InterruptTrial:
    """All interruptions of one scenario on one backend.

    Attributes:
        reference: the life that is not interrupted, which all others are compared with.
        counts: how often tasks are resumed in such a life.
        complaints: what was wrong, and after which interruptions.
        lives: how many were interrupted.
    """

    scenario: Scenario
    backend: str
    reference: Life = field(init=False)
    counts: Counter[str] = field(init=False)
    complaints: list[str] = field(factory=list, init=False)
    lives: int = field(default=0, init=False)
    _next_lives: dict[object, Life] = field(factory=dict, init=False)

    def without_interrupt(self) -> Life:
        """Live without an interruption, and count. That has to be right in itself."""
        interrupter = Interrupter()
        self.reference = _run(partial(live, self.scenario, EMPTY, Platform()), self.backend, interrupter)
        self.counts = interrupter.counts
        self._complain("not interrupted", verdict(self.reference, Past(), self.reference))
        return self.reference

    def interruptions(self) -> list[Interruption]:
        """All that there are."""
        return [
            Interruption(whose, number, interrupt)
            for whose in WHOSE
            for number in range(1, self.counts[whose] + 1)
            for interrupt in INTERRUPTS
        ]

    def interrupt_at(self, interruption: Interruption) -> None:
        """Be interrupted there; then live on."""
        store, journal, clock = Recorder(Platform().store()), Journal(), VirtualClock(epoch_ms=EMPTY.instant)
        before: list[State] = []
        story = str(interruption)

        def happens(task: str) -> None:
            nonlocal story
            story += f" ({task})"
            before.append(store.state(EMPTY.instant))

        async def tests_of_a_life() -> None:
            await run(self.scenario, store, clock, Platform(), journal, lambda _: None, CancelScope())

        with errors_logged() as errors, threads_abandoned() as abandoned:
            ended = _ending(partial(_run, tests_of_a_life, self.backend, Interrupter(interruption, happens)))
        if not before:
            # It takes another way each time, and has not come there.
            return
        self.lives += 1
        self._complain(story, [*errors, *_not_by(interruption, ended)])
        left = _now(State.found(store, EMPTY.instant))
        self._complain(story, self._recorded(before[0], left))
        # A thread is slower than virtual time if the machine is busy. A lease is kept while one runs for its execution.
        self._complain(story, [f"still leased: {left.leases}"] if left.leases and not abandoned else [])
        point = Point(Mark(0, answered=False, request=story), journal.runs, left, in_order=True)
        self._complain(story, verdict(self._next_life(left), Past((point,)), self.reference))

    def _next_life(self, left: State) -> Life:
        # Many interruptions leave the same behind. Names of processes differ.
        key = left.instant, re.sub(r"\.[0-9a-f]{8}\b", "", repr(left.records))
        if key not in self._next_lives:
            self._next_lives[key] = run_virtual(partial(live, self.scenario, left, Platform()), backend=self.backend)
        return self._next_lives[key]

    def _recorded(self, before: State, after: State) -> list[str]:
        """What was recorded as cancelled since the interrupt, and would not have been without it."""
        return [
            f"{id} was recorded as cancelled: {promise.value}"
            for id, promise in after.promises.items()
            if promise.state is PromiseState.CANCELED
            and not before.settled(id)
            and "rejected_canceled" not in self.reference.endings.get(without_lanes(id), [])
            and not self.scenario.may_vary(promise)
        ]

    def _complain(self, story: str, complaints: Sequence[str]) -> None:
        self.complaints += [f"{self.scenario.name} on {self.backend}, {story}: {text}" for text in complaints]


def _ending(life: Callable[[], object]) -> BaseException | None:
    """What the program ended by."""
    try:
        life()
    except BaseException as exc:  # noqa: BLE001 - interrupts are what this is about
        return exc
    return None


def _not_by(interruption: Interruption, ended: BaseException | None) -> list[str]:
    if ended is None:
        return ["the program did not end"]
    found = ended
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return [] if isinstance(found, interruption.interrupt) else [f"the program ended by {ended!r}"]


def _now(state: State) -> State:
    """The state at the latest instant on record: time goes on from there."""
    instants = (promise.settled_at or promise.created_at for promise in state.promises.values())
    return evolve(state, instant=max(instants, default=EMPTY.instant))


def interrupt_everywhere(trial: InterruptTrial) -> None:
    """Be interrupted in every way that there is."""
    trial.without_interrupt()
    for interruption in trial.interruptions():
        trial.interrupt_at(interruption)


def interrupt_somewhere(trial: InterruptTrial, chance: random.Random) -> None:
    """Be interrupted twice: once in code of the program's, once in a task of the engine's."""
    trial.without_interrupt()
    for whose in WHOSE:
        if ways := [each for each in trial.interruptions() if each.whose == whose]:
            trial.interrupt_at(chance.choice(ways))
