"""The rules announced for the server: ids like `root:child`, the specification's word on awaits, and that on timers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from resonate_anyio._protocol import (
    ANNOUNCED,
    SNAPSHOT,
    SPECIFIED,
    Execute,
    PromiseCreate,
    PromiseSettle,
    PromiseState,
    RegisterCallback,
    RegisterListener,
    Request,
    Rules,
    ScheduleCreate,
    TaskCreate,
    TaskFence,
    TaskHeartbeat,
    TaskRef,
    TaskState,
    TaskSuspend,
)

from .server import Server

GROUP = {"resonate:target": "poll://any@g"}
TIMER = {"resonate:timer": "true"}
CHILD = PromiseCreate(id="r:x", timeout_at=5_000)
SCHEDULE = ScheduleCreate(id="s", cron="* * * * *", promise_id="p", promise_timeout=5, promise_tags=GROUP)


def tagged(**tags: str) -> PromiseCreate:
    return evolve(CHILD, tags={f"resonate:{name}": value for name, value in tags.items()})


REFUSED: list[tuple[Request, str]] = [
    (tagged(origin="r:x"), "resonate:origin must not contain ':'"),
    (tagged(prefix="r:x"), "resonate:prefix must not contain ':'"),
    (tagged(origin="q"), "Promise ID must be prefixed by resonate:origin"),
    (evolve(tagged(origin="r"), id="rx:y"), "Promise ID must be prefixed by resonate:origin"),
    (tagged(branch="r:x.y"), "Promise ID must be prefixed by resonate:branch"),
    (tagged(parent="x"), "Promise ID must be prefixed by resonate:parent"),
    (RegisterCallback(awaited="q:x", awaiter="r:x"), "Awaiter and awaited must belong to the same origin"),
    (RegisterCallback(awaited="r.x", awaiter="r"), "Awaiter and awaited must belong to the same origin"),
    (
        TaskHeartbeat(pid="w", tasks=(TaskRef("a:x", 0), TaskRef("b:x", 0))),
        "All tasks must belong to the same origin",
    ),
    (
        TaskHeartbeat(pid="w", tasks=(TaskRef("a.x", 0), TaskRef("a.y", 0))),
        "All tasks must belong to the same origin",
    ),
    (TaskHeartbeat(pid="w", tasks=()), "Tasks array must not be empty"),
    (evolve(SCHEDULE, id="s:t"), "Schedule ID must not contain ':'"),
    (evolve(SCHEDULE, promise_tags={}), "promiseTags must include a resonate:target tag"),
]

TARGETED_TIMERS: list[tuple[Request, str]] = [
    (evolve(SCHEDULE, promise_tags={**GROUP, **TIMER}), "A timer must not have a resonate:target tag"),
    (evolve(CHILD, tags={**GROUP, **TIMER}), "A timer must not have a resonate:target tag"),
    (
        TaskCreate(pid="w", ttl=9, action=evolve(CHILD, tags={**GROUP, **TIMER})),
        "A timer must not have a resonate:target tag",
    ),
    (
        TaskFence(id="r", version=1, action=evolve(CHILD, tags={**GROUP, **TIMER}), action_id="r:x"),
        "A timer must not have a resonate:target tag",
    ),
]


@pytest.mark.parametrize("rules", [ANNOUNCED, SPECIFIED])
@pytest.mark.parametrize(("request_", "text"), REFUSED)
def test_refused(serve: Callable[[Rules], Server], rules: Rules, request_: Request, text: str) -> None:
    """What breaks the colon grammar is refused whatever the state."""
    answer = serve(rules).ask(0, request_)

    assert (400, text) == (answer.status, answer.error)


@pytest.mark.parametrize(("request_", "text"), TARGETED_TIMERS)
def test_targeted_timers_are_refused(serve: Callable[[Rules], Server], request_: Request, text: str) -> None:
    """By the specification a timer has no target, in whatever request it comes; announced is nothing of the kind."""
    answer = serve(SPECIFIED).ask(0, request_)
    assert (400, text) == (answer.status, answer.error)

    # The fence's task is not there.
    assert (404 if isinstance(request_, TaskFence) else 200) == serve(ANNOUNCED).ask(0, request_).status


TAKEN: list[Request] = [
    tagged(origin="r", branch="r", parent="r"),
    evolve(tagged(origin="r", branch="r:x", parent="r:x"), id="r:x.y"),
    evolve(tagged(origin="r", branch="r", parent="r"), id="r.x"),
    evolve(tagged(origin="a.b", prefix="a.b"), id="a.b:c"),
    tagged(timer="yes", target="poll://any@g"),
    tagged(timer="true"),
    TaskHeartbeat(pid="w", tasks=(TaskRef("a:x", 0), TaskRef("a:y.z", 0))),
    evolve(SCHEDULE, id="s.t"),
]


@pytest.mark.parametrize("request_", TAKEN)
def test_taken(serve: Callable[[Rules], Server], request_: Request) -> None:
    """An id continues its tags with a colon or a dot, and roots may contain dots."""
    assert 200 == serve(ANNOUNCED).ask(0, request_).status


@pytest.mark.parametrize(
    ("tags", "awaitable"),
    [
        ({}, False),
        ({"resonate:scope": "local"}, False),
        ({"resonate:timer": "yes"}, False),
        ({"resonate:external": "yes"}, False),
        ({"resonate:scope": "global"}, True),
        ({"resonate:external": "true"}, True),
        (TIMER, True),
        (GROUP, True),
    ],
)
@pytest.mark.parametrize("settled", [False, True])
def test_awaits(serve: Callable[[Rules], Server], tags: dict[str, str], *, awaitable: bool, settled: bool) -> None:
    """Only a promise that is global, external, a timer or targeted may be awaited or listened to, settled or not."""
    server = serve(ANNOUNCED)
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="r", timeout_at=99, tags=GROUP)))
    server.ask(0, evolve(CHILD, tags=tags))
    if settled:
        server.ask(0, PromiseSettle(id="r:x", state=PromiseState.RESOLVED))

    answers = [
        server.ask(1, RegisterListener(awaited="r:x", address="poll://any@g")),
        server.ask(1, RegisterCallback(awaited="r:x", awaiter="r")),
        server.ask(1, TaskSuspend(id="r", version=1, awaited=("r:x",), awaiters=("r",))),
    ]

    suspended = 300 if settled else 200
    assert ([200, 200, suspended] if awaitable else [422, 422, 422]) == [answer.status for answer in answers]
    assert (TaskState.SUSPENDED if awaitable and not settled else TaskState.ACQUIRED) is server.task("r").state


@pytest.mark.parametrize("tags", [TIMER, {"resonate:external": "true"}, GROUP, {}])
def test_armed_deadlines(serve: Callable[[Rules], Server], tags: dict[str, str]) -> None:
    """Deadlines fire for promises with a target, timers and external ones, and for no others."""
    server = serve(ANNOUNCED)
    server.ask(0, evolve(CHILD, timeout_at=50, tags=tags))

    assert bool(tags) == (server.snapshot()["promiseTimeouts"] == [{"id": "r:x", "timeout": 50}])
    assert (50 if tags else None) == server.next_due()
    server.tick(50)
    assert (not tags) == server.promise("r:x").pending


def test_a_timer_wakes_who_sleeps(serve: Callable[[Rules], Server]) -> None:
    """A plain timer needs no task of its own to wake the task that is suspended on it."""
    server = serve(ANNOUNCED)
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="r", timeout_at=99, tags=GROUP)))
    server.ask(0, evolve(CHILD, timeout_at=50, tags=TIMER))
    server.ask(0, TaskSuspend(id="r", version=1, awaited=("r:x",), awaiters=("r",)))

    server.tick(50)

    assert [Execute("r", 1)] == server.sent()


def test_a_targeted_timer_wakes_who_sleeps(serve: Callable[[Rules], Server]) -> None:
    """What the TypeScript and Python SDKs send for a sleep ends at its deadline, and wakes what waits for it."""
    server = serve(ANNOUNCED)
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="r", timeout_at=99, tags=GROUP)))
    sleep = evolve(CHILD, timeout_at=50, tags={**GROUP, **TIMER})
    assert 200 == server.ask(0, TaskFence(id="r", version=1, action=sleep, action_id="r:x")).status
    assert 200 == server.ask(0, TaskSuspend(id="r", version=1, awaited=("r:x",), awaiters=("r",))).status
    # The timer has a task of its own, which those SDKs drop.
    assert [Execute("r:x", 0)] == server.sent()

    server.tick(50)

    assert PromiseState.RESOLVED is server.promise("r:x").state
    assert Execute("r", 1) in server.sent()


def test_the_snapshot_takes_targeted_timers(serve: Callable[[Rules], Server]) -> None:
    """The newer snapshot has neither of the specification's refusals."""
    server = serve(SNAPSHOT)

    assert 200 == server.ask(0, evolve(CHILD, tags={**GROUP, **TIMER})).status
    server.ask(0, evolve(CHILD, id="plain"))
    assert 200 == server.ask(0, RegisterListener(awaited="plain", address="poll://any@g")).status
