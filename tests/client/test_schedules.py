"""Schedules: functions that are started again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from attrs import evolve

from resonate_anyio import (
    EncodeError,
    Info,
    InvalidArgument,
    NotFound,
    NotRegistered,
    Resonate,
    Schedule,
    UsageError,
)
from resonate_anyio._protocol import Missed, Request, Response, ScheduleCreate
from resonate_anyio.abc import Connection, Identity, Network
from resonate_anyio.testing import VirtualClock

from .conftest import Make

START_MS = 1_700_000_000_000
"""The first reading of the virtual clock: 2023-11-14 22:13:20 UTC."""

MINUTE_MS = 60_000
FIRST_MS = START_MS - START_MS % MINUTE_MS + MINUTE_MS
"""The first whole minute after that."""

TARGET = {"resonate:target": "poll://any@nobody"}
"""Newer servers fire only what has a target."""


class Runs(list[tuple[Any, ...]]):
    """What the scheduled function was called with."""


async def report(info: Info, *args: Any, **kwargs: Any) -> str:
    """Note the call."""
    info.get_dependency(Runs).append((info.id, args, kwargs))
    return info.id


@pytest.fixture
def runs() -> Runs:
    """What was called."""
    return Runs()


@pytest.fixture
def resonate(resonate: Resonate, runs: Runs) -> Resonate:
    """A client that knows `report`."""
    resonate.register(report)
    return resonate.with_dependency(runs)


async def names(schedules: AsyncIterator[Schedule]) -> list[str]:
    """The ids of the schedules."""
    return [schedule.id async for schedule in schedules]


def at(ms: int) -> datetime:
    """The instant."""
    return datetime.fromtimestamp(ms / 1000, UTC)


@pytest.mark.parametrize("by", [report, "report"], ids=["function", "name"])
async def test_a_schedule_fires(resonate: Resonate, runs: Runs, by: Any) -> None:
    """A scheduled function runs at each whole minute, with its arguments, under an id made of name and instant."""
    async with resonate:
        schedule = await resonate.schedule("minutely", "* * * * *", by, 1, flag=True)
        assert schedule.next_run_at == at(FIRST_MS)
        await anyio.sleep(170)

        expected = [f"minutely-{FIRST_MS + n * MINUTE_MS}" for n in range(3)]
        assert [(id, (1,), {"flag": True}) for id in expected] == runs
        assert expected == [await (await resonate.get(id, str)) for id in expected]
        now = await resonate.schedules.get("minutely")
        assert at(FIRST_MS + 2 * MINUTE_MS) == now.last_run_at
        assert at(FIRST_MS + 3 * MINUTE_MS) == now.next_run_at


async def test_what_was_missed_is_made_up_for(make: Make, runs: Runs) -> None:
    """Occurrences that fell into a pause are fired in order at the next start, with their own instants."""
    resonate = make().with_dependency(runs)
    resonate.register(report)
    async with resonate:
        await resonate.schedule("minutely", "* * * * *", report)
    await anyio.sleep(170)
    assert runs == []
    async with resonate:
        await anyio.sleep(1)

        # started in the same instant, they may run in any order
        assert [f"minutely-{FIRST_MS + n * MINUTE_MS}" for n in range(3)] == sorted(run[0] for run in runs)


@pytest.mark.parametrize(
    ("missed", "late", "fired"),
    [("all", 5, [0, 1, 2]), ("latest", 5, [2]), ("latest", 15, [2]), ("none", 5, [2]), ("none", 15, [])],
)
@pytest.mark.parametrize("by", ["builder", "sub-client"])
async def test_what_is_done_about_what_was_missed(
    make: Make, runs: Runs, clock: VirtualClock, missed: Any, late: int, fired: list[int], by: str
) -> None:
    """A schedule may make up for all that was missed with one run, or with none; ten seconds late is missed."""
    resonate = make().with_dependency(runs)
    resonate.register(report)
    async with resonate:
        if by == "builder":
            made = await resonate.schedule("minutely", "* * * * *", report).missed(missed)
        else:
            made = await resonate.schedules.create(
                "minutely",
                "* * * * *",
                "{{.id}}-{{.timestamp}}",
                3600,
                promise_param={"func": "report", "args": [], "version": 1},
                promise_tags={"resonate:target": "poll://any@default", "resonate:scope": "global"},
                missed=missed,
            )
        assert missed == made.missed
        assert made == await resonate.schedules.get("minutely")
        assert [made] == [one async for one in resonate.schedules.search()]
    await anyio.sleep((FIRST_MS + 2 * MINUTE_MS - clock()) / 1000 + late)
    async with resonate:
        await anyio.sleep(2)
        assert [f"minutely-{FIRST_MS + n * MINUTE_MS}" for n in fired] == sorted(run[0] for run in runs)
        await anyio.sleep(60)
        assert f"minutely-{FIRST_MS + 3 * MINUTE_MS}" in {run[0] for run in runs}
        # The same again is no change.
        assert missed == (await resonate.schedules.get("minutely")).missed


async def test_an_unknown_word_for_what_was_missed(resonate: Resonate) -> None:
    """A word that is none of the three is refused before anything is sent."""
    for word in ("some", None, ["all"]):
        with pytest.raises(InvalidArgument, match="missed must be 'all', 'latest' or 'none'"):
            resonate.schedule("a", "0 0 * * *", report).missed(word)  # type: ignore[arg-type]
    async with resonate:
        with pytest.raises(InvalidArgument, match="got 'some'"):
            await resonate.schedules.create("a", "0 0 * * *", "p", 60, missed="some")  # type: ignore[arg-type]
        assert [] == await names(resonate.schedules.search())


class Unknowing(Network):
    """A network to a server that does not know what a schedule says about what it missed, as a Resonate Server."""

    def __init__(self, inner: Network) -> None:
        self._inner = inner

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        async with self._inner.connect(identity) as connection:
            request = connection.request

            async def without_the_option(asked: Request) -> Response:
                return await request(evolve(asked, missed=Missed.ALL) if isinstance(asked, ScheduleCreate) else asked)

            connection.request = without_the_option  # type: ignore[assignment, method-assign]
            connection.request_within = lambda asked, _: without_the_option(asked)  # type: ignore[assignment, method-assign]
            yield connection


async def test_a_server_that_does_not_know_what_is_missed(network: Network) -> None:
    """It is said, with what to do instead, and no schedule is left that would fire all; one that was there stays."""
    resonate = Resonate(network=Unknowing(network))
    resonate.register(report)
    async with resonate:
        with pytest.raises(UsageError, match="this server does not know missed='latest'") as caught:
            await resonate.schedule("a", "0 0 * * *", report).missed("latest")

        assert "resonate-anyio dev" in str(caught.value)
        assert [] == await names(resonate.schedules.search())
        first = await resonate.schedule("a", "0 0 * * *", report).missed("all")
        with pytest.warns(UserWarning, match="exists already"):
            assert first == await resonate.schedule("a", "0 0 * * *", report).missed("latest")
        assert ["a"] == await names(resonate.schedules.search())


async def test_deleting_stops_it(resonate: Resonate, runs: Runs) -> None:
    """A deleted schedule fires no more; deleting it again says that it is gone."""
    async with resonate:
        schedule = await resonate.schedule("minutely", "* * * * *", report)
        await anyio.sleep(60)
        await schedule.delete()
        await anyio.sleep(300)

        assert len(runs) == 1
        for call in (schedule.delete(), resonate.schedules.delete("minutely"), resonate.schedules.get("minutely")):
            with pytest.raises(NotFound, match="no schedule with the id 'minutely'"):
                await call


async def test_options_reach_what_is_fired(resonate: Resonate) -> None:
    """Timeout, tags, target and version of the builder are those of each run."""
    async with resonate:
        schedule = (
            await resonate.schedule("minutely", "* * * * *", "elsewhere", 1)
            .timeout(timedelta(minutes=5))
            .tags({"team": "x"})
            .target("others")
            .version(3)
        )
        await anyio.sleep(60)
        promise = await resonate.promises.get(f"minutely-{FIRST_MS}")

    assert schedule.promise_timeout == timedelta(minutes=5)
    assert schedule.param == {"func": "elsewhere", "args": [1], "version": 3}
    assert promise.param == schedule.param
    assert timedelta(minutes=5) == promise.timeout_at - promise.created_at
    assert promise.tags["team"] == "x"
    assert promise.tags["resonate:target"] == "poll://any@others"
    assert promise.tags["resonate:scope"] == "global"


async def test_without_options_a_run_gets_one_year_and_the_own_group(make: Make) -> None:
    """The defaults of what is fired."""
    resonate = make(group="mine")
    resonate.register(report)
    async with resonate:
        schedule = await resonate.schedule("a", "0 0 * * *", report)

    assert schedule.promise_timeout == timedelta(days=365)
    assert schedule.tags["resonate:target"] == "poll://any@mine"
    assert schedule.promise_id == "{{.id}}-{{.timestamp}}"


async def test_another_group_runs_it(make: Make, runs: Runs) -> None:
    """A schedule that targets a group is run there, by whoever is there."""
    planner, worker = make(group="planners"), make(group="workers").with_dependency(runs)
    worker.register(report)
    async with planner, worker:
        await planner.schedule("minutely", "* * * * *", "report", "x").target("workers")
        await anyio.sleep(60)

        assert [(f"minutely-{FIRST_MS}", ("x",), {})] == runs


async def test_the_same_schedule_again_is_fine(resonate: Resonate, runs: Runs) -> None:
    """A program that makes its schedules at each start does not make them twice, and is not warned."""
    async with resonate:
        first = await resonate.schedule("minutely", "* * * * *", report, 1)
        assert first == await resonate.schedule("minutely", "* * * * *", report, 1)
        await anyio.sleep(60)

        assert len(runs) == 1


CHANGES: dict[str, Callable[[Resonate], Any]] = {
    "missed": lambda r: r.schedule("a", "0 0 * * *", report, 1).missed("none"),
    "cron": lambda r: r.schedule("a", "0 1 * * *", report, 1),
    "arguments": lambda r: r.schedule("a", "0 0 * * *", report, 2),
    "tags": lambda r: r.schedule("a", "0 0 * * *", report, 1).tags({"team": "x"}),
    "target": lambda r: r.schedule("a", "0 0 * * *", report, 1).target("others"),
    "timeout": lambda r: r.schedule("a", "0 0 * * *", report, 1).timeout(5),
    "version": lambda r: r.schedule("a", "0 0 * * *", "report", 1).version(2),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_an_existing_schedule_that_differs_warns(resonate: Resonate, change: str) -> None:
    """The first one stays; the warning names it, says how to change it, and points at the line that made the call."""
    async with resonate:
        first = await resonate.schedule("a", "0 0 * * *", report, 1)
        call = CHANGES[change](resonate)
        with pytest.warns(UserWarning, match="exists already") as caught:
            second = await call

        assert first == second == await resonate.schedules.get("a")

    assert "schedules.delete('a')" in str(caught[0].message)
    assert [__file__] == [warning.filename for warning in caught]


@pytest.mark.parametrize("cron", ["0 9 * * 1", "0 9 * * 1-5", "0 9 * * 7,2"])
async def test_weekday_numbers_warn(resonate: Resonate, cron: str) -> None:
    """Numbers of weekdays mean other days here than in most crons: the warning says so, at the line of the call."""
    with pytest.warns(UserWarning, match="1 = Sunday") as caught:
        call = resonate.schedule("a", cron, report)
    async with resonate:
        await call

    assert repr(cron) in str(caught[0].message)
    assert "mon" in str(caught[0].message)
    assert [__file__] == [warning.filename for warning in caught]


async def test_weekday_numbers_warn_in_the_sub_client_too(resonate: Resonate) -> None:
    """`schedules.create` gives the same warning, at its own caller's line."""
    async with resonate:
        with pytest.warns(UserWarning, match="1 = Sunday") as caught:
            await resonate.schedules.create("a", "0 9 * * 2", "p", 60, promise_tags=TARGET)

    assert [__file__] == [warning.filename for warning in caught]


@pytest.mark.parametrize("cron", ["", "* * * *", "61 * * * *", "0 9 * * mon-sun", "often", "@reboot", None, 5])
async def test_a_bad_cron_expression_teaches(resonate: Resonate, cron: Any) -> None:
    """What is no cron expression is shown, with the fields in order and an example, before anything is sent."""
    async with resonate:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: resonate.schedule("a", cron, report),
            lambda: resonate.schedules.create("a", cron, "p", 60),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument) as caught:
                await call()

            assert repr(cron) in str(caught.value)
            assert "minute hour day month weekday" in str(caught.value)
            assert "'0 9 * * mon-fri'" in str(caught.value)
            assert "are expected" not in str(caught.value)
        assert [] == await names(resonate.schedules.search())


@pytest.mark.parametrize("name", ["", "a.b", "a:b", None])
async def test_unusable_names_are_refused(resonate: Resonate, name: Any) -> None:
    """A schedule's name begins the ids that it fires: it is not empty and has no separator."""
    async with resonate:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: resonate.schedule(name, "* * * * *", report),
            lambda: resonate.schedules.create(name, "* * * * *", "p", 60),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument) as caught:
                await call()

            assert repr(name) in str(caught.value)


def test_an_unregistered_function_is_refused(resonate: Resonate) -> None:
    """A function that no worker could find is refused at once; a name may be known elsewhere."""

    async def unknown() -> None: ...

    with pytest.raises(NotRegistered, match="unknown"):
        resonate.schedule("a", "* * * * *", unknown)


async def test_arguments_are_checked_at_once(resonate: Resonate) -> None:
    """A call that the function could not take is refused when the schedule is made, not when it fires."""

    @resonate.register
    async def one(number: int) -> None: ...

    with pytest.raises(InvalidArgument, match="'one'"):
        resonate.schedule("a", "* * * * *", one, 1, 2)  # type: ignore[call-overload]
    async with resonate:
        with pytest.raises(EncodeError, match="argument 'number' of 'one'"):
            await resonate.schedule("a", "* * * * *", one, "one")  # type: ignore[call-overload]
        assert [] == await names(resonate.schedules.search())


async def test_the_sub_client_makes_any_promise(resonate: Resonate) -> None:
    """`schedules.create` fires plain promises, from a template, with param and tags."""
    async with resonate:
        made = await resonate.schedules.create(
            "a", "* * * * *", "{{.id}}/{{.timestamp}}", 5, promise_param={"x": 1}, promise_tags={**TARGET, "team": "x"}
        )
        assert made == await resonate.schedules.get("a")
        await anyio.sleep(62)
        promise = await resonate.promises.get(f"a/{FIRST_MS}")

    assert ("a", "* * * * *", {"x": 1}, {**TARGET, "team": "x"}) == (made.id, made.cron, made.param, made.tags)
    assert (timedelta(seconds=5), at(START_MS), None) == (made.promise_timeout, made.created_at, made.last_run_at)
    assert ({"x": 1}, "x") == (promise.param, promise.tags["team"])
    assert timedelta(seconds=5) == promise.timeout_at - promise.created_at


async def test_search_finds_all_schedules(resonate: Resonate) -> None:
    """A search goes over all pages, in the order of names; tags are those of what is fired."""
    expected = [f"s{number:03}" for number in range(123)]
    async with resonate:
        for name in reversed(expected):
            tags = {**TARGET, "team": "x"} if name.endswith("7") else TARGET
            await resonate.schedules.create(name, "0 0 * * *", "{{.id}}", 60, promise_tags=tags)

        assert expected == await names(resonate.schedules.search())
        assert [name for name in expected if name.endswith("7")] == await names(
            resonate.schedules.search(tags={"team": "x"})
        )


async def test_a_schedule_survives_a_restart(resonate: Resonate, runs: Runs) -> None:
    """Schedules are on record: the next start fires them without being told of them."""
    async with resonate:
        await resonate.schedule("minutely", "* * * * *", report)
    async with resonate:
        await anyio.sleep(60)

    assert [f"minutely-{FIRST_MS}"] == [run[0] for run in runs]
