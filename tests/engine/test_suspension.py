"""The table of `Suspension`: each event in each phase, with a stub for the execution.

What requests and code make of it is tested with whole workers, in `test_parking.py` and `test_leases.py`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import anyio
import pytest
from attrs import define, field

import resonate_anyio
from resonate_anyio._execution._phases import IGNORED, IMPOSSIBLE, Phase, Transition, Trigger
from resonate_anyio._execution._services import Event as Report
from resonate_anyio._execution._suspension import Suspension
from resonate_anyio._execution._task_requests import Grant
from resonate_anyio._observe import Observers
from resonate_anyio._protocol import Promise, PromiseState, TaskRecord, TaskState
from resonate_anyio._workflow._host import Drop

PACKAGE: Final = Path(resonate_anyio.__file__).parent

VERSION: Final = 5
NEXT: Final = Grant(
    VERSION + 1,
    (
        Promise(id="w.pending", timeout_at=1, created_at=0),
        Promise(id="w.settled", timeout_at=1, created_at=0, state=PromiseState.CANCELED),
    ),
    30.0,
)
HELD: Final = Grant(VERSION, (), 30.0)
FACTS: Final[dict[Trigger, tuple[object, ...]]] = {
    Trigger.SUSPEND: (1_000,),
    Trigger.ADOPT: (NEXT,),
    Trigger.ACQUIRED: (NEXT,),
    Trigger.CAUGHT_UP: (NEXT,),
    Trigger.FOUND_MINE: (HELD,),
}

PAIRS: Final = list(product(Trigger, Phase))

NOTED: Final = "noted that code waits"
CANCELLED: Final = "cancelled the attempt"
ASKS: Final = "started holder"
NOT_PARKED: Final = "reported not parked"
RESUMING: Final = ("reported resuming", "started resuming")
PARKED: Final = ("ended the lease", "reported parked")
HOLDS: Final = ("version + 1", "granted 6 at 30.0")
GOES_ON: Final = ("cancelled w.settled", "reported resumed")
VERIFYING: Final = "started verifying"
LOST: Final = "dropped as lost"

# The phase after the event, and everything that can be seen of its actions. What is not here is ignored or impossible.
EFFECTS: Final[dict[tuple[Trigger, Phase], tuple[Phase, list[str]]]] = {
    (Trigger.SUSPEND, Phase.HOT): (Phase.SUSPENDING, ["started suspending until 1000"]),
    (Trigger.RESUME, Phase.HOT): (Phase.HOT, [NOTED]),
    (Trigger.RESUME, Phase.SUSPENDING): (Phase.SUSPENDING, [NOTED]),
    (Trigger.RESUME, Phase.PARKED): (Phase.RESUMING, [*RESUMING]),
    (Trigger.RESUME_TOO_LATE, Phase.HOT): (Phase.HOT, [NOTED]),
    (Trigger.RESUME_TOO_LATE, Phase.SUSPENDING): (Phase.SUSPENDING, [NOTED]),
    (Trigger.EXECUTE_PRESENT, Phase.HOT): (Phase.HOT, [ASKS]),
    (Trigger.EXECUTE_PRESENT, Phase.SUSPENDING): (Phase.SUSPENDING, [NOTED]),
    (Trigger.EXECUTE_PRESENT, Phase.PARKED): (Phase.RESUMING, [*RESUMING]),
    (Trigger.EXECUTE_LATER, Phase.HOT): (Phase.HOT, [ASKS]),
    (Trigger.EXECUTE_LATER, Phase.SUSPENDING): (Phase.SUSPENDING, [ASKS]),
    (Trigger.EXECUTE_LATER, Phase.PARKED): (Phase.PARKED, [ASKS]),
    (Trigger.EXECUTE_LATER, Phase.RESUMING): (Phase.RESUMING, [ASKS]),
    (Trigger.EXECUTE_LATER, Phase.VERIFYING): (Phase.VERIFYING, [ASKS]),
    (Trigger.LEASE_IN_DOUBT, Phase.HOT): (Phase.VERIFYING, [VERIFYING]),
    (Trigger.ADOPT, Phase.SUSPENDING): (Phase.HOT, [*HOLDS, *GOES_ON]),
    (Trigger.ADOPT, Phase.PARKED): (Phase.HOT, [*HOLDS, *GOES_ON]),
    (Trigger.ADOPT, Phase.RESUMING): (Phase.HOT, [*HOLDS, *GOES_ON]),
    (Trigger.NEVER_BEGAN, Phase.SUSPENDING): (Phase.HOT, [NOT_PARKED]),
    (Trigger.NEVER_BEGAN, Phase.RESUMING): (Phase.HOT, ["version + 1", NOT_PARKED]),
    (Trigger.GIVEN_UP, Phase.SUSPENDING): (Phase.SUSPENDING, [CANCELLED]),
    (Trigger.GIVEN_UP, Phase.RESUMING): (Phase.RESUMING, [CANCELLED]),
    (Trigger.DROP, Phase.VERIFYING): (Phase.VERIFYING, [CANCELLED]),
    (Trigger.NOT_CERTAIN, Phase.SUSPENDING): (Phase.VERIFYING, [NOT_PARKED, VERIFYING]),
    (Trigger.WAKE_MADE, Phase.SUSPENDING): (Phase.SUSPENDING, ["noted what is awaited"]),
    (Trigger.SUSPENDED, Phase.SUSPENDING): (Phase.PARKED, [*PARKED]),
    (Trigger.SUSPENDED_AND_WOKEN, Phase.SUSPENDING): (Phase.RESUMING, [*PARKED, *RESUMING]),
    (Trigger.SETTLED_BEFORE, Phase.SUSPENDING): (Phase.HOT, [NOT_PARKED, "started look"]),
    (Trigger.UNANSWERED, Phase.SUSPENDING): (Phase.SUSPENDING, []),
    (Trigger.LOST, Phase.SUSPENDING): (Phase.HOT, [LOST, NOT_PARKED]),
    (Trigger.LOST, Phase.VERIFYING): (Phase.HOT, [LOST, NOT_PARKED]),
    (Trigger.ACQUIRED, Phase.RESUMING): (Phase.RESUMING, [*HOLDS]),
    (Trigger.CAUGHT_UP, Phase.RESUMING): (Phase.HOT, [*GOES_ON]),
    (Trigger.REFUSED, Phase.RESUMING): (Phase.HOT, ["version + 1", LOST, NOT_PARKED]),
    (Trigger.REFUSED_TOO_LATE, Phase.RESUMING): (Phase.HOT, ["version + 1", NOT_PARKED]),
    (Trigger.FOUND_MINE, Phase.VERIFYING): (Phase.HOT, ["granted 5 at 30.0"]),
    (Trigger.FOUND_FREE, Phase.VERIFYING): (Phase.RESUMING, ["forgot what is awaited"]),
    (Trigger.ENDED, Phase.SUSPENDING): (Phase.HOT, [NOT_PARKED]),
    (Trigger.ENDED, Phase.RESUMING): (Phase.HOT, ["version + 1", NOT_PARKED]),
    (Trigger.ENDED, Phase.VERIFYING): (Phase.HOT, [NOT_PARKED]),
}


@define(eq=False)
class Stub:
    """Stands for an execution, its worker and its lease, and writes down what it is told."""

    id: str = "w"
    told: list[str] = field(factory=list)
    awaited: dict[str, None] = field(factory=lambda: {"w.promise": None})
    dropped: Drop | None = None
    draining: bool = False
    certain: bool = True
    started: list[Callable[[], Awaitable[None]]] = field(factory=list)
    root: Any = field(factory=lambda: SimpleNamespace(function=SimpleNamespace(name="f", version=1)))
    facilities: Any = field(factory=lambda: SimpleNamespace(observers=Observers()))
    suspension: Suspension = field(init=False)
    _version: int = VERSION

    def __attrs_post_init__(self) -> None:
        self.suspension = Suspension(self)  # type: ignore[arg-type]

    @property
    def services(self) -> Stub:
        return self

    @property
    def lease(self) -> Stub:
        return self

    @property
    def version(self) -> int:
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        if version != self._version:
            self.told.append(f"version + {version - self._version}")
        self._version = version

    def report(self, event: Report, _: object) -> None:
        self.told.append(f"reported {event.value}")

    def background(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        until = f" until {args[-1]}" if args and isinstance(args[-1], int) else ""
        self.told.append(f"started {name.split()[1]}{until}")
        self.started.append(lambda: func(*args))

    def grant(self, version: int, sent: float) -> None:
        self.told.append(f"granted {version} at {sent}")

    def end(self) -> None:
        self.told.append("ended the lease")

    def drop(self, reason: Drop) -> None:
        self.told.append(f"dropped as {reason.value}")
        self.dropped = reason
        self.suspension.execution_dropped()

    def end_calls(self, records: Iterable[Promise]) -> None:
        self.told += [f"cancelled {record.id}" for record in records if not record.pending]

    def told_now(self) -> list[str]:
        """What was told, and what the suspension keeps to itself."""
        suspension = self.suspension
        hidden = {
            NOTED: suspension._attempt.resume.is_set(),
            CANCELLED: suspension._attempt.scope.cancel_called,
            "noted what is awaited": suspension._awaited == {"w.promise"},
            "forgot what is awaited": suspension._awaited == set(),
        }
        return [*self.told, *(text for text, seen in hidden.items() if seen)]


def brought_into(phase: Phase, **kwargs: Any) -> Stub:
    """An execution in that phase, which has been told nothing yet."""
    stub = Stub(**kwargs)
    suspension = stub.suspension
    if phase is Phase.VERIFYING:
        suspension.verify_lease()
    elif phase is not Phase.HOT:
        suspension.suspend(1_000)
        if phase is not Phase.SUSPENDING:
            suspension._apply(Trigger.SUSPENDED)
            if phase is not Phase.PARKED:
                suspension.request_resume()
    assert suspension.phase is phase
    stub.told.clear()
    suspension._awaited = frozenset({"w.before"})
    return stub


@pytest.mark.parametrize(("trigger", "phase"), PAIRS, ids=lambda each: each.name.lower())
async def test_each_event_in_each_phase(trigger: Trigger, phase: Phase) -> None:
    """Each event in each phase leads to the phase, and has the effects, that are listed here; all others have none."""
    stub = brought_into(phase)
    decision = Suspension.TABLE[trigger][phase]
    facts = FACTS.get(trigger, ())
    if decision is IMPOSSIBLE:
        with pytest.raises(AssertionError, match=f"{trigger.name} happened in phase {phase.name}"):
            stub.suspension._apply(trigger, *facts)
    else:
        stub.suspension._apply(trigger, *facts)

    assert EFFECTS.get((trigger, phase), (phase, [])) == (stub.suspension.phase, stub.told_now())


def test_each_pair_is_decided() -> None:
    """The table has a cell for each event in each phase: a transition, or the word that nothing happens."""
    assert set(PAIRS) == {(trigger, phase) for trigger, row in Suspension.TABLE.items() for phase in row}
    decided = {pair for pair in PAIRS if isinstance(Suspension.TABLE[pair[0]][pair[1]], Transition)}
    assert EFFECTS.keys() == decided


def test_what_is_ignored() -> None:
    """An event from outside may come in any phase, but for two that the suspension keeps away itself."""
    outside = list(Trigger)[: list(Trigger).index(Trigger.NOT_CERTAIN)]
    impossible = {
        (trigger, phase) for trigger in outside for phase in Phase if Suspension.TABLE[trigger][phase] is IMPOSSIBLE
    }

    assert impossible == {
        *((Trigger.SUSPEND, phase) for phase in Phase if phase is not Phase.HOT),
        (Trigger.ADOPT, Phase.HOT),
        (Trigger.ADOPT, Phase.VERIFYING),
    }
    assert [IGNORED, IGNORED] == [Suspension.TABLE[Trigger.ENDED][phase] for phase in (Phase.HOT, Phase.PARKED)]


async def test_a_change_of_the_phase_is_told() -> None:
    """All who wait for the next change are woken by each event that changes the phase, and by no other event."""
    for trigger, phase in PAIRS:
        decision = Suspension.TABLE[trigger][phase]
        if decision is not IMPOSSIBLE:
            stub = brought_into(phase)
            changes = [stub.suspension.next_change() for _ in range(2)]
            stub.suspension._apply(trigger, *FACTS.get(trigger, ()))
            moved = stub.suspension.phase is not phase
            assert [moved, moved] == [change.is_set() for change in changes]


async def test_a_parked_execution_is_resumed_at_once_if_code_waits() -> None:
    """Code that asks for the lease while the task is being suspended gets it back, unless the worker drains."""
    for draining, phase in ((False, Phase.RESUMING), (True, Phase.PARKED)):
        stub = brought_into(Phase.SUSPENDING)
        stub.suspension.request_resume()
        stub.draining = draining
        stub.suspension._apply(Trigger.SUSPENDED)
        assert stub.suspension.phase is phase


async def test_a_version_is_taken_once() -> None:
    """An attempt to resume that fails after it has acquired the task leaves the version as it was acquired."""
    for trigger in (Trigger.ENDED, Trigger.REFUSED_TOO_LATE):
        stub = brought_into(Phase.RESUMING)
        stub.suspension._apply(Trigger.ACQUIRED, NEXT)
        stub.suspension._apply(trigger)
        assert VERSION + 1 == stub.version


async def test_a_lapsed_lease_is_taken_at_the_next_version() -> None:
    """An attempt to verify that goes on to resume, and fails, counts the version as an attempt to resume does."""
    stub = brought_into(Phase.VERIFYING)
    stub.suspension._apply(Trigger.FOUND_FREE)
    stub.suspension._apply(Trigger.ENDED)
    assert VERSION + 1 == stub.version


async def test_nothing_starts_for_a_dropped_execution() -> None:
    """No attempt starts for an execution that was dropped, and no lease is taken for it."""
    task = TaskRecord(id="w", state=TaskState.ACQUIRED, version=VERSION + 1, resumes=0)
    for phase in Phase:
        stub = brought_into(phase)
        stub.dropped = Drop.SETTLED
        stub.suspension.request_resume()
        stub.suspension.verify_lease()
        assert not stub.suspension.handle_execute(VERSION)
        assert not stub.suspension.adopt(task, (), 30.0)
        assert (phase, []) == (stub.suspension.phase, stub.told)


async def test_which_lease_is_adopted() -> None:
    """A lease is adopted at the next version by an execution without one; one with a lease can only have that one."""
    unleased = {Phase.SUSPENDING, Phase.PARKED, Phase.RESUMING}
    for phase in Phase:
        for version in (VERSION - 1, VERSION, VERSION + 1, VERSION + 2):
            stub = brought_into(phase)
            task = TaskRecord(id="w", state=TaskState.ACQUIRED, version=version, resumes=0)
            adopted = version == (VERSION + 1 if phase in unleased else VERSION)
            assert adopted is stub.suspension.adopt(task, (), 30.0)
            assert (Phase.HOT if adopted and phase in unleased else phase) is stub.suspension.phase


async def test_messages_by_their_version() -> None:
    """A message at an earlier version means nothing; one at the present version resumes; a later one is looked into."""
    for version, told in ((VERSION - 1, []), (VERSION, [*RESUMING]), (VERSION + 1, [ASKS])):
        stub = brought_into(Phase.PARKED)
        assert stub.suspension.handle_execute(version)
        assert told == stub.told


async def test_the_holder_is_asked_for_once() -> None:
    """While the server is being asked who holds the task, another message does not ask again."""
    stub = brought_into(Phase.HOT)
    for _ in range(3):
        stub.suspension.handle_execute(VERSION)
    assert [ASKS] == stub.told


async def test_only_an_attempt_that_has_not_begun_is_abandoned() -> None:
    """The attempt whose task has begun ends by itself, and its phase stays until then."""
    stub = brought_into(Phase.SUSPENDING)
    phases: list[Phase] = []
    for begun in (True, False):
        stub.suspension._attempt.begun = begun
        stub.suspension.abandon_unbegun()
        phases.append(stub.suspension.phase)
    assert [Phase.SUSPENDING, Phase.HOT] == phases


async def test_an_attempt_that_is_void_sends_nothing() -> None:
    """An attempt that begins after the phase was decided without it ends at once."""
    for trigger in (Trigger.NEVER_BEGAN, Trigger.ADOPT):
        stub = Stub()
        stub.suspension.suspend(1_000)
        stub.suspension._apply(trigger, *FACTS.get(trigger, ()))
        stub.told.clear()
        # The stub has no connection: a request would fail.
        [attempt] = stub.started
        await attempt()
        assert (Phase.HOT, []) == (stub.suspension.phase, stub.told)


async def test_the_end_of_an_attempt_that_was_replaced() -> None:
    """An attempt that ends after another one has begun changes nothing."""
    stub = Stub(certain=False)
    stub.suspension.suspend(1_000)
    # The lease is not certain, so this starts another attempt, and ends.
    await stub.started[0]()
    assert (Phase.VERIFYING, VERIFYING) == (stub.suspension.phase, stub.told[-1])


async def test_waiting_for_a_transfer() -> None:
    """It ends when the task is neither being suspended nor being acquired any more."""
    stub = brought_into(Phase.SUSPENDING)
    seen: list[Phase] = []

    async def wait() -> None:
        await stub.suspension.wait_transferred()
        seen.append(stub.suspension.phase)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(1)
        stub.suspension.request_resume()
        # Parked, and resumed in the same moment.
        stub.suspension._apply(Trigger.SUSPENDED)
        await anyio.sleep(1)
        assert [] == seen
        stub.suspension._apply(Trigger.ACQUIRED, NEXT)
        stub.suspension._apply(Trigger.CAUGHT_UP, NEXT)
    assert [Phase.HOT] == seen


def test_actions_take_the_facts_of_their_event() -> None:
    """All actions of one event take the same number of facts, in each phase."""
    for trigger, row in Suspension.TABLE.items():
        numbers = {
            len(inspect.signature(action).parameters) - 1
            for decision in row.values()
            if isinstance(decision, Transition)
            for action in decision.actions
        }
        assert numbers <= {len(FACTS.get(trigger, ()))}


def test_only_the_table_changes_the_phase() -> None:
    """The phase is assigned by one function, and no other module of the package assigns attributes of a suspension."""
    writers = set()
    for path in (PACKAGE / "_execution").glob("*.py"):
        writers |= {f"{path.stem}.{name}" for name in _writers_of_phase(path)}
    assert {"_suspension._apply"} == writers

    foreign = [
        f"{path.name}: {ast.unparse(target)}"
        for path in PACKAGE.rglob("*.py")
        for target in _assigned(ast.parse(path.read_text(encoding="utf-8")))
        if ast.unparse(target.value).rpartition(".")[2] == "suspension"
    ]
    assert [] == foreign


def _writers_of_phase(path: Path) -> Iterator[str]:
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (function.name for target in _assigned(function) if target.attr == "phase")


def _assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node
