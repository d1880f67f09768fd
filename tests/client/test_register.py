"""Making functions known, before there is any event loop."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from resonate_anyio import (
    AlreadyRegistered,
    Context,
    Info,
    InvalidArgument,
    InvalidFunction,
    NotRegistered,
    Resonate,
    durable,
)
from resonate_anyio.abc import Network

from .conftest import Make


def plain(number: int) -> int:
    """Return the next number."""
    return number + 1


async def other(number: int) -> int:
    """Return the number after the next."""
    return number + 2


def refused(resonate: Resonate, func: Any, **settings: Any) -> str:
    """What is said about a function that cannot be registered."""
    with pytest.raises(InvalidFunction) as caught:
        resonate.register(func, **settings)

    return str(caught.value)


def test_register_returns_the_function(resonate: Resonate) -> None:
    """Called or as a decorator, with or without arguments: the function itself comes back, to be called as before."""
    assert resonate.register(plain) is plain
    assert resonate.register(plain, name="called", version=2) is plain
    assert resonate.register()(plain) is plain
    assert resonate.register(name="decorated")(plain) is plain


async def test_all_ways_of_registering_make_the_name_known(resonate: Resonate) -> None:
    """What was registered can be run by the name that it was given."""

    @resonate.register
    def bare() -> str:
        return "bare"

    @resonate.register()
    def empty() -> str:
        return "empty"

    @resonate.register(name="named")
    def whatever() -> str:
        return "named"

    @resonate.register
    @durable(name="from-durable")
    def something() -> str:
        return "from-durable"

    @resonate.register(name="register-wins")
    @durable(name="durable-loses")
    def anything() -> str:
        return "register-wins"

    async with resonate:
        for name in ("bare", "empty", "named", "from-durable", "register-wins"):
            assert await resonate.run(name, name) == name
        with pytest.raises(NotRegistered, match="durable-loses"):
            resonate.run("x", "durable-loses")


def test_registering_twice_is_fine(resonate: Resonate) -> None:
    """The same function under the same name changes nothing, e.g. when a module is set up twice."""
    resonate.register(plain)

    assert resonate.register(plain) is plain


def test_two_functions_of_one_name_are_refused(resonate: Resonate) -> None:
    """A second function under a name and version is refused, with both in the error, and the way out."""
    resonate.register(plain)

    with pytest.raises(AlreadyRegistered) as caught:
        resonate.register(other, name="plain")

    assert ("plain", 1) == (caught.value.name, caught.value.version)
    assert "'plain' version 1" in str(caught.value)
    assert "name=" in str(caught.value)
    assert "version=" in str(caught.value)


async def test_a_refused_function_replaces_nothing(resonate: Resonate) -> None:
    """After the refusal the first function is still the one that runs."""
    resonate.register(plain)
    with pytest.raises(AlreadyRegistered):
        resonate.register(other, name="plain")

    async with resonate:
        assert await resonate.run("a", "plain", 1) == 2


def test_two_versions_of_one_name_live_together(resonate: Resonate) -> None:
    """A name may be registered once for each version."""
    resonate.register(plain, version=1)
    resonate.register(other, name="plain", version=2)


def test_an_unnamed_lambda_is_refused(resonate: Resonate) -> None:
    """A lambda has no name to be found by after a crash; with one given it is as good as any."""
    assert "name=" in refused(resonate, lambda: 1)

    resonate.register(lambda: 1, name="one")


def test_an_unnamed_partial_is_refused(resonate: Resonate) -> None:
    """The same holds for a partial."""
    assert "name=" in refused(resonate, partial(plain, 1))

    resonate.register(partial(plain, 1), name="two")


def sync_workflow(ctx: Context) -> None:
    """Cannot await its durable calls."""


async def unannotated(ctx, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Means a workflow, most likely, but does not say so."""


async def unannotated_info(info):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Means a leaf with metadata, but does not say so."""


async def context_second(number: int, ctx: Context) -> None:
    """Has the context where nobody looks for it."""


async def info_by_keyword(*, info: Info) -> None:
    """Has the info where it cannot be passed."""


def generator() -> Iterator[int]:
    """Yields."""
    yield 1


async def async_generator() -> AsyncIterator[int]:
    """Yields too."""
    yield 1


@pytest.mark.parametrize(
    ("func", "hint"),
    [
        (sync_workflow, "`async def`"),
        (unannotated, "`ctx: Context`"),
        (unannotated_info, "`info: Info`"),
        (context_second, "only the first parameter"),
        (info_by_keyword, "plain first parameter"),
        (generator, "generator"),
        (async_generator, "generator"),
        (int, "class"),
        (7, "callable"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_impossible_functions_are_refused_with_the_fix(resonate: Resonate, func: Any, hint: str) -> None:
    """What cannot be a durable function is refused when it is registered, by name and with what to write instead."""
    text = refused(resonate, func)

    assert hint in text
    assert getattr(func, "__name__", repr(func)) in text


def test_a_coroutine_object_is_refused(resonate: Resonate) -> None:
    """`register(func())` is told that it called the function, without a second warning about a forgotten await."""
    text = refused(resonate, other(1))

    assert "got a coroutine" in text
    assert "other" in text


@pytest.mark.parametrize(
    ("settings", "hint"), [({"name": ""}, "''"), ({"name": 3}, "3"), ({"version": 0}, "0"), ({"version": "2"}, "'2'")]
)
def test_unusable_names_and_versions_are_refused(resonate: Resonate, settings: dict[str, Any], hint: str) -> None:
    """A name is text that is not empty, a version counts from 1."""
    with pytest.raises(InvalidArgument) as caught:
        resonate.register(plain, **settings)

    assert hint in str(caught.value)


def test_the_name_given_as_a_string_is_refused(resonate: Resonate) -> None:
    """`@resonate.register("name")` is told to use the keyword."""
    with pytest.raises((InvalidArgument, InvalidFunction), match="name="):
        resonate.register("name")  # type: ignore[call-overload]


class Pool:
    """Something that workflows need and that is no argument."""

    def __init__(self, size: int) -> None:
        self.size = size


class BigPool(Pool):
    """A kind of it."""


async def from_context(ctx: Context) -> int:
    """Ask for it as a workflow."""
    return ctx.get_dependency(Pool).size + await ctx.run(from_info)


async def from_info(info: Info) -> int:
    """Ask for it as a leaf."""
    return info.get_dependency(Pool).size


@pytest.mark.parametrize("give", [lambda r: r.with_dependency(Pool(3)), lambda r: r.with_dependency(BigPool(3), Pool)])
async def test_dependencies_reach_workflows_and_leaves(
    resonate: Resonate, give: Callable[[Resonate], Resonate]
) -> None:
    """An object given with `with_dependency` is there in every durable function, by its type or a named one."""
    assert give(resonate) is resonate

    resonate.register(from_context)
    async with resonate:
        assert await resonate.run("a", from_context) == 6


@pytest.mark.parametrize("func", [from_context, from_info])
async def test_a_missing_dependency_teaches(make: Make, func: Callable[..., Awaitable[int]]) -> None:
    """Who asks for what nobody gave is told how to give it, and what there is."""
    resonate = make().with_dependency("text")
    resonate.register(func)
    async with resonate:
        with pytest.raises(RuntimeError) as caught:
            await resonate.run("a", func)

    assert "Pool" in str(caught.value)
    assert "with_dependency(" in str(caught.value)
    assert re.search(r"Known: (builtins\.)?str", str(caught.value))


def test_a_dependency_that_is_not_of_its_kind_is_refused(resonate: Resonate) -> None:
    """The kind that is named has to fit the object."""
    with pytest.raises(RuntimeError, match="Pool"):
        resonate.with_dependency("text", Pool)


async def test_no_functions_no_work(network: Network) -> None:
    """An object without functions takes part as a client: what its group is sent for goes to others, at once."""

    async def double(number: int) -> int:
        return 2 * number

    worker = Resonate(network=network, pid="worker")
    worker.register(double, name="double")
    async with Resonate(network=network, pid="client") as client, worker:
        with anyio.fail_after(1):
            for number in range(10):
                assert 2 * number == await client.rpc(f"d-{number}", "double", number)
