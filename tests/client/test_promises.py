"""`resonate.promises`: promises by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from resonate_anyio import (
    ApplicationError,
    Context,
    DurableCancelledError,
    DurablePromise,
    DurableTimeoutError,
    EncodeError,
    InvalidArgument,
    NetworkError,
    NotFound,
    Resonate,
)
from resonate_anyio._protocol import PromiseSettle, Request, Response
from resonate_anyio.abc import Clock, Network

from ..engine.harness import Wire

LATER = datetime(2040, 1, 1, tzinfo=UTC)


def now(clock: Clock) -> datetime:
    """The present instant."""
    return datetime.fromtimestamp(clock() / 1000, UTC)


async def ids(resonate: Resonate, **filters: Any) -> list[str]:
    """The ids that a search gives."""
    return [promise.id async for promise in resonate.promises.search(**filters)]


async def test_a_new_promise_is_pending(resonate: Resonate, clock: Clock) -> None:
    """A promise shows what it was made with, and that nobody has settled it."""
    async with resonate:
        made = await resonate.promises.create("a", LATER, {"ask": [1, 2]}, {"team": "x"})

        assert made == await resonate.promises.get("a")
        assert made == DurablePromise(
            id="a",
            state="pending",
            param={"ask": [1, 2]},
            value=None,
            tags={"team": "x"},
            timeout_at=LATER,
            created_at=now(clock),
            settled_at=None,
        )


async def test_deadlines_are_datetimes_or_milliseconds(resonate: Resonate) -> None:
    """Both name the same instant; a naive datetime names none and is refused."""
    async with resonate:
        by_ms = await resonate.promises.create("a", int(LATER.timestamp() * 1000))
        by_datetime = await resonate.promises.create("b", LATER.astimezone())

        assert LATER == by_ms.timeout_at == by_datetime.timeout_at
        with pytest.raises(InvalidArgument, match="time zone"):
            await resonate.promises.create("c", LATER.replace(tzinfo=None))
        assert ["a", "b"] == await ids(resonate)


async def test_creating_a_promise_again_gives_the_first(resonate: Resonate) -> None:
    """The id decides: whatever the second call says, the first promise stays."""
    async with resonate:
        first = await resonate.promises.create("a", LATER, 1, {"team": "x"})

        assert first == await resonate.promises.create("a", LATER + timedelta(1), 2, {"team": "y"})


SETTLE: dict[str, tuple[Callable[[Resonate, Any], Awaitable[DurablePromise]], str]] = {
    "settle resolved": (lambda r, v: r.promises.settle("a", "resolved", v), "resolved"),
    "settle rejected": (lambda r, v: r.promises.settle("a", "rejected", v), "rejected"),
    "settle rejected_canceled": (lambda r, v: r.promises.settle("a", "rejected_canceled", v), "rejected_canceled"),
    "resolve": (lambda r, v: r.promises.resolve("a", v), "resolved"),
    "reject": (lambda r, v: r.promises.reject("a", v), "rejected"),
}


@pytest.mark.parametrize("how", SETTLE)
async def test_settling_records_state_value_and_instant(resonate: Resonate, clock: Clock, how: str) -> None:
    """Each way of settling gives the settled promise, as `get` shows it from then on."""
    settle, state = SETTLE[how]
    async with resonate:
        await resonate.promises.create("a", LATER, "param")
        await anyio.sleep(5)
        settled = await settle(resonate, {"some": "value"})

        assert settled == await resonate.promises.get("a")

    assert (state, {"some": "value"}, "param") == (settled.state, settled.value, settled.param)
    assert settled.settled_at == now(clock)
    assert settled.settled_at == settled.created_at + timedelta(seconds=5)


@pytest.mark.parametrize("how", SETTLE)
async def test_the_first_settlement_wins(resonate: Resonate, how: str) -> None:
    """Settling a settled promise changes nothing and gives it as it is."""
    settle, _ = SETTLE[how]
    async with resonate:
        await resonate.promises.create("a", LATER)
        first = await resonate.promises.resolve("a", "first")

        assert first == await settle(resonate, "second")
        assert first == await resonate.promises.cancel("a")
        assert first == await resonate.promises.get("a")


@pytest.mark.parametrize("how", SETTLE)
async def test_who_settled_it_is_told(resonate: Resonate, how: str) -> None:
    """Of several settlements, the same value among them, exactly one is told that it has settled the promise."""
    settle, _ = SETTLE[how]
    async with resonate:
        assert not (await resonate.promises.create("a", LATER)).settled_here
        told: list[bool] = []

        async def one(value: object) -> None:
            told.append((await settle(resonate, value)).settled_here)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one, "same")
        await one("same")
        await one("other")

        assert [False] * 4 + [True] == sorted(told)
        assert not (await resonate.promises.get("a")).settled_here
        assert not (await resonate.promises.cancel("a")).settled_here


async def test_a_settlement_that_is_sent_twice_is_the_same(network: Network) -> None:
    """A request whose answer was lost is sent again, and finds itself: it was this call that settled the promise."""
    wire = Wire(network)
    lost = 0

    async def lose(request: Request, _: Response) -> None:
        nonlocal lost
        if isinstance(request, PromiseSettle) and lost == 0:
            lost += 1
            raise NetworkError(request.kind, request.id, "the answer was lost")

    wire.after = lose
    async with Resonate(network=wire) as resonate:
        await resonate.promises.create("a", LATER)
        assert (await resonate.promises.resolve("a", 1)).settled_here
    assert lost == 1


async def test_waiting_for_a_promise_by_hand(resonate: Resonate) -> None:
    """`get(id, T)` gives the value as a `T`, or raises what it was rejected with."""
    async with resonate:
        for id in ("resolved", "rejected", "cancelled", "late"):
            await resonate.promises.create(id, LATER)
        await resonate.promises.resolve("resolved", LATER)
        await resonate.promises.reject("rejected", ValueError("no"))
        await resonate.promises.cancel("cancelled")

        assert await (await resonate.get("resolved", datetime)) == LATER
        with pytest.raises(ValueError, match="no"):
            await (await resonate.get("rejected"))
        with pytest.raises(DurableCancelledError, match="'cancelled'"):
            await (await resonate.get("cancelled"))
        with pytest.raises(DurableTimeoutError, match="'late'"):
            await (await resonate.get("late"))


async def test_rejecting_with_an_exception_shows_name_and_message(resonate: Resonate) -> None:
    """An exception is recorded in the form that every SDK reads."""
    async with resonate:
        await resonate.promises.create("a", LATER)
        promise = await resonate.promises.reject("a", KeyError("missing"))

    assert promise.value["name"] == "KeyError"
    assert promise.value["message"] == "'missing'"


async def test_rejecting_with_data_is_an_application_error(resonate: Resonate) -> None:
    """Any JSON will do, and is there for whoever catches the error."""
    async with resonate:
        await resonate.promises.create("a", LATER)
        await resonate.promises.reject("a", {"message": "no", "code": 7})
        with pytest.raises(ApplicationError, match="no") as caught:
            await (await resonate.get("a"))

    assert caught.value.data == {"message": "no", "code": 7}


async def test_settling_releases_a_workflow(resonate: Resonate) -> None:
    """A workflow that waits for a person goes on when the promise is settled."""

    @resonate.register
    async def ask(ctx: Context) -> str:
        approval = await ctx.promise(param="please").returns(datetime).spawn()
        return f"approved at {(await approval).year}"

    async with resonate:
        handle = await resonate.run("a", ask).spawn()
        await anyio.sleep(1)
        assert (await resonate.promises.get("a.promise-1")).param == "please"
        await resonate.promises.resolve("a.promise-1", LATER)

        assert await handle == "approved at 2040"


async def test_a_deadline_rejects_and_a_timer_resolves(resonate: Resonate) -> None:
    """What nobody settles in time is `rejected_timedout`; a promise tagged as a timer is resolved then."""
    async with resonate:
        soon = datetime.fromtimestamp(1_700_000_005, UTC)
        await resonate.promises.create("late", soon)
        await resonate.promises.create("timer", soon, tags={"resonate:timer": "true"})
        assert (await (await resonate.get("timer"))) is None
        late, timer = await resonate.promises.get("late"), await resonate.promises.get("timer")

    assert ("rejected_timedout", "resolved") == (late.state, timer.state)
    assert soon == late.settled_at == timer.settled_at


async def test_search_goes_over_all_pages(resonate: Resonate) -> None:
    """A search gives every promise once, in the order of ids, however many there are."""
    expected = [f"p{number:03}" for number in range(257)]
    async with resonate:
        for id in reversed(expected):
            await resonate.promises.create(id, LATER)

        assert expected == await ids(resonate)


async def test_search_filters(resonate: Resonate) -> None:
    """A search may be for a state, for tags that must all be there, or both."""
    async with resonate:
        await resonate.promises.create("a", LATER, tags={"team": "x", "level": "1"})
        await resonate.promises.create("b", LATER, tags={"team": "x", "level": "2"})
        await resonate.promises.create("c", LATER, tags={"team": "y"})
        await resonate.promises.create("d", 1_700_000_005_000)
        await resonate.promises.resolve("b")
        await resonate.promises.reject("c")
        await anyio.sleep(10)
        # Newer servers leave a deadline that has passed at that until somebody asks for the promise itself.
        assert "rejected_timedout" == (await resonate.promises.get("d")).state

        assert ["a", "b"] == await ids(resonate, tags={"team": "x"})
        assert ["a"] == await ids(resonate, tags={"team": "x", "level": "1"})
        assert [] == await ids(resonate, tags={"team": "y", "level": "1"})
        assert ["a"] == await ids(resonate, state="pending")
        assert ["b"] == await ids(resonate, state="resolved")
        assert ["c"] == await ids(resonate, state="rejected")
        assert ["d"] == await ids(resonate, state="rejected_timedout")
        assert [] == await ids(resonate, state="rejected_canceled")
        assert ["b"] == await ids(resonate, state="resolved", tags={"team": "x"})


async def test_a_search_may_be_left_in_the_middle(resonate: Resonate) -> None:
    """Breaking out of the loop leaves nothing behind."""
    async with resonate:
        for id in "abc":
            await resonate.promises.create(id, LATER)
        search = resonate.promises.search()
        async for promise in search:
            assert promise.id == "a"
            break
        await search.aclose()  # type: ignore[attr-defined]

        assert ["a", "b", "c"] == await ids(resonate)


MISSING: dict[str, Callable[[Resonate], Awaitable[Any]]] = {
    "get": lambda r: r.promises.get("a"),
    "settle": lambda r: r.promises.settle("a", "resolved"),
    "resolve": lambda r: r.promises.resolve("a"),
    "reject": lambda r: r.promises.reject("a"),
    "cancel": lambda r: r.promises.cancel("a"),
}


@pytest.mark.parametrize("call", MISSING)
async def test_missing_promises_are_named(resonate: Resonate, call: str) -> None:
    """What is not there raises `NotFound` with the id."""
    async with resonate:
        with pytest.raises(NotFound) as caught:
            await MISSING[call](resonate)

    assert ("promise", "a") == (caught.value.what, caught.value.id)
    assert "'a'" in str(caught.value)
    assert ("resonate.promises.create('a'" in str(caught.value)) == (call != "get")


@pytest.mark.parametrize("state", ["pending", "rejected_timedout", "done", "", None])
async def test_unusable_states_are_refused(resonate: Resonate, state: Any) -> None:
    """A promise is settled as one of three; the error names them, and nothing changes."""
    async with resonate:
        await resonate.promises.create("a", LATER)
        with pytest.raises(InvalidArgument) as caught:
            await resonate.promises.settle("a", state)
        assert (await resonate.promises.get("a")).state == "pending"

    assert "resolved, rejected, rejected_canceled" in str(caught.value)
    assert repr(state) in str(caught.value)


@pytest.mark.parametrize("state", ["done", "", "PENDING"])
async def test_unusable_states_of_a_search_are_refused(resonate: Resonate, state: Any) -> None:
    """A search for a state that there is none of names those that there are."""
    async with resonate:
        with pytest.raises(InvalidArgument, match="pending, resolved, rejected"):
            await ids(resonate, state=state)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("", LATER), "''"),
        ((7, LATER), "7"),
        (("a", "tomorrow"), "'tomorrow'"),
        (("a", 1.5), "1.5"),
        (("a", True), "True"),
        (("a", LATER, None, {"team": 1}), "tags"),
        (("a", LATER, None, ["team"]), "tags"),
        (("a", -1), "-1"),
    ],
)
async def test_unusable_arguments_are_refused(resonate: Resonate, arguments: tuple[Any, ...], hint: str) -> None:
    """Each unusable argument is named, and no promise is made."""
    async with resonate:
        with pytest.raises(InvalidArgument) as caught:
            await resonate.promises.create(*arguments)
        assert [] == await ids(resonate)

    assert hint in str(caught.value)


async def test_values_that_json_cannot_hold_are_refused(resonate: Resonate) -> None:
    """The promise stays as it was."""
    async with resonate:
        with pytest.raises(EncodeError, match="object"):
            await resonate.promises.create("a", LATER, object())
        await resonate.promises.create("a", LATER)
        with pytest.raises(EncodeError, match="object"):
            await resonate.promises.resolve("a", object())

        assert (await resonate.promises.get("a")).state == "pending"


async def test_cancelling_with_a_value_ends_the_execution_too(resonate: Resonate) -> None:
    """However a running execution is cancelled, its code ends and what is below it is settled."""

    @resonate.register
    async def nap(ctx: Context) -> None:
        await ctx.sleep(1000)

    async with resonate:
        await resonate.run("a", nap).spawn()
        await anyio.sleep(1)
        await resonate.promises.settle("a", "rejected_canceled", "enough")

        # The nap, its sleep, and what was to wake it.
        assert ["rejected_canceled"] * 3 == [promise.state async for promise in resonate.promises.search()]
        assert (await resonate.promises.get("a")).value == "enough"


async def test_settling_a_running_execution_ends_its_code(resonate: Resonate, clock: Clock) -> None:
    """An outcome from outside is the outcome: whoever waits gets it, and the code is put away."""
    ended = anyio.Event()

    async def wait() -> None:
        try:
            await anyio.sleep(10_000)
        finally:
            ended.set()

    @resonate.register
    async def flow(ctx: Context) -> str:
        await ctx.run(wait)
        return "from inside"

    async with resonate:
        handle = await resonate.run("a", flow).spawn()
        await anyio.sleep(1)
        settled = await resonate.promises.resolve("a", "from outside")

        assert ended.is_set()
        assert await handle == "from outside"
        assert settled.settled_at == now(clock)
        assert (await resonate.promises.get("a.wait-1")).state == "rejected_canceled"


async def test_cancelling_a_local_call_ends_its_code(resonate: Resonate) -> None:
    """A call that runs inside of an execution can be cancelled by its id; its caller gets the error."""
    ended: list[str] = []

    async def step() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("step")

    async def flow(ctx: Context) -> str:
        with pytest.raises(DurableCancelledError, match=r"a\.step-1.*from outside"):
            await ctx.run(step)
        return "went on"

    resonate.register(flow)
    async with resonate:
        handle = await resonate.run("a", flow).spawn()
        await anyio.sleep(1)
        begun = anyio.current_time()
        await resonate.promises.cancel("a.step-1")

        assert "went on" == await handle
        assert begun == anyio.current_time()
    assert ["step"] == ended
