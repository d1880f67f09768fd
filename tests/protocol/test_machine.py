"""What the transcripts do not reach: refusals in every state, the default rules, and odd corners."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from attrs import evolve

from resonate_anyio._protocol import (
    EMBEDDED,
    RELEASE,
    SNAPSHOT,
    Execute,
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    PromiseState,
    RegisterCallback,
    RegisterListener,
    Request,
    Rules,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    ScheduleSearch,
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
    TaskSearch,
    TaskState,
    TaskSuspend,
    apply,
)

from .server import Server

GROUP = {"resonate:target": "poll://any@g"}
CREATE = PromiseCreate(id="r.x", timeout_at=5_000)
SETTLE = PromiseSettle(id="r", state=PromiseState.RESOLVED)
SCHEDULE = ScheduleCreate(id="s", cron="* * * * *", promise_id="p", promise_timeout=5, promise_tags=GROUP)
SUSPEND = TaskSuspend(id="r", version=1, awaited=("r.x",), awaiters=("r",))


def tagged(**tags: str) -> PromiseCreate:
    return evolve(CREATE, tags={f"resonate:{name}": value for name, value in tags.items()})


ILLEGAL: list[tuple[Request, str]] = [
    (PromiseGet(id=""), "Promise ID is required"),
    (evolve(CREATE, id=""), "Promise ID is required"),
    (evolve(CREATE, id="a\0b"), "Promise ID must not contain null bytes"),
    (evolve(CREATE, id="", timeout_at=-1), "Promise ID is required; TimeoutAt must be a non-negative integer"),
    (tagged(target="nowhere"), "Invalid resonate:target address"),
    (tagged(origin="r.x"), "resonate:origin must not contain '.'"),
    (tagged(origin="r.", branch="q"), "resonate:origin must not contain '.'"),
    (tagged(branch="r.x.y"), "Promise ID must be prefixed by resonate:branch"),
    (tagged(parent="q"), "Promise ID must be prefixed by resonate:parent"),
    (tagged(prefix="r.x"), "resonate:prefix must not contain '.'"),
    (tagged(delay="+x", target="bad"), "resonate:delay must be a non-negative integer"),
    (tagged(delay=str(2**63)), "resonate:delay must be a non-negative integer"),
    (tagged(delay="+5000"), "resonate:delay must be less than timeoutAt"),
    (tagged(delay="4999"), "resonate:delay requires a resonate:target tag"),
    (evolve(SETTLE, state=PromiseState.PENDING), "State must be resolved, rejected or rejected_canceled"),
    (RegisterCallback(awaited="", awaiter=""), "Awaited promise ID is required; Awaiter promise ID is required"),
    (RegisterCallback(awaited="r", awaiter="r"), "Awaited and awaiter must be different promises"),
    (RegisterCallback(awaited="q.x", awaiter="r.x"), "Awaiter and awaited must belong to the same origin"),
    (RegisterListener(awaited="r", address="nowhere"), "Invalid listener address"),
    (PromiseSearch(limit=0), "Invalid 'limit' — must be between 1 and 1000"),
    (TaskSearch(limit=1001), "Invalid 'limit' — must be between 1 and 1000"),
    (ScheduleSearch(limit=-1), "Invalid 'limit' — must be between 1 and 1000"),
    (TaskGet(id=""), "Task ID is required"),
    (TaskHalt(id=""), "Task ID is required"),
    (TaskContinue(id=""), "Task ID is required"),
    (
        TaskCreate(pid="", ttl=0, action=evolve(CREATE, id="")),
        "Process ID is required; TTL must be a positive integer; Promise ID is required",
    ),
    (TaskCreate(pid="w", ttl=1, action=CREATE), "Action must have a resonate:target tag"),
    (
        TaskCreate(pid="w", ttl=1, action=evolve(CREATE, tags={**GROUP, "resonate:delay": "1"})),
        "Action must not have a resonate:delay tag",
    ),
    (TaskAcquire(id="r", version=-1, pid="w", ttl=1), "Version must be a non-negative integer"),
    (TaskRelease(id="", version=0), "Task ID is required"),
    (TaskFulfill(id="q", version=0, action=SETTLE), "Action ID must match the task ID"),
    (evolve(SUSPEND, awaited=(), awaiters=()), "Actions array cannot be empty"),
    (evolve(SUSPEND, awaited=("",)), "Awaited promise ID is required"),
    (evolve(SUSPEND, awaiters=("r.y",)), "All action awaiter IDs must match the task ID"),
    (evolve(SUSPEND, awaited=("r",)), "Awaited and awaiter must be different promises"),
    (TaskFence(id="r", version=0, action=SETTLE, action_id="r"), "Action ID must not equal the task ID"),
    (TaskHeartbeat(pid="", tasks=()), "Process ID is required"),
    (TaskHeartbeat(pid="w", tasks=()), "Tasks array must not be empty"),
    (TaskHeartbeat(pid="w", tasks=(TaskRef("a.x", 0), TaskRef("b", 0))), "All tasks must belong to the same origin"),
    (ScheduleGet(id=""), "Schedule ID is required"),
    (ScheduleDelete(id=""), "Schedule ID is required"),
    (evolve(SCHEDULE, id="s.t"), "Schedule ID must not contain '.'"),
    (evolve(SCHEDULE, promise_tags={}), "promiseTags must include a resonate:target tag"),
    (evolve(SCHEDULE, cron="0 0 * * 0"), "Invalid cron expression"),
    (evolve(SCHEDULE, promise_timeout=-1), "Promise timeout must be a non-negative integer"),
]


@pytest.mark.parametrize(("request_", "text"), ILLEGAL)
def test_illegal_input_changes_nothing(serve: Callable[[Rules], Server], request_: Request, text: str) -> None:
    """A request that is invalid whatever the state is refused before anything is touched, even what has expired."""
    server = serve(SNAPSHOT)
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="r", timeout_at=10, tags=GROUP)))
    server.ask(0, evolve(CREATE, timeout_at=10))
    before = server.snapshot()

    outcome = server.step(partial(apply, now=99, request=request_, rules=SNAPSHOT))

    assert (400, text) == (outcome.response.status, outcome.response.error)
    assert ((), ()) == (outcome.changes, outcome.messages)
    assert before == server.snapshot()


LENIENT: list[Request] = [
    evolve(CREATE, id="root:1", tags={"resonate:origin": "a.b", "resonate:branch": "q", "resonate:prefix": "p.q"}),
    tagged(delay="soon"),
    TaskCreate(pid="w", ttl=1, action=evolve(CREATE, tags={**GROUP, "resonate:delay": "1"})),
    TaskHeartbeat(pid="w", tasks=(TaskRef("a", 0), TaskRef("b", 0))),
    TaskHeartbeat(pid="w", tasks=()),
    evolve(SCHEDULE, id="s.t", promise_tags={}),
]


@pytest.mark.parametrize("rules", [RELEASE, EMBEDDED])
@pytest.mark.parametrize("request_", LENIENT)
def test_lenient_rules(serve: Callable[[Rules], Server], request_: Request, rules: Rules) -> None:
    """The release and the embedded engine take the ids and tags of every SDK."""
    assert 200 == serve(rules).ask(0, request_).status


def test_awaits_across_origins(serve: Callable[[Rules], Server]) -> None:
    """Under the default rules any promise may be awaited."""
    server = serve(EMBEDDED)
    server.ask(0, PromiseCreate(id="a:1", timeout_at=99))
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="b", timeout_at=99, tags=GROUP)))

    answer = server.ask(1, TaskSuspend(id="b", version=1, awaited=("a:1",), awaiters=("b",)))

    assert 200 == answer.status
    assert TaskState.SUSPENDED is server.task("b").state


def test_refusal_keeps_the_touch(serve: Callable[[Rules], Server]) -> None:
    """A request that the state refuses has settled what it named and what had expired."""
    server = serve(EMBEDDED)
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="r", timeout_at=10, tags=GROUP)))

    answer = server.ask(10, TaskRelease(id="r", version=1))

    assert (409, "Task version mismatch or invalid state") == (answer.status, answer.error)
    assert PromiseState.TIMEDOUT is server.promise("r").state
    assert TaskState.FULFILLED is server.task("r").state


def test_broken_fence_touches(serve: Callable[[Rules], Server]) -> None:
    """A fence judges its inner operation only after the touch, and before it looks for the task."""
    server = serve(EMBEDDED)
    server.ask(0, PromiseCreate(id="r.x", timeout_at=10))
    fence = TaskFence(id="r", version=1, action=None, action_id="r.x")

    assert 400 == server.ask(10, fence).status
    assert PromiseState.TIMEDOUT is server.promise("r.x").state
    assert 400 == server.ask(10, evolve(fence, action=evolve(CREATE, timeout_at=-1))).status
    assert 404 == server.ask(10, evolve(fence, action=CREATE)).status


def test_delay(serve: Callable[[Rules], Server]) -> None:
    """The embedded engine sends for a delayed task when its delay is over, then again as for any other."""
    server = serve(EMBEDDED)
    server.ask(0, PromiseCreate(id="r", timeout_at=10**6, tags={**GROUP, "resonate:delay": "5000"}))

    assert [] == server.executes()
    assert 5_000 == server.next_due()
    server.tick(4_999)
    assert [] == server.executes()
    server.tick(5_000)
    assert ["r"] == server.executes()
    assert 35_000 == server.next_due()


@pytest.mark.parametrize("delay", ["soon", "-5", "99"])
def test_delay_that_is_none(serve: Callable[[Rules], Server], delay: str) -> None:
    """A delay that has passed or cannot be read is no delay."""
    server = serve(EMBEDDED)
    server.ask(100, PromiseCreate(id="r", timeout_at=10**6, tags={**GROUP, "resonate:delay": delay}))

    assert ["r"] == server.executes()


def test_last_instant(serve: Callable[[Rules], Server]) -> None:
    """A lease so long that its end is out of range ends with time itself."""
    server = serve(EMBEDDED)
    action = PromiseCreate(id="r", timeout_at=2**63 - 1, tags=GROUP)

    server.ask(5, TaskCreate(pid="w", ttl=2**63 - 1, action=action))
    server.ask(6, TaskHeartbeat(pid="w", tasks=(TaskRef("r", 1),)))

    assert 2**63 - 1 == server.task("r").due_at


def test_awaiter_that_ends_in_the_same_instant(serve: Callable[[Rules], Server]) -> None:
    """An awaiter whose deadline passes with what it awaits is finished, not woken."""
    server = serve(EMBEDDED)
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="r", timeout_at=10, tags=GROUP)))
    server.ask(0, PromiseCreate(id="r.x", timeout_at=10))
    server.ask(0, SUSPEND)

    server.tick(10)

    assert TaskState.FULFILLED is server.task("r").state
    assert [] == server.sent()


def test_search_pages(serve: Callable[[Rules], Server]) -> None:
    """A page that is full to the brim and the last has no cursor."""
    server = serve(EMBEDDED)
    for id in ("b", "a", "c"):
        server.ask(0, PromiseCreate(id=id, timeout_at=9, tags=GROUP))

    first = server.ask(0, TaskSearch(limit=2))
    second = server.ask(0, TaskSearch(limit=1, cursor=first.cursor))

    assert ["a", "b"] == [task.id for task in first.tasks]
    assert ("b", None) == (first.cursor, second.cursor)
    assert ["c"] == [task.id for task in second.tasks]


def test_fence_reads_its_own_write(serve: Callable[[Rules], Server]) -> None:
    """The preload of a fenced create shows the new promise in its place."""
    server = serve(EMBEDDED)
    mine = {"resonate:branch": "r"}
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="r", timeout_at=99, tags={**GROUP, **mine})))
    server.ask(0, PromiseCreate(id="r.z", timeout_at=99, tags=mine))

    action = PromiseCreate(id="r.a", timeout_at=99, tags=mine)
    answer = server.ask(1, TaskFence(id="r", version=1, action=action, action_id="r.a"))

    assert ["r.a", "r.z"] == [promise.id for promise in answer.preload]


def test_callback_on_settled_wakes_once(serve: Callable[[Rules], Server]) -> None:
    """Registering on a settled promise wakes a suspended task, with the version that it was suspended at."""
    server = serve(EMBEDDED)
    server.ask(0, TaskCreate(pid="w", ttl=9, action=PromiseCreate(id="r", timeout_at=99, tags=GROUP)))
    server.ask(0, PromiseCreate(id="r.x", timeout_at=99))
    server.ask(0, PromiseCreate(id="r.y", timeout_at=99))
    server.ask(1, SUSPEND)
    server.ask(2, PromiseSettle(id="r.y", state=PromiseState.REJECTED))

    server.ask(3, RegisterCallback(awaited="r.y", awaiter="r"))
    server.ask(3, RegisterCallback(awaited="r.y", awaiter="r"))

    task = server.ask(3, TaskGet(id="r")).task
    assert task is not None
    assert (TaskState.PENDING, 1) == (task.state, task.resumes)
    assert [Execute("r", 1)] == server.sent()
