"""Calls between workers of one process that share a network."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

import anyio
import pytest
from anyio import move_on_after

from resonate_anyio import Context, Info, InvalidArgument, NotRegistered, Resonate
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore

from .conftest import Make

Worker: TypeAlias = Callable[..., Resonate]


class Name(str):
    """Which worker this is."""

    __slots__ = ()


async def where(info: Info, text: str = "") -> str:
    """Say who runs this."""
    return f"{text}{info.get_dependency(Name)}"


@pytest.fixture
def worker(make: Make) -> Worker:
    """Make a client that knows its name and `where`."""

    def worker(name: str, **settings: Any) -> Resonate:
        resonate = make(**settings).with_dependency(Name(name))
        resonate.register(where)
        return resonate

    return worker


async def test_rpc_runs_on_the_target(worker: Worker) -> None:
    """A call with a target is run by a worker of that group, one without by the own group."""
    async with worker("a", group="left") as left, worker("b", group="right"):
        assert await left.rpc("1", where) == "a"
        assert await left.rpc("2", where, "x").target("right") == "xb"
        assert await left.rpc("3", "where").target("right") == "b"
        assert await left.rpc("4", where).target("poll://any@right") == "b"
        assert await left.run("5", where).target("left") == "a"


async def test_one_process_may_be_addressed(worker: Worker) -> None:
    """An address may name a process within a group."""
    async with worker("a", pid="one") as one, worker("b", pid="two"), worker("c", pid="three"):
        for name, pid in (("a", "one"), ("b", "two"), ("c", "three")):
            assert await one.rpc(name, where).target(f"poll://uni@default/{pid}") == name


async def test_workflows_call_across_groups(worker: Worker) -> None:
    """`ctx.rpc` reaches other groups too, in parallel, and their results and errors come back."""
    left, right = worker("a", group="left"), worker("b", group="right")

    @right.register
    async def fail(text: str) -> None:
        raise LookupError(text)

    @left.register
    async def flow(ctx: Context) -> list[str]:
        calls = [await ctx.rpc(where, str(n)).target("right").spawn() for n in range(3)]
        with pytest.raises(LookupError, match="lost"):
            await ctx.rpc("fail", "lost").target("right")
        return [*[await call for call in calls], await ctx.run(where)]

    async with left, right:
        assert await left.run("a", flow) == ["0b", "1b", "2b", "a"]


async def test_a_call_waits_for_its_worker(worker: Worker) -> None:
    """A call to a group with nobody in it waits until somebody comes."""
    async with worker("a", group="left") as left:
        handle = await left.rpc("1", where).target("right").spawn()
        with move_on_after(3600) as scope:
            await handle
        assert scope.cancelled_caught
        async with worker("b", group="right"):
            assert await handle == "b"


async def test_a_worker_takes_over_from_one_that_left(worker: Worker) -> None:
    """What a stopped worker did not finish is continued by another of its group, finished steps aside."""
    steps: list[str] = []

    async def step(info: Info) -> str:
        steps.append(info.get_dependency(Name))
        return info.get_dependency(Name)

    async def flow(ctx: Context) -> list[str]:
        first = await ctx.run(step)
        await ctx.sleep(60)
        return [first, await ctx.run(step)]

    first, second = worker("a"), worker("b")
    for resonate in (first, second):
        resonate.register(flow)
    async with second:
        async with first:
            await first.run("1", flow).spawn()
            await anyio.sleep(1)
        assert await second.rpc("1", flow) == ["a", "b"]

    assert steps == ["a", "b"]


async def test_one_worker_runs_each_call_once(worker: Worker) -> None:
    """Many calls to a group of several workers run once each, whoever takes them."""
    runs: list[int] = []

    async def note(number: int) -> int:
        runs.append(number)
        await anyio.sleep(1)
        return number

    workers = [worker(str(n)) for n in range(3)]
    for resonate in workers:
        resonate.register(note)
    async with workers[0], workers[1], workers[2]:
        handles = [await workers[0].rpc(str(n), note, n).spawn() for n in range(20)]
        assert list(range(20)) == [await handle for handle in handles]

    assert list(range(20)) == sorted(runs)


async def test_a_worker_that_does_not_know_the_function_leaves_it(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """A call of a name that a worker does not know is given back, with a warning, for a worker that does."""
    ignorant, knowing = worker("a", group="g"), worker("b", group="g")

    @knowing.register
    async def special() -> str:
        return "done"

    async with ignorant:
        handle = await ignorant.rpc("1", "special").spawn()
        await anyio.sleep(10)
        assert not await handle.done()
        async with knowing:
            assert await handle == "done"

    assert "'special (version 1)' is not registered" in caplog.text


async def test_arguments_that_do_not_fit_are_left_for_another_worker(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """A call whose arguments the function cannot take is given back, with a warning that says why."""
    async with worker("a") as resonate:
        handle = await resonate.rpc("1", "where", 7).spawn()
        await anyio.sleep(10)
        assert not await handle.done()
        await handle.cancel()

    assert "argument 'text' of 'where'" in caplog.text


async def test_options_reach_the_promise(worker: Worker) -> None:
    """Timeout, tags and target of a root are on its record; tags of the protocol cannot be overruled."""
    async with worker("a", group="g") as resonate:
        handle = (
            await resonate.rpc("1", where)
            .timeout(timedelta(minutes=5))
            .tags({"team": "x"})
            .tags({"level": "1", "scope": "mine"})
            .target("nobody")
            .spawn()
        )
        promise = await resonate.promises.get("1")
        await handle.cancel()

    assert timedelta(minutes=5) == promise.timeout_at - promise.created_at
    assert ("x", "1", "global") == tuple(promise.tags[tag] for tag in ("team", "level", "resonate:scope"))
    assert promise.tags["resonate:target"] == "poll://any@nobody"
    assert promise.tags["resonate:origin"] == "1"


async def test_without_a_timeout_a_root_gets_one_year(worker: Worker) -> None:
    """The default deadline."""
    async with worker("a") as resonate:
        await resonate.run("1", where)
        promise = await resonate.promises.get("1")

    assert timedelta(days=365) == promise.timeout_at - promise.created_at


OPTIONS: list[tuple[str, Any, str]] = [
    ("timeout", -1, "-1"),
    ("timeout", "5", "'5'"),
    ("timeout", None, "None"),
    ("tags", {"team": 1}, "1"),
    ("tags", ["team"], "team"),
    ("target", "", "''"),
    ("target", "a group", "'a group'"),
    ("target", 5, "5"),
]


@pytest.mark.parametrize(("option", "value", "hint"), OPTIONS)
def test_unusable_options_are_refused(worker: Worker, option: str, value: Any, hint: str) -> None:
    """Each option refuses what it cannot mean, when it is given, and the refused call does not warn on top of it."""
    resonate = worker("a")
    for call in (resonate.run("1", where), resonate.rpc("2", where), resonate.schedule("s", "@daily", where)):
        with pytest.raises(InvalidArgument) as caught:
            getattr(call, option)(value)

        assert hint in str(caught.value)


def test_a_function_has_to_be_registered_to_be_called_by_it(worker: Worker) -> None:
    """A function object that is not registered here is refused before any request; a name may be known elsewhere."""

    async def unknown() -> None: ...

    resonate = worker("a")
    for verb in (resonate.run, resonate.rpc):
        with pytest.raises(NotRegistered, match="Registered: where"):
            verb("1", unknown)


async def test_two_networks_do_not_meet() -> None:
    """Clients share work only if they share a network."""
    first, second = (Resonate(network=LocalNetwork(MemoryStore())) for _ in range(2))
    async with first, second:
        await first.promises.create("a", 2_000_000_000_000)

        assert [] == [promise async for promise in second.promises.search()]
