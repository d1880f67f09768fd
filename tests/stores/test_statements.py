"""How many SQL statements each request costs on a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from resonate_anyio._protocol import (
    EMBEDDED,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    PromiseState,
    RegisterListener,
    Request,
    TaskAcquire,
    TaskCreate,
    TaskFulfill,
    TaskRelease,
    Value,
    View,
    apply,
)
from resonate_anyio.stores import SQLiteStore

NOW = 1_700_000_000_000
ROOT = {"resonate:target": "poll://any@g", "resonate:branch": "w", "resonate:origin": "w"}
LOCAL = {"resonate:scope": "local", "resonate:branch": "w", "resonate:origin": "w", "resonate:parent": "w"}

Statements = list[str]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Every statement that is run."""
    run: Statements = []
    connect = sqlite3.connect

    def traced(*args: object, **settings: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **settings)  # type: ignore[call-overload]
        connection.set_trace_callback(run.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return run


@pytest.fixture
def store(tmp_path: Path, statements: Statements) -> Iterator[SQLiteStore]:
    """A store with a task `w` that is held, has made a call `w.a-1`, and waits for nothing."""
    store = SQLiteStore(tmp_path / "engine.db")
    store.open()
    assert 200 == asked(store, create_task("w"), create_call("w.a-1"))
    statements.clear()
    yield store
    store.close()


def create_task(id: str) -> TaskCreate:
    tags = {**ROOT, "resonate:branch": id, "resonate:origin": id}
    return TaskCreate(pid="p", ttl=1000, action=PromiseCreate(id=id, timeout_at=NOW + 10**9, tags=tags))


def create_call(id: str) -> PromiseCreate:
    return PromiseCreate(id=id, timeout_at=NOW + 10**9, tags=LOCAL)


def settle(id: str) -> PromiseSettle:
    return PromiseSettle(id=id, state=PromiseState.RESOLVED, value=Value("x"))


def asked(store: SQLiteStore, *requests: Request) -> int:
    """Make requests in one transaction, and return the last status."""
    steps = [partial(apply, now=NOW, request=request, rules=EMBEDDED) for request in requests]
    return store.transact(steps)[-1].response.status


def kinds(statements: Statements) -> list[str]:
    """The first word of each statement with the tables that it names. Pragmas are of the thread that copies the log."""
    tables = ("promises", "tasks", "callbacks", "listeners")
    return [
        " ".join([statement.partition(" ")[0], *(table for table in tables if f" {table} " in f"{statement} ")])
        for statement in statements
        if not statement.startswith("PRAGMA")
    ]


REQUESTS: dict[str, tuple[Request, list[str]]] = {
    "task.create": (
        create_task("v"),
        # The promise, those of its branch.
        ["SELECT promises", "SELECT promises", "INSERT promises", "INSERT tasks"],
    ),
    "task.fulfill": (
        TaskFulfill(id="w", version=1, action=settle("w")),
        ["SELECT promises", "SELECT tasks", "SELECT callbacks listeners", "INSERT promises", "INSERT tasks"],
    ),
    "promise.create": (create_call("w.b-1"), ["SELECT promises", "INSERT promises"]),
    "promise.settle": (settle("w.a-1"), ["SELECT promises", "SELECT callbacks listeners", "INSERT promises"]),
    "promise.get": (PromiseGet(id="w"), ["SELECT promises"]),
    "promise.register_listener": (
        RegisterListener(awaited="w", address="poll://uni@g/p"),
        ["SELECT promises", "INSERT listeners"],
    ),
}


@pytest.mark.parametrize(("request_", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_statements_of_a_request(
    store: SQLiteStore, statements: Statements, request_: Request, expected: list[str]
) -> None:
    """Each record is read once and written once, inside one transaction."""
    assert 200 == asked(store, request_)
    assert ["BEGIN", *expected, "COMMIT"] == kinds(statements)


def test_statements_of_an_acquisition(store: SQLiteStore, statements: Statements) -> None:
    """An acquisition reads promise, task, callbacks and branch once each."""
    asked(store, TaskRelease(id="w", version=1))
    statements.clear()
    assert 200 == asked(store, TaskAcquire(id="w", version=1, pid="q", ttl=1000))
    reads = ["SELECT promises", "SELECT tasks", "SELECT callbacks listeners", "SELECT promises"]
    assert ["BEGIN", *reads, "INSERT tasks", "COMMIT"] == kinds(statements)


def test_requests_that_share_a_transaction(store: SQLiteStore, statements: Statements) -> None:
    """Requests in one transaction share its beginning and end, and nothing that is written in between is missed."""
    assert 200 == asked(store, create_call("w.b-1"), settle("w.b-1"), PromiseGet(id="w.b-1"), PromiseGet(id="w.b-1"))
    [outcome] = store.transact([partial(apply, now=NOW, request=PromiseGet(id="w.b-1"), rules=EMBEDDED)])
    assert outcome.response.promise is not None
    assert PromiseState.RESOLVED is outcome.response.promise.state
    settled = ["SELECT promises", "SELECT callbacks listeners", "INSERT promises"]
    shared = ["SELECT promises", "INSERT promises", *settled, "SELECT promises"]
    assert ["BEGIN", *shared, "COMMIT", "BEGIN", "SELECT promises", "COMMIT"] == kinds(statements)


def test_nothing_is_remembered_of_a_transaction_that_failed(store: SQLiteStore) -> None:
    """After a rollback, and after a transaction, the next one reads what is in the file."""

    def fail(_: View) -> NoReturn:
        msg = "stop"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="stop"):
        store.transact([partial(apply, now=NOW, request=settle("w.a-1"), rules=EMBEDDED), fail])

    pending = store.read(lambda view: view.promise("w.a-1"))
    assert pending is not None
    assert pending.pending
    assert 200 == asked(store, settle("w.a-1"))
