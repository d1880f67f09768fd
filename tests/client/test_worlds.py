"""The client inside durable functions, and contexts outside of theirs: refused, with what to use instead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from resonate_anyio import Context, Info, Resonate, WrongWorld


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


CALLS: dict[str, tuple[Callable[[Resonate], Awaitable[Any]], str]] = {
    "resonate.run()": (lambda r: r.run("b", double, 1), "ctx.run()"),
    "resonate.rpc()": (lambda r: r.rpc("b", double, 1), "ctx.rpc()"),
    "resonate.schedule()": (lambda r: r.schedule("b", "@daily", double, 1), "ctx."),
    "resonate.get()": (lambda r: r.get("b"), "ctx."),
    "resonate.cancel()": (lambda r: r.cancel("b"), "outside"),
    "resonate.resume()": (lambda r: r.resume("b"), "outside"),
    "resonate.stop()": (lambda r: r.stop(), "outside"),
    "resonate.serve()": (lambda r: r.serve(), "outside"),
    "resonate.promises.create": (lambda r: r.promises.create("b", 0), "ctx.promise()"),
    "resonate.promises.get": (lambda r: r.promises.get("b"), "ctx."),
    "resonate.promises.settle": (lambda r: r.promises.settle("b", "resolved"), "ctx."),
    "resonate.promises.resolve": (lambda r: r.promises.resolve("b"), "ctx."),
    "resonate.promises.reject": (lambda r: r.promises.reject("b"), "ctx."),
    "resonate.promises.cancel": (lambda r: r.promises.cancel("b"), "ctx."),
    "resonate.promises.search": (lambda r: anext(r.promises.search()), "ctx."),
    "resonate.schedules.create": (lambda r: r.schedules.create("b", "@daily", "p", 1), "outside"),
    "resonate.schedules.get": (lambda r: r.schedules.get("b"), "outside"),
    "resonate.schedules.delete": (lambda r: r.schedules.delete("b"), "outside"),
    "resonate.schedules.search": (lambda r: anext(r.schedules.search()), "outside"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["workflow", "leaf", "info"])
async def test_the_client_is_not_for_durable_functions(resonate: Resonate, kind: str, call: str) -> None:
    """Each call of the client is refused inside each kind of function, with what to use instead, and sends nothing."""
    make, instead = CALLS[call]

    async def workflow(ctx: Context) -> None:
        await make(resonate)

    async def leaf() -> None:
        await make(resonate)

    async def info(info: Info) -> None:
        await make(resonate)

    kinds: dict[str, Callable[..., Any]] = {"workflow": workflow, "leaf": leaf, "info": info}
    wrong = kinds[kind]
    resonate.register(wrong)
    async with resonate:
        with pytest.raises(WrongWorld) as caught:
            await resonate.run("a", wrong)
        assert ["a"] == [promise.id async for promise in resonate.promises.search()]

    assert call in str(caught.value)
    assert f"'{kind}' ('a')" in str(caught.value)
    # a leaf has no ctx to use
    assert (instead if kind == "workflow" or instead == "outside" else "Context") in str(caught.value)


KEPT: dict[str, Callable[[Resonate], Any]] = {
    "run": lambda r: r.run("b", double, 1),
    "rpc": lambda r: r.rpc("b", double, 1),
    "schedule": lambda r: r.schedule("b", "@daily", double, 1),
}


@pytest.mark.parametrize("how", ["await", "spawn"])
@pytest.mark.parametrize("call", KEPT)
async def test_a_call_kept_from_outside_is_refused_inside(resonate: Resonate, call: str, how: str) -> None:
    """A call that was built outside and is started by a workflow is refused as well, before anything is sent."""
    kept: list[Any] = []

    @resonate.register
    async def wrong(ctx: Context) -> None:
        await (kept[0].spawn() if how == "spawn" and call != "schedule" else kept[0])

    async with resonate:
        kept.append(KEPT[call](resonate))
        with pytest.raises(WrongWorld, match="inside the durable function 'wrong'"):
            await resonate.run("a", wrong)

        assert ["a"] == [promise.id async for promise in resonate.promises.search()]
        assert [] == [schedule async for schedule in resonate.schedules.search()]


async def test_a_client_is_not_entered_in_a_durable_function(resonate: Resonate) -> None:
    """A second client inside a workflow would be one whose work is in nobody's history."""

    @resonate.register
    async def wrong(ctx: Context) -> None:
        async with Resonate.local():
            raise AssertionError

    async with resonate:
        with pytest.raises(WrongWorld, match="async with resonate"):
            await resonate.run("a", wrong)


HANDLE: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "await": lambda handle: handle,
    "result": lambda handle: handle.result(),
    "done": lambda handle: handle.done(),
    "cancel": lambda handle: handle.cancel(),
}


@pytest.mark.parametrize("call", HANDLE)
async def test_handles_are_not_for_durable_functions(resonate: Resonate, call: str) -> None:
    """A handle from outside is the client's, too: what a workflow learns by it would not be in its history."""
    handles: list[Any] = []

    @resonate.register
    async def wrong(ctx: Context) -> None:
        await HANDLE[call](handles[0])

    async with resonate:
        handles.append(await resonate.run("b", double, 1).spawn())
        with pytest.raises(WrongWorld, match="inside the durable function 'wrong'"):
            await resonate.run("a", wrong)


async def test_the_client_is_not_for_synchronous_leaves(resonate: Resonate) -> None:
    """A leaf in a worker thread is told so as well."""

    @resonate.register
    def leaf() -> None:
        resonate.run("b", double, 1)

    async with resonate:
        with pytest.raises(WrongWorld, match="'leaf'"):
            await resonate.run("a", leaf)


async def test_what_a_durable_function_starts_outside_is_free_again(resonate: Resonate) -> None:
    """The ban ends with the function: the code that awaited it may use the client."""
    async with resonate:
        await resonate.run("a", flow, 1)

        assert await resonate.run("b", flow, 1) == 2


async def test_a_context_outside_its_function_is_refused(resonate: Resonate) -> None:
    """A context that is kept and used later, or by another function, says whose it is."""
    kept: list[Context] = []

    @resonate.register
    async def keep(ctx: Context) -> None:
        kept.append(ctx)
        await ctx.run(use_other)

    async def use_other(ctx: Context) -> None:
        with pytest.raises(WrongWorld, match="this ctx belongs to 'keep'"):
            await kept[0].run(double, 1)

    async with resonate:
        await resonate.run("a", keep)
        with pytest.raises(WrongWorld, match=r"after 'keep' .* had ended"):
            await kept[0].run(double, 1)
