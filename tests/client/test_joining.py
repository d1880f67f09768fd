"""The same id a second time: joins, warns, or raises."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from resonate_anyio import Context, ExecutionMismatch, InvalidId, NotFound, NotRegistered, Resonate

calls: list[int] = []


async def double(number: int) -> int:
    """Count the call and double the number."""
    calls.append(number)
    return 2 * number


async def half(number: int) -> int:
    """Another function with the same parameters."""
    return number // 2


async def slow(ctx: Context, number: int) -> int:
    """Take a day."""
    await ctx.sleep(86400)
    return await ctx.run(double, number)


def here() -> int:
    """The line that calls this."""
    return sys._getframe(1).f_lineno


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


@pytest.fixture
def resonate(resonate: Resonate) -> Resonate:
    """A client that knows the functions of this module."""
    for func in (double, half, slow):
        resonate.register(func)
    return resonate


@pytest.mark.parametrize("verbs", [("run", "run"), ("run", "rpc"), ("rpc", "run"), ("rpc", "rpc")])
async def test_the_same_id_joins(resonate: Resonate, verbs: tuple[str, str]) -> None:
    """A second call with the same id waits for the first, running or ended, whichever way each is made."""
    first, second = verbs
    async with resonate:
        handle = await getattr(resonate, first)("a", slow, 4).spawn()
        joined = await getattr(resonate, second)("a", slow, 4).spawn()
        assert (8, 8) == (await handle, await joined)
        assert await getattr(resonate, second)("a", slow, 4) == 8

    assert calls == [4]


async def test_joining_after_a_restart_runs_nothing_again(resonate: Resonate) -> None:
    """A settled id gives its recorded result, in the next process as well."""
    async with resonate:
        await resonate.run("a", double, 4)
    async with resonate:
        assert await resonate.run("a", double, 4) == 8

    assert calls == [4]


@pytest.mark.parametrize("verb", ["run", "rpc"])
async def test_other_arguments_join_and_warn(resonate: Resonate, verb: str) -> None:
    """The first call's arguments stand; the warning points at the line of the second call."""
    async with resonate:
        await resonate.run("a", double, 4)
        line = here() + 2
        with pytest.warns(UserWarning, match="other arguments") as caught:
            result = await getattr(resonate, verb)("a", double, 5)

    assert result == 8
    assert [(__file__, line)] == [(warning.filename, warning.lineno) for warning in caught]
    assert "'a'" in str(caught[0].message)


async def test_arguments_are_compared_as_recorded(resonate: Resonate) -> None:
    """By position or by keyword is the same call: no warning."""
    async with resonate:
        await resonate.run("a", double, 4)
        assert await resonate.run("a", double, number=4) == 8


@pytest.mark.parametrize("verb", ["run", "rpc"])
async def test_another_function_is_refused(resonate: Resonate, verb: str) -> None:
    """An id that belongs to a call of something else raises, with both functions and the way out."""
    async with resonate:
        await resonate.run("a", double, 4)
        with pytest.raises(ExecutionMismatch) as caught:
            await getattr(resonate, verb)("a", half, 4)

    error = caught.value
    assert error.id == "a"
    assert "double" in error.recorded
    assert "half" in error.requested
    assert "resonate.get('a'" in str(error)
    assert "another id" in str(error)


async def test_another_version_is_refused(resonate: Resonate) -> None:
    """The same name in another version is another function."""
    resonate.register(half, name="double", version=2)
    async with resonate:
        await resonate.run("a", "double", 4).version(1)
        with pytest.raises(ExecutionMismatch) as caught:
            await resonate.run("a", "double", 4).version(2)

    assert "version 1" in caught.value.recorded
    assert "version 2" in caught.value.requested


@pytest.mark.parametrize("verb", ["run", "rpc"])
async def test_the_id_of_a_bare_promise_is_refused(resonate: Resonate, verb: str) -> None:
    """A promise that somebody made by hand is no call that could be joined."""
    async with resonate:
        await resonate.promises.create("a", 2_000_000_000_000, param={"any": "thing"})
        with pytest.raises(ExecutionMismatch) as caught:
            await getattr(resonate, verb)("a", double, 4)

        assert (await resonate.promises.get("a")).state == "pending"

    assert "bare promise" in caught.value.recorded
    assert calls == []


async def test_versions_are_chosen(resonate: Resonate) -> None:
    """`run` takes the version of the function given, or for a name the latest; `.version(n)` overrides both."""
    resonate.register(half, name="double", version=2)
    async with resonate:
        assert await resonate.run("a", double, 4) == 8
        assert await resonate.run("b", "double", 4) == 2
        assert await resonate.run("c", half, 4).version(1) == 8
        assert await resonate.run("d", "double", 4).version(1) == 8
        assert await resonate.rpc("e", "double", 4).version(2) == 2
        assert await resonate.rpc("f", double, 4).version(2) == 2


async def test_run_and_rpc_by_name_mean_the_same_version(resonate: Resonate) -> None:
    """A name without a version joins what the same name without a version started."""
    resonate.register(half, name="halved", version=3)
    async with resonate:
        assert await resonate.run("a", "halved", 4) == 2
        assert await resonate.rpc("a", "halved", 4) == 2


async def test_an_unknown_version_is_refused(resonate: Resonate) -> None:
    """Asking for a version that is not there names those that are."""
    resonate.register(half, name="double", version=2)
    async with resonate:
        with pytest.raises(NotRegistered) as caught:
            await resonate.run("a", "double", 4).version(3)

    assert "version 3" in str(caught.value)
    assert "double (version 2)" in str(caught.value)


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.0])
async def test_unusable_versions_are_refused(resonate: Resonate, version: Any) -> None:
    """A version is an int that counts from 1. A call whose option was refused does not warn that it was never made."""
    with pytest.raises(ValueError, match="version") as caught:
        resonate.run("a", double, 4).version(version)

    assert repr(version) in str(caught.value)


@pytest.mark.parametrize("id", ["", "x" * 129, "é" * 65, "a\0b"])
async def test_unusable_ids_are_refused(resonate: Resonate, id: str) -> None:
    """Ids are 1 to 128 bytes of text."""
    for verb in (resonate.run, resonate.rpc):
        with pytest.raises(InvalidId):
            verb(id, double, 4)


async def test_the_longest_id_works(resonate: Resonate) -> None:
    """128 bytes are allowed, and its children get ids as well."""
    async with resonate:
        assert await resonate.run("x" * 128, slow, 4) == 8


async def test_lookups_of_what_is_not_there(resonate: Resonate) -> None:
    """`get`, `cancel` and `resume` of an unknown id raise `NotFound`, which is a `LookupError` and names the id."""
    async with resonate:
        for verb in (resonate.get, resonate.cancel, resonate.resume):
            with pytest.raises(NotFound, match="'nobody'") as caught:
                await verb("nobody")
            assert isinstance(caught.value, LookupError)
