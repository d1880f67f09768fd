"""Real types in and out: by annotations, by `.returns(T)` and by `get(id, T)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs
import pytest
from anyio import move_on_after

from resonate_anyio import Context, DecodeError, EncodeError, Resonate, make_converter

from .conftest import Make


class Color(Enum):
    """An enumeration."""

    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Point:
    """An attrs class."""

    x: int
    y: float = 0.5


@dataclasses.dataclass
class Page:
    """A dataclass that has others in it."""

    at: datetime
    points: list[Point]
    color: Color | None = None


WHEN = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
VALUES: Sequence[tuple[Any, Any]] = [
    (None, None),
    (7, int),
    (Point(1, 2.0), Point),
    (Page(WHEN, [Point(1), Point(2, 3.0)], Color.BLUE), Page),
    (Color.RED, Color),
    (WHEN, datetime),
    (date(2024, 5, 6), date),
    (timedelta(seconds=1.5), timedelta),
    (UUID(int=5), UUID),
    (Decimal("1.10"), Decimal),
    (b"\x00\xff", bytes),
    ((1, "a"), tuple[int, str]),
    ({1, 2}, set[int]),
    ({1: (Point(1),), 2: ()}, dict[int, tuple[Point, ...]]),
    ({Color.RED: {UUID(int=1): [WHEN]}}, dict[Color, dict[UUID, list[datetime]]]),
    (Point(3), int | Point | None),
    (3, int | Point | None),
    (None, int | Point | None),
    ([Point(3), Color.RED, None], list[Point | Color | None]),
]


def typed(type_: Any) -> Callable[[Any], Awaitable[Any]]:
    """A function that takes and returns a `type_`, and refuses anything else."""

    async def echo(value: Any) -> Any:
        assert any(value == v and type(value) is type(v) for v, t in VALUES if t == type_)
        return value

    echo.__annotations__ = {"value": type_, "return": type_}
    return echo


@pytest.mark.parametrize(("value", "type_"), VALUES, ids=lambda part: repr(part)[:40])
async def test_values_keep_their_types(make: Make, value: Any, type_: Any) -> None:
    """A value goes in as it is, comes out as it is, and does so again for whoever asks after a restart."""
    resonate = make()
    resonate.register(typed(type_), name="echo")
    async with resonate:
        first = await resonate.run("a", "echo", value)
    async with resonate:
        by_run = await resonate.run("a", "echo", value)
        by_get = await (await resonate.get("a", type_))
        by_rpc = await resonate.rpc("a", "echo", value).returns(type_)

    assert [value] * 4 == [first, by_run, by_get, by_rpc]
    assert [type(value)] * 4 == [type(first), type(by_run), type(by_get), type(by_rpc)]


async def test_without_a_type_a_value_is_what_json_gives_back(resonate: Resonate) -> None:
    """Tuples are lists and keys are text where nothing says otherwise, at once as after a restart."""

    @resonate.register
    async def untyped():  # type: ignore[no-untyped-def]  # noqa: ANN202
        return {1: (1, 2), "when": WHEN}

    @resonate.register
    async def typed() -> dict[int, tuple[int, int]]:
        return {1: (1, 2)}

    async with resonate:
        assert await resonate.run("a", untyped) == {"1": [1, 2], "when": "2024-05-06T07:08:09.123456+00:00"}
        assert await resonate.run("b", typed) == {1: (1, 2)}
        assert await resonate.rpc("c", "typed") == {"1": [1, 2]}
        assert await (await resonate.get("b")) == {"1": [1, 2]}


async def test_returns_says_the_type_of_each_builder(resonate: Resonate) -> None:
    """`.returns(T)` works on `run`, on `rpc`, and before `spawn`; the last word counts."""

    @resonate.register
    async def make_point() -> Any:
        return Point(1)

    async with resonate:
        assert await resonate.run("a", make_point) == {"x": 1, "y": 0.5}
        assert await resonate.run("b", make_point).returns(Point) == Point(1)
        assert await resonate.rpc("c", "make_point").returns(dict).returns(Point) == Point(1)
        assert await (await resonate.rpc("d", "make_point").returns(Point).spawn()) == Point(1)


async def test_arguments_by_name_and_by_keyword(resonate: Resonate) -> None:
    """Arguments go in by position or keyword, defaults apply, and their types are those of the annotations."""

    @resonate.register
    async def shift(point: Point, *more: Point, by: int = 1, **named: Color) -> list[Any]:
        assert all(isinstance(p, Point) for p in (point, *more))
        assert all(isinstance(c, Color) for c in named.values())
        return [point.x + by, len(more), sorted(named)]

    async with resonate:
        assert await resonate.run("a", shift, Point(1)) == [2, 0, []]
        assert await resonate.run("b", shift, point=Point(1), by=5) == [6, 0, []]
        assert await resonate.rpc("c", shift, Point(1), Point(2), by=2, color=Color.RED) == [3, 1, ["color"]]
        assert await resonate.rpc("d", "shift", {"x": 1}, by=2) == [3, 0, []]


async def test_children_have_types_too(resonate: Resonate) -> None:
    """`ctx.run` and `ctx.rpc` give what the annotations of the callee say, live and on a replay."""
    runs = 0

    @resonate.register
    async def make_point(x: int) -> Point:
        return Point(x)

    @resonate.register
    async def flow(ctx: Context) -> list[Point]:
        nonlocal runs
        runs += 1
        local, remote = await ctx.run(make_point, 1), await ctx.rpc(make_point, 2)
        named = await ctx.rpc("make_point", 3).returns(Point)
        assert all(isinstance(point, Point) for point in (local, remote, named))
        await ctx.sleep(60)
        return [local, remote, named]

    async with resonate:
        handle = await resonate.run("a", flow).spawn()
        with move_on_after(30):
            await handle
    async with resonate:
        assert await (await resonate.get("a", list[Point])) == [Point(1), Point(2), Point(3)]

    assert runs == 2


async def test_a_recorded_result_of_another_shape_is_refused(resonate: Resonate) -> None:
    """Who asks for a type that the recorded value is not, learns what was found and where."""
    resonate.register(typed(int), name="echo")
    async with resonate:
        await resonate.run("a", "echo", 7)
        handle = await resonate.get("a", Point)

        with pytest.raises(DecodeError) as caught:
            await handle

    assert "7" in str(caught.value)
    assert "Point" in str(caught.value)


async def test_a_converter_of_ones_own_says_how_types_are_recorded(make: Make) -> None:
    """Hooks of a cattrs converter that is passed in count for arguments and results."""

    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    converter = make_converter()
    converter.register_unstructure_hook(Money, lambda money: f"{money.cents}c")
    converter.register_structure_hook(Money, lambda raw, _: Money(int(raw.removesuffix("c"))))
    resonate = make(converter=converter)

    @resonate.register
    async def double(money: Money) -> Money:
        return Money(money.cents * 2)

    async with resonate:
        assert (await resonate.run("a", double, Money(21))).cents == 42
        assert (await resonate.promises.get("a")).value == "42c"


async def test_a_type_that_nobody_can_record_is_refused(resonate: Resonate) -> None:
    """Without a hook the same class is no argument."""

    class Money:
        pass

    @resonate.register
    async def spend(money: Money) -> None:
        raise AssertionError

    async with resonate:
        with pytest.raises(EncodeError) as caught:
            await resonate.run("a", spend, Money())

    assert "'spend'" in str(caught.value)
    assert "Money" in str(caught.value)
    assert "unstructure hook" in str(caught.value)
