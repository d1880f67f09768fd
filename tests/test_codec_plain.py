"""Plain data is written without the rules of the converter, with the same bytes and errors as by the rules."""

from __future__ import annotations

import gc
import json
import math
import sys
import weakref
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from types import NoneType
from typing import Any, Required, TypedDict

import attrs
import pytest
from cattrs import Converter
from hypothesis import given, settings, strategies as st

from resonate_anyio import make_converter
from resonate_anyio._codec import Codec
from resonate_anyio._codec._json import PlainData, dumps
from resonate_anyio._errors import DecodeError, EncodeError
from resonate_anyio._protocol import Value

from . import nasty


class Level(IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


class Unhashable(type):
    """A metaclass whose classes cannot be compared and cannot be keys."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError


class Odd(metaclass=Unhashable):
    pass


@attrs.frozen
class Point:
    x: int


class Row(TypedDict):
    id: int
    name: str | None


class Loose(TypedDict, total=False):
    rows: list[Row]
    row: Row | None
    id: Required[int]
    rest: Any


def by_the_rules() -> Codec:
    """Return a codec that writes every value by the rules, since it finds a layout for no annotation."""
    codec = Codec()
    object.__setattr__(codec, "_plain", PlainData(codec.converter, lambda *_: None))
    return codec


CODEC, BY_THE_RULES = Codec(), by_the_rules()

TYPES: tuple[Any, ...] = (
    Any, int, str, float, bool, None, NoneType, list, dict, tuple, list[int], dict[str, Any], int | None, Point,
    object, bytes, Sequence[str], list[float], dict[str, list[int | str]], list[list[Any] | dict[str, int] | None],
    Mapping[str, bool | None],
    Row, Loose, list[Row], Row | None, dict[str, Loose],
    dict[int, str], dict[Any, Any], list[list[int] | list[str]], list[Any] | int,
)  # fmt: skip


JSON_TYPES = (int, str, float, bool, NoneType, list, tuple, dict, Any)


def outcome(call: Callable[[], object]) -> object:
    """Return the result of a call, or the type and the text of the error that it raises."""
    try:
        return call()
    except Exception as exc:  # noqa: BLE001 - any error is compared
        return type(exc), str(exc)


def text_of(value: Value) -> Any:
    assert value.data is not None
    return json.loads(b64decode(value.data))


def check_both_ways(value: Any, type_: Any) -> None:
    """Check that both codecs return the same for a value, or raise errors of the same text."""
    assert outcomes(BY_THE_RULES, value, type_) == outcomes(CODEC, value, type_)


def outcomes(codec: Codec, value: Any, type_: Any) -> list[object]:
    written = outcome(lambda: codec.encode(value))
    return [
        written,
        outcome(lambda: codec.encode_result(value, type_, function="f")),
        outcome(lambda: codec.digest((value, 5), {"key": value}, whole=True)),
        outcome(lambda: codec.encode_identity("f", 2, (value,), {"key": value}, whole=True)),
        outcome(lambda: codec.checked_json(value, type_, what="it")),
        # As text, in which 1 and 1.0 and True differ.
        repr(outcome(lambda: codec.decode(written, type_))) if isinstance(written, Value) else None,
    ]


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from([Level.LOW, Name("x"), "\ud800", -0.0, Point(1), object, b"x", datetime(2024, 1, 1, tzinfo=UTC)])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from([1, None, Name("k"), (1, 2)]), inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=10,
)


@given(values, st.sampled_from(TYPES))
def test_the_same_bytes_and_the_same_errors(value: object, type_: Any) -> None:
    """Values of all kinds are written byte by byte as by the rules, or refused with the same words."""
    check_both_ways(value, type_)


@settings(max_examples=30)
@given(values, st.sampled_from(TYPES))
def test_many_parts_are_treated_as_few(value: object, type_: Any) -> None:
    """Values of many parts, which are looked at together, have the same bytes and errors as by the rules."""
    check_both_ways([value] * 70, list[type_])
    check_both_ways({str(number): value for number in range(70)}, dict[str, type_])


@pytest.mark.parametrize("type_", [Row, Loose, list[Row], list[Loose], Row | None, dict[str, Loose]])
@given(st.data())
def test_typed_dicts_are_treated_as_by_the_rules(type_: Any, data: st.DataObject) -> None:
    """Objects that fit a TypedDict, or nearly, have the same bytes, values and errors as by the rules."""
    small = st.sampled_from([1, "a", None, 1.5, Name("x"), True, {1: "a", "1": "b"}, Point(1)])
    row = st.dictionaries(st.sampled_from(["id", "name", "name", Name("id"), "more"]), small, max_size=3)
    loose = st.fixed_dictionaries(
        {}, optional={"id": small, "row": row | small, "rows": st.lists(row, max_size=2), "rest": small, "more": small}
    )
    value = data.draw(row | loose | st.lists(row | loose, max_size=3) | st.dictionaries(st.text(), loose, max_size=2))
    check_both_ways(value, type_)


def calls_of_the_codec(work: Callable[[], object]) -> list[str]:
    """The functions of the codec that are called."""
    made: list[str] = []

    def count(frame: Any, event: str, _: object) -> None:
        if event == "call" and "/_codec/" in frame.f_code.co_filename.replace("\\", "/"):
            made.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return made


@pytest.mark.parametrize(
    ("value", "type_", "most"),
    [
        (list(range(50_000)), list[int], 40),
        (
            [{"id": number, "tags": ["a", None]} for number in range(10_000)],
            list[dict[str, int | list[str | None]]],
            40,
        ),
        ({str(number): [[number], [0.5]] for number in range(10_000)}, dict[str, list[list[Any]]], 40),
        (b"x" * 1_000_000, bytes, 40),
        ([{"id": number, "name": None} for number in range(10_000)], list[Row], 40),
        # Each member of a TypedDict is looked at by itself.
        ([{"id": 1, "rows": [{"id": 2, "name": "a"}]}] * 5_000, list[Loose], 64),
    ],
    ids=["numbers", "rows", "nested", "bytes", "typed dicts", "nested typed dicts"],
)
def test_many_parts_take_few_calls(value: object, type_: Any, most: int) -> None:
    """A value of many plain parts is written and read with a few calls for each level, if its annotation is plain."""

    def both_ways() -> None:
        written = CODEC.encode_result(value, type_, function="f")
        assert value == CODEC.decode(written, type_)
        assert value == CODEC.decode(Value(written.data), type_)

    both_ways()
    assert len(calls_of_the_codec(both_ways)) <= most


def test_what_was_written_here_is_not_examined_again() -> None:
    """A large payload is examined when it is read, unless this process wrote it by the same annotation."""
    value, annotation = list(range(50_000)), list[int]
    written = CODEC.encode_result(value, annotation, function="f")

    assert "fits_read" not in calls_of_the_codec(lambda: CODEC.decode(written, annotation))
    assert "fits_read" in calls_of_the_codec(lambda: CODEC.decode(Value(written.data), annotation))
    with pytest.raises(DecodeError, match="expected str, got int 0 at"):
        CODEC.decode(written, list[str])


@pytest.mark.parametrize("text", ['"aGk\\/"', ' "aGk/" ', '"aGk\\u002f"'])
def test_base64_that_another_sdk_escaped(text: str) -> None:
    """Bytes are read from any JSON text that stands for their base64."""
    assert b"hi?" == CODEC.decode(Value(b64encode(text.encode()).decode()), bytes)


@pytest.mark.parametrize("text", ['"aGk"', '"aGk!"', "5", '"aGk=', "null", '"', ""])
def test_bytes_that_are_none(text: str) -> None:
    """What is no base64 is refused as by the rules."""
    payload = Value(b64encode(text.encode()).decode())
    assert outcome(lambda: BY_THE_RULES.decode(payload, bytes)) == outcome(lambda: CODEC.decode(payload, bytes))


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [{"a": math.inf}],
        ["\ud800"],
        {"\ud800": 1},
        10**5000,
        {"a": {1: "x", "1": "y"}},
        nasty.Raising(a=1),
        nasty.Hidden([1]),
        nasty.containing_itself(),
        Odd(),
        [Odd()],
        *(nasty.nested(depth) for depth in (18, 19, 20, 21, 22, 50, 300, 100_000)),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("type_", [Any, float, Odd])
def test_what_is_refused_is_refused_alike(value: object, type_: Any) -> None:
    """Values that JSON cannot hold, and values of any depth, are treated as by the rules."""
    check_both_ways(value, type_)


def test_what_contains_itself_many_times_is_refused_at_once() -> None:
    """A list that contains itself is found not to be plain at the deepest level, whatever number of parts it has."""
    wide: list[Any] = []
    wide.extend([wide] * 1000)

    with pytest.raises(EncodeError, match="contains itself"):
        CODEC.encode(wide)
    assert CODEC.digest((wide,), {}) is None


class Length:
    """A callable that cannot be a key, nor be referred to weakly."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self, value: list[Any]) -> int:
        return len(value)


def shout(text: Any, _: object = None) -> str:
    return f"{text}!"


def is_just(type_: type) -> Callable[[Any], bool]:
    return lambda candidate: candidate is type_


HOOKS: dict[str, tuple[Callable[[Converter], object], object, object]] = {
    "int": (lambda c: c.register_unstructure_hook(int, lambda n: n + 1), {"a": [1]}, {"a": [2]}),
    "str": (lambda c: c.register_unstructure_hook(str, shout), ["a"], ["a!"]),
    "float": (lambda c: c.register_unstructure_hook(float, lambda n: n * 2), [1.5], [3.0]),
    "bool": (lambda c: c.register_unstructure_hook(bool, int), [True], [1]),
    "None": (lambda c: c.register_unstructure_hook(NoneType, lambda _: "none"), [None], ["none"]),
    "list": (lambda c: c.register_unstructure_hook(list, len), {"a": [7, 8]}, {"a": 2}),
    "tuple": (lambda c: c.register_unstructure_hook(tuple, len), {"a": (7, 8)}, {"a": 2}),
    "dict": (lambda c: c.register_unstructure_hook(dict, sorted), [{"b": 1, "a": 2}], [["a", "b"]]),
    "list by an object": (lambda c: c.register_unstructure_hook(list, Length()), {"a": [7, 8]}, {"a": 2}),
    "object": (lambda c: c.register_unstructure_hook(object, str), 5, "5"),
    "Any": (lambda c: c.register_unstructure_hook_func(lambda t: t is Any, str), [1, "b"], ["1", "b"]),
    "int by a predicate": (lambda c: c.register_unstructure_hook_func(is_just(int), str), [1], ["1"]),
    "float by a factory": (
        lambda c: c.register_unstructure_hook_factory(is_just(float), lambda _: str),
        [1.5],
        ["1.5"],
    ),
    "keys": (lambda c: c.gen_unstructure_mapping(dict, key_handler=shout), {"a": 1}, {"a!": 1}),
}


@pytest.mark.parametrize(("register", "value", "expected"), HOOKS.values(), ids=HOOKS.keys())
def test_hooks_for_types_of_json_are_applied(
    register: Callable[[Converter], object], value: Any, expected: object
) -> None:
    """A user's hook for a type of JSON is applied to every such value, also if registered after the first use."""
    converter = make_converter()
    codec = Codec(converter)
    assert value == CODEC.decode(codec.encode(value)) or isinstance(value["a"], tuple)
    register(converter)

    for written in (
        codec.encode(value),
        codec.encode_result(value, Any, function="f"),
        Codec(converter).encode(value),
    ):
        assert expected == text_of(written)
    assert converter.copy().unstructure(value) == text_of(Codec(converter.copy()).encode(value))
    assert codec.digest((value,), {}) == Codec(converter).digest((value,), {}) != CODEC.digest((value,), {})
    identity = {"func": "f", "version": 1, "digest": codec.digest((value,), {})}
    assert codec.encode(identity) == codec.encode_identity("f", 1, (value,), {})


def test_hooks_that_read_types_of_json_are_applied() -> None:
    """A user's hook that reads a type of JSON is applied when a value is read, and when a result is checked."""
    converter = make_converter()
    codec = Codec(converter)
    recorded = codec.encode_result(5, int, function="f")
    assert 5 == codec.decode(recorded, int)

    converter.register_structure_hook(int, lambda raw, _: raw * 2)
    assert 10 == codec.decode(recorded, int)

    def refuse(raw: Any, _: Any) -> Any:
        raise ValueError(raw)

    converter.register_structure_hook_func(is_just(str), refuse)
    converter.register_structure_hook(str, refuse)
    with pytest.raises(EncodeError, match="the result of function 'f' does not fit its annotation str"):
        codec.encode_result("text", str, function="f")


def test_a_converter_with_methods_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that replaces one of the converter is called."""
    converter = make_converter()
    monkeypatch.setattr(converter, "unstructure", lambda *_: "replaced")

    assert "replaced" == text_of(Codec(converter).encode([1]))


def test_a_rule_of_another_converter() -> None:
    """A rule of this package that was made for another converter applies the hooks of that one."""
    other, converter = make_converter(), make_converter()
    other.register_unstructure_hook(int, str)
    converter.register_unstructure_hook(list, other.get_unstructure_hook(list))

    assert ["1"] == text_of(Codec(converter).encode([1]))


@pytest.mark.parametrize("type_", [list, dict, Any])
def test_a_hook_that_is_registered_after_a_rule_of_this_package(type_: Any) -> None:
    """A registration is noticed also if the hook for lists, say, remains the same."""
    converter = make_converter()
    codec = Codec(converter)
    converter.register_unstructure_hook_func(is_just(type_), converter.get_unstructure_hook(type_))
    converter.register_unstructure_hook_func(lambda type_: isinstance(type_, type) and type_ not in JSON_TYPES, str)
    assert [1] == text_of(codec.encode([1]))

    converter.register_unstructure_hook(int, str)
    assert ["1"] == text_of(codec.encode([1]))


@pytest.mark.parametrize("type_", [list, dict, int, NoneType])
def test_a_factory_that_fails_for_one_type(type_: type) -> None:
    """Values of other types are written and read as ever, and those of this one are refused."""

    def fail(_: Any) -> Any:
        raise nasty.Panic

    converter = make_converter()
    converter.register_unstructure_hook_factory(is_just(type_), fail)
    converter.register_structure_hook_factory(is_just(type_), fail)
    codec = Codec(converter)

    assert "text" == codec.decode(codec.encode_result("text", str, function="f"), str)
    values: list[Any] = [[], {}, 1, None]
    for value in values:
        if type(value) is type_:
            with pytest.raises(EncodeError, match="Panic"):
                codec.encode_result(value, Any, function="f")
        else:
            assert value == codec.decode(codec.encode_result(value, Any, function="f"))


def test_a_converter_is_freed() -> None:
    """The marks of the rules keep no converter alive."""
    converter = make_converter()
    Codec(converter).encode([{"a": 1}])
    gone = weakref.ref(converter)
    del converter
    gc.collect()

    assert gone() is None


def test_a_converter_of_cattrs() -> None:
    """A converter that was not made by this package writes every value by its own rules."""
    converter = Converter()
    converter.register_unstructure_hook(int, str)

    assert ["1"] == text_of(Codec(converter).encode([1]))
    assert [1] == text_of(Codec(Converter()).encode([1]))


@pytest.mark.parametrize(
    ("value", "is_plain"),
    [
        (1, True),
        ("x", True),
        (None, True),
        ([1, "x", None, 1.5, True, {"a": [()]}], True),
        ({1, 2}, False),
        ({1: 2}, False),
        (Level.LOW, False),
        ([Name("x")], False),
    ],
)
def test_plain_data_takes_no_rule(value: object, is_plain: bool) -> None:
    """Writing plain data takes at most six calls of the codec, for any number of parts; other values take the rules."""
    CODEC.encode(value)
    made = calls_of_the_codec(lambda: CODEC.encode(value))
    assert is_plain is (len(made) <= 6), made


def test_the_search_for_a_fault_asks_no_methods_of_subclasses() -> None:
    """They need not end: what is not JSON is searched for in what a dict or a list holds itself."""
    asked: list[str] = []

    class Asked(dict[str, int]):
        def items(self) -> Any:
            asked.append("dict")
            return super().items()

    class Listed(list[int]):
        def __iter__(self) -> Iterator[int]:
            asked.append("list")
            return super().__iter__()

    with pytest.raises(EncodeError):
        dumps([{(1, 2): 1}, Asked(a=1), Listed([1])])
    assert [] == asked
