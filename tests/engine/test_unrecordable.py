"""A value or an error that cannot be recorded fails its call, once: the leaf that has ended does not run again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio
import pytest

from resonate_anyio import (
    Context,
    EncodeError,
    RequestError,
    Resonate,
    ResonateError,
    StoreError,
    TooLarge,
)
from resonate_anyio._protocol import PromiseSettle, PromiseState, Request, Response
from resonate_anyio.abc import Clock
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import SQLiteStore

from ..nasty import (
    Endless,
    Fickle,
    Frozen,
    Hidden,
    NotesOfItsOwn,
    Panicking,
    Raising,
    Taught,
    Unreadable,
    Wide,
    containing_itself,
    converter_with_a_panic,
    nested,
)
from .harness import Wire, World, creates, settles


def endless() -> Iterable[int]:
    return itertools.count()


VALUES: dict[str, Callable[[], Any]] = {
    "a dict that raises": Raising,
    "a list that raises GeneratorExit": Hidden,
    "a dict without end": Endless,
    "an attrs class that raises": Fickle,
    "inside a dataclass": lambda: Wide(Raising()),
    "deep": lambda: nested(100_000),
    "a hook that panics": Taught,
    "an object": object,
    "a lone surrogate": lambda: "\ud800",
    "NaN": lambda: [float("nan")],
    "itself": containing_itself,
    "an iterator": itertools.count,
}


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
async def test_value(world: World, value: Callable[[], Any]) -> None:
    """A value that has no JSON form fails the call with EncodeError; its leaf has run once, as a call and as a root."""
    ran: list[str] = []

    async def leaf(where: str) -> Any:
        ran.append(where)
        return value()

    async def flow(ctx: Context) -> str:
        try:
            await ctx.run(leaf, "below")
        except EncodeError as exc:
            return str(exc)
        return "recorded"

    process = world.process(leaf, flow, converter=converter_with_a_panic())
    async with process:
        with anyio.fail_after(10):
            assert "the result of function 'leaf' cannot be recorded" in await process.resonate.run("w", flow)
            with pytest.raises(EncodeError):
                await process.resonate.run("r", leaf, "root")
            with pytest.raises(EncodeError):
                await process.resonate.run("again", leaf, "root again")
    assert ["below", "root", "root again"] == ran


async def test_iterator_without_end(resonate: Resonate) -> None:
    """An iterator is recorded as an array if it is annotated as one, but only if it ends."""

    async def flow(ctx: Context) -> None:
        await ctx.run(endless)

    resonate.register(flow)
    async with resonate:
        with pytest.raises(EncodeError, match="gives more than 1000000 items"):
            await resonate.run("w", flow)


@pytest.mark.parametrize(
    "error",
    [Unreadable, Panicking, lambda: Frozen(5), NotesOfItsOwn, lambda: Unreadable("x" * 5)],
    ids=["unreadable", "panicking", "frozen", "notes", "arguments"],
)
async def test_error(world: World, error: Callable[[], Exception]) -> None:
    """An error that raises whatever is asked of it is recorded, as far as it can be, and its leaf has run once."""
    ran: list[str] = []

    async def leaf() -> None:
        ran.append("leaf")
        raise error()

    async def other() -> None:
        msg = "unseen"
        raise ValueError(msg)

    async def flow(ctx: Context) -> None:
        await ctx.run(other).spawn()
        await ctx.run(leaf)

    process = world.process(flow, leaf)
    async with process:
        with anyio.fail_after(10):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is, is the question
                await process.resonate.run("w", flow)
            with pytest.raises(Exception) as root:  # noqa: PT011 - likewise
                await process.resonate.run("r", leaf)
    assert type(error()).__name__ in {type(caught.value).__name__, getattr(caught.value, "name", "")}
    assert type(error()).__name__ in {type(root.value).__name__, getattr(root.value, "name", "")}
    assert ["leaf", "leaf"] == ran


async def test_arguments(wire: Wire, resonate: Resonate) -> None:
    """A call whose arguments cannot be encoded fails before it is on record; a local one takes any arguments."""
    seen: list[object] = []

    async def leaf(value: object) -> None:
        seen.append(value)

    async def flow(ctx: Context) -> list[str]:
        failed = []
        for call in (
            lambda: ctx.rpc("elsewhere", Raising()),
            lambda: ctx.rpc("elsewhere", x=Hidden()),
            lambda: ctx.detached("elsewhere", nested(100_000)),
            lambda: ctx.promise(param=Raising()),
        ):
            try:
                await call()
            except EncodeError as exc:
                failed.append(type(exc).__name__)
        await ctx.run(leaf, Raising())
        await ctx.run(leaf, Hidden())
        return failed

    resonate.register(flow)
    resonate.register(leaf)
    async with resonate:
        assert ["EncodeError"] * 4 == await resonate.run("w", flow)
        assert [Raising, Hidden] == [type(value) for value in seen]
        assert ["w", "w.leaf-1", "w.leaf-2"] == wire.created()
        with pytest.raises(EncodeError):
            await resonate.run("v", leaf, Raising())
        with pytest.raises(EncodeError):
            await resonate.rpc("v", "elsewhere", Raising())
        with pytest.raises(EncodeError):
            await resonate.promises.create("p", 4_000_000_000_000, Raising())
        await resonate.promises.create("p", 4_000_000_000_000)
        with pytest.raises(EncodeError):
            await resonate.promises.resolve("p", Raising())
        assert "pending" == (await resonate.promises.get("p")).state
        await resonate.promises.reject("p", Unreadable())
        assert "rejected" == (await resonate.promises.get("p")).state


@pytest.fixture
def small(clock: Clock, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalNetwork]:
    """An engine on a file of which SQLite takes rows of 100 kB at most: its own limit is 1 GB."""
    import sqlite3  # noqa: PLC0415 - used here only

    from resonate_anyio.stores import _sqlite  # noqa: PLC0415 - likewise

    connect = _sqlite._connect

    def limited(path: str) -> sqlite3.Connection:
        connection = connect(path)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        return connection

    monkeypatch.setattr(_sqlite, "_connect", limited)
    store = SQLiteStore(tmp_path / "small.db")
    yield LocalNetwork(store, clock=clock)
    store.close()


@pytest.mark.embedded("the limit is that of the engine's own file")
async def test_larger_than_sqlite_takes(small: LocalNetwork) -> None:
    """What SQLite cannot hold is TooLarge: results, errors, arguments, values of promises. No leaf runs twice."""
    ran: list[str] = []

    async def value() -> str:
        ran.append("value")
        return "x" * 200_000

    async def error() -> None:
        ran.append("error")
        raise ValueError("x" * 200_000)

    async def flow(ctx: Context) -> list[str]:
        failed = []
        for call in (lambda: ctx.run(value), lambda: ctx.run(error), lambda: ctx.rpc("elsewhere", "x" * 200_000)):
            try:
                await call()
            except TooLarge as exc:
                failed.append(exc.subject)
        return failed

    resonate = Resonate(network=small)
    for function in (value, error, flow):
        resonate.register(function)
    async with resonate:
        with anyio.fail_after(10):
            assert ["w.value-1", "w.error-1", "w"] == await resonate.run("w", flow)
            for id, leaf in (("v", value), ("e", error)):
                with pytest.raises(TooLarge, match="keep large values elsewhere"):
                    await resonate.run(id, leaf)
            await resonate.promises.create("p", 4_000_000_000_000)
            with pytest.raises(TooLarge):
                await resonate.promises.resolve("p", "x" * 200_000)
            assert "pending" == (await resonate.promises.get("p")).state
    assert ["value", "error", "value", "error"] == ran


def refusing(response: Response, at_most: float) -> Callable[[Request], Response | None]:
    """Refuse so many settlements of calls."""
    count = itertools.count()

    def answer(request: Request) -> Response | None:
        return response if _ends_a_call(request) and next(count) < at_most else None

    return answer


def _ends_a_call(request: Request) -> bool:
    return settles("w.leaf-1")(request) or settles("r")(request)


@pytest.mark.parametrize("status", [400, 422])
async def test_refused_by_the_server(wire: Wire, resonate: Resonate, status: int) -> None:
    """An outcome that the server refuses is replaced by the refusal: the call fails with RequestError, once."""
    ran: list[str] = []

    async def leaf() -> str:
        ran.append("leaf")
        return "value"

    async def flow(ctx: Context) -> None:
        await ctx.run(leaf)

    resonate.register(flow)
    resonate.register(leaf)
    async with resonate:
        for id, function in (("w", flow), ("r", leaf)):
            wire.answer = refusing(Response(status=status, error="not this value"), 1)
            with anyio.fail_after(60), pytest.raises(RequestError, match="not this value"):
                await resonate.run(id, function)
            await anyio.sleep(600)
            assert "rejected" == (await resonate.promises.get(id)).state
    assert ["leaf", "leaf"] == ran


@pytest.mark.parametrize("times", [2, 5])
async def test_refused_again_and_again(wire: Wire, resonate: Resonate, times: int) -> None:
    """While the server refuses even that, the outcome is kept: the leaf does not run again."""
    ran: list[str] = []

    async def leaf() -> str:
        ran.append("leaf")
        return "value"

    async def flow(ctx: Context) -> None:
        await ctx.run(leaf)

    resonate.register(flow)
    resonate.register(leaf)
    async with resonate:
        for id, function in (("w", flow), ("r", leaf)):
            wire.answer = refusing(Response(status=400, error="nothing at all"), times)
            with anyio.fail_after(600), pytest.raises(RequestError, match="nothing at all"):
                await resonate.run(id, function)
            await anyio.sleep(600)
            assert "rejected" == (await resonate.promises.get(id)).state
    assert ["leaf", "leaf"] == ran


@pytest.mark.parametrize("error", [RuntimeError("what is this"), StoreError("the disk"), ResonateError("hm")], ids=repr)
async def test_network_that_fails(wire: Wire, resonate: Resonate, error: Exception) -> None:
    """Whatever a network raises when a leaf's outcome is recorded, the outcome is kept and sent again."""
    ran: list[str] = []
    count = itertools.count()

    async def leaf() -> str:
        ran.append("leaf")
        return "value"

    async def flow(ctx: Context) -> str:
        return await ctx.run(leaf)

    async def before(request: Request) -> None:
        if _ends_a_call(request) and next(count) % 3 < 2 and (isinstance(request, PromiseSettle) or ran[1:]):
            raise error

    resonate.register(flow)
    resonate.register(leaf)
    wire.before = before
    async with resonate:
        with anyio.fail_after(60):
            assert "value" == await resonate.run("w", flow)
            assert "value" == await resonate.run("r", leaf)
    assert ["leaf", "leaf"] == ran


def _is_the_value(request: Request) -> bool:
    return settles("w.leaf-1")(request) and getattr(request, "state", None) is PromiseState.RESOLVED


def _refuse_the_value(request: Request) -> Response | None:
    return Response(status=400, error="not this value") if _is_the_value(request) else None


@pytest.mark.parametrize("result", ["value", "TooLarge", "RequestError"])
async def test_beside_a_crash(world: World, result: str) -> None:
    """A leaf that has ended is recorded although its execution crashes for another reason: it does not run again."""
    ran: list[str] = []
    crashed = anyio.Event()

    async def leaf() -> str:
        ran.append("leaf")
        return "value"

    async def other() -> None:
        ran.append("other")

    async def flow(ctx: Context) -> str:
        future = await ctx.run(leaf).spawn()
        await anyio.sleep(1)
        await ctx.run(other)
        try:
            return await future
        except (TooLarge, RequestError) as exc:
            return type(exc).__name__

    process = world.process(flow)

    async def before(request: Request) -> None:
        if settles("w.leaf-1")(request) and not crashed.is_set():
            # The network is away when the leaf has ended.
            msg = "away"
            raise ResonateError(msg)
        if result == "TooLarge" and _is_the_value(request):
            raise TooLarge(request.kind, "w.leaf-1", 3, 2)
        if creates("w.other-1")(request) and not crashed.is_set():
            crashed.set()
            msg = "a bug"
            raise RuntimeError(msg)

    process.wire.before = before
    if result == "RequestError":
        process.wire.answer = _refuse_the_value
    async with process:
        with anyio.fail_after(300):
            handle = await process.resonate.run("w", flow).spawn()
            await crashed.wait()
            await anyio.sleep(120)
            assert result == await handle
    assert ["leaf", "other"] == ran
