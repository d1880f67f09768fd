"""Checks of a network: requests and their answers."""

from __future__ import annotations

from typing import Final

import anyio
from anyio import CancelScope, create_task_group, to_thread
from anyio.lowlevel import checkpoint

from .._errors import TooLarge
from ..abc import Connection
from ..protocol import (
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    PromiseState,
    RegisterCallback,
    Request,
    Response,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    ScheduleSearch,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRecord,
    TaskRef,
    TaskRelease,
    TaskSearch,
    TaskState,
    TaskSuspend,
    Value,
)
from ._bench import HOUR_MS, QUIET, TTL_MS, Bench, Check, expect, fail

_AT_ONCE: Final = 30

_CANCELLED_AFTER: Final = (*range(12), *range(12), *range(12), *range(12), 0.0002, 0.001, 0.005, 0.02)
"""When a request is cancelled: after so many rounds of the event loop (int), or so many seconds (float).

Several times, since trio runs the tasks of a round in random order.
"""


async def _answers_requests_about_promises(bench: Bench) -> None:
    async with bench.network.connect(bench.identity()) as connection:
        id, tag = bench.id("p"), {"resonate:scope": "global", "check": bench.token}
        creation = bench.creation(connection, id, tags=tag)
        created = (await bench.succeed(connection, creation)).promise
        again = (await bench.succeed(connection, creation)).promise
        expect("a second create returns the promise that is there", created, again)
        expect("a promise is found as it was created", created, await bench.found(connection, id))
        pages = await bench.succeed(connection, PromiseSearch(tags={"check": bench.token}))
        expect("a search finds the promise", [created], list(pages.promises))
        for state in (PromiseState.RESOLVED, PromiseState.REJECTED):
            settled = (await bench.succeed(connection, PromiseSettle(id=id, state=state))).promise
            expect("the first settlement stands", PromiseState.RESOLVED, settled and settled.state)


async def _answers_requests_about_tasks(bench: Bench) -> None:
    me = bench.identity()
    async with bench.network.connect(me) as connection:
        id = await bench.create(connection, "t", target=me.unicast)
        sent = await bench.execute(connection, id, "a task is sent for")
        held = await bench.acquire(connection, me, sent)
        expect("the lease is held in the name of the holder", (TaskState.ACQUIRED, me.holder), (held.state, held.pid))
        task = (await bench.succeed(connection, TaskGet(id=id))).task
        expect("a task is found as it was acquired", held, task)
        await bench.succeed(connection, TaskHeartbeat(pid=me.holder, tasks=(TaskRef(id, held.version),)))
        await _await_a_child(bench, connection, held)
        sent = await bench.execute(connection, id, "a task is resumed when a promise that it awaits settles")
        held = await bench.acquire(connection, me, sent)
        await bench.succeed(connection, TaskRelease(id=id, version=held.version))
        await bench.execute(connection, id, "a released task is sent for again")
        await bench.succeed(connection, TaskHalt(id=id))
        await bench.succeed(connection, TaskContinue(id=id))
        sent = await bench.execute(connection, id, "a continued task is sent for")
        held = await bench.acquire(connection, me, sent)
        end = PromiseSettle(id=id, state=PromiseState.RESOLVED, value=Value("ZW5k"))
        ended = await bench.succeed(connection, TaskFulfill(id=id, version=held.version, action=end))
        expect("a fulfilled task settles its promise", Value("ZW5k"), ended.promise and ended.promise.value)


async def _await_a_child(bench: Bench, connection: Connection, held: TaskRecord) -> None:
    """Create a promise below a task, suspend the task until it settles, and settle it."""
    id, version = held.id, held.version
    below = f"{id}{connection.dialect.separator}1"
    child = bench.creation(connection, below, tags=_lineage(id, below))
    fenced = await bench.succeed(connection, TaskFence(id=id, version=version, action=child, action_id=below))
    inner = None if fenced.action is None or fenced.action.promise is None else fenced.action.promise.id
    expect("a fence is answered with the answer of its action", below, inner)
    await bench.succeed(connection, RegisterCallback(awaited=below, awaiter=id))
    await bench.succeed(connection, TaskSuspend(id=id, version=version, awaited=(below,), awaiters=(id,)))
    await bench.settle(connection, below)


def _lineage(root: str, child: str) -> dict[str, str]:
    return {"resonate:origin": root, "resonate:parent": root, "resonate:branch": child, "resonate:scope": "global"}


async def _answers_requests_about_all_else(bench: Bench) -> None:
    me = bench.identity()
    async with bench.network.connect(me) as connection:
        id = bench.id("c")
        action = bench.creation(connection, id, target=me.unicast)
        made = await bench.succeed(connection, TaskCreate(pid=me.holder, ttl=TTL_MS, action=action))
        expect(
            "a created task is held", (TaskState.ACQUIRED, me.holder), made.task and (made.task.state, made.task.pid)
        )
        await bench.succeed(connection, TaskSearch(state=TaskState.ACQUIRED))

        schedule = ScheduleCreate(
            id=bench.id("s"),
            cron="0 0 1 1 *",
            promise_id="{{.id}}-{{.timestamp}}",
            promise_timeout=HOUR_MS,
            promise_tags={"resonate:target": bench.any_of(), "check": bench.token},
        )
        created = (await bench.succeed(connection, schedule)).schedule
        found = (await bench.succeed(connection, ScheduleGet(id=schedule.id))).schedule
        expect("a schedule is found as it was created", created, found)
        listed = await bench.succeed(connection, ScheduleSearch(tags={"check": bench.token}))
        expect("a search finds the schedule", [created], list(listed.schedules))
        await bench.succeed(connection, ScheduleDelete(id=schedule.id))


async def _returns_refusals(bench: Bench) -> None:
    async with bench.network.connect(bench.identity()) as connection:
        missing = bench.id("missing")
        await bench.create(connection, "bare")
        refused: list[tuple[int, Request]] = [
            (404, PromiseGet(id=missing)),
            (404, PromiseSettle(id=missing, state=PromiseState.RESOLVED)),
            (404, TaskGet(id=missing)),
            (404, ScheduleDelete(id=missing)),
            (400, PromiseCreate(id="", timeout_at=connection.now() + HOUR_MS)),
        ]
        for status, request in refused:
            response = await bench.ask(connection, request)
            expect(f"a refusal of {request.kind} is returned, whatever its status", status, response.status)
            if not response.error:
                fail(f"a refusal of {request.kind} says why")


async def _keeps_every_field(bench: Bench) -> None:
    tags = {"resonate:scope": "global", "\u2603": "\n\"'%", "empty": ""}
    value = Value("e30=", {"k": "v", "": "\u00e9\U0001f600"})
    async with bench.network.connect(bench.identity()) as connection:
        creation = bench.creation(connection, bench.id("full"), value=value, tags=tags)
        await bench.succeed(connection, creation)
        await bench.succeed(connection, PromiseSettle(id=creation.id, state=PromiseState.REJECTED, value=value))
        found = await bench.found(connection, creation.id)
        expect(
            "every field of a request reaches the server, and every field of an answer comes back",
            (creation.param, value, tags, creation.timeout_at, PromiseState.REJECTED),
            found and (found.param, found.value, dict(found.tags), found.timeout_at, found.state),
        )


async def _answers_each_its_own(bench: Bench) -> None:
    names = [f"many-{number}" for number in range(_AT_ONCE)]
    found: dict[str, str | None] = {}
    async with bench.network.connect(bench.identity()) as connection:

        async def ask(name: str) -> None:
            promise = await bench.found(connection, await bench.create(connection, name))
            found[bench.id(name)] = None if promise is None else promise.id

        async with create_task_group() as tasks:
            for name in names:
                tasks.start_soon(ask, name)
        expect("of many requests at once, each gets its own answer", {bench.id(n): bench.id(n) for n in names}, found)


async def _answers_within(bench: Bench) -> None:
    async with bench.network.connect(bench.identity()) as connection:
        id = await bench.create(connection, "within")
        answer = await connection.request_within(PromiseGet(id=id), bench.patience)
        expect("request_within answers as request does", await bench.ask(connection, PromiseGet(id=id)), answer)


async def _answers_in_a_thread(bench: Bench) -> None:
    async with bench.network.connect(bench.identity()) as connection:
        id = await bench.create(connection, "thread")
        send = connection.blocking_request
        if send is None:
            return
        answer = await to_thread.run_sync(send, PromiseGet(id=id))
        expect("blocking_request answers as request does", await bench.ask(connection, PromiseGet(id=id)), answer)
        refusal = await to_thread.run_sync(send, PromiseGet(id=bench.id("missing")))
        expect("blocking_request returns refusals", 404, refusal.status)


async def _bears_what_is_too_large(bench: Bench) -> None:
    async with bench.network.connect(bench.identity()) as connection:
        value = Value("A" * (3 * 1024 * 1024))
        creation = bench.creation(connection, bench.id("large"), value=value)
        try:
            taken = (await connection.request(creation)).status == 200
        except TooLarge:
            taken = False
        found = await bench.found(connection, creation.id)
        expect("a request that is too large has no effect, any other has all of it", taken, found is not None)
        expect("what was taken is kept whole", value if taken else None, found and found.param)


async def _cancels_before_the_effect_or_not_at_all(bench: Bench) -> None:
    async with bench.network.connect(bench.identity()) as connection:
        cancelled: list[str] = []
        for number, pause in enumerate(_CANCELLED_AFTER):
            id = bench.id(f"cancelled-{number}")
            answered = await _cancelled_request(connection, bench.creation(connection, id), pause)
            there = await bench.found(connection, id) is not None
            if answered and not there:
                fail("a request that was answered has had its effect")
            if there and not answered:
                fail("a request that was cancelled has no effect")
            cancelled += [] if answered else [id]
        await anyio.sleep(QUIET)
        late = [id for id in cancelled if await bench.found(connection, id) is not None]
        expect("a request that was cancelled never has an effect", [], late)


async def _cancelled_request(connection: Connection, request: Request, pause: float) -> bool:
    """Cancel a request after a while, and tell whether it was answered nevertheless."""
    answer: Response | None = None
    scope = CancelScope()

    async def send() -> None:
        nonlocal answer
        with scope:
            answer = await connection.request(request)

    async with create_task_group() as tasks:
        tasks.start_soon(send)
        if isinstance(pause, float):
            await anyio.sleep(pause)
        else:
            for _ in range(pause):
                await checkpoint()
        scope.cancel()
    return answer is not None


REQUEST_CHECKS: Final[tuple[Check, ...]] = (
    _answers_requests_about_promises,
    _answers_requests_about_tasks,
    _answers_requests_about_all_else,
    _returns_refusals,
    _keeps_every_field,
    _answers_each_its_own,
    _answers_within,
    _answers_in_a_thread,
    _bears_what_is_too_large,
    _cancels_before_the_effect_or_not_at_all,
)
