"""The properties can fail: each of these faults of an engine is found by the examples of an ordinary run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from attrs import evolve
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from resonate_anyio._engine._execution import Drop, Execution
from resonate_anyio._engine._frame import Frame
from resonate_anyio._engine._openings import FactOpening
from resonate_anyio._engine._scopes import Scope as EngineScope
from resonate_anyio._engine._sweeps import Sweeps
from resonate_anyio._engine._worker import Worker
from resonate_anyio._protocol import Promise, PromiseState, Unblock

from .graphs import Plan
from .strategies import failures, mishaps, plans
from .test_call_graphs import check_same

Break = Callable[[pytest.MonkeyPatch], None]


async def nothing(*_: object) -> None:
    """Leave out what was to be done."""


def children_outlive_failures(patch: pytest.MonkeyPatch) -> None:
    """A function that fails leaves its children alone."""
    patch.setattr(Frame, "_cancel_children", nothing)


def children_outlive_success(patch: pytest.MonkeyPatch) -> None:
    """A function ends before its children have."""
    patch.setattr(Frame, "_join", nothing)


def remote_children_are_not_followed(patch: pytest.MonkeyPatch) -> None:
    """What runs below a remote call that was cancelled is forgotten."""
    patch.setattr(Execution, "end_elsewhere", nothing)


def sweeps_stop_at_the_top(patch: pytest.MonkeyPatch) -> None:
    """What is below something that was cancelled from outside is forgotten."""
    patch.setattr(Sweeps, "_sweep", nothing)


def history_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """What is recorded as finished is done again."""
    recorded = Execution.recorded

    def as_pending(self: Execution, id: str) -> Promise | None:
        record = recorded(self, id)
        return record and evolve(record, state=PromiseState.PENDING)

    patch.setattr(Execution, "recorded", as_pending)


def crashes_are_outcomes(patch: pytest.MonkeyPatch) -> None:
    """A failure of the network is taken for a failure of the call."""
    drop = Execution.drop

    def fail(self: Execution, reason: Drop, error: BaseException | None = None) -> None:
        if reason is Drop.CRASHED and error is not None:
            raise error
        drop(self, reason, error)

    patch.setattr(Execution, "drop", fail)


def answers_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """Only a message tells that a promise has settled, although the answer to a listener says so already."""
    register = Worker.register_listener

    async def as_pending(self: Worker, id: str, execution: Execution | None = None) -> Promise:
        return evolve(await register(self, id, execution), state=PromiseState.PENDING)

    patch.setattr(Worker, "register_listener", as_pending)


def messages_are_believed(patch: pytest.MonkeyPatch) -> None:
    """A message that a promise has changed is taken for one that it was resolved."""
    handle = Worker._handle

    def believe(self: Worker, message: Any) -> None:
        if isinstance(message, Unblock) and message.promise.pending:
            message = Unblock(evolve(message.promise, state=PromiseState.RESOLVED))
        handle(self, message)

    patch.setattr(Worker, "_handle", believe)


def nobody_asks_again(patch: pytest.MonkeyPatch) -> None:
    """What is waited for is not asked for again, although messages are lost."""
    patch.setattr(Worker, "recheck", nothing)


def restarts_extend_scopes(patch: pytest.MonkeyPatch) -> None:
    """The deadline of a block begins anew with each process."""
    patch.setattr(EngineScope, "fix", lambda *_: None)


def choices_are_made_anew(patch: pytest.MonkeyPatch) -> None:
    """What time it was is not recorded."""

    async def choose(_: FactOpening, value: object = None) -> object:
        return 0 if value is None else value

    patch.setattr(FactOpening, "choose", choose)


CALM: Final = st.fixed_dictionaries({})
CRASHES: Final = st.fixed_dictionaries({"failures": failures(2)})
MESSAGES: Final = st.fixed_dictionaries({"mishaps": mishaps(5)})

FAULTS: Final[dict[Break, st.SearchStrategy[dict[str, Any]]]] = {
    children_outlive_failures: CALM,
    children_outlive_success: CALM,
    remote_children_are_not_followed: CALM,
    sweeps_stop_at_the_top: CALM,
    history_is_ignored: CRASHES,
    crashes_are_outcomes: CRASHES,
    answers_are_ignored: CRASHES,
    restarts_extend_scopes: CRASHES,
    choices_are_made_anew: CRASHES,
    messages_are_believed: MESSAGES,
    nobody_asks_again: MESSAGES,
}


@pytest.mark.parametrize(("fault", "troubles"), FAULTS.items(), ids=[fault.__name__ for fault in FAULTS])
def test_a_fault_is_found(
    fault: Break, troubles: st.SearchStrategy[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some example tells that the engine has this fault."""
    count = 0
    @settings(max_examples=1000, derandomize=True, phases=[Phase.generate])
    @given(plan=plans(waits=7), troubles=troubles)
    def check(plan: Plan, troubles: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        check_same(plan, "asyncio", **troubles)

    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check()
    print(count)
