"""What happens by itself: the sweep, recovery after a restart, schedules under the default rules."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from attrs import evolve

from resonate_anyio._protocol import (
    EMBEDDED,
    RELEASE,
    SNAPSHOT,
    TIMER_PID,
    Execute,
    Missed,
    Promise,
    PromiseCreate,
    PromiseSettle,
    PromiseState,
    RegisterListener,
    Rules,
    ScheduleCreate,
    ScheduleDelete,
    TaskAcquire,
    TaskCreate,
    TaskHalt,
    TaskState,
    TaskSuspend,
    Unblock,
)

from .server import Server

GROUP = {"resonate:target": "poll://any@g"}
FAR = 10**9


def held(server: Server, id: str, *, pid: str = "w", ttl: int = 1_000, timeout_at: int = FAR) -> None:
    """Create a task that `pid` holds from the instant 0."""
    server.ask(0, TaskCreate(pid=pid, ttl=ttl, action=PromiseCreate(id=id, timeout_at=timeout_at, tags=GROUP)))


@pytest.mark.parametrize(("rules", "state"), [(EMBEDDED, "resolved"), (SNAPSHOT, "pending")])
def test_untargeted_deadlines(serve: Callable[[Rules], Server], rules: Rules, state: str) -> None:
    """Only the newer snapshot forgets the deadlines of promises without a target."""
    server = serve(rules)
    server.ask(0, PromiseCreate(id="sleep", timeout_at=50, tags={"resonate:timer": "true"}))

    assert (None if state == "pending" else 50) == server.next_due()
    server.tick(60)
    assert state == server.promise("sleep").state


def test_timed_out_sleep_wakes_and_tells(serve: Callable[[Rules], Server]) -> None:
    """A deadline settles at its own instant, wakes who awaits it and tells who listens."""
    server = serve(EMBEDDED)
    held(server, "r")
    server.ask(0, PromiseCreate(id="r.s", timeout_at=50, tags={"resonate:timer": "true"}))
    server.ask(0, RegisterListener(awaited="r.s", address="http://h"))
    server.ask(0, TaskSuspend(id="r", version=1, awaited=("r.s",), awaiters=("r",)))

    server.tick(70)

    settled = server.promise("r.s")
    assert 50 == settled.settled_at
    assert 30_070 == server.task("r").due_at
    assert [Execute("r", 1), Unblock(settled)] == server.sent()


def test_lapsed_lease(serve: Callable[[Rules], Server]) -> None:
    """A lease that has run out makes the task pending again, at the version it was held at."""
    server = serve(EMBEDDED)
    held(server, "r")

    server.tick(999)
    assert TaskState.ACQUIRED is server.task("r").state
    server.tick(1_000)

    task = server.task("r")
    assert (TaskState.PENDING, 1, None, None) == (task.state, task.version, task.pid, task.ttl)
    assert [Execute("r", 1)] == server.sent()


def test_renewed_lease(serve: Callable[[Rules], Server]) -> None:
    """A lease whose holder is known to live is extended by its full length instead."""
    server = serve(EMBEDDED)
    held(server, "mine", pid="w")
    held(server, "theirs", pid="v")

    server.tick(1_500, renew=frozenset({"w"}))

    mine = server.task("mine")
    assert (TaskState.ACQUIRED, 2_500, "w", 1_000) == (mine.state, mine.due_at, mine.pid, mine.ttl)
    assert ["theirs"] == server.executes()


def test_renewal_does_not_outlive_the_deadline(serve: Callable[[Rules], Server]) -> None:
    """A promise past its deadline is settled although the holder of its task lives."""
    server = serve(EMBEDDED)
    held(server, "r", timeout_at=1_000)

    server.tick(1_000, renew=frozenset({"w"}))

    assert TaskState.FULFILLED is server.task("r").state


def test_pending_tasks_are_not_renewed(serve: Callable[[Rules], Server]) -> None:
    """A pending task has no holder, whatever is to be renewed."""
    server = serve(EMBEDDED)
    server.ask(0, PromiseCreate(id="r", timeout_at=FAR, tags=GROUP))
    server.sent()

    server.tick(30_000, renew=frozenset({"w"}))

    assert ["r"] == server.executes()
    assert 60_000 == server.next_due()


def test_quiet_sweep(serve: Callable[[Rules], Server]) -> None:
    """A sweep with nothing due writes nothing."""
    server = serve(EMBEDDED)
    held(server, "r")

    outcome = server.tick(1)

    assert ((), ()) == (outcome.changes, outcome.messages)
    assert 1_000 == server.next_due()


def test_recover(serve: Callable[[Rules], Server]) -> None:
    """After a restart every held or pending task is sent for at once; the others are left as they are."""
    server = serve(EMBEDDED)
    held(server, "held", ttl=FAR)
    held(server, "sleep", pid=TIMER_PID, ttl=FAR)
    held(server, "late", timeout_at=40)
    held(server, "halted")
    held(server, "suspended")
    server.ask(0, PromiseCreate(id="pending", timeout_at=FAR, tags=GROUP))
    server.ask(0, PromiseCreate(id="delayed", timeout_at=FAR, tags={**GROUP, "resonate:delay": "70000"}))
    server.ask(0, PromiseCreate(id="suspended.x", timeout_at=FAR))
    server.ask(0, TaskHalt(id="halted"))
    server.ask(0, TaskSuspend(id="suspended", version=1, awaited=("suspended.x",), awaiters=("suspended",)))
    server.sent()

    server.recover(50)

    assert [Execute("held", 1), Execute("pending", 0)] == server.sent()
    assert (TaskState.PENDING, 1, 30_050) == _seen(server, "held")
    assert (TaskState.PENDING, 0, 30_050) == _seen(server, "pending")
    assert (TaskState.PENDING, 0, 70_000) == _seen(server, "delayed")
    assert (TaskState.ACQUIRED, 1, FAR) == _seen(server, "sleep")
    assert (TaskState.FULFILLED, 1, None) == _seen(server, "late")
    assert (TaskState.HALTED, 1, None) == _seen(server, "halted")
    assert (TaskState.SUSPENDED, 1, None) == _seen(server, "suspended")


def _seen(server: Server, id: str) -> tuple[TaskState, int, int | None]:
    task = server.task(id)
    return task.state, task.version, task.due_at


def test_recovered_task_is_fenced(serve: Callable[[Rules], Server]) -> None:
    """The version outlives the restart: exactly one acquire at it succeeds, and raises it."""
    server = serve(EMBEDDED)
    held(server, "r")
    server.recover(1)

    acquire = TaskAcquire(id="r", version=1, pid="v", ttl=5)

    assert [200, 409] == [server.ask(2, acquire).status, server.ask(2, acquire).status]
    assert 2 == server.task("r").version


# --- schedules ------------------------------------------------------------------------------------------------------

MINUTE = 60_000
EVERY_MINUTE = ScheduleCreate(
    id="s",
    cron="* * * * *",
    promise_id="{{.id}}-{{.timestamp}}",
    promise_timeout=10 * MINUTE,
    promise_tags={**GROUP, "resonate:origin": "mine", "team": "x"},
)


def test_catch_up(serve: Callable[[Rules], Server]) -> None:
    """The embedded engine fires every missed occurrence in one sweep; their retry clocks start there."""
    server = serve(EMBEDDED)
    server.ask(0, EVERY_MINUTE)

    server.tick(3 * MINUTE + 5)

    assert ["s-120000", "s-180000", "s-60000"] == server.executes()
    assert (3 * MINUTE, 4 * MINUTE) == (server.schedule("s").last_run_at, server.schedule("s").next_run_at)
    assert 3 * MINUTE + 30_005 == server.task("s-60000").due_at


def test_catch_up_of_the_release(serve: Callable[[Rules], Server]) -> None:
    """The release fires one occurrence for each schedule in a sweep; the retry clock starts at the occurrence."""
    server = serve(RELEASE)
    server.ask(0, EVERY_MINUTE)

    server.tick(3 * MINUTE + 5)

    assert ["s-60000"] == server.executes()
    assert 2 * MINUTE == server.schedule("s").next_run_at
    assert MINUTE + 30_000 == server.task("s-60000").due_at


def test_fired_promise(serve: Callable[[Rules], Server]) -> None:
    """What is fired is a root of its own, made at its occurrence, stamped with its schedule."""
    server = serve(EMBEDDED)
    server.ask(0, EVERY_MINUTE)

    server.tick(MINUTE + 7)

    id = "s-60000"
    lineage = {"resonate:origin": id, "resonate:branch": id, "resonate:parent": id, "resonate:prefix": id}
    tags = {**GROUP, "team": "x", "resonate:schedule": "s", **lineage}
    assert Promise(id=id, tags=tags, created_at=MINUTE, timeout_at=11 * MINUTE) == server.promise(id)


def test_missed_deadline(serve: Callable[[Rules], Server]) -> None:
    """An occurrence whose deadline has passed is born settled, and nobody is sent for."""
    server = serve(EMBEDDED)
    server.ask(0, evolve(EVERY_MINUTE, promise_timeout=5))

    server.tick(MINUTE + 5)

    promise = server.promise("s-60000")
    assert (PromiseState.TIMEDOUT, MINUTE + 5) == (promise.state, promise.settled_at)
    assert TaskState.FULFILLED is server.task("s-60000").state
    assert [] == server.sent()


def test_fired_without_a_target(serve: Callable[[Rules], Server]) -> None:
    """Lenient rules let a schedule make plain promises."""
    server = serve(EMBEDDED)
    server.ask(0, evolve(EVERY_MINUTE, promise_tags={}))

    server.tick(MINUTE)

    assert PromiseState.PENDING is server.promise("s-60000").state
    assert [] == server.sent()


def test_occurrence_that_exists(serve: Callable[[Rules], Server]) -> None:
    """An occurrence whose id is taken changes nothing but the schedule."""
    server = serve(EMBEDDED)
    server.ask(0, evolve(EVERY_MINUTE, promise_id="fixed"))
    server.ask(0, PromiseCreate(id="fixed", timeout_at=FAR))
    server.ask(1, PromiseSettle(id="fixed", state=PromiseState.REJECTED))

    server.tick(2 * MINUTE)

    assert (PromiseState.REJECTED, 1) == (server.promise("fixed").state, server.promise("fixed").settled_at)
    assert 3 * MINUTE == server.schedule("s").next_run_at


def test_far_deadline(serve: Callable[[Rules], Server]) -> None:
    """A timeout so long that its end is out of range ends with time itself."""
    server = serve(EMBEDDED)
    server.ask(0, evolve(EVERY_MINUTE, promise_timeout=2**63 - 1))

    server.tick(MINUTE)

    assert 2**63 - 1 == server.promise("s-60000").timeout_at


def test_deleted_schedule_is_silent(serve: Callable[[Rules], Server]) -> None:
    """A schedule that is deleted fires no more."""
    server = serve(EMBEDDED)
    server.ask(0, EVERY_MINUTE)

    assert 200 == server.ask(1, ScheduleDelete(id="s")).status
    assert None is server.next_due()
    assert () == server.tick(FAR).changes


@pytest.mark.parametrize("rules", [EMBEDDED, RELEASE], ids=["embedded", "release"])
@pytest.mark.parametrize(
    ("missed", "late", "fired"),
    [
        # An occurrence is missed when it is ten seconds late.
        (Missed.LATEST, 9_999, [3]),
        (Missed.LATEST, 10_000, [3]),
        (Missed.LATEST, 59_999, [3]),
        (Missed.NONE, 9_999, [3]),
        (Missed.NONE, 10_000, []),
        (Missed.NONE, 59_999, []),
    ],
)
def test_missed_occurrences(
    serve: Callable[[Rules], Server], rules: Rules, missed: Missed, late: int, fired: list[int]
) -> None:
    """A schedule that says so makes up for all that it missed at once, or for nothing, and then goes on as before."""
    server = serve(rules)
    server.ask(0, evolve(EVERY_MINUTE, missed=missed))

    server.tick(3 * MINUTE + late)

    assert [f"s-{number * MINUTE}" for number in fired] == server.executes()
    assert 4 * MINUTE == server.schedule("s").next_run_at
    assert (3 * MINUTE if fired else None) == server.schedule("s").last_run_at

    server.tick(4 * MINUTE)
    assert ["s-240000"] == server.executes()[-1:]


def test_what_is_in_time_is_fired_whatever_was_missed(serve: Callable[[Rules], Server]) -> None:
    """Of a schedule by the second, the last ten are not missed; then none is made up for in place of the others."""
    for missed in (Missed.LATEST, Missed.NONE):
        server = serve(EMBEDDED)
        server.ask(0, evolve(EVERY_MINUTE, cron="* * * * * *", missed=missed))
        server.tick(3 * MINUTE)
        assert [f"s-{second}000" for second in range(171, 181)] == server.executes()


def test_a_part_of_a_sweep(serve: Callable[[Rules], Server]) -> None:
    """With a limit each sweep does no more than that: what is due first, and each schedule its share."""
    server = serve(EMBEDDED)
    for id in "st":
        server.ask(0, evolve(EVERY_MINUTE, id=id))
    for number in range(25):
        server.ask(0, PromiseCreate(id=f"p{number:02}", timeout_at=1_000 - number))

    def settled() -> list[int]:
        states = [server.promise(f"p{number:02}").state for number in range(25)]
        return [number for number, state in enumerate(states) if state is not PromiseState.PENDING]

    server.tick(5 * MINUTE, limit=10)
    assert (list(range(15, 25)), []) == (settled(), server.executes())
    server.tick(5 * MINUTE, limit=10)
    server.tick(5 * MINUTE, limit=10)
    assert list(range(25)) == settled()
    # Five were left of the third sweep: two for each of the schedules.
    expected = [f"{id}-{minute * MINUTE}" for id in "st" for minute in (1, 2)]
    assert sorted(expected) == sorted(server.executes())
    assert 3 * MINUTE == server.next_due()
    server.tick(5 * MINUTE, limit=6)
    assert 6 == len(server.executes())
    assert 5 * MINUTE < (server.next_due() or 0)


def test_recovery_in_parts(serve: Callable[[Rules], Server]) -> None:
    """Each part sees to as many records as it may, and together they do what one does."""
    server = serve(EMBEDDED)
    for number in range(7):
        held(server, f"late{number}", timeout_at=40)
        held(server, f"held{number}")
        server.ask(0, PromiseCreate(id=f"pending{number}", timeout_at=FAR, tags=GROUP))
        held(server, f"sleep{number}", pid=TIMER_PID, ttl=FAR)
    server.sent()

    cursor: str | None = None
    sent: list[str] = []
    for part in count(1):  # noqa: B007 - counts
        cursor = server.recover_part(50, cursor, limit=5).response.cursor
        some = server.executes()
        assert len(some) <= 5
        sent += some
        if cursor is None:
            break

    assert sorted(f"{kind}{number}" for kind in ("held", "pending") for number in range(7)) == sorted(set(sent))
    assert all(TaskState.FULFILLED is server.task(f"late{number}").state for number in range(7))
    assert all(TaskState.ACQUIRED is server.task(f"sleep{number}").state for number in range(7))
    assert part == 6
