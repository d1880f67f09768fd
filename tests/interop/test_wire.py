"""Payloads of other SDKs (docs/interop.md), as they were recorded, against our workers and clients, in virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import pytest

from resonate_anyio import (
    ApplicationError,
    Context,
    DurableCancelledError,
    DurableTimeoutError,
    Info,
    Resonate,
)
from resonate_anyio._protocol import (
    ANNOUNCED,
    EMBEDDED,
    SNAPSHOT,
    SPECIFIED,
    Execute,
    Promise,
    PromiseCreate,
    PromiseSettle,
    PromiseState,
    RegisterListener,
    Response,
    Rules,
    TaskAcquire,
    TaskFulfill,
    TaskRecord,
    TaskState,
    Unblock,
    Value,
)
from resonate_anyio._requests._queries import get_promise
from resonate_anyio.abc import Clock, Connection, Identity, Network
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore

from ..engine.harness import Wire
from .functions import ARGUMENTS, BARE, arguments, double, offer, result
from .wire_fixtures import SDKS, Sdk, content

HOUR: Final = 3_600_000

CALLS: Final = [(sdk, name) for sdk in SDKS for name in ARGUMENTS]
ANSWERS: Final = [(sdk, name) for sdk in SDKS for name in sdk.settles]
TYPESCRIPT: Final = [sdk for sdk in SDKS if sdk.name.startswith("TypeScript")]


def of_sdks(sdks: Iterable[Sdk]) -> pytest.MarkDecorator:
    """Run a test for each of these SDKs."""
    return pytest.mark.parametrize("sdk", [pytest.param(sdk, id=sdk.name) for sdk in sdks])


def of_calls(calls: Iterable[tuple[Sdk, str]]) -> pytest.MarkDecorator:
    """Run a test for each of these calls."""
    cases = [pytest.param(sdk, name, id=f"{sdk.name}-{name}") for sdk, name in calls]
    return pytest.mark.parametrize(("sdk", "name"), cases)


@pytest.fixture
def wire(clock: Clock) -> Wire:
    """An engine in memory that is seen through."""
    return Wire(LocalNetwork(MemoryStore(), clock=clock, rules=EMBEDDED, safety_sweep=math.inf))


@asynccontextmanager
async def peer(network: Network, group: str = "peers") -> AsyncIterator[Connection]:
    """What another SDK has in its hands."""
    async with network.connect(Identity(group=group, pid="peer", holder="peer")) as connection:
        yield connection


async def settled(connection: Connection, create: PromiseCreate) -> Promise:
    """Make a call and wait for what comes of it."""
    response = await connection.request(create)
    assert response.status == 200, response.error
    listened = await connection.request(RegisterListener(awaited=create.id, address="poll://uni@peers/peer"))
    assert listened.promise is not None
    if not listened.promise.pending:
        return listened.promise
    message = await connection.messages.receive()
    assert isinstance(message, Unblock)
    return message.promise


async def answer(connection: Connection, sdk: Sdk, name: str) -> Promise:
    """Be the worker of that SDK for one call: take it, and answer as that was seen to do. Gives the call."""
    message = await connection.messages.receive()
    assert isinstance(message, Execute)
    acquire = TaskAcquire(id=message.task_id, version=message.version, pid="peer", ttl=60_000)
    acquired = await connection.request(acquire)
    assert acquired.task is not None
    assert acquired.promise is not None
    settle = sdk.settle(name, message.task_id)
    fulfill = TaskFulfill(id=message.task_id, version=acquired.task.version, action=settle)
    assert (await connection.request(fulfill)).status == 200
    return acquired.promise


# --- they call, we run


@of_calls(CALLS)
async def test_our_worker_runs_the_call_of_each_sdk(wire: Wire, clock: Clock, sdk: Sdk, name: str) -> None:
    """A call as each SDK records it is run, and its end recorded so that each SDK can read it."""
    resonate = Resonate(network=wire, group=sdk.prefix)
    offer(resonate, sdk.prefix)
    async with resonate, peer(wire) as caller:
        promise = await settled(caller, sdk.create(name, clock() + HOUR))

    if name == "fail":
        assert PromiseState.REJECTED is promise.state
        error = content(promise.value)
        assert ("error", "ValueError", "boom") == (error["__type"], error["name"], error["message"])
        assert error["stack"].endswith("ValueError: boom\n")
    else:
        assert PromiseState.RESOLVED is promise.state
        # null is null in every language; an empty payload would be undefined in TypeScript
        assert result(sdk.prefix, name) == content(promise.value)
        assert promise.value.data


@of_sdks(sdk for sdk in SDKS if "child" in sdk.creates)
async def test_children_of_other_sdks_are_run(wire: Wire, clock: Clock, sdk: Sdk) -> None:
    """A call that a workflow of another SDK has made is run like a root."""
    resonate = Resonate(network=wire, group=sdk.prefix)
    offer(resonate, sdk.prefix)
    async with resonate, peer(wire) as caller:
        promise = await settled(caller, sdk.create("child", clock() + HOUR))

    assert 42 == content(promise.value)


@of_sdks(TYPESCRIPT)
async def test_what_we_do_not_know_in_a_call_is_ignored(wire: Wire, clock: Clock, sdk: Sdk) -> None:
    """TypeScript may send a retry policy along; the function here has its own."""
    create = sdk.create("retry", clock() + HOUR)
    assert "retry" in content(create.param)
    resonate = Resonate(network=wire, group=sdk.prefix)
    offer(resonate, sdk.prefix)
    async with resonate, peer(wire) as caller:
        promise = await settled(caller, create)

    assert 42 == content(promise.value)


@of_sdks(TYPESCRIPT)
async def test_the_version_that_was_asked_for_is_run(wire: Wire, clock: Clock, sdk: Sdk) -> None:
    """Several versions of a function are told apart."""
    resonate = Resonate(network=wire, group="ts")
    for version in (1, 2):
        resonate.register(versioned(version), name="ts_version", version=version)
    async with resonate, peer(wire) as caller:
        promise = await settled(caller, sdk.create("version 2", clock() + HOUR))

    assert 2 == content(promise.value)


def versioned(version: int) -> Callable[[], Awaitable[int]]:
    """A function that gives its version."""

    async def func() -> int:
        return version

    return func


@pytest.mark.parametrize(("versions", "expected"), [((1, 2), 1), ((2, 3), 3)], ids=["the first", "no first"])
@of_sdks(SDKS)
async def test_callers_without_versions_get_the_first(
    wire: Wire, clock: Clock, sdk: Sdk, versions: tuple[int, ...], expected: int
) -> None:
    """Whoever knows of no versions, or sends 1 by default, gets the first one, or the latest if that is gone."""
    resonate = Resonate(network=wire, group=sdk.prefix)
    for version in versions:
        resonate.register(versioned(version), name=f"{sdk.prefix}_nothing", version=version)
    async with resonate, peer(wire) as caller:
        promise = await settled(caller, sdk.create("nothing", clock() + HOUR))

    assert expected == content(promise.value)


@pytest.mark.parametrize(
    ("name", "version", "func"),
    [
        pytest.param("other", 2, versioned(2), id="no such name"),
        pytest.param("ts_version", 1, versioned(1), id="no such version"),
        pytest.param("ts_version", 2, double, id="arguments that do not fit"),
    ],
)
async def test_a_call_that_cannot_be_run_here_is_given_back(
    wire: Wire, clock: Clock, name: str, version: int, func: Callable[..., Any]
) -> None:
    """Another worker of the group may know it: it is released, ever more slowly, and not settled."""
    resonate = Resonate(network=wire, group="ts")
    resonate.register(func, name=name, version=version)
    async with resonate, peer(wire) as caller:
        await caller.request(TYPESCRIPT[0].create("version 2", clock() + HOUR))
        await anyio.sleep(600)
        assert (await get_promise(caller.request, "root")).pending

    assert 2 <= wire.counts()["task.release"] <= 26


# --- what is minted below their calls


def servers_of(create: dict[str, Any]) -> Iterator[tuple[str, Rules]]:
    """The servers that accept a call, as far as its id and its origin decide that."""
    id, origin = create["id"], create["tags"].get("resonate:origin", "")
    yield "embedded", EMBEDDED
    if ":" not in id and "." not in origin:
        yield "snapshot", SNAPSHOT
    if "." not in id:
        yield "announced", ANNOUNCED
        yield "specified", SPECIFIED


@pytest.mark.parametrize(
    ("sdk", "name", "rules"),
    [
        pytest.param(sdk, name, rules, id=f"{sdk.name}-{name}-{server}")
        for sdk in SDKS
        for name in ("double", "child", "detached", "dotted")
        if name in sdk.creates
        for server, rules in servers_of(sdk.creates[name])
    ],
)
async def test_children_of_their_calls_have_the_lineage_that_servers_demand(
    clock: Clock, sdk: Sdk, name: str, rules: Rules
) -> None:
    """Below a call of another SDK ids and tags are as servers want them, whatever tags the call itself has."""
    create = sdk.create(name, clock() + HOUR)
    wire = Wire(LocalNetwork(MemoryStore(), clock=clock, rules=rules, safety_sweep=math.inf))
    resonate = Resonate(network=wire, group=sdk.prefix)
    resonate.register(one_of_each, name=f"{sdk.prefix}_double")
    resonate.register(step)
    async with resonate, peer(wire) as caller:
        promise = await settled(caller, create)
        minted = [await get_promise(caller.request, id) for id in wire.created() if id != create.id]

    assert PromiseState.RESOLVED is promise.state
    assert ["root", *[child.id for child in minted]] == content(promise.value)
    local, remote, detached = minted
    below = f"{create.id}{rules.separator if create.id == 'root' else '.'}"
    assert [f"{below}step-1", f"{below}step-2"] == [local.id, remote.id]
    assert detached.id.startswith(f"root{rules.separator}d")
    assert create.id == local.tags["resonate:branch"]
    for child in minted:
        assert "root" == child.tags["resonate:origin"]
        assert child.id.startswith(child.tags["resonate:parent"])


async def one_of_each(ctx: Context, n: int) -> list[str]:
    """Make a call of each kind, and tell their ids."""
    return [ctx.origin_id, await ctx.run(step), await ctx.rpc(step), await ctx.detached(step)]


async def step(info: Info) -> str:
    return info.id


# --- we call, they run


WAYS: Final = pytest.mark.parametrize("inside", [False, True], ids=["from outside", "from a workflow"])


@WAYS
@of_calls((sdk, name) for sdk, name in CALLS if name in sdk.settles)
async def test_our_call_is_what_each_sdk_sends_itself(wire: Wire, sdk: Sdk, name: str, *, inside: bool) -> None:
    """A worker of another SDK finds in our call what its own client would have sent, besides a version."""
    func, args = f"{sdk.prefix}_{name}", arguments(sdk.prefix, name)
    promise, _ = await called(wire, sdk, name, func, *args, inside=inside, bare=sdk.prefix in BARE)

    theirs = content(sdk.create(name, 1).param)
    assert {"func": func, "args": theirs["args"], "version": theirs.get("version", 1)} == content(promise.param)
    tags = {name.removeprefix("resonate:"): value for name, value in promise.tags.items()}
    assert ("global", "poll://any@peers") == (tags["scope"], tags["target"])
    assert ("root", "root", promise.id) == (tags["origin"], tags["parent"], tags["branch"])


@WAYS
@of_calls(ANSWERS)
async def test_the_answer_of_each_sdk_is_read(wire: Wire, sdk: Sdk, name: str, *, inside: bool) -> None:
    """What a worker of another SDK answers, result or error, arrives at whoever called it."""
    _, outcome = await called(wire, sdk, name, "f", inside=inside)

    match name:
        case "fail":
            assert isinstance(outcome, ApplicationError)
            text = "application error: boom" if sdk.prefix == "rs" else "boom"
            assert ("TypeError" if sdk in TYPESCRIPT else "Error", text) == (outcome.name, outcome.message)
            assert (sdk in TYPESCRIPT) == bool(outcome.traceback)
        case "fail_twice":
            assert isinstance(outcome, ApplicationError)
            assert ("AggregateError", "both") == (outcome.name, outcome.message)
            assert isinstance(outcome.data, dict)
            assert ["a", "b"] == [member["message"] for member in outcome.data["errors"]]
        case "throw":
            assert isinstance(outcome, ApplicationError)
            assert {"code": 7} == outcome.data
        case "throw nothing":
            assert isinstance(outcome, ApplicationError)
            assert outcome.data is None
        case _:
            others = {"null": None, "infinity": math.inf, "version 1": 1, "version 2": 2}
            assert (others[name] if name in others else result(sdk.prefix, name)) == outcome


async def called(
    wire: Wire, sdk: Sdk, name: str, func: str, *args: object, inside: bool, bare: bool = False
) -> tuple[Promise, Any]:
    """Call a function of another SDK whose worker answers as it was seen to: its promise then, and what it gave."""
    resonate = Resonate(network=wire, group="ours")
    resonate.register(call_out)
    type_ = float if name == "infinity" else Any
    outcomes = []
    async with resonate, peer(wire) as worker, anyio.create_task_group() as tasks:
        tasks.start_soon(answer, worker, sdk, name)
        try:
            if inside:
                outcomes.append(await resonate.run("root", call_out, func, list(args), bare).returns(type_))
            else:
                call = resonate.rpc("root", func, *args).target("peers").returns(type_)
                outcomes.append(await (call.bare_args() if bare else call))
        except ApplicationError as error:
            outcomes.append(error)
        promise = await get_promise(worker.request, f"root.{func}-1" if inside else "root")
    return promise, outcomes[0]


async def call_out(ctx: Context, func: str, args: list[Any], bare: bool) -> Any:
    call = ctx.rpc(func, *args).target("peers")
    return await (call.bare_args() if bare else call)


@WAYS
@pytest.mark.parametrize(
    ("state", "error"),
    [(PromiseState.CANCELED, DurableCancelledError), (None, DurableTimeoutError)],
    ids=["cancelled", "timed out"],
)
async def test_what_nobody_answers_ends_with_an_error_of_its_own(
    wire: Wire, state: PromiseState | None, error: type[Exception], *, inside: bool
) -> None:
    """A call that somebody cancels, or whose deadline passes, is neither a result nor an error of the function."""

    async def flow(ctx: Context) -> str:
        with pytest.raises(error):
            await ctx.rpc("f").target("peers").timeout(60)
        return "told"

    resonate = Resonate(network=wire, group="ours")
    resonate.register(flow)
    async with resonate, peer(wire) as worker:
        call = resonate.run("root", flow) if inside else resonate.rpc("root", "f").target("peers").timeout(60)
        handle = await call.spawn()
        message = await worker.messages.receive()
        assert isinstance(message, Execute)
        if state is not None:
            await worker.request(PromiseSettle(id=message.task_id, state=state, value=Value()))
        if inside:
            assert "told" == await handle
        else:
            with pytest.raises(error):
                await handle


# --- timers


@of_sdks(sdk for sdk in SDKS if "sleep" in sdk.creates and "resonate:target" in sdk.creates["sleep"]["tags"])
async def test_the_task_of_a_timer_is_dropped(wire: Wire, clock: Clock, sdk: Sdk) -> None:
    """Some SDKs give a sleep a task, which their own workers drop: nothing is to be done before its deadline."""
    create = sdk.create("sleep", clock() + 90_000)
    resonate = Resonate(network=wire, group=create.tags["resonate:target"].removeprefix("poll://any@"))
    resonate.register(step)
    async with resonate, peer(wire) as sleeper:
        began = clock()
        promise = await settled(sleeper, create)
        assert 90 <= (clock() - began) / 1000 <= 92

    assert PromiseState.RESOLVED is promise.state
    counts = wire.counts()
    assert 1 <= counts["task.acquire"] <= 2
    assert {"task.release", "task.fulfill", "task.suspend"}.isdisjoint(counts)


async def test_the_task_of_a_timer_that_has_rung_is_fulfilled(wire: Wire) -> None:
    """Servers may leave that to a worker: it says what is on record."""
    rung = Promise(
        id="root:1",
        state=PromiseState.RESOLVED,
        timeout_at=1,
        created_at=0,
        settled_at=1,
        tags={"resonate:timer": "true", "resonate:target": "poll://any@ours"},
    )
    task = TaskRecord(id=rung.id, state=TaskState.ACQUIRED, version=1, resumes=0, ttl=60_000, pid="p")
    wire.answer = lambda request: (
        Response(status=200, task=task, promise=rung) if isinstance(request, TaskAcquire | TaskFulfill) else None
    )
    resonate = Resonate(network=wire, group="ours")
    resonate.register(step)
    async with resonate:
        wire.inject(Execute("root:1", 0))
        await anyio.sleep(1)

    sent = [exchange.request for exchange in wire.exchanges if exchange.request.kind == "task.fulfill"]
    settle = PromiseSettle(id=rung.id, state=PromiseState.RESOLVED, value=rung.value)
    assert [TaskFulfill(id=rung.id, version=1, action=settle)] == sent
