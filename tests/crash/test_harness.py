"""The harness can fail: each way to break the engine, or a workflow, is reported in the words that belong to it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, TypeAlias

import pytest
from attrs import evolve

from resonate_anyio import Context
from resonate_anyio._embedded import _engine as _embedded
from resonate_anyio._execution._journal import Journal
from resonate_anyio._history import History
from resonate_anyio._ids import Counter
from resonate_anyio._protocol import EMPTY, Outcome, Promise, PromiseState, Response, Value
from resonate_anyio._worker._acquisition import Acquisition
from resonate_anyio._workflow._frame import Frame
from resonate_anyio._workflow._invocation import LocalInvocation
from resonate_anyio._workflow._leaf import run_leaf
from resonate_anyio._workflow._node import Children

from .corpus import CORPUS
from .corpus.leaves import step
from .crashes import Trial, crash_everywhere, sample
from .scenarios import Scenario

pytestmark = pytest.mark.embedded("whether the harness can fail does not depend on the network")

Break: TypeAlias = Callable[[pytest.MonkeyPatch], None]


def forgets_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    take = History.take

    def forgetful(history: History, id: str) -> Promise | None:
        record = take(history, id)
        return record and evolve(record, state=PromiseState.PENDING, value=EMPTY, settled_at=None)

    monkeypatch.setattr(History, "take", forgetful)
    # A leaf that looks pending would be asked for once more before it starts.
    monkeypatch.setattr(LocalInvocation, "in_doubt", False)


def counts_on(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count(1)
    monkeypatch.setattr(Counter, "number", lambda _, name: f"{name}-{next(numbers)}")


def cancels_in_memory_only(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = Journal.settle

    async def skipping(journal: Journal, id: str, state: PromiseState, value: Value) -> Promise:
        if state is PromiseState.CANCELED:
            return Promise(id=id, state=state, value=value, timeout_at=0, created_at=0, settled_at=0)
        return await settle(journal, id, state, value)

    monkeypatch.setattr(Journal, "settle", skipping)


def leaves_children(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: Frame) -> None:
        pass

    monkeypatch.setattr(Children, "cancel", nothing)


def does_not_join(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: Frame) -> None:
        pass

    monkeypatch.setattr(Children, "join", nothing)


def keeps_dead_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embedded, "recover", lambda *_, **__: Outcome(response=Response(status=200)))


def never_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Acquisition._accept

    async def only_new(acquisition: Acquisition, response: Response, sent: float) -> Any:
        assert response.task is not None
        return await accept(acquisition, response, sent) if response.task.version == 1 else None

    monkeypatch.setattr(Acquisition, "_accept", only_new)


def runs_leaves_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def twice(frame: Frame) -> object:
        await run_leaf(frame)
        return await run_leaf(frame)

    monkeypatch.setattr("resonate_anyio._workflow._frame.run_leaf", twice)


def stumbles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Acquisition._accept
    times = count()

    async def stumbling(acquisition: Acquisition, response: Response, sent: float) -> Any:
        assert response.task is not None
        if response.task.version > 1 and not next(times):
            raise OSError
        return await accept(acquisition, response, sent)

    monkeypatch.setattr(Acquisition, "_accept", stumbling)


BREAKS: dict[str, tuple[Break, str, str]] = {
    "outcomes are forgotten": (forgets_outcomes, "sequence", "ran again although its outcome was on record"),
    "ids are not the same": (counts_on, "sequence", "ended as None; without a crash"),
    "cancelled in memory only": (cancels_in_memory_only, "failure_cancels", "still pending when all is quiet"),
    "children are left behind": (leaves_children, "failure_cancels", "the root never settled"),
    "children are not waited for": (does_not_join, "not_awaited", "is pending although w is resolved"),
    "the dead keep their leases": (keeps_dead_leases, "sequence", "still leased to the dead"),
    "nothing is replayed": (never_replays, "sequence", "the root never settled"),
    "leaves run twice": (runs_leaves_twice, "sequence", "w.step-1 ran 2 times, 2 of them in this life"),
    "an error is logged": (stumbles_once, "sequence", "OSError"),
}


@pytest.mark.parametrize(("break_", "name", "complaint"), BREAKS.values(), ids=BREAKS)
async def test_broken_engine(monkeypatch: pytest.MonkeyPatch, break_: Break, name: str, complaint: str) -> None:
    """An engine that is broken in one way is found out, and what is said about it tells which way."""
    break_(monkeypatch)
    trial = Trial(CORPUS[name], chance=Random(name))  # noqa: S311 - the same in each run
    life = await trial.without_crash()
    for point in sample(trial, life.points, 16):
        if any(complaint in text for text in trial.complaints):
            break
        await trial.crash_at(point)
    assert any(complaint in text for text in trial.complaints), trial.complaints


async def test_workflow_that_differs_from_life_to_life() -> None:
    """A workflow whose outcome depends on what is not on record is found out, at the points where it matters."""
    lives = count(1)

    async def fickle(ctx: Context) -> int:
        life = next(lives)
        await ctx.run(step, 0)
        return life

    trial = Trial(Scenario(workflow=fickle, args=(), ending=("resolved", 1)))
    await crash_everywhere(trial)
    assert trial.complaints[0].startswith("fickle, killed before request 1 (task.create w): the root ended as")


async def test_sound_workflow() -> None:
    """Where nothing is wrong, nothing is said."""
    trial = Trial(CORPUS["sequence"])
    await crash_everywhere(trial)
    assert [] == trial.complaints
