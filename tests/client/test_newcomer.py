"""What a new user does wrong, and what the error then says."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from resonate_anyio import (
    BuilderUsed,
    Context,
    DecodeError,
    EncodeError,
    InvalidArgument,
    InvalidFunction,
    InvalidId,
    NotRegistered,
    NotRunning,
    Resonate,
    StoreInUse,
)


async def double(number: int) -> int:
    """Double the number."""
    return 2 * number


async def flow(ctx: Context, number: int) -> int:
    """Double it durably."""
    return await ctx.run(double, number)


@pytest.fixture
def resonate(resonate: Resonate) -> Resonate:
    """A client that knows the functions of this module."""
    for func in (double, flow):
        resonate.register(func)
    return resonate


def here() -> int:
    """The line that calls this."""
    return sys._getframe(1).f_lineno


def warned(record: list[warnings.WarningMessage]) -> list[tuple[str, int]]:
    """Where the warnings point to."""
    return [(warning.filename, warning.lineno) for warning in record]


DROPPED: dict[str, Callable[[Resonate], Any]] = {
    "resonate.run('a', double, ...)": lambda r: r.run("a", double, 1),
    "resonate.rpc('a', double, ...)": lambda r: r.rpc("a", double, 1),
    "resonate.schedule('a', '@daily', double, ...)": lambda r: r.schedule("a", "@daily", double, 1),
}


@pytest.mark.parametrize("call", DROPPED)
def test_a_forgotten_await_warns(resonate: Resonate, call: str) -> None:
    """A call that nobody awaits warns as a forgotten coroutine does: at the line that built it, with what to write."""
    with pytest.warns(RuntimeWarning, match="never awaited") as caught:
        DROPPED[call](resonate)

    assert [(__file__, DROPPED[call].__code__.co_firstlineno)] == warned(list(caught))
    assert f"await {call}" in str(caught[0].message)


async def test_a_forgotten_await_inside_warns(resonate: Resonate) -> None:
    """Each durable call of a workflow does so too, and the workflow goes on without it."""
    lines: list[int] = []

    @resonate.register
    async def forgetful(ctx: Context) -> str:
        lines.append(here())
        ctx.run(double, 1)
        ctx.rpc(double, 1)
        ctx.rpc("double", 1)
        ctx.sleep(5)
        ctx.promise()
        ctx.detached(double, 1)
        gc.collect()
        return "done"

    async with resonate:
        with pytest.warns(RuntimeWarning, match="never awaited") as caught:
            assert await resonate.run("a", forgetful) == "done"
        assert [promise.id async for promise in resonate.promises.search()] == ["a"]

    assert [(__file__, lines[0] + n) for n in range(1, 7)] == warned(list(caught))


async def test_an_awaited_call_does_not_warn(resonate: Resonate) -> None:
    """Awaited, spawned or refused calls say nothing, whatever comes of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with resonate:
            await resonate.run("a", double, 1)
            await resonate.run("b", double, 1).spawn()
            with pytest.raises(InvalidArgument):
                resonate.run("c", double, 1).timeout(-1)
            with pytest.raises(InvalidArgument):
                resonate.run("d", double, 1, 2)  # type: ignore[call-overload]
        gc.collect()

    assert [] == caught


async def test_a_call_is_awaited_once(resonate: Resonate) -> None:
    """A builder is one call: a second await, a spawn after it and an option after it are refused by name."""
    async with resonate:
        call = resonate.run("a", double, 1)
        assert await call == 2
        for again in (call.__await__, call.spawn):
            with pytest.raises(BuilderUsed, match=r"resonate.run\('a', double, \.\.\.\) was started already"):
                await _awaited(again)
        with pytest.raises(BuilderUsed, match="before the await"):
            call.timeout(5)


async def _awaited(call: Callable[[], Any]) -> None:
    result = call()
    if hasattr(result, "__await__"):
        await result


COROUTINES: dict[str, Callable[[Resonate], Any]] = {
    "run": lambda r: r.run("a", double(1)),  # type: ignore[call-overload]
    "rpc": lambda r: r.rpc("a", double(1)),  # type: ignore[call-overload]
    "schedule": lambda r: r.schedule("a", "@daily", double(1)),  # type: ignore[call-overload]
    "register": lambda r: r.register(double(1)),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("call", COROUTINES)
def test_a_coroutine_object_is_no_function(resonate: Resonate, call: str) -> None:
    """Passing `func(x)` for `func, x` shows both, and the coroutine does not warn on top of it."""
    with pytest.raises(InvalidFunction) as caught:
        COROUTINES[call](resonate)
    gc.collect()

    assert "got a coroutine" in str(caught.value)
    assert "double, x, y)" in str(caught.value)


@pytest.mark.parametrize("verb", ["run", "rpc", "detached"])
async def test_a_coroutine_object_is_no_function_inside_either(resonate: Resonate, verb: str) -> None:
    """The same in a workflow; its author gets the error where the call is."""

    @resonate.register
    async def wrong(ctx: Context) -> None:
        await getattr(ctx, verb)(double(1))

    async with resonate:
        with pytest.raises(InvalidFunction, match="got a coroutine"):
            await resonate.run("a", wrong)


@pytest.mark.parametrize("verb", ["run", "rpc", "schedule"])
def test_an_unregistered_function_names_those_that_are(resonate: Resonate, verb: str) -> None:
    """`NotRegistered` says which function, what to call, and which names there are, before any request."""

    async def missing() -> None: ...

    arguments = ("a", "@daily", missing) if verb == "schedule" else ("a", missing)
    with pytest.raises(NotRegistered) as caught:
        getattr(resonate, verb)(*arguments)

    assert "'missing'" in str(caught.value)
    assert "resonate.register(" in str(caught.value)
    assert "Registered: double, flow" in str(caught.value)


def test_an_unregistered_name_names_those_that_are(resonate: Resonate) -> None:
    """`run` by name needs the name to be known here."""
    with pytest.raises(NotRegistered, match="Registered: double, flow"):
        resonate.run("a", "dubble", 1)


@pytest.mark.parametrize(("id", "proposal"), [("user.1", "user-1"), ("user:1", "user-1"), ("a.b:c", "a-b-c")])
@pytest.mark.parametrize("verb", ["run", "rpc"])
def test_an_id_with_a_separator_is_refused_with_a_proposal(
    resonate: Resonate, verb: str, id: str, proposal: str
) -> None:
    """`.` and `:` separate a call from its children; the error proposes an id that works."""
    with pytest.raises(InvalidId) as caught:
        getattr(resonate, verb)(id, double, 1)

    assert repr(id) in str(caught.value)
    assert repr(proposal) in str(caught.value)


@pytest.mark.parametrize("verb", ["run", "rpc"])
@pytest.mark.parametrize("id", [7, None, b"a"])
def test_an_id_is_text(resonate: Resonate, verb: str, id: Any) -> None:
    """A forgotten id is the most likely cause of another type in its place."""
    with pytest.raises(InvalidId, match="an id is a string"):
        getattr(resonate, verb)(id, double, 1)


LOOKUPS: dict[str, Callable[[Resonate, Any], Awaitable[Any]]] = {
    "get": lambda r, id: r.get(id),
    "cancel": lambda r, id: r.cancel(id),
    "resume": lambda r, id: r.resume(id),
    "promises.get": lambda r, id: r.promises.get(id),
    "promises.resolve": lambda r, id: r.promises.resolve(id),
    "promises.cancel": lambda r, id: r.promises.cancel(id),
    "schedules.get": lambda r, id: r.schedules.get(id),
    "schedules.delete": lambda r, id: r.schedules.delete(id),
}


@pytest.mark.parametrize("call", LOOKUPS)
async def test_ids_of_lookups_are_text(resonate: Resonate, call: str) -> None:
    """What cannot be an id is refused as such, by its value, and not looked for."""
    async with resonate:
        for id in (7, None, b"a", ""):
            with pytest.raises(InvalidArgument) as caught:
                await LOOKUPS[call](resonate, id)

            assert repr(id) in str(caught.value) or "empty" in str(caught.value)


@pytest.mark.parametrize("verb", ["run", "rpc"])
async def test_ids_are_unicode(resonate: Resonate, verb: str) -> None:
    """Half a character, as broken input gives it, is no part of an id."""
    with pytest.raises(InvalidId):
        getattr(resonate, verb)("a\ud800", double, 1)
    async with resonate:
        with pytest.raises(InvalidArgument):
            await resonate.promises.create("a\ud800", 2_000_000_000_000)


TAGGED: dict[str, Callable[[Resonate, Any], Awaitable[Any]]] = {
    "promises.create": lambda r, tags: r.promises.create("a", 2_000_000_000_000, tags=tags),
    "promises.search": lambda r, tags: anext(r.promises.search(tags=tags)),
    "schedules.create": lambda r, tags: r.schedules.create("a", "@daily", "p", 1, promise_tags=tags),
    "schedules.search": lambda r, tags: anext(r.schedules.search(tags=tags)),
}


@pytest.mark.parametrize("tags", [{"team": 1}, {1: "x"}, ["team"], "team"])
@pytest.mark.parametrize("call", TAGGED)
async def test_tags_are_text_by_name(resonate: Resonate, call: str, tags: Any) -> None:
    """Tags of another shape are refused wherever there are tags, and nothing is made."""
    async with resonate:
        with pytest.raises(InvalidArgument, match="tags"):
            await TAGGED[call](resonate, tags)

        assert [] == [promise async for promise in resonate.promises.search()]
        assert [] == [schedule async for schedule in resonate.schedules.search()]


TIMES: dict[str, Callable[[Resonate], Any]] = {
    "run": lambda r: r.run("a", double, 1).timeout(1e18),
    "rpc": lambda r: r.rpc("a", double, 1).timeout(1e18),
    "schedule": lambda r: r.schedule("a", "@daily", double, 1).timeout(1e18),
    "promises.create": lambda r: r.promises.create("a", 2**70),
    "sleep": lambda r: r.run("a", doze).timeout(5),
}


async def doze(ctx: Context) -> None:
    """Sleep for longer than there will be clocks."""
    await ctx.sleep(1e18)


@pytest.mark.parametrize("call", TIMES)
async def test_times_beyond_all_records_are_refused(resonate: Resonate, call: str) -> None:
    """A deadline that no record can hold is refused as an argument, whatever keeps the records."""
    resonate.register(doze)
    async with resonate:
        with pytest.raises(InvalidArgument):
            await TIMES[call](resonate)


async def test_one_file_twice_in_one_process(tmp_path: Path) -> None:
    """Two clients that were meant to share a file are told how."""
    file = tmp_path / "engine.db"
    async with Resonate.local(file):
        with pytest.raises(StoreInUse) as caught:
            await Resonate.local(file).__aenter__()

    assert caught.value.pid == os.getpid()
    assert "this process" in str(caught.value)
    assert "LocalNetwork" in str(caught.value)


@pytest.mark.parametrize("verb", ["run", "rpc"])
def test_a_forgotten_id_is_named(resonate: Resonate, verb: str) -> None:
    """`run(func, x)` without an id says that the id comes first."""
    with pytest.raises((InvalidId, InvalidArgument), match="id"):
        getattr(resonate, verb)(double, 1)


@pytest.mark.parametrize(
    ("args", "kwargs", "hint"),
    [
        ((), {}, "number"),
        ((1, 2), {}, "too many"),
        ((), {"nummer": 1}, "number"),
        ((1,), {"number": 2}, "multiple values"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "rpc"])
def test_wrong_arguments_are_told_before_anything_is_sent(
    resonate: Resonate, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], hint: str
) -> None:
    """A call that the function cannot take names the function, the argument, and the parameters that there are."""
    with pytest.raises(InvalidArgument) as caught:
        getattr(resonate, verb)("a", flow, *args, **kwargs)

    assert hint in str(caught.value)
    assert "'flow'" in str(caught.value)
    assert "(number: int)" in str(caught.value) or "(number: 'int')" in str(caught.value)


async def test_a_context_passed_by_hand_is_refused(resonate: Resonate) -> None:
    """The engine passes the context itself; the error shows both ways of writing it."""

    @resonate.register
    async def wrong(ctx: Context) -> None:
        await ctx.run(flow, ctx, 1)

    async with resonate:
        with pytest.raises(InvalidArgument, match="the worker passes the Context itself"):
            await resonate.run("a", wrong)


@pytest.mark.parametrize("value", [object(), {1, object()}, {"x": [object()]}, float("nan")])
@pytest.mark.parametrize("verb", ["run", "rpc"])
async def test_an_unserialisable_argument_is_refused(resonate: Resonate, verb: str, value: Any) -> None:
    """An argument that JSON cannot hold names the function and the value, and nothing is recorded."""

    @resonate.register
    async def take(value: Any) -> None:
        raise AssertionError

    async with resonate:
        with pytest.raises(EncodeError) as caught:
            await getattr(resonate, verb)("a", take, value)
        assert [] == [promise async for promise in resonate.promises.search()]

    assert "'take'" in str(caught.value)
    assert "nan" in str(caught.value) or "object" in str(caught.value)


async def test_an_argument_of_another_type_is_refused(resonate: Resonate) -> None:
    """An argument that its annotation does not allow is named, and nothing is recorded."""
    async with resonate:
        with pytest.raises(EncodeError) as caught, anyio.fail_after(3600):
            await resonate.run("a", double, "two")  # type: ignore[call-overload]
        assert [] == [promise async for promise in resonate.promises.search()]

    assert "argument 'number' of 'double'" in str(caught.value)
    assert "'two'" in str(caught.value)
    assert "int" in str(caught.value)


async def test_a_result_that_does_not_fit_its_annotation_is_told(resonate: Resonate) -> None:
    """A function that returns something else than it says fails, with what it said and what it gave."""

    @resonate.register
    async def liar() -> list[int]:
        return [1, "2"]  # type: ignore[list-item]

    async with resonate:
        with pytest.raises(EncodeError) as caught:
            await resonate.run("a", liar)

    assert "'liar'" in str(caught.value)
    assert "int" in str(caught.value)
    assert "'2'" in str(caught.value)


async def test_a_result_that_does_not_fit_what_was_asked_for_is_told(resonate: Resonate) -> None:
    """`.returns(T)` for another T than the function gives is told to who asked; the execution is fine."""
    async with resonate:
        with pytest.raises(DecodeError) as caught:
            await resonate.rpc("a", "double", 2).returns(list[int])
        assert await (await resonate.get("a", int)) == 4

    assert "4" in str(caught.value)
    assert "list" in str(caught.value)


async def test_a_closed_client_says_so(resonate: Resonate) -> None:
    """Before and after the block a call says what to write."""
    for _ in range(2):
        with pytest.raises(NotRunning, match="async with resonate"):
            await resonate.run("a", double, 1)
        async with resonate:
            await resonate.run("a", double, 1)


async def test_a_handle_of_a_closed_client_says_so(resonate: Resonate) -> None:
    """A handle that outlives the block cannot wait any more, and says why."""
    async with resonate:
        handle = await resonate.run("a", double, 1).spawn()
    for call in (handle.result, handle.done, handle.cancel):
        with pytest.raises(NotRunning, match="async with resonate"):
            await call()


async def test_the_same_text_reaches_the_log_of_who_waits(resonate: Resonate) -> None:
    """An error that a durable function raised says where it was raised, in whichever task it is waited for."""

    @resonate.register
    async def fail() -> None:
        raise ZeroDivisionError

    errors: list[BaseException] = []

    async def wait() -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            await (await resonate.get("a"))
        errors.append(caught.value)

    async with resonate:
        with pytest.raises(ZeroDivisionError):
            await resonate.run("a", fail)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(wait)

    assert len(errors) == 2
