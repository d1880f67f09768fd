"""The properties can fail: each of these faults of an engine is found by the examples of an ordinary run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest
from attrs import evolve
from hypothesis import Phase, given, settings, strategies as st

from resonate_anyio._history import History
from resonate_anyio._protocol import Promise, PromiseState, Unblock
from resonate_anyio._worker._cascade import CancelCascade
from resonate_anyio._worker._messages import Messages
from resonate_anyio._worker._rechecks import Rechecks
from resonate_anyio._workflow._invocation import LocalInvocation
from resonate_anyio._workflow._node import Children
from resonate_anyio._workflow._scopes import Scope as EngineScope

from .graphs import Plan
from .strategies import failures, mishaps, plans
from .test_call_graphs import check_same

pytestmark = [
    pytest.mark.embedded("whether examples find faults does not depend on the network"),
    # An example in which nothing ends any more takes as long as a hundred others.
    pytest.mark.timeout(300),
]

Break: TypeAlias = Callable[[pytest.MonkeyPatch], None]


_MANY: Final = 500
"""It takes some twenty to a hundred examples."""


async def nothing(*_: object) -> None:
    """Leave out what was to be done."""


def children_outlive_failures(patch: pytest.MonkeyPatch) -> None:
    """A function that fails leaves its children alone."""
    patch.setattr(Children, "cancel", nothing)


def cascades_stop_at_the_top(patch: pytest.MonkeyPatch) -> None:
    """What is below something that was cancelled from outside is forgotten."""
    patch.setattr(CancelCascade, "_cancel_descendants", nothing)


def history_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """What is recorded as finished is done again."""
    take = History.take

    def as_pending(self: History, id: str) -> Promise | None:
        record = take(self, id)
        return record and evolve(record, state=PromiseState.PENDING)

    patch.setattr(History, "take", as_pending)
    # A leaf that looks pending would be asked for once more before it starts.
    patch.setattr(LocalInvocation, "in_doubt", False)


def messages_are_believed(patch: pytest.MonkeyPatch) -> None:
    """A message that a promise has changed is taken for one that it was resolved."""
    handle = Messages.handle

    def believe(self: Messages, message: Any) -> None:
        if isinstance(message, Unblock) and message.promise.pending:
            message = Unblock(evolve(message.promise, state=PromiseState.RESOLVED))
        handle(self, message)

    patch.setattr(Messages, "handle", believe)


def nobody_asks_again(patch: pytest.MonkeyPatch) -> None:
    """What is waited for is not asked for again, although messages are lost."""
    patch.setattr(Rechecks, "recheck", nothing)


def restarts_extend_scopes(patch: pytest.MonkeyPatch) -> None:
    """The deadline of a block begins anew with each process."""
    patch.setattr(EngineScope, "fix", lambda *_: None)


def positions_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """A replay that goes past a plain await in which the first run was cancelled goes on."""
    patch.setattr(History, "is_placed", lambda *_: False)


Troubles: TypeAlias = st.SearchStrategy[dict[str, Any]]

CALM: Final[Troubles] = st.fixed_dictionaries({})
CRASHES: Final[Troubles] = st.fixed_dictionaries({"failures": failures(2)})
# Executions that are kept hot hear by message what they wait for.
MESSAGES: Final[Troubles] = st.fixed_dictionaries({"mishaps": mishaps(5), "settings": st.just({"hot_for": 1e9})})

FAULTS: Final[dict[Break, Troubles]] = {
    children_outlive_failures: CALM,
    cascades_stop_at_the_top: CALM,
    history_is_ignored: CRASHES,
    restarts_extend_scopes: CRASHES,
    positions_are_ignored: CRASHES,
    messages_are_believed: MESSAGES,
    nobody_asks_again: MESSAGES,
}


@pytest.mark.parametrize(("fault", "troubles"), FAULTS.items(), ids=[fault.__name__ for fault in FAULTS])
def test_a_fault_is_found(fault: Break, troubles: Troubles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some example tells that the engine has this fault."""

    @settings(max_examples=_MANY, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
    @given(plan=plans(waits=4, interrupted=1 if fault is positions_are_ignored else 4), troubles=troubles)
    def check(plan: Plan, troubles: dict[str, Any]) -> None:
        check_same(plan, "asyncio", **troubles)

    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check()
