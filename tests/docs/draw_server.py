"""The parts of `docs/protocol.md` that are made from the server's state machine.

The machine is run, and the page shows what it did: a promise or a task is brought into each of its states, and each
event is applied to it there. `python -m tests.docs.draw_server` writes the result into the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import getdoc
from pathlib import Path
from typing import Final, TypeAlias

from attrs import fields, frozen

from resonate_anyio._protocol import (
    ANNOUNCED,
    EMBEDDED,
    RELEASE,
    SNAPSHOT,
    SPECIFIED,
    Armed,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    PromiseState,
    RegisterCallback,
    Request,
    Rules,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRef,
    TaskRelease,
    TaskState,
    TaskSuspend,
)
from resonate_anyio.stores import MemoryStore
from tests.protocol.server import Server

from .drawing import Arrow, drawn_diagram, drawn_table, write

PAGE: Final = Path(__file__).parents[2] / "docs" / "protocol.md"

RULES: Final[Mapping[str, Rules]] = {
    "embedded": EMBEDDED,
    "release": RELEASE,
    "snapshot": SNAPSHOT,
    "announced": ANNOUNCED,
    "specified": SPECIFIED,
}

_ATTRIBUTE: Final = re.compile(r"^    (?P<name>\w+): (?P<text>.+(?:\n {8}.+)*)", re.MULTILINE)

_TARGET: Final = {"resonate:target": "poll://any@group"}
_TIMER: Final = {"resonate:timer": "true"}
_EXTERNAL: Final = {"resonate:external": "true"}

# Every timer of the task is due at this instant, and no deadline has passed.
_DUE: Final = 40_000
_DEADLINE: Final = 10**9


@frozen
class Transition:
    """What one event did in one state.

    Attributes:
        event: the event, as the page names it.
        before: the state in which it happened; None if nothing existed.
        after: the state that it led to.
        status: the status of the response; None if the event is not a request to the promise or task itself.
        effects: further effects, as the page names them.
    """

    event: str
    before: str | None
    after: str
    status: int | None
    effects: tuple[str, ...] = ()


def promise_transitions(rules: Rules) -> Iterator[Transition]:
    """Create a promise, then apply every event to a promise in every state."""
    yield Transition("promise.create", None, PromiseState.PENDING.value, None)
    for state in PromiseState:
        for event, tags, act in _promise_events():
            with _serving(rules) as server:
                _bring_promise(server, state, tags)
                status = act(server)
                yield Transition(event, state.value, server.promise("p").state.value, status)


_Act: TypeAlias = Callable[[Server], int | None]


def _promise_events() -> Iterator[tuple[str, Mapping[str, str], _Act]]:
    for state in (PromiseState.RESOLVED, PromiseState.REJECTED, PromiseState.CANCELED):
        yield f"settled as {state.value}", {}, _asking(PromiseSettle(id="p", state=state))
    yield "deadline of a timer", _TIMER, _at_the_deadline
    yield "deadline of any other promise", {}, _at_the_deadline


def _asking(request: Request) -> _Act:
    return lambda server: server.ask(1, request).status


def _at_the_deadline(server: Server) -> None:
    server.ask(_DEADLINE, PromiseGet(id="p"))


def _bring_promise(server: Server, state: PromiseState, tags: Mapping[str, str]) -> None:
    if state is PromiseState.TIMEDOUT:
        server.ask(_DEADLINE, PromiseCreate(id="p", timeout_at=_DEADLINE))
        return

    server.ask(0, PromiseCreate(id="p", timeout_at=_DEADLINE, tags=tags))
    if state is not PromiseState.PENDING:
        server.ask(0, PromiseSettle(id="p", state=state))


def task_transitions(rules: Rules) -> Iterator[Transition]:
    """Create a task in every way, then apply every event to a task in every state."""
    for event, request in _births():
        with _serving(rules) as server:
            server.ask(1, request)
            yield Transition(event, None, server.task("r").state.value, None, _effects(server))

    for event, act in _task_events(rules.separator):
        for state in TaskState:
            with _serving(rules) as server:
                _bring_task(server, state)
                before = _record(server)
                status = act(server)
                yield Transition(event, state.value, _record(server)[0], status, _effects(server, before))


def _births() -> Iterator[tuple[str, Request]]:
    past, future = (PromiseCreate(id="r", timeout_at=at, tags=_TARGET) for at in (1, _DEADLINE))
    yield "promise.create", future
    yield "task.create", TaskCreate(pid="w", ttl=1_000, action=future)
    yield "promise.create past the deadline", past
    yield "task.create past the deadline", TaskCreate(pid="w", ttl=1_000, action=past)


def _task_events(separator: str) -> Iterator[tuple[str, _Act]]:
    pending, settled = f"r{separator}pending", f"r{separator}settled"
    create = PromiseCreate(id="r", timeout_at=_DEADLINE, tags=_TARGET)
    settle = PromiseSettle(id="r", state=PromiseState.RESOLVED)
    child = PromiseCreate(id=f"r{separator}child", timeout_at=_DEADLINE)

    requests: Mapping[str, Request] = {
        "task.create": TaskCreate(pid="w", ttl=1_000, action=create),
        "task.acquire": TaskAcquire(id="r", version=1, pid="w", ttl=1_000),
        "task.release": TaskRelease(id="r", version=1),
        "task.fulfill": TaskFulfill(id="r", version=1, action=settle),
        "task.suspend": TaskSuspend(id="r", version=1, awaited=(pending,), awaiters=("r",)),
        "task.suspend, a promise is settled": TaskSuspend(id="r", version=1, awaited=(settled,), awaiters=("r",)),
        "task.fence": TaskFence(id="r", version=1, action=child, action_id=child.id),
        "task.heartbeat": TaskHeartbeat(pid="w", tasks=(TaskRef("r", 1),)),
        "task.halt": TaskHalt(id="r"),
        "task.continue": TaskContinue(id="r"),
    }
    for name, request in requests.items():
        yield name, _asking(request)

    # The answers to these say nothing about the task.
    def callback(server: Server) -> None:
        server.ask(1, RegisterCallback(awaited=settled, awaiter="r"))

    def awaited_settles(server: Server) -> None:
        server.ask(1, PromiseSettle(id=pending, state=PromiseState.RESOLVED))

    def settles(server: Server) -> None:
        server.ask(1, settle)

    def retry_or_lease_is_due(server: Server) -> None:
        server.tick(_DUE)

    def deadline_passes(server: Server) -> None:
        server.tick(_DEADLINE)

    yield "promise.register_callback on a settled promise", callback
    yield "an awaited promise settles", awaited_settles
    yield "its timer is due (retry or lease)", retry_or_lease_is_due
    yield "its promise settles", settles
    yield "its deadline passes", deadline_passes


def _bring_task(server: Server, state: TaskState) -> None:
    """Have a task `r` in this state, at version 1, that waits for one pending promise."""
    separator = server.rules.separator
    pending, settled = f"r{separator}pending", f"r{separator}settled"
    server.ask(0, TaskCreate(pid="w", ttl=1_000, action=PromiseCreate(id="r", timeout_at=_DEADLINE, tags=_TARGET)))
    for id in (pending, settled):
        server.ask(0, PromiseCreate(id=id, timeout_at=2 * _DEADLINE, tags=_EXTERNAL))
    server.ask(0, PromiseSettle(id=settled, state=PromiseState.RESOLVED))
    server.ask(0, RegisterCallback(awaited=pending, awaiter="r"))

    ways: Mapping[TaskState, Request | None] = {
        TaskState.PENDING: TaskRelease(id="r", version=1),
        TaskState.ACQUIRED: None,
        TaskState.SUSPENDED: TaskSuspend(id="r", version=1, awaited=(pending,), awaiters=("r",)),
        TaskState.HALTED: TaskHalt(id="r"),
        TaskState.FULFILLED: PromiseSettle(id="r", state=PromiseState.RESOLVED),
    }
    if (way := ways[state]) is not None:
        server.ask(0, way)
    assert server.task("r").state is state
    server.outbox.clear()


_Record: TypeAlias = tuple[str, int, int]


def _record(server: Server) -> _Record:
    task = server.ask(1, TaskGet(id="r")).task
    assert task is not None
    return task.state.value, task.version, task.resumes


def _effects(server: Server, before: _Record | None = None) -> tuple[str, ...]:
    _, version, resumes = before or ("", 0, 0)
    _, version_now, resumes_now = _record(server)
    found = {
        f"version + {version_now - version}": version_now > version,
        f"`resumes` + {resumes_now - resumes}": resumes_now > resumes,
        "`execute`": "r" in server.executes(),
    }
    return tuple(effect for effect, seen in found.items() if seen)


@contextmanager
def _serving(rules: Rules) -> Iterator[Server]:
    server = Server(MemoryStore, rules)
    try:
        yield server
    finally:
        server.close()


def diagram(transitions: Iterable[Transition]) -> str:
    """Return a state diagram with one arrow for each pair of states that an event leads between."""
    arrows: list[Arrow] = []
    for one in transitions:
        if one.before != one.after:
            effects = "".join(f" / {effect.strip('`')}" for effect in one.effects if effect != "`resumes` + 1")
            arrows.append((one.before, one.after, f"{one.event}{effects}"))

    return drawn_diagram(arrows)


def table(transitions: Iterable[Transition], states: Sequence[str]) -> str:
    """Return a table with a row for each event and a column for each state."""
    rows: dict[str, dict[str, str]] = {}
    for one in transitions:
        if one.before is not None:
            rows.setdefault(one.event, {})[one.before] = _cell(one)

    return drawn_table(
        ["event", *states], ([event, *(cells[state] for state in states)] for event, cells in rows.items())
    )


def _cell(transition: Transition) -> str:
    parts = [] if transition.status is None else [str(transition.status)]
    if transition.before != transition.after:
        parts.append(f"→ {transition.after}")

    return ", ".join([*parts, *transition.effects]) or "-"


def rules_table() -> str:
    """Return a table of all rules, with their values by each server."""
    found = _ATTRIBUTE.finditer(getdoc(Rules) or "")
    texts = {match["name"]: " ".join(match["text"].split()).rstrip(".") for match in found}
    return drawn_table(
        ["rule", "meaning", *RULES],
        (
            [f"`{one.name}`", texts[one.name], *(_value(getattr(rules, one.name)) for rules in RULES.values())]
            for one in fields(Rules)
        ),
    )


def _value(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case Armed():
            return value.name.lower()
        case str():
            return f"`{value}`"
        case _:
            return "all" if value is None else str(value)


def drawings() -> dict[str, str]:
    """Return everything that is drawn, by its name in the page."""
    tasks = list(task_transitions(EMBEDDED))
    return {
        "rules": rules_table(),
        "promises": diagram(promise_transitions(EMBEDDED)),
        "tasks": diagram(tasks),
        "task-table": table(tasks, [state.value for state in TaskState]),
    }


if __name__ == "__main__":
    write(PAGE, drawings())
