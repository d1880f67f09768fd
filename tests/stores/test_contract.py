"""Every store keeps the contract, and all of them agree."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from resonate_anyio._protocol import (
    Armed,
    Callback,
    Change,
    DropCallback,
    DropListener,
    DropPromise,
    DropSchedule,
    DropTask,
    Outcome,
    Promise,
    PromiseState,
    PutCallback,
    PutListener,
    PutPromise,
    PutSchedule,
    PutTask,
    Schedule,
    Task,
    TaskState,
    Value,
    View,
)
from resonate_anyio.abc import Store
from resonate_anyio.stores import MemoryStore, SQLiteStore
from resonate_anyio.testing import check_store
from resonate_anyio.testing._check_store import CHECKS, Check, run_check

from .records import outcome

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(),
    "sqlite": SQLiteStore,
    "sqlite-power": lambda path: SQLiteStore(path, durability="power"),
}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.strip("_"))
def test_keeps_its_contract(check: Check, kind: str, path: Path) -> None:
    """Each duty of a store holds for each store."""
    run_check(check, STORES[kind](path))


class Forgetful(Store):
    """A store with a fault: it forgets everything when it is closed."""

    def __init__(self) -> None:
        self.inner = MemoryStore()

    def open(self) -> None:
        self.inner.open()

    def close(self) -> None:
        self.inner = MemoryStore()

    def transact(self, steps: Any) -> list[Outcome]:
        return self.inner.transact(steps)

    def read(self, query: Any) -> Any:
        return self.inner.read(query)


def test_a_broken_duty_is_named() -> None:
    """A store that breaks one duty fails with the words of that duty."""
    with pytest.raises(AssertionError, match="what was written is still there"):
        check_store(Forgetful)


names = st.sampled_from(["a", "a.1", "a.10", "a.2", "B", "\u00e9", "\U0001f600", "\uffee"])
instants = st.integers(0, 12)
tags = st.dictionaries(
    st.sampled_from(["resonate:target", "resonate:branch", "resonate:timer", "resonate:external", "x"]),
    names | st.just("true"),
    max_size=2,
)
values = st.builds(Value, st.none() | names, st.none() | st.dictionaries(names, names, max_size=1))
promises = st.builds(
    Promise,
    id=names,
    state=st.sampled_from(PromiseState),
    param=values,
    value=values,
    tags=tags,
    timeout_at=instants,
    created_at=instants,
    settled_at=st.none() | instants,
)
timed = st.builds(Task, id=names, state=st.sampled_from([TaskState.PENDING, TaskState.ACQUIRED]), due_at=instants)
untimed = st.builds(Task, id=names, state=st.sampled_from([TaskState.SUSPENDED, TaskState.FULFILLED]))
schedules = st.builds(
    Schedule,
    id=names,
    cron=names,
    promise_id=names,
    promise_timeout=instants,
    promise_param=values,
    promise_tags=tags,
    created_at=instants,
    next_run_at=instants,
)
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(PutPromise, promises),
    st.builds(DropPromise, names),
    st.builds(PutTask, timed | untimed),
    st.builds(DropTask, names),
    st.builds(PutSchedule, schedules),
    st.builds(DropSchedule, names),
    st.builds(PutCallback, st.builds(Callback, names, names, st.booleans())),
    st.builds(DropCallback, names, names),
    st.builds(PutListener, names, names),
    st.builds(DropListener, names, names),
)
# Some transactions fail at their end, and so must leave nothing.
transactions = st.lists(st.tuples(st.lists(changes, max_size=8), st.booleans()), min_size=1, max_size=8)


class Planned(Exception):
    """Raised by a step on purpose."""


@pytest.mark.slow
@given(transactions)
@settings(max_examples=100)
def test_all_stores_agree(history: list[tuple[list[Change], bool]]) -> None:
    """Whatever is written, kept or undone, every query gives the same from memory as from a file."""
    with TemporaryDirectory() as directory:
        memory, file = MemoryStore(), SQLiteStore(Path(directory, "engine.db"))
        memory.open()
        file.open()
        for batch, fails in history:
            for store in (memory, file):
                _write(store, batch, fails=fails)

            assert memory.read(_all_queries) == file.read(_all_queries)

        file.close()


def _write(store: Store, batch: list[Change], *, fails: bool) -> None:
    def end(_: View) -> Outcome:
        if fails:
            raise Planned
        return outcome()

    try:
        store.transact([*(partial(_one, change) for change in batch), end])
    except Planned:
        assert fails


def _one(change: Change, _: View) -> Outcome:
    return outcome(change)


def _all_queries(view: View) -> list[Any]:
    found: list[Any] = [view.all_callbacks(), view.all_listeners()]
    for id in ("a", "a.1", "B", "\u00e9", "\U0001f600", "\uffee"):
        found += [view.promise(id), view.task(id), view.schedule(id), view.branch(id)]
        found += [view.awaiters(id), view.awaited(id), view.listeners(id)]
        found += [view.search_promises(state=None, tags={"x": id}, after=None, limit=3)]
        found += [view.search_promises(state=PromiseState.PENDING, tags={}, after=id, limit=2)]
        found += [view.search_tasks(state=TaskState.PENDING, after=id, limit=2)]
        found += [view.search_schedules(tags={"x": id}, after=None, limit=2)]

    for now in range(13):
        found += [view.due_promises(now, armed=armed) for armed in Armed]
        found += [view.due_tasks(now), view.due_schedules(now)]

    return [*found, *(view.next_due(armed=armed) for armed in Armed)]
