"""Values, calls and errors as they are recorded, and back."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from uuid import UUID

import attrs
import cattrs
import pytest
from cattrs.strategies import configure_tagged_union
from hypothesis import given, strategies as st

from resonate_anyio import _errors
from resonate_anyio._codec import Call, Codec, make_converter
from resonate_anyio._errors import ApplicationError, DecodeError, EncodeError
from resonate_anyio._protocol import Value

CODEC = Codec()
T = TypeVar("T")
UserId = NewType("UserId", int)
Number = NewType("Number", int | float)  # type: ignore[valid-newtype]


class Color(Enum):
    RED = "r"
    BLUE = "b"


class Shape(Enum):
    SQUARE = (1, 1)
    WIDE = (2, 1)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Right(Flag):
    READ = 1
    WRITE = 2


class Name(str):
    __slots__ = ()


@attrs.frozen
class Point:
    x: int
    y: float = 0.5
    tags: list[str] = attrs.Factory(list)


@dataclasses.dataclass
class Node:
    point: Point
    when: datetime
    next: Node | None = None
    labels: dict[str, Point] = dataclasses.field(default_factory=dict)


@attrs.frozen
class Box(Generic[T]):
    content: T


class Pair(NamedTuple):
    left: int
    right: Point


class Limited(TypedDict):
    limit: int


class Options(Limited, total=False):
    since: datetime


@attrs.frozen
class Cat:
    kind: Literal["cat"]
    name: str


@attrs.frozen
class Dog:
    kind: Literal["dog"]
    name: str


@attrs.frozen
class Even:
    half: int

    def __attrs_post_init__(self) -> None:
        if self.half < 0:
            msg = "half must not be negative"
            raise ValueError(msg)


NOW = datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def packed(plain: object) -> Value:
    return Value(base64.b64encode(json.dumps(plain).encode()).decode())


def unpacked(value: Value) -> Any:
    assert value.data is not None
    return json.loads(base64.b64decode(value.data, validate=True))


# --- values


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (1, int),
        (10**30, int),
        (1.5, float),
        ("héé \U0001f600", str),
        (True, bool),
        (None, None),
        (None, type(None)),
        ([None], list[None]),
        ((1, None), tuple[int, None]),
        (Color.RED, Color),
        (Shape.WIDE, Shape),
        (Level.LOW, Level),
        (Word.YES, Word),
        (Right.READ | Right.WRITE, Right),
        (Name("x"), Name),
        (UserId(3), UserId),
        (Point(1), Point),
        (Node(Point(1), NOW, Node(Point(2), NOW), {"a": Point(3)}), Node),
        (Box(3), Box[int]),
        (Box(Point(1)), Box[Point]),
        (Box([Point(1)]), Box[list[Point]]),
        (Pair(1, Point(2)), Pair),
        ({"limit": 1, "since": NOW}, Options),
        ({"limit": 1}, Options),
        ([1, 2], list[int]),
        ([1, "a", None], list),
        ([[Point(1)]], list[list[Point]]),
        ((1, 2), tuple[int, ...]),
        ((1, "a"), tuple[int, str]),
        ((), tuple[()]),
        ((1, 2), tuple),
        ({1, 2}, set[int]),
        (frozenset({"a"}), frozenset[str]),
        (frozenset({"a"}), AbstractSet[str]),
        (deque([1]), deque[int]),
        ([1], Sequence[int]),
        ([1], Iterable[int]),
        ({"a": 1}, dict[str, int]),
        ({"a": 1}, Mapping[str, int]),
        ({"a": [1, None]}, dict),
        ({1: Point(1)}, dict[int, Point]),
        ({Color.RED: 1}, dict[Color, int]),
        ({Level.LOW: 1}, dict[Level, int]),
        ({True: 1, False: 0}, dict[bool, int]),
        ({1.5: 1}, dict[float, int]),
        ({UUID(int=1): 1, UUID(int=2): 2}, dict[UUID, int]),
        ({date(2024, 1, 1): 1}, dict[date, int]),
        (OrderedDict(a=1), OrderedDict[str, int]),
        (defaultdict(list, {"a": [1]}), defaultdict[str, list[int]]),
        (Counter("aab"), Counter[str]),
        (NOW, datetime),
        (datetime(2024, 1, 2), datetime),  # noqa: DTZ001 - naive stays naive
        (date(2020, 1, 1), date),
        (time(1, 2, 3), time),
        (timedelta(days=1, microseconds=1), timedelta),
        (UUID(int=3), UUID),
        (Decimal("1.10"), Decimal),
        (b"\x00\xff", bytes),
        (bytearray(b"ab"), bytearray),
        (Path("a/b"), Path),
        (PurePosixPath("/a"), PurePosixPath),
        (3, int | str | None),
        ("3", int | str | None),
        (None, int | str | None),
        (3, Optional[int]),  # noqa: UP045 - the old spelling is a type of its own
        (True, Union[int, bool]),  # noqa: UP007 - likewise
        (1, int | float),
        (1.0, int | float),
        ([Point(1)], list[Point] | None),
        (Point(1), Point | int),
        (3, Point | int),
        (Dog("dog", "a"), Cat | Dog),
        (Cat("cat", "a"), Cat | Dog | None),
        (Point(1), Point | Node),
        (Even(1), Point | Box[int] | Even),
        (NOW, datetime | None),
        (NOW, datetime | int),
        ("text", str | Path),
        (Level.LOW, Level | str),
        (Color.RED, Color | int),
        (Shape.WIDE, Shape | int),
        (UserId(3), UserId | str),
        (3, Annotated[int, "positive"] | str),
        (timedelta(seconds=3.5), timedelta | str),
        (timedelta(seconds=3), timedelta | str),
        (date(2024, 1, 1), date | UUID),
        (UUID(int=1), date | UUID),
        ({"limit": 1}, Options | int),
        (Pair(1, Point(2)), Pair | int),
        (Name("x"), Name | int),
        ("x", Literal["x", "y"] | int),
        ([1], Any | int),
        (3, Number | str),
        (2.5, Number | str),
        (Word.YES, Word | None),
        ({"a": Point(1)}, dict[str, Point] | list[Point]),
        ([Point(1)], dict[str, Point] | list[Point]),
        (3, Literal[3, "a"]),
        (Color.RED, Literal[Color.RED]),
        (3, Annotated[int, "positive"]),
        ({"a": [1, None, "x", 1.5, True]}, Any),
        ({"a": 1}, object),
        (3, T),
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(value: object, type_: Any) -> None:
    """What is written with a type is read with it as an equal value of the same type, through strict JSON."""
    recorded = CODEC.encode_result(value, type_, function="f")

    json.loads(json.dumps(unpacked(recorded)), parse_constant=pytest.fail)
    result = CODEC.decode(recorded, type_)
    assert value == result
    assert type(value) is type(result)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(plain)
def test_plain_data_round_trips_without_a_type(value: object) -> None:
    """JSON is a fixed point, typed Any or not at all."""
    assert value == CODEC.decode(CODEC.encode(value))
    assert value == CODEC.decode(CODEC.encode_result(value, Any, function="f"), Any)


@given(plain)
def test_text_is_strict_compact_and_the_same_every_time(value: object) -> None:
    """Standard base64 with padding, of compact JSON in UTF-8; equal values give equal text."""
    first, second = CODEC.encode(value), CODEC.encode(json.loads(json.dumps(value)))

    assert first == second
    assert first.data is not None
    text = base64.b64decode(first.data, validate=True).decode()
    assert json.dumps(value, ensure_ascii=False, separators=(",", ":")) == text


points = st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.lists(st.text()))
instants = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3.5)), timezone.max]))
nodes = st.recursive(
    st.builds(Node, points, instants.filter(lambda at: 2 < at.year < 9998)),
    lambda inner: st.builds(Node, points, st.just(NOW), inner, st.dictionaries(st.text(), points, max_size=2)),
    max_leaves=4,
)


@given(nodes)
def test_nested_classes_round_trip(node: Node) -> None:
    """Classes in classes, with instants in any zone, come back equal; the instants in UTC."""
    result = CODEC.decode(CODEC.encode_result(node, Node, function="f"), Node)

    assert node == result
    assert UTC is result.when.tzinfo


@given(
    st.dictionaries(st.integers() | st.booleans(), st.decimals(allow_nan=False)),
    st.tuples(st.binary(), st.uuids(), st.sets(st.dates())),
    st.lists(st.none() | st.integers() | st.text() | st.booleans()),
)
def test_containers_of_scalars_round_trip(
    mapping: dict[int, Decimal], triple: tuple[bytes, UUID, set[date]], mixed: list[int | str | bool | None]
) -> None:
    """Keys, tuples, sets and scalar unions keep their types."""
    mapping = {int(key): value for key, value in mapping.items()}
    for value, type_ in [
        (mapping, dict[int, Decimal]),
        (triple, tuple[bytes, UUID, set[date]]),
        (mixed, list[int | str | bool | None]),
    ]:
        result = CODEC.decode(CODEC.encode_result(value, type_, function="f"), type_)

        assert repr(value) == repr(result) or value == result


@given(st.timedeltas(timedelta(days=-36500), timedelta(days=36500)))
def test_durations_round_trip_to_the_microsecond(duration: timedelta) -> None:
    """Seconds as a float hold a century of microseconds."""
    assert duration == CODEC.decode(CODEC.encode(duration, timedelta), timedelta)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ((1, (2, 3)), "[1,[2,3]]"),
        ({1: "a", "1": "b"}, None),
        ({2: "a", None: "b"}, '{"2":"a","null":"b"}'),
        ({3, 1, 2}, "[1,2,3]"),
        (NOW.astimezone(timezone(timedelta(hours=2))), '"2024-01-02T03:04:05.000006+00:00"'),
        (timedelta(seconds=1.5), "1.5"),
        (b"ab", '"YWI="'),
        (Color.RED, '"r"'),
        (Shape.WIDE, '"WIDE"'),
        (Point(1), '{"x":1,"y":0.5,"tags":[]}'),
        ([Pair(1, Point(2, 1.0))], '[[1,{"x":2,"y":1.0,"tags":[]}]]'),
        ("é", '"é"'),
    ],
)
def test_untyped_values_are_written_by_their_own_type(value: object, text: str | None) -> None:
    """Tuples and sets are lists, keys are text; two keys that become the same text are refused."""
    if text is None:
        with pytest.raises(EncodeError, match="two of its keys"):
            CODEC.encode(value)
    else:
        assert Value(base64.b64encode(text.encode()).decode()) == CODEC.encode(value)


@pytest.mark.parametrize("value", [Value(), Value(""), packed(None)])
def test_missing_empty_and_null_are_none(value: Value) -> None:
    """The three ways in which SDKs record nothing are one."""
    assert CODEC.decode(value) is None
    assert CODEC.decode(value, type(None)) is None
    assert CODEC.decode(value, int | None) is None


@pytest.mark.parametrize(
    ("raw", "type_", "message"),
    [
        ("5", int, "expected int, got str '5' at $"),
        (True, int, "expected int, got bool True at $"),
        (1, bool, "expected bool, got int 1 at $"),
        (1.0, int, "expected int, got float 1.0 at $"),
        (True, float, "expected float, got bool True at $"),
        (1, str, "expected str, got int 1 at $"),
        (None, int, "expected int, got None at $"),
        (0, type(None), "expected None, got int 0 at $"),
        ([0], list[None], "expected None, got int 0 at $[0]"),
        (10**400, float, "expected float"),
        ("abc", list[str], "expected list[str], got str 'abc' at $"),
        ({"a": 1}, list[str], "expected list[str], got dict {'a': 1} at $"),
        ([1, "2", 3.5], list[int], "expected int, got str '2' at $[1]; expected int, got float 3.5 at $[2]"),
        ([1], tuple[int, str], "expected tuple[int, str], got list [1] at $ (2 items are expected, 1 found)"),
        ([1, 2], tuple[int, str], "expected str, got int 2 at $[1]"),
        ([[]], set[list[int]], "unhashable type"),
        ([], dict[str, int], "expected dict[str, int], got list [] at $"),
        ({"a": "1"}, dict[str, int], "expected int, got str '1' at $.a"),
        ({"a b": "1"}, dict[str, int], "at $['a b']"),
        ({"x": 1}, dict[int, int], "expected int, got str 'x' at $.x"),
        ({"1.0": 1}, dict[int, int], "expected int, got float 1.0"),
        ([], Point, "expected Point, got list [] at $"),
        ({}, Point, "the required member 'x' is missing at $"),
        ({"x": "1", "tags": [2]}, Point, "expected int, got str '1' at $.x; expected str, got int 2 at $.tags[0]"),
        ({"point": {"x": None}, "when": "soon"}, Node, "expected int, got None at $.point.x; expected datetime"),
        ({}, Options, "the required member 'limit' is missing"),
        ([], Options, "expected Options, got list []"),
        ({"half": -1}, Even, "Even refused it with ValueError: half must not be negative at $"),
        ("x", Color, "expected Color, got str 'x' at $ (known: 'r', 'b')"),
        (True, Level, "expected Level, got bool True at $"),
        (True, Literal[1], "expected Literal[1], got bool True at $"),
        ("x", datetime, "expected datetime, got str 'x'"),
        (5, datetime, "expected datetime, got int 5 at $"),
        ("x", UUID, "expected UUID, got str 'x'"),
        ("x", Decimal, "expected Decimal, got str 'x'"),
        (1.5, Decimal, "send text"),
        ("!", bytes, "not base64"),
        ("1", timedelta, "a duration is a number of seconds"),
        (1e300, timedelta, "expected timedelta"),
        (1.5, int | str | None, "expected int | str | None, got float 1.5 at $"),
        ("x", date | UUID, "expected date | UUID, got str 'x' at $"),
        ([1] * 9, list[str], "expected str, got int 1 at $[2]; and 6 more"),
        ("x", tuple[int, ...], "expected tuple[int, ...], got str 'x' at $"),
        ({"x": 1}, dict[date, int], "expected date, got str 'x'"),
        ({"x": [1]}, Literal["x"], "got dict {'x': [1]}"),
        ({"kind": "cow", "name": "a"}, Cat | Dog, "it has the required fields of none"),
        ([{"kind": "cat"}], list[Cat | Dog], "the required member 'name' is missing at $[0]"),
        (1, Callable[[], int], "nothing says how to make a"),
        ({}, type("Socket", (), {}), "nothing says how to make a Socket from JSON"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_refused_with_place_and_reason(raw: object, type_: Any, message: str) -> None:
    """Nothing is guessed; the error says what was expected, what was found, and where."""
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(packed(raw), type_)

    assert message in str(caught.value)


def test_an_int_passes_for_a_float() -> None:
    """JSON writers of other languages drop the `.0`."""
    result = CODEC.decode(packed(2), float)

    assert result == 2.0
    assert isinstance(result, float)


def test_unknown_members_are_ignored() -> None:
    """A newer program may record more than an older one reads."""
    assert Point(1) == CODEC.decode(packed({"x": 1, "z": 2}), Point)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("!!!!", "not base64"),
        ("eyJh", "not JSON"),
        (base64.b64encode(b"NaN").decode(), "NaN is not JSON"),
        (base64.b64encode(b"\xff\xfe").decode(), "not JSON"),
        (base64.b64encode(b"[" * 100_000).decode(), "not JSON"),
    ],
)
def test_broken_payloads_are_refused(data: str, message: str) -> None:
    """A payload is base64 of strict JSON in UTF-8, or an error that says which it is not."""
    with pytest.raises(DecodeError, match=message):
        CODEC.decode(Value(data))


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


cyclic: list[object] = []
cyclic.append(cyclic)


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        (math.nan, float, "JSON has no nan at $: record None instead (annotated float | None)"),
        ([1, {"a": math.inf}], Any, "JSON has no inf at $[1].a: record None instead"),
        ([{"a": {1, print}}], Any, "built-in function print> cannot be turned into JSON"),
        ({"a": [object()]}, dict[str, Any], "cannot be turned into JSON at $.a[0]: pass plain data"),
        ("\ud800", str, "lone surrogate"),
        ({"\ud800": 1}, Any, "lone surrogate"),
        ([10**5000], list[int], "more digits than Python writes at $[0] (sys.set_int_max_str_digits)"),
        (cyclic, Any, "contains itself"),
        ({(1, 2): 3}, Any, "a key of a JSON object is text, and tuple (1, 2) has no such form at $"),
        ([{"k": {b"x": {(1,): 2}}}], Any, "tuple (1,) has no such form at $[0].k[b'x']"),
        ({None: 1}, dict[str | None, int], "as a key in JSON it would come back as str 'null'"),
        ("abc", list[str], "expected list[str], got str 'abc' at $"),
        ((1, 2, 3), tuple[int, str], "expected tuple[int, str], got tuple (1, 2, 3) at $"),
        ([Point(1), {"x": 1}], list[Point], "expected Point, got dict {'x': 1} at $[1]"),
        (Node("p", NOW), Node, "expected Point, got str 'p' at $.point"),  # type: ignore[arg-type]
        (Node(Point(1), "now"), Node, "expected datetime, got str 'now' at $.when"),  # type: ignore[arg-type]
        ({"a": (NOW, "x")}, dict[str, tuple[datetime, datetime]], "expected datetime, got str 'x' at $.a[1]"),
        ({"a": ("x",)}, dict[str, tuple[date, ...]], "expected date, got str 'x' at $.a[0]"),
        (Path("a"), str | Path, "expected str | Path"),
        (Path("a"), str | Path, "in JSON it would come back as str"),
        ((1,), list[int] | tuple[int, ...], "in JSON it would come back as list"),
        (Broken(), Even, "expected Even, got <Broken instance"),
        ([10**5000], list[list[str]], "expected list[str], got"),
        ([None, True, 1, "a", 1.5, math.nan], Any, "JSON has no nan at $[5]: record None instead"),
        ([Node(Point(1), "now")], Any, "expected datetime, got str 'now' at $[0].when"),  # type: ignore[arg-type]
        ({math.nan: 1}, Any, "a key of a JSON object is text, and float nan has no such form at $"),
        ({"a": {1: 1, "1": 2}}, Any, "two of its keys become the same text in JSON at $.a"),
    ],
)
def test_what_has_no_json_form_is_refused_with_place_and_reason(value: object, type_: Any, message: str) -> None:
    """The error says where, what was found there, and what to do."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(value, type_)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        ("5", int, "the result of function 'f' does not fit its annotation int: expected int, got str '5' at $"),
        ([1, "2"], list[int], "does not fit its annotation list[int]: expected int, got str '2' at $[1]"),
        (Point("a"), Point, "does not fit its annotation Point: expected int, got str 'a' at $.x"),  # type: ignore[arg-type]
        (3, None, "does not fit its annotation None: expected None, got int 3 at $"),
        (Word.YES, Color | int, "does not fit its annotation Color | int: expected Color, got str 'yes'"),
        (object(), Any, "the result of function 'f' cannot be recorded: <object"),
    ],
)
def test_a_result_must_fit_its_annotation(value: object, type_: Any, message: str) -> None:
    """What a function returns is read back before it is recorded, so that the caller can."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode_result(value, type_, function="f")

    assert message in str(caught.value)


def test_classes_that_json_cannot_tell_apart_are_refused_when_written() -> None:
    """The error names the ways out: a required field, a literal field, a tagged union."""
    first, second = attrs.make_class("First", ["x"]), attrs.make_class("Second", ["x"])

    with pytest.raises(EncodeError, match=r"First and Second cannot be told apart.*configure_tagged_union"):
        CODEC.encode(first(1), first | second)


def test_annotations_that_do_not_exist_are_named() -> None:
    """A field that is annotated under TYPE_CHECKING only cannot be decoded, and the error says so."""

    @attrs.frozen
    class Broken:
        x: Missing  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DecodeError, match=r"'Missing' is not defined.*TYPE_CHECKING"):
        CODEC.decode(packed({"x": 1}), Broken)
    with pytest.raises(EncodeError, match="'Missing' is not defined"):
        CODEC.encode(Broken(1), Broken)


# --- hooks of users


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def test_hooks_of_users_come_first() -> None:
    """A type that the codec does not know is taught to a converter."""
    converter = make_converter()
    converter.register_unstructure_hook(Money, lambda money: f"{money.cents} ct")
    converter.register_structure_hook(Money, lambda raw, _: Money(int(raw.removesuffix(" ct"))))
    codec = Codec(converter)

    recorded = codec.encode_result({"a": [Money(5)]}, dict[str, list[Money]], function="f")

    assert {"a": ["5 ct"]} == unpacked(recorded)
    assert codec.decode(recorded, dict[str, list[Money]])["a"][0].cents == 5
    assert codec.decode(codec.encode_result(Money(5), Money | None, function="f"), Money | None).cents == 5


def test_tagged_unions_replace_the_rules_for_a_union() -> None:
    """A strategy of cattrs decides where two classes look alike."""
    first, second = attrs.make_class("First", {"x": attrs.field(type=int)}), attrs.make_class("Second", ["x"])
    converter = make_converter()
    configure_tagged_union(first | second, converter)
    codec = Codec(converter)

    recorded = codec.encode_result(second(1), first | second, function="f")

    assert {"x": 1, "_type": "Second"} == unpacked(recorded)
    assert second(1) == codec.decode(recorded, first | second)


def test_renamed_members() -> None:
    """The own overrides of cattrs work, also where they tell classes of a union apart."""
    converter = make_converter()
    renamed = cattrs.override(rename="longName")
    converter.register_structure_hook(Even, cattrs.gen.make_dict_structure_fn(Even, converter, half=renamed))
    converter.register_unstructure_hook(Even, cattrs.gen.make_dict_unstructure_fn(Even, converter, half=renamed))
    codec = Codec(converter)

    recorded = codec.encode_result(Even(1), Even | Point, function="f")

    assert {"longName": 1} == unpacked(recorded)
    assert Even(1) == codec.decode(recorded, Even | Point)


# --- calls


def test_a_call_is_what_every_sdk_reads() -> None:
    """func, args as an array even when empty, a version; kwargs only if there are any."""
    assert {"func": "f", "args": [], "version": 1} == unpacked(CODEC.encode_call("f"))
    assert {"func": "f", "args": [1, [2]], "version": 3, "kwargs": {"a": None}} == unpacked(
        CODEC.encode_call("f", 3, [1, [2]], {"a": None})
    )


@pytest.mark.parametrize(
    ("raw", "call"),
    [
        ({"func": "f", "args": [1, 2], "version": 1}, Call("f", 1, [1, 2])),
        ({"func": "f", "args": [1], "kwargs": {"a": 2}, "version": 2}, Call("f", 2, [1], {"a": 2})),
        ({"func": "f"}, Call("f")),
        ({"func": "f", "args": None, "kwargs": None, "version": None}, Call("f")),
        ({"func": "f", "args": {"a": 1}}, Call("f", None, {"a": 1})),
        ({"func": "f", "args": "x", "version": 0}, Call("f", 0, "x")),
        ({"func": "f", "args": False}, Call("f", None, False)),
        ({"func": "f", "args": [], "retry": {"type": "never"}, "version": 1}, Call("f", 1, [])),
    ],
)
def test_calls_of_every_sdk_are_read(raw: object, call: Call) -> None:
    """No argument, one bare argument or an array; unknown members are ignored."""
    assert call == CODEC.decode_call(packed(raw))


@pytest.mark.parametrize(
    ("args", "positional"), [(None, ()), ([], ()), ([1, 2], (1, 2)), (0, (0,)), ("", ("",)), ({"a": 1}, ({"a": 1},))]
)
def test_an_argument_by_itself_is_one_argument(args: object, positional: tuple[object, ...]) -> None:
    """An array is the arguments, null is none, and anything else is one."""
    assert positional == Call("f", 1, args).positional


@pytest.mark.parametrize(
    "raw",
    [
        None,
        3,
        [],
        {},
        {"func": 3},
        {"func": "f", "kwargs": []},
        {"func": "f", "version": "1"},
        {"func": "f", "version": -1},
    ],
)
def test_what_is_no_call_is_refused(raw: object) -> None:
    """A promise that was not made by a call has no function to run."""
    with pytest.raises(DecodeError):
        CODEC.decode_call(packed(raw))


@pytest.mark.parametrize(("text", "expected"), [("__INF__", math.inf), ("__NEG_INF__", -math.inf)])
def test_infinities_of_typescript_are_floats(text: str, expected: float) -> None:
    """TypeScript records them as text; where a float is expected they are one, elsewhere they stay text."""
    assert [expected] == CODEC.decode(packed([text]), list[float])
    assert expected == CODEC.decode(packed(text), float | None)
    assert text == CODEC.decode(packed(text), float | str)
    assert text == CODEC.decode(packed(text))
    with pytest.raises(DecodeError, match="expected int"):
        CODEC.decode(packed(text), int)
    with pytest.raises(DecodeError, match="expected float, got str 'INF'"):
        CODEC.decode(packed("INF"), float)


def test_a_call_whose_argument_is_not_json_names_the_place() -> None:
    """The path leads to the argument."""
    with pytest.raises(EncodeError, match=r"the call of 'f' cannot be recorded: .* at \$\.args\[1\]"):
        CODEC.encode_call("f", 1, [0, object()])


def test_arguments_that_contain_themselves_are_refused() -> None:
    """Also where they claim to be JSON already."""
    with pytest.raises(EncodeError, match="contains itself"):
        CODEC.encode_call("f", 1, [cyclic])


def test_what_is_nested_too_deeply_is_refused() -> None:
    """Python has an end, and reaching it is an error of the value, not of the program."""
    raw: object = None
    for _ in range(400):
        raw = {"point": {"x": 1}, "when": NOW.isoformat(), "next": raw}

    with pytest.raises(DecodeError, match="does not fit Node"):
        CODEC.from_json(raw, Node)


# --- errors


class Boom(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"boom {self.code}"


class Outer:
    class InnerError(Exception):
        pass


class Formatted(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"failed with {code}")


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(code)


class Reduced(Exception):
    def __init__(self, code: int, *, hint: str = "") -> None:
        super().__init__(f"failed with {code}")
        self.code = code

    def __reduce__(self) -> tuple[type[Reduced], tuple[int]]:
        return Reduced, (self.code,)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Group(ExceptionGroup[Exception]):
    pass


def raised(exc: Exception) -> Exception:
    with contextlib.suppress(type(exc)):
        raise exc
    return exc


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("bad", 3),
        ValueError(),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "a.txt"),
        ZeroDivisionError("x"),
        Boom(5),
        Outer.InnerError("x", None, 1.5, [1]),
        Reduced(7),
        ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [Boom(2)])]),
        Group("several", [ValueError(1)]),
        json.JSONDecodeError("msg", "doc", 0),
    ],
    ids=repr,
)
def test_errors_come_back_as_the_type_they_were(exc: Exception) -> None:
    """A type that is imported here and made from plain arguments is rebuilt, attributes and members included."""
    result = CODEC.decode_error(CODEC.encode_error(raised(exc)))

    assert type(exc) is type(result)
    assert str(exc) == str(result)
    assert repr(exc.args) == repr(result.args)
    assert {k: v for k, v in vars(exc).items() if k != "__notes__"} == vars(result)


@pytest.mark.parametrize(
    "exc",
    [
        _errors.ResonateError("x"),
        _errors.UsageError("x"),
        _errors.NotRegistered("f", version=2, known=["a", "b"]),
        _errors.AlreadyRegistered("f", 1),
        _errors.InvalidFunction("x"),
        _errors.InvalidArgument("x"),
        _errors.EncodeError("x"),
        _errors.DecodeError("x"),
        _errors.ApplicationError("Boom", "text", "stack", {"a": [1]}),
        _errors.DurableTimeoutError("a.b", 5),
        _errors.DurableCancelledError("a.b", "scope"),
        _errors.NonDeterminismError("a", "x", "y"),
        _errors.ExecutionMismatch("a", "x", "y"),
        _errors.NotFound("promise", "a"),
        _errors.RequestError("promise.get", 404, "gone"),
        _errors.StoreError("x"),
        _errors.StoreInUse("a.db", 3),
    ],
    ids=repr,
)
def test_errors_of_this_package_come_back(exc: Exception) -> None:
    """They may be raised by durable functions like any other."""
    result = CODEC.decode_error(CODEC.encode_error(raised(exc)))

    assert type(exc) is type(result)
    assert str(exc) == str(result)
    for name in ("id", "name", "by", "version", "data", "traceback", "pid", "status"):
        assert getattr(exc, name, None) == getattr(result, name, None)


def test_a_group_of_errors_is_an_aggregate_to_typescript() -> None:
    """TypeScript tells the two apart by their type, and reads the members."""
    group = ExceptionGroup("both", [LookupError("a"), ExceptionGroup("inner", [TypeError("b")])])

    recorded = unpacked(CODEC.encode_error(group))

    inner = recorded["errors"][1]
    assert ("aggregate_error", "both (2 sub-exceptions)") == (recorded["__type"], recorded["message"])
    assert ("error", "a") == (recorded["errors"][0]["__type"], recorded["errors"][0]["message"])
    assert ("aggregate_error", "b") == (inner["__type"], inner["errors"][0]["message"])


def test_an_error_is_recorded_for_every_sdk() -> None:
    """Others read message, name and stack; type, args, notes and cause are for this one."""
    exc = raised(Boom(5))
    exc.add_note("while testing")
    exc.__cause__ = KeyError("k")

    record = unpacked(CODEC.encode_error(exc))

    stack = record.pop("stack")
    assert "Traceback" in stack
    assert stack.endswith("Boom: boom 5\nwhile testing\n")
    assert {
        "__type": "error",
        "name": "Boom",
        "message": "boom 5",
        "type": f"{__name__}:Boom",
        "args": [5],
        "notes": ["while testing"],
        "cause": {
            "__type": "error",
            "name": "KeyError",
            "message": "'k'",
            "type": "builtins:KeyError",
            "args": ["k"],
        },
    } == record


def test_notes_and_causes_come_back() -> None:
    """Notes as they were, causes as errors, down the chain; a cause that ends programs as text."""
    exc = ValueError("outer")
    exc.add_note("a note")
    exc.__cause__ = KeyError("middle")
    exc.__cause__.__cause__ = KeyboardInterrupt("stop")

    result = CODEC.decode_error(CODEC.encode_error(raised(exc)))

    assert ["a note"] == result.__notes__
    assert isinstance(result.__cause__, KeyError)
    assert isinstance(result.__cause__.__cause__, ApplicationError)
    assert "KeyboardInterrupt: stop" in str(result.__cause__.__cause__)


def test_members_of_groups_keep_their_notes_and_causes() -> None:
    """A group is rebuilt from members that are rebuilt like any error."""
    member = ValueError("x")
    member.add_note("note")
    member.__cause__ = Boom(1)

    result = CODEC.decode_error(CODEC.encode_error(ExceptionGroup("g", [member, KeyboardInterruptLike()])))

    assert isinstance(result, ExceptionGroup)
    first, second = result.exceptions
    assert ["note"] == first.__notes__
    assert isinstance(first.__cause__, Boom)
    assert isinstance(second, KeyboardInterruptLike)


class KeyboardInterruptLike(Exception):
    pass


def local_error() -> Exception:
    class LocalError(Exception):
        pass

    return LocalError("x")


@pytest.mark.parametrize(
    ("exc", "name", "message"),
    [
        (Formatted(5), "Formatted", "failed with 5"),
        (KeywordOnly(code=5), "KeywordOnly", "5"),
        (local_error(), "LocalError", "x"),
        (ValueError(object), "ValueError", "<class 'object'>"),
        (ValueError(math.nan), "ValueError", "nan"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError", None),
        (StopIteration(3), "StopIteration", "3"),
    ],
    ids=repr,
)
def test_errors_that_cannot_be_rebuilt_are_application_errors(exc: Exception, name: str, message: str | None) -> None:
    """Name, message and stack survive where the type cannot; a type is never rebuilt as something it was not."""
    result = CODEC.decode_error(CODEC.encode_error(raised(exc)))

    assert isinstance(result, ApplicationError)
    assert name == result.name
    assert message is None or message == result.message
    assert result.traceback is not None
    assert "Traceback" in result.traceback


@pytest.mark.parametrize(
    ("raw", "name", "message", "traceback"),
    [
        ({"__type": "error", "name": "TypeError", "message": "m", "stack": "s"}, "TypeError", "m", "s"),
        ({"__type": "error", "message": "application error: boom"}, "Error", "application error: boom", None),
        (
            {"__type": "aggregate_error", "name": "AggregateError", "message": "m", "errors": []},
            "AggregateError",
            "m",
            None,
        ),
        ({"message": 3}, "Error", '{"message":3}', None),
        ({"by": "scope"}, "Error", '{"by":"scope"}', None),
        ("thrown text", "Error", "thrown text", None),
        ([1], "Error", "[1]", None),
        (None, "Error", "", None),
    ],
)
def test_errors_of_other_sdks_are_application_errors(
    raw: object, name: str, message: str, traceback: str | None
) -> None:
    """Whatever was recorded is kept as `data`; a message is found where there is one."""
    result = CODEC.decode_error(packed(raw))

    assert isinstance(result, ApplicationError)
    assert (name, message, traceback, raw) == (result.name, result.message, result.traceback, result.data)


def test_an_error_that_is_no_json_is_an_application_error_too() -> None:
    """Whoever waits for a rejected promise gets an error that says so, not another one."""
    result = CODEC.decode_error(Value("!!"))

    assert isinstance(result, ApplicationError)
    assert "not base64" in result.message


@pytest.mark.parametrize(
    "type_",
    [
        "os:system",
        "builtins:SystemExit",
        "builtins:KeyboardInterrupt",
        "builtins:StopIteration",
        "builtins:print",
        "builtins:object",
        "json:decoder.JSONDecodeError.__init__",
        "nowhere:Error",
        "ValueError",
        "",
        ":",
        3,
    ],
)
def test_only_exceptions_are_rebuilt(type_: object) -> None:
    """A record names a type; nothing but an Exception subclass that exists here is ever called."""
    raw = {"__type": "error", "name": "N", "message": "m", "type": type_, "args": ["exit 1"]}

    assert isinstance(CODEC.decode_error(packed(raw)), ApplicationError)


def test_reading_an_error_imports_nothing() -> None:
    """A module that is not imported yet stays so, and its error is an ApplicationError."""
    assert "this" not in sys.modules
    raw = {"__type": "error", "name": "N", "message": "m", "type": "this:Error", "args": []}

    result = CODEC.decode_error(packed(raw))

    assert isinstance(result, ApplicationError)
    assert "this" not in sys.modules


def test_reading_an_error_asks_no_module_for_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module may import on attribute access, so only what it holds already counts."""
    module = type(sys)("lazy")
    module.__getattr__ = lambda name: pytest.fail(f"asked for {name}")  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy", module)

    raw = {"message": "m", "type": "lazy:Error", "args": []}

    assert isinstance(CODEC.decode_error(packed(raw)), ApplicationError)


def test_an_application_error_keeps_the_original_name_for_others() -> None:
    """An error that passes through keeps what it was, also for SDKs that read name, message and stack only."""
    original = {"__type": "error", "name": "TypeError", "message": "m", "stack": "remote stack"}
    passing = CODEC.decode_error(packed(original))

    once = unpacked(CODEC.encode_error(raised(passing)))
    twice = unpacked(CODEC.encode_error(raised(CODEC.decode_error(packed(once)))))

    assert original.items() <= once.items()
    assert once == twice


def test_causes_in_a_circle_and_deep_chains_end() -> None:
    """A chain is followed so far, then it is text."""
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    deep = ValueError(0)
    for number in range(200):
        following = ValueError(number)
        following.__cause__ = deep
        deep = following

    nested: Exception = ValueError(0)
    for _ in range(200):
        members: list[Exception] = [nested]
        nested = ExceptionGroup("g", members)

    assert isinstance(CODEC.decode_error(CODEC.encode_error(nested)), ExceptionGroup)
    for exc in (first, deep):
        result = CODEC.decode_error(CODEC.encode_error(exc))

        assert isinstance(result.__cause__, ValueError)


def test_broken_text_does_not_break_the_record() -> None:
    """Surrogates, as in undecodable file names, are escaped; huge stacks lose their beginning; `__str__` may raise."""
    assert unpacked(CODEC.encode_error(Unprintable(3)))["message"] == "<its text cannot be made>"
    record = unpacked(CODEC.encode_error(raised(ValueError("\udcff" + "x" * 50_000))))

    assert record["message"].startswith("\\udcff")
    assert len(record["stack"]) < 20_000


@pytest.mark.parametrize("exc", [KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_a_program_is_not_recorded(exc: BaseException) -> None:
    """Such an execution is dropped as in a crash, never rejected."""
    with pytest.raises(TypeError, match="never recorded"):
        CODEC.encode_error(exc)  # type: ignore[arg-type]


# --- digests


def test_equal_arguments_share_a_digest() -> None:
    """Order of keys and sets, lists and tuples make no difference; values do."""
    digest = CODEC.digest(({"a": 1, "b": {2, 1}},), {"x": (1,), "y": None})

    assert digest is not None
    assert len(digest) == 22
    assert digest == CODEC.digest([{"b": {1, 2}, "a": 1}], {"y": None, "x": [1]})
    assert digest != CODEC.digest([{"b": {1, 2}, "a": 1}], {"y": None, "x": [2]})


def test_a_digest_of_json_is_the_digest_of_the_value() -> None:
    """Caller and worker compute the same from the value and from its record."""
    args = (Point(1), NOW, Color.RED)

    assert CODEC.digest(args, {}) == CODEC.digest(CODEC.to_json(list(args)), {})


@pytest.mark.parametrize("value", [object(), math.nan, "\ud800", cyclic, {(1, 2): 3}])
def test_arguments_without_a_json_form_have_no_digest(value: object) -> None:
    """Arguments of local calls are passed as they are, whatever they are."""
    assert CODEC.digest((value,), {}) is None


@given(plain, plain)
def test_digests_tell_values_apart(first: object, second: object) -> None:
    """Equal digests mean equal JSON."""
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)

    assert same is (CODEC.digest((first,), {}) == CODEC.digest((second,), {}))
