"""The duties of a store, as checks that any implementation can be put through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from .._errors import StoreError
from .._protocol import (
    Armed,
    Callback,
    Change,
    DropCallback,
    DropListener,
    DropPromise,
    DropSchedule,
    DropTask,
    Kind,
    Missed,
    Outcome,
    Promise,
    PromiseState,
    PutCallback,
    PutListener,
    PutPromise,
    PutSchedule,
    PutTask,
    Response,
    Schedule,
    Step,
    Task,
    TaskState,
    Value,
    View,
)
from ..abc import Store

Check: TypeAlias = Callable[[Store], None]

# In byte order of UTF-8: capitals before small letters, and what lies outside of the 16-bit plane at the very end.
_IDS: Final = ("", "A", "a", "a b", "a.1", "a.10", "a.2", "a/b", "aa", "b'\"%_", "\u00e9", "\ufb01", "\U0001f600")


def check_store(make: Callable[[], Store]) -> None:
    """Check that a store keeps the contract of `abc.Store` and `View`.

    Args:
        make: gives a new store, empty and not open. It is called once for each check.

    Raises:
        AssertionError: it does not; the message says which duty is broken, what was expected and what was there.
    """
    for check in CHECKS:
        run_check(check, make())


def run_check(check: Check, store: Store) -> None:
    """Run one of `CHECKS` on a new store."""
    store.open()
    try:
        check(store)
    finally:
        store.close()


def _is_empty_at_first(store: Store) -> None:
    _expect(
        "nothing is there", (None, None, None), store.read(lambda v: (v.promise("a"), v.task("a"), v.schedule("a")))
    )
    _expect("nothing is found", [], store.read(_everything))
    _expect("nothing is due", None, store.read(lambda v: v.next_due(armed=Armed.ALL)))


def _gives_back_what_was_put(store: Store) -> None:
    full = Promise(
        id="full",
        state=PromiseState.REJECTED,
        param=Value("cGFyYW0=", {"k": "v", "": "\u00e9"}),
        value=Value("", {}),
        tags={"resonate:target": "poll://any@g", "resonate:branch": "full", "\u2603": "\n\0"},
        timeout_at=2**63 - 1,
        created_at=0,
        settled_at=5,
    )
    bare = Promise(id="bare", timeout_at=0, created_at=0)
    task = Task(id="full", state=TaskState.ACQUIRED, version=3, ttl=1, pid="p", due_at=2**53)
    idle = Task(id="bare", state=TaskState.SUSPENDED)
    schedule = Schedule(
        id="s",
        cron="* * * * *",
        promise_id="{{.id}}",
        promise_timeout=1,
        promise_param=Value("x"),
        promise_tags={"t": "u"},
        created_at=1,
        next_run_at=2,
        last_run_at=1,
        missed=Missed.LATEST,
    )
    _write(store, PutPromise(full), PutPromise(bare), PutTask(task), PutTask(idle), PutSchedule(schedule))

    _expect("a promise keeps every field", full, store.read(lambda v: v.promise("full")))
    _expect("absent fields stay absent", bare, store.read(lambda v: v.promise("bare")))
    _expect("a task keeps every field", task, store.read(lambda v: v.task("full")))
    _expect("absent fields of a task stay absent", idle, store.read(lambda v: v.task("bare")))
    _expect("a schedule keeps every field", schedule, store.read(lambda v: v.schedule("s")))


def _puts_over_what_was_there(store: Store) -> None:
    _write(store, *map(PutPromise, (_promise("p"), _promise("p", state=PromiseState.RESOLVED, timeout_at=7))))
    _write(store, *map(PutTask, (_task("p"), _task("p", state=TaskState.FULFILLED, due_at=None))))
    _write(store, *map(PutSchedule, (_schedule("s"), _schedule("s", next_run_at=9))))

    _expect("the last promise put counts", 7, store.read(lambda v: [p.timeout_at for p in _promises(v)])[0])
    _expect("the last task put counts", ["fulfilled"], store.read(lambda v: [t.state for t in _tasks(v)]))
    _expect("the last schedule put counts", [9], store.read(lambda v: [s.next_run_at for s in _schedules(v)]))
    _expect("what it was before is not due", 9, store.read(lambda v: v.next_due(armed=Armed.ALL)))


def _drops(store: Store) -> None:
    branch = {"resonate:branch": "b"}
    _write(store, PutSchedule(_schedule("s")), PutCallback(Callback("p", "q")), PutListener("p", "x"))
    _write(store, PutPromise(_promise("p", tags=branch)), PutTask(_task("p")))
    _write(store, DropSchedule("s"), DropCallback("p", "q"), DropListener("p", "x"))
    _write(store, DropPromise("p"), DropTask("p"))
    _expect("what was dropped is gone", [], store.read(_everything))
    _expect("what was dropped is not due", None, store.read(lambda v: v.next_due(armed=Armed.ALL)))
    _expect("nor in its branch", [], store.read(lambda v: v.branch("b")))

    _write(store, DropSchedule("s"), DropCallback("p", "q"), DropListener("p", "x"))
    _write(store, DropPromise("p"), DropTask("p"))
    _expect("dropping what is not there does nothing", [], store.read(_everything))


def _finds_in_byte_order(store: Store) -> None:
    for id in reversed(_IDS):
        _write(store, PutPromise(_promise(id, tags={"resonate:branch": "b"})), PutTask(_task(id)))
        _write(store, PutSchedule(_schedule(id)), PutListener("p", id))
        _write(store, PutCallback(Callback("p", id)), PutCallback(Callback(id, "q")))

    lists: dict[str, Callable[[View], Sequence[str]]] = {
        "search_promises": lambda v: [p.id for p in _promises(v)],
        "search_tasks": lambda v: [t.id for t in _tasks(v)],
        "search_schedules": lambda v: [s.id for s in _schedules(v)],
        "branch": lambda v: [p.id for p in v.branch("b")],
        "due_promises": lambda v: [p.id for p in v.due_promises(10**9, armed=Armed.ALL)],
        "due_tasks": lambda v: [t.id for t in v.due_tasks(10**9)],
        "due_schedules": lambda v: [s.id for s in v.due_schedules(10**9)],
        "awaiters": lambda v: [c.awaiter for c in v.awaiters("p")],
        "awaited": lambda v: [c.awaited for c in v.awaited("q")],
        "listeners": lambda v: v.listeners("p"),
        "all_listeners": lambda v: [address for _, address in v.all_listeners()],
    }
    for name, ids in lists.items():
        _expect(f"{name} is in ascending byte order", list(_IDS), list(store.read(ids)))


def _searches_by_page(store: Store) -> None:
    ids = ["a", "b", "c", "d"]
    for id in ids:
        _write(store, PutPromise(_promise(id)), PutTask(_task(id)), PutSchedule(_schedule(id)))

    pages: list[tuple[str | None, int, list[str]]] = [
        (None, 2, ["a", "b"]),
        ("b", 2, ["c", "d"]),
        ("d", 2, []),
        ("bb", 9, ["c", "d"]),
        ("", 1, ["a"]),
        ("z", 9, []),
    ]
    for after, limit, page in pages:
        promises = store.read(partial(_promises, after=after, limit=limit))
        tasks = store.read(partial(_tasks, after=after, limit=limit))
        schedules = store.read(partial(_schedules, after=after, limit=limit))
        _expect("promises come by page", page, [promise.id for promise in promises])
        _expect("tasks come by page", page, [task.id for task in tasks])
        _expect("schedules come by page", page, [schedule.id for schedule in schedules])


def _searches_by_filter(store: Store) -> None:
    red, both = {"colour": "red"}, {"colour": "red", "size": "\u00e9\"'%"}
    _write(store, *(PutPromise(_promise(id, tags=tags)) for id, tags in (("a", red), ("b", both), ("c", {}))))
    _write(store, PutPromise(_promise("d", state=PromiseState.REJECTED, tags=both)))
    _write(store, PutTask(_task("a")), PutTask(_task("b", state=TaskState.HALTED, due_at=None)))
    _write(store, *(PutSchedule(_schedule(id, tags=tags)) for id, tags in (("a", red), ("b", both))))

    def promises(state: PromiseState | None, tags: dict[str, str], limit: int = 9) -> list[str]:
        found = store.read(lambda v: v.search_promises(state=state, tags=tags, after=None, limit=limit))
        return [promise.id for promise in found]

    _expect("all of the tags must be there", ["b", "d"], promises(None, both))
    _expect("one tag is enough if one is asked for", ["a", "b", "d"], promises(None, red))
    _expect("a tag of another value is not found", [], promises(None, {"colour": "blue"}))
    _expect("state and tags must both hold", ["d"], promises(PromiseState.REJECTED, red))
    _expect("the limit counts what is found", ["b"], promises(None, both, limit=1))
    tasks = store.read(lambda v: v.search_tasks(state=TaskState.HALTED, after=None, limit=9))
    _expect("tasks are found by state", ["b"], [task.id for task in tasks])
    schedules = store.read(lambda v: v.search_schedules(tags=both, after=None, limit=9))
    _expect("schedules are found by tags", ["b"], [schedule.id for schedule in schedules])


def _searches_up_to_an_id(store: Store) -> None:
    for id in ("a", "b", "c", "d", ""):
        _write(store, PutPromise(_promise(id)), PutTask(_task(id)), PutSchedule(_schedule(id)))

    def ids(after: str | None, until: str | None) -> list[list[str]]:
        def look(view: View) -> list[list[str]]:
            promises = view.search_promises(state=None, tags={}, after=after, until=until, limit=9)
            tasks = view.search_tasks(state=None, after=after, until=until, limit=9)
            schedules = view.search_schedules(tags={}, after=after, until=until, limit=9)
            return [[found.id for found in promises], [found.id for found in tasks], [found.id for found in schedules]]

        return store.read(look)

    _expect("the end of a range is in it", [["b", "c"]] * 3, ids("a", "c"))
    _expect("the end need not be an id", [["b", "c"]] * 3, ids("a", "cc"))
    _expect("a range may begin at the beginning", [["", "a"]] * 3, ids(None, "a"))
    _expect("the empty id is an id", [[""]] * 3, ids(None, ""))
    _expect("a range may be empty", [[]] * 3, ids("c", "a"))

    kinds: tuple[Kind, ...] = ("promises", "tasks", "schedules")
    for kind in kinds:
        ahead = [store.read(partial(_ahead, kind=kind, after=None, count=count)) for count in (1, 2, 5, 6)]
        _expect(f"an id is found by its distance among {kind}", ["", "a", "d", None], ahead)
        _expect(
            f"counting begins after an id ({kind})", "c", store.read(partial(_ahead, kind=kind, after="a", count=2))
        )
        _expect(
            f"nothing is ahead of the last ({kind})", None, store.read(partial(_ahead, kind=kind, after="d", count=1))
        )


def _ahead(view: View, kind: Kind, after: str | None, count: int) -> str | None:
    return view.id_ahead(kind, after, count)


def _gives_a_part_of_what_is_due(store: Store) -> None:
    for id, at in (("a", 30), ("b", 10), ("c", 20), ("d", 40)):
        _write(store, PutPromise(_promise(id, timeout_at=at)), PutTask(_task(id, due_at=at)))
        _write(store, PutSchedule(_schedule(id, next_run_at=at)))

    def ids(limit: int | None) -> list[list[str]]:
        def look(view: View) -> list[list[str]]:
            promises = view.due_promises(35, armed=Armed.ALL, limit=limit)
            tasks, schedules = view.due_tasks(35, limit=limit), view.due_schedules(35, limit=limit)
            return [[found.id for found in promises], [found.id for found in tasks], [found.id for found in schedules]]

        return store.read(look)

    _expect("all that is due comes by id", [["a", "b", "c"]] * 3, ids(None))
    _expect("of a part, what is due first", [["b", "c"]] * 3, ids(2))
    _expect("a part may be larger than all", [["a", "b", "c"]] * 3, ids(9))
    _expect("a part may be nothing", [[]] * 3, ids(0))


def _finds_branches(store: Store) -> None:
    for id, branch in (("r", "r"), ("r.1", "r"), ("r.2", "r.2"), ("x", "")):
        _write(store, PutPromise(_promise(id, tags={"resonate:branch": branch})))

    _write(store, PutPromise(_promise("none")))
    _write(store, PutPromise(_promise("r.1", state=PromiseState.RESOLVED, tags={"resonate:branch": "r"})))

    def found(branch: str) -> list[str]:
        return [promise.id for promise in store.read(lambda v: v.branch(branch))]

    for branch, ids in (("r", ["r", "r.1"]), ("r.2", ["r.2"]), ("", ["x"]), ("R", [])):
        _expect(f"the branch {branch!r} is complete", ids, found(branch))


def _finds_callbacks_from_both_ends(store: Store) -> None:
    ab, ac, xb = Callback("a", "b"), Callback("a", "c", ready=True), Callback("x", "b")
    _write(store, *map(PutCallback, (xb, ac, ab)))
    _expect("callbacks are found by awaited", [ab, ac], store.read(lambda v: v.awaiters("a")))
    _expect("callbacks are found by awaiter", [ab, xb], store.read(lambda v: v.awaited("b")))
    _expect("all callbacks come by awaiter, then awaited", [ab, xb, ac], store.read(lambda v: v.all_callbacks()))

    _write(store, PutCallback(Callback("a", "b", ready=True)), DropCallback("a", "c"))
    ready = [Callback("a", "b", ready=True)]
    _expect("a callback becomes ready", ready, store.read(lambda v: v.awaiters("a")))
    _expect("a callback becomes ready at both ends", [*ready, xb], store.read(lambda v: v.awaited("b")))
    _expect("a dropped callback is gone at both ends", [], store.read(lambda v: v.awaited("c")))


def _finds_listeners(store: Store) -> None:
    _write(store, PutListener("p", "y"), PutListener("p", "x"), PutListener("o", "z"), PutListener("p", "x"))
    _expect("an address listens once", ["x", "y"], store.read(lambda v: v.listeners("p")))
    _expect("the addresses of one promise do not listen to others", [], store.read(lambda v: v.listeners("q")))
    listeners = [("o", "z"), ("p", "x"), ("p", "y")]
    _expect("all listeners come by promise, then address", listeners, store.read(lambda v: v.all_listeners()))


def _knows_what_is_due(store: Store) -> None:
    target = {"resonate:target": "poll://any@g"}
    _write(
        store, PutPromise(_promise("plain", timeout_at=20)), PutPromise(_promise("aimed", timeout_at=30, tags=target))
    )
    _write(store, PutPromise(_promise("timer", timeout_at=30, tags={"resonate:timer": "true"})))
    _write(store, PutPromise(_promise("outer", timeout_at=30, tags={"resonate:external": "true"})))
    _write(store, PutPromise(_promise("untrue", timeout_at=30, tags={"resonate:timer": "yes", "true": "true"})))
    _write(store, PutPromise(_promise("done", state=PromiseState.RESOLVED, timeout_at=1)))
    _write(store, PutTask(_task("held", state=TaskState.ACQUIRED, due_at=40)), PutTask(_task("ready", due_at=50)))
    _write(
        store,
        PutTask(_task("idle", state=TaskState.SUSPENDED, due_at=None)),
        PutSchedule(_schedule("s", next_run_at=60)),
    )

    def promises(now: int, armed: Armed = Armed.ALL) -> list[str]:
        return [p.id for p in store.read(lambda v: v.due_promises(now, armed=armed))]

    _expect("nothing is due a moment before", [], promises(19))
    _expect("a deadline is due at its instant", ["plain"], promises(20))
    _expect("what was due stays due", ["aimed", "outer", "plain", "timer", "untrue"], promises(99))
    _expect("internal promises can be left out", ["aimed", "outer", "timer"], promises(99, Armed.EXTERNAL))
    _expect("promises without target can be left out", ["aimed"], promises(99, Armed.TARGETED))
    _expect("a lease is due at its instant", ["held"], [t.id for t in store.read(lambda v: v.due_tasks(40))])
    _expect("a retry is due at its instant", ["held", "ready"], [t.id for t in store.read(lambda v: v.due_tasks(50))])
    _expect("no schedule is due a moment before", [], store.read(lambda v: v.due_schedules(59)))
    _expect("a schedule is due at its instant", ["s"], [s.id for s in store.read(lambda v: v.due_schedules(60))])


def _knows_what_is_due_next(store: Store) -> None:
    def due(armed: Armed = Armed.ALL) -> int | None:
        return store.read(lambda v: v.next_due(armed=armed))

    _write(store, PutSchedule(_schedule("s", next_run_at=60)))
    _expect("a schedule counts", 60, due())
    _write(store, PutTask(_task("t", due_at=50)))
    _expect("a task counts", 50, due())
    _write(store, PutPromise(_promise("aimed", timeout_at=30, tags={"resonate:target": "poll://any@g"})))
    _expect("a promise counts", 30, due(Armed.TARGETED))
    _write(store, PutPromise(_promise("plain", timeout_at=20)))
    _expect("one without target counts if it is swept", (20, 30), (due(), due(Armed.TARGETED)))
    _write(store, PutPromise(_promise("timer", timeout_at=25, tags={"resonate:timer": "true"})))
    _expect("a timer counts if timers are swept", (25, 30), (due(Armed.EXTERNAL), due(Armed.TARGETED)))
    _write(store, PutPromise(_promise("timer", state=PromiseState.RESOLVED, timeout_at=25)))
    _write(store, PutPromise(_promise("plain", state=PromiseState.RESOLVED, timeout_at=20)))
    _expect("a settled one does not count", 30, due())
    _write(store, PutTask(_task("t", due_at=10)))
    _expect("an instant can move forward", 10, due())
    _write(store, PutTask(_task("t", due_at=70)))
    _expect("an instant can move back", 30, due())


def _lets_steps_see_those_before(store: Store) -> None:
    seen: list[object] = []

    def look(view: View) -> Outcome:
        seen.append([promise.id for promise in _promises(view)])
        return _outcome(PutPromise(_promise("b")))

    outcomes = store.transact([lambda _: _outcome(PutPromise(_promise("a"))), look, look])
    _expect("a step sees the changes of those before, once each", [["a"], ["a", "b"]], seen)
    _expect("every step has its outcome", 3, len(outcomes))
    _expect("no steps have no outcomes", [], store.transact([]))


def _keeps_all_or_nothing(store: Store) -> None:
    _write(store, *_one_of_each("kept"))
    before = store.read(_everything)

    def fail(view: View) -> Outcome:
        _expect("the failing step sees the changes", _promise_of_each("lost"), view.promise("lost"))
        raise _Planned

    steps: list[Step] = [
        lambda _: _outcome(*_one_of_each("lost")),
        lambda _: _outcome(*_one_of_each("kept", changed=True)),
        lambda _: _outcome(DropSchedule("kept"), DropCallback("kept", "kept"), DropListener("kept", "kept")),
        fail,
    ]
    try:
        store.transact(steps)
    except _Planned:
        pass
    else:
        _fail("an exception of a step comes out of transact as it is")

    _expect("a failed transaction leaves no trace", before, store.read(_everything))
    _expect("nor in what is due", 40, store.read(lambda v: v.next_due(armed=Armed.ALL)))
    _write(store, *_one_of_each("lost"))
    _expect("the store is usable afterwards", _promise_of_each("lost"), store.read(lambda v: v.promise("lost")))


def _keeps_over_close_and_open(store: Store) -> None:
    _write(store, *_one_of_each("a"), *_one_of_each("b"))
    before = store.read(_everything)
    store.close()
    store.close()
    store.open()
    _expect("what was written is still there", before, store.read(_everything))
    _expect("and is still due", 40, store.read(lambda v: v.next_due(armed=Armed.ALL)))


def _opens_once(store: Store) -> None:
    try:
        store.open()
    except StoreError:
        _write(store, PutPromise(_promise("p")))
    else:
        _fail("opening an open store raises StoreError")


CHECKS: Final[Sequence[Check]] = (
    _is_empty_at_first,
    _gives_back_what_was_put,
    _puts_over_what_was_there,
    _drops,
    _finds_in_byte_order,
    _searches_by_page,
    _searches_by_filter,
    _searches_up_to_an_id,
    _gives_a_part_of_what_is_due,
    _finds_branches,
    _finds_callbacks_from_both_ends,
    _finds_listeners,
    _knows_what_is_due,
    _knows_what_is_due_next,
    _lets_steps_see_those_before,
    _keeps_all_or_nothing,
    _keeps_over_close_and_open,
    _opens_once,
)


class _Planned(Exception):
    """Raised by a step on purpose."""


def _fail(duty: str) -> None:
    raise AssertionError(duty)


def _expect(duty: str, expected: object, actual: object) -> None:
    # Not an assert statement: those are gone under `python -O`.
    if expected != actual:
        msg = f"{duty}: expected {expected!r}, got {actual!r}"
        raise AssertionError(msg)


def _outcome(*changes: Change) -> Outcome:
    return Outcome(response=Response(status=200), changes=changes)


def _write(store: Store, *changes: Change) -> None:
    store.transact([lambda _: _outcome(*changes)])


def _promises(view: View, after: str | None = None, limit: int = 1000) -> Sequence[Promise]:
    return view.search_promises(state=None, tags={}, after=after, limit=limit)


def _tasks(view: View, after: str | None = None, limit: int = 1000) -> Sequence[Task]:
    return view.search_tasks(state=None, after=after, limit=limit)


def _schedules(view: View, after: str | None = None, limit: int = 1000) -> Sequence[Schedule]:
    return view.search_schedules(tags={}, after=after, limit=limit)


def _everything(view: View) -> list[object]:
    return [*_promises(view), *_tasks(view), *_schedules(view), *view.all_callbacks(), *view.all_listeners()]


def _promise(
    id: str, *, state: PromiseState = PromiseState.PENDING, timeout_at: int = 100, tags: dict[str, str] | None = None
) -> Promise:
    return Promise(id=id, state=state, timeout_at=timeout_at, created_at=0, tags=tags or {})


def _task(id: str, *, state: TaskState = TaskState.PENDING, due_at: int | None = 100) -> Task:
    return Task(id=id, state=state, due_at=due_at)


def _schedule(id: str, *, next_run_at: int = 100, tags: dict[str, str] | None = None) -> Schedule:
    return Schedule(
        id=id,
        cron="@daily",
        promise_id="x",
        promise_timeout=1,
        promise_tags=tags or {},
        created_at=0,
        next_run_at=next_run_at,
    )


def _promise_of_each(id: str, due: int = 40) -> Promise:
    return _promise(id, timeout_at=due, tags={"resonate:branch": "b"})


def _one_of_each(id: str, *, changed: bool = False) -> list[Change]:
    due = 10 if changed else 40
    return [
        PutPromise(_promise_of_each(id, due)),
        PutTask(_task(id, due_at=due)),
        PutSchedule(_schedule(id, next_run_at=due)),
        PutCallback(Callback(id, id, ready=changed)),
        PutListener(id, id),
    ]
