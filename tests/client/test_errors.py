"""Errors of durable functions: as the type they were, or as `ApplicationError`."""

from __future__ import annotations

import sys
import types
from datetime import timedelta
from typing import Any

import pytest

from resonate_anyio import (
    ApplicationError,
    Context,
    DurableCancelledError,
    DurableError,
    DurableTimeoutError,
    Resonate,
)


class OutOfStock(Exception):
    """An error of the program's own, with a part that matters."""

    def __init__(self, item: str, left: int) -> None:
        super().__init__(item, left)
        self.item = item
        self.left = left

    def __str__(self) -> str:
        return f"only {self.left} of {self.item}"


def make_error(kind: str) -> Exception:
    match kind:
        case "builtin":
            return ValueError("not like this")
        case "own":
            return OutOfStock("apples", 3)
        case "group":
            return ExceptionGroup("both", [ValueError("one"), OutOfStock("pears", 0)])
        case _:
            error = RuntimeError("outer")
            error.add_note("look here")
            error.__cause__ = KeyError("inner")
            return error


async def fail(kind: str) -> None:
    """Fail in one of many ways."""
    raise make_error(kind)


async def test_known_errors_come_back_as_they_were(resonate: Resonate) -> None:
    """Builtin and own types are rebuilt, with their arguments, at once and after a restart."""
    resonate.register(fail)
    for _ in range(2):
        async with resonate:
            with pytest.raises(ValueError, match="not like this"):
                await resonate.run("a", fail, "builtin")
            with pytest.raises(OutOfStock) as caught:
                await resonate.run("b", fail, "own")

        assert ("apples", 3) == (caught.value.item, caught.value.left)


async def test_groups_causes_and_notes_come_back(resonate: Resonate) -> None:
    """An exception group has its members, a chain its cause and its notes."""
    resonate.register(fail)
    async with resonate:
        with pytest.raises(ExceptionGroup) as group:
            await resonate.run("a", fail, "group")
        with pytest.raises(RuntimeError, match="outer") as chain:
            await resonate.run("b", fail, "chain")

    assert [ValueError, OutOfStock] == [type(member) for member in group.value.exceptions]
    assert isinstance(chain.value.__cause__, KeyError)
    assert chain.value.__notes__ == ["look here"]


async def test_a_live_error_keeps_its_traceback(resonate: Resonate) -> None:
    """Where the function runs in this process, the traceback leads into it."""
    resonate.register(fail)
    async with resonate:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            await resonate.run("a", fail, "builtin")

    assert "fail" in [entry.name for entry in caught.traceback]


@pytest.fixture
def plugin() -> types.ModuleType:
    """A module that exists only while the function runs, as in a worker of another program."""
    module = types.ModuleType("resonate_test_plugin")
    exec("class PluginError(Exception):\n    pass\n", module.__dict__)  # noqa: S102
    return module


async def test_unknown_errors_are_application_errors(resonate: Resonate, plugin: types.ModuleType) -> None:
    """A type that this program does not have arrives as `ApplicationError`: name, message, traceback as text."""

    @resonate.register
    async def use_plugin() -> None:
        error = plugin.PluginError("lost", 7)
        raise error

    sys.modules[plugin.__name__] = plugin
    async with resonate:
        try:
            with pytest.raises(plugin.PluginError):
                await resonate.run("a", use_plugin)
        finally:
            del sys.modules[plugin.__name__]
        with pytest.raises(ApplicationError) as caught:
            await (await resonate.get("a"))

    error = caught.value
    assert ("PluginError", "('lost', 7)") == (error.name, error.message)
    assert "use_plugin" in (error.traceback or "")
    assert error.id == "a"
    assert isinstance(error, DurableError)
    assert "PluginError" in str(error)


@pytest.mark.parametrize(
    ("value", "name", "message"),
    [
        ({"__type": "error", "name": "TypeError", "message": "x is undefined"}, "TypeError", "x is undefined"),
        ({"message": "no name"}, "Error", "no name"),
        ("just text", "Error", "just text"),
        (None, "Error", ""),
    ],
)
async def test_errors_of_other_programs_are_application_errors(
    resonate: Resonate, value: Any, name: str, message: str
) -> None:
    """Whatever another SDK or a person rejects with can be caught, and says what was said."""
    async with resonate:
        await resonate.promises.create("a", 2_000_000_000_000)
        await resonate.promises.reject("a", value)
        with pytest.raises(ApplicationError) as caught:
            await (await resonate.get("a"))

    assert (name, message, value) == (caught.value.name, caught.value.message, caught.value.data)


async def wait_forever(ctx: Context) -> None:
    """Wait for longer than anyone has."""
    await ctx.sleep(timedelta(days=1000))


async def test_a_timeout_is_a_timeout_error(resonate: Resonate) -> None:
    """A deadline that passes raises `DurableTimeoutError`, which code that knows `TimeoutError` only can catch."""
    resonate.register(wait_forever)
    async with resonate:
        with pytest.raises(TimeoutError) as caught:
            await resonate.run("a", wait_forever).timeout(5)
        promise = await resonate.promises.get("a")

    assert isinstance(caught.value, DurableTimeoutError)
    assert caught.value.id == "a"
    assert "'a'" in str(caught.value)
    assert promise.state == "rejected_timedout"
    assert timedelta(seconds=5) == promise.timeout_at - promise.created_at


async def test_a_timeout_inside_is_caught_by_the_workflow(resonate: Resonate) -> None:
    """A child's timeout is an ordinary `TimeoutError` in the function that called it."""

    @resonate.register
    async def patient(ctx: Context) -> str:
        try:
            await ctx.run(wait_forever).timeout(5)
        except TimeoutError as error:
            return str(getattr(error, "id", None))
        return "no timeout"

    async with resonate:
        assert await resonate.run("a", patient) == "a.wait_forever-1"


async def test_a_cancelled_execution_raises_its_own_type(resonate: Resonate) -> None:
    """Who waits for what somebody cancelled gets `DurableCancelledError`, never the backend's cancellation."""
    resonate.register(wait_forever)
    async with resonate:
        handle = await resonate.run("a", wait_forever).spawn()
        await handle.cancel()
        with pytest.raises(DurableCancelledError) as caught:
            await handle

    assert ("a", None) == (caught.value.id, caught.value.by)
    assert "from outside" in str(caught.value)
    assert isinstance(caught.value, DurableError)


async def test_a_result_that_cannot_be_recorded_is_the_functions_failure(resonate: Resonate) -> None:
    """An object that JSON cannot hold is told to whoever waits, with the function's name."""

    @resonate.register
    async def give_object() -> Any:
        return object()

    async with resonate:
        with pytest.raises(TypeError, match="give_object"):
            await resonate.run("a", give_object)
        assert (await resonate.promises.get("a")).state == "rejected"
