"""Types of Pydantic, numpy and the standard library's number and address types, as values on record."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import subprocess
import sys
import textwrap
from base64 import b64decode
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Annotated, Any, Generic, Literal, Optional, TypeVar, Union
from uuid import UUID

import attrs
import numpy as np
import pydantic
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    field_serializer,
    model_validator,
)

from resonate_anyio import DecodeError, EncodeError
from resonate_anyio._codec import Codec
from resonate_anyio._protocol import Value

CODEC = Codec()
NOW = datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
T = TypeVar("T")


def unpacked(value: Value) -> Any:
    assert value.data is not None
    return json.loads(b64decode(value.data, validate=True), parse_constant=pytest.fail)


def recorded(value: object, type_: Any) -> Any:
    """What is on record of a value, which comes back equal."""
    return unpacked(CODEC.encode_result(value, type_, function="f"))


def spelled(value: object) -> str:
    """The `repr` of a parameter, as the id of a test has to be: the same in each process."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return re.sub(r"\{('[^{}:]*')\}", lambda found: f"{{{', '.join(sorted(found[1].split(', ')))}}}", text)


def back(value: object, type_: Any) -> Any:
    """The value as it is read back."""
    return CODEC.decode(CODEC.encode_result(value, type_, function="f"), type_)


# --- Pydantic


class Color(Enum):
    RED = "r"


class Item(BaseModel):
    name: str
    price: Decimal = Decimal("1.10")
    tags: set[str] = set()


class Order(BaseModel):
    id: UUID
    at: datetime
    items: list[Item]
    color: Color = Color.RED
    note: str | None = None
    pair: tuple[int, str] = (1, "a")
    parent: Order | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    on: date
    id: UUID
    kinds: frozenset[Color]
    pair: tuple[int, int]


class Renamed(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: name.title().replace("_", ""), extra="forbid")
    first_name: str
    inner: Item | None = None


class Choosing(BaseModel):
    x: int = Field(validation_alias=AliasChoices("a", "b"))


class Different(BaseModel):
    x: int = Field(validation_alias="in", serialization_alias="out")


class Holding(BaseModel):
    inner: Different


class Box(BaseModel, Generic[T]):
    content: T


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Kennel(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")


class Small(BaseModel):
    x: int


class Large(BaseModel):
    x: int
    y: int = 0


class Even(BaseModel):
    half: int

    @model_validator(mode="after")
    def _check(self) -> Even:
        if self.half < 0:
            msg = "half must not be negative"
            raise ValueError(msg)
        return self


class Numbers(RootModel[list[int]]):
    pass


class Raw(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


@pydantic.dataclasses.dataclass
class Data:
    x: int
    when: date
    item: Item | None = None


@dataclasses.dataclass
class Plain:
    item: Item
    items: list[Item] = dataclasses.field(default_factory=list)
    either: Item | int = 0


@attrs.frozen
class Classic:
    box: Box[int]
    pet: Cat | Dog | None = None
    by_name: dict[str, Item] = attrs.Factory(dict)


ITEM = Item(name="a", tags={"y", "x"})
ORDER = Order(id=UUID(int=7), at=NOW, items=[ITEM], parent=Order(id=UUID(int=8), at=NOW, items=[]))
STRICT = Strict(on=date(2024, 1, 1), id=UUID(int=1), kinds=frozenset({Color.RED}), pair=(1, 2))


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (ITEM, Item),
        (ORDER, Order),
        (STRICT, Strict),
        (Renamed.model_validate({"FirstName": "a", "Inner": ITEM}), Renamed),
        (Choosing.model_validate({"a": 1}), Choosing),
        (Different.model_validate({"in": 1}), Different),
        (Holding(inner=Different.model_validate({"in": 1})), Holding),
        (Box[int](content=1), Box[int]),
        (Box[Item](content=ITEM), Box[Item]),
        (Box[list[Order]](content=[ORDER]), Box[list[Order]]),
        (Kennel(pet=Dog()), Kennel),
        (Even(half=1), Even),
        (Numbers([1, 2]), Numbers),
        (Raw(data=b"\xff\x00"), Raw),
        (Data(1, date(2024, 1, 1), ITEM), Data),
        (Plain(ITEM, [ITEM], ITEM), Plain),
        (Plain(ITEM), Plain),
        (Classic(Box[int](content=1), Dog(), {"a": ITEM}), Classic),
        ([ITEM], list[Item]),
        ({"a": (ITEM, 1)}, dict[str, tuple[Item, int]]),
        (None, Item | None),
        (ITEM, Optional[Item]),  # noqa: UP045 - the old spelling is a type of its own
        (Dog(), Cat | Dog),
        (Cat(lives=2), Union[Cat, Dog, None]),  # noqa: UP007 - likewise
        (Dog(), Annotated[Cat | Dog, Field(discriminator="kind")]),
        (Small(x=1), Small | Large),
        (Large(x=1, y=2), Small | Large),
        (Large(x=1, y=2), Large | Small | str),
        (Numbers([1]), Numbers | Item),
        (ITEM, Item | int),
        (3, Item | int),
        (Data(1, date(2024, 1, 1)), Data | Item),
        (Plain(ITEM), Plain | Even),
        (Even(half=1), Plain | Even),
        (Even(half=1), Annotated[Even, "even"]),
    ],
    ids=spelled,
)
def test_models(value: object, type_: Any) -> None:
    """Models come back as they were: in classes, containers and unions; generic, strict, renamed and discriminated."""
    result = back(value, type_)
    assert value == result
    assert type(value) is type(result)


def test_models_without_annotation() -> None:
    """Without an annotation a model gives plain JSON, the same that an annotated one is recorded as."""
    assert recorded(ORDER, Order) == CODEC.decode(CODEC.encode_result(ORDER, Any, function="f"))
    assert {"name": "a", "price": "1.10", "tags": ["x", "y"]} == {**recorded(ITEM, Item), "tags": ["x", "y"]}


def test_aliases() -> None:
    """An alias that is read is written, as other programs send it; the name of the field is read as well."""
    assert {"FirstName": "a", "Inner": None} == recorded(Renamed.model_validate({"FirstName": "a"}), Renamed)
    assert Renamed.model_validate({"FirstName": "a"}) == CODEC.from_json({"FirstName": "a"}, Renamed)
    assert Renamed.model_validate({"FirstName": "a"}) == CODEC.from_json({"first_name": "a"}, Renamed)
    assert {"x": 1} == recorded(Different.model_validate({"in": 1}), Different)


@pytest.mark.parametrize(
    ("raw", "type_", "message"),
    [
        ({"name": 1}, Item, "Item refused it: Input should be a valid string at $.name"),
        ({"a": [{}]}, dict[str, list[Item]], "Item refused it: Field required at $.a[0].name"),
        ({"half": -1}, Even, "half must not be negative at $"),
        ({"first_name": "a", "z": 1}, Renamed, "Extra inputs are not permitted at $.z"),
        ([], Item, "Item refused it"),
        ("x", Item | int, "at $"),
        ({"item": {"name": 2}}, Plain, "at $.item.name"),
        ({"content": "x"}, Box[int], "Box[int] refused it: Input should be a valid integer"),
        ({"x": "y", "when": "soon"}, Data, "at $.x; Data refused it"),
        ({"name": "\ud800"}, Item, "Item refused it"),
        ({"pet": {"kind": "cow"}}, Kennel, "at $.pet"),
    ],
    ids=spelled,
)
def test_what_does_not_fit_a_model(raw: object, type_: Any, message: str) -> None:
    """What the model refuses is a DecodeError, with the place and without the value, which may be secret."""
    with pytest.raises(DecodeError) as caught:
        CODEC.from_json(raw, type_)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        (Item.model_construct(name=5), Item, "Item cannot be turned into JSON at $"),
        (Item.model_construct(name=5), Any, "Item cannot be turned into JSON at $"),
        (Plain(Item.model_construct(name=5)), Plain, "Item cannot be turned into JSON at $.item"),
        ({"name": "a"}, Item, "expected Item, got dict"),
        (Box[Any](content=object()), Any, "cannot be turned into JSON at $"),
        (Box[float](content=float("nan")), Box[float], "JSON has no nan at $.content"),
        (Small(x=1), Item, "expected Item, got Small"),
    ],
    ids=["value", "untyped", "in a dataclass", "dict", "object", "NaN", "another"],
)
def test_models_that_cannot_be_written(value: object, type_: Any, message: str) -> None:
    """What a model holds and cannot write is an EncodeError with the place, and no warning."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(value, type_)
    assert message in str(caught.value)


# --- secrets


class Login(BaseModel):
    user: str
    password: SecretStr


class Told(BaseModel):
    password: SecretStr

    @field_serializer("password", when_used="json")
    def _tell(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Site(BaseModel):
    logins: dict[str, list[Login]] = {}
    keys: list[SecretBytes] = []
    pin: Secret[int] | None = None
    anything: Any = None


@dataclasses.dataclass
class Account:
    login: Login


@attrs.frozen
class Vault:
    key: SecretStr


@pydantic.dataclasses.dataclass
class Door:
    code: SecretStr


class ByKey(BaseModel):
    pins: dict[SecretStr, int] = {}
    doors: dict[tuple[int, SecretStr], int] = {}


LOGIN = Login(user="a", password=SecretStr("open sesame"))


@pytest.mark.parametrize(
    ("value", "type_", "place"),
    [
        (LOGIN, Login, "$.password"),
        (LOGIN, Any, "$.password"),
        ([LOGIN], list[Login], "$[0].password"),
        ({"a": LOGIN}, dict[str, Login], "$.a.password"),
        (LOGIN, Login | None, "$.password"),
        (LOGIN, Login | Item, "$.password"),
        (Account(LOGIN), Account, "$.login.password"),
        (Account(LOGIN), Any, "$.login.password"),
        (Site(logins={"x": [LOGIN]}), Site, "$.logins.x[0].password"),
        (Site(keys=[SecretBytes(b""), SecretBytes(b"k")]), Site, "$.keys[1]"),
        (Site(pin=Secret[int](7)), Site, "$.pin"),
        (Site(pin=Secret[int](0)), Site, "$.pin"),
        (Site(anything={"a": [SecretStr("x")]}), Site, "$.anything.a[0]"),
        (Site(anything={1: SecretStr("x")}), Site, "$.anything[1]"),
        (ByKey(pins={SecretStr("x"): 1}), ByKey, "$.pins"),
        (ByKey(pins={SecretStr("x"): 1, SecretStr("y"): 2}), ByKey, "$.pins"),
        (ByKey(doors={(1, SecretStr("x")): 1}), ByKey, "$.doors"),
        (Vault(SecretStr("x")), Vault, "$.key"),
        (Vault(SecretStr("x")), Any, "$.key"),
        (Door("x"), Door, "$.code"),  # type: ignore[arg-type]
        (SecretStr("x"), SecretStr, "$"),
        (SecretStr("x"), Any, "$"),
        ([SecretBytes(b"x")], Any, "$[0]"),
        (SecretStr("x"), SecretStr | int, "$"),
        (Secret[int](7), Any, "$"),
    ],
    ids=spelled,
)
def test_secrets_are_refused(value: object, type_: Any, place: str) -> None:
    """A secret is never recorded as asterisks, nor as itself, wherever it is: the error says where, and what to do."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(value, type_)
    assert f"is not recorded at {place}: it would be recorded as asterisks" in str(caught.value)
    assert "field_serializer" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_secrets_that_are_told() -> None:
    """What a serializer of the model says is recorded."""
    told = Told(password=SecretStr("x"))
    assert {"password": "x"} == recorded(told, Told)
    assert told == back(told, Told)
    # An empty one hides nothing, and is not hidden.
    assert Login(user="a", password=SecretStr("")) == back(Login(user="a", password=SecretStr("")), Login)


def test_secrets_in_a_shape_of_their_own() -> None:
    """Where a serializer changes the shape of what a secret is in, asterisks are refused all the same."""

    class Odd(BaseModel):
        keys: list[SecretStr]

        @field_serializer("keys", when_used="json")
        def _tell(self, value: list[SecretStr]) -> dict[str, str]:
            return {str(index): str(key) for index, key in enumerate(value)}

    with pytest.raises(EncodeError, match=r"SecretStr is not recorded at \$\.keys"):
        CODEC.encode(Odd(keys=[SecretStr("x")]))


def test_errors_of_models_do_not_tell_secrets() -> None:
    """What was found is left out of the message: it may be a secret."""
    with pytest.raises(DecodeError) as caught:
        CODEC.from_json({"user": "a", "password": ["open sesame"]}, Login)
    assert "$.password" in str(caught.value)
    assert "sesame" not in str(caught.value)


# --- numpy


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (np.int64(-5), np.int64),
        (np.uint64(2**64 - 1), np.uint64),
        (np.int8(-128), np.int8),
        (np.float64(1.5), np.float64),
        (np.float32(0.1), np.float32),
        (np.float16(0.5), np.float16),
        (np.bool_(True), np.bool_),
        (np.complex128(1 - 2j), np.complex128),
        (np.complex64(1 + 0.5j), np.complex64),
        (np.str_("a"), np.str_),
        (np.int64(5), np.integer),
        (np.float64(5), np.floating),
        (np.int64(5), np.int64 | None),
        ([np.int64(5)], list[np.int64]),
        ({"a": np.float32(0.5)}, dict[str, np.float32]),
        (np.int64(5), np.int64 | str),
    ],
    ids=spelled,
)
def test_numpy_scalars(value: object, type_: Any) -> None:
    """A scalar of numpy is recorded as the number that it is, and comes back as the type that is annotated."""
    result = back(value, type_)
    assert value == result
    assert type(value) is type(result)
    assert isinstance(CODEC.decode(CODEC.encode(value)), (int, float, str, list, dict))


ARRAYS = [
    np.array([[1, 2], [3, 4]]),
    np.array([1.5, float("nan"), float("inf"), -0.0]),
    np.array([True, False]),
    np.array([1 + 2j, complex("nan")]),
    np.array(5, dtype=np.int16),
    np.zeros((0, 3), dtype=np.float32),
    np.zeros((3, 0, 2), dtype=np.uint8),
    np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(10)[::3],
    np.array([1, 2], dtype=">i4"),
    np.array([1.5], dtype=np.float16),
    np.array([2**64 - 1], dtype=np.uint64),
]


@pytest.mark.parametrize("array", ARRAYS, ids=spelled)
def test_arrays(array: NDArray[Any]) -> None:
    """An array comes back with its items bit by bit, NaN and infinities too, its dtype and its shape, to be written."""
    annotation: Any = NDArray
    for type_ in (np.ndarray, annotation[array.dtype.newbyteorder("=").type], NDArray[Any], np.ndarray | None):
        result = back(array, type_)
        assert array.shape == result.shape
        assert array.dtype.newbyteorder("=") == result.dtype
        assert array.astype(result.dtype).tobytes() == result.tobytes()
        assert result.flags.writeable


@given(
    st.sampled_from(["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64", "complex128"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.binary(min_size=16, max_size=64),
)
def test_arrays_of_all_shapes(dtype: str, shape: list[int], content: bytes) -> None:
    """Whatever the bits are, they come back."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    bits = (content * (size // len(content) + 1))[:size]
    if dtype == "bool":
        bits = bytes(each & 1 for each in bits)
    array = np.frombuffer(bits, dtype=dtype).reshape(shape)
    result = back(array, np.ndarray)
    assert (array.dtype, array.shape, array.tobytes()) == (result.dtype, result.shape, result.tobytes())


def test_arrays_without_annotation() -> None:
    """Without an annotation an array gives what is recorded: its dtype, its shape and its bytes in base64."""
    assert {"dtype": "int16", "shape": [2, 1], "data": "AQACAA=="} == CODEC.decode(
        CODEC.encode_result(np.array([[1], [2]], dtype=np.int16), Any, function="f")
    )


def test_arrays_in_classes() -> None:
    """Classes with fields that are arrays come back."""

    @dataclasses.dataclass(eq=False)
    class Sample:
        name: str
        values: NDArray[np.float64]
        mask: np.ndarray | None = None

    result = back(Sample("a", np.array([1.0, 2.0]), np.array([True])), Sample)
    assert [1.0, 2.0] == result.values.tolist()
    assert [True] == result.mask.tolist()
    assert back(Sample("a", np.array([])), Sample).mask is None
    assert back(np.array([1]), np.ndarray | str).tolist() == [1]
    assert back("x", np.ndarray | str) == "x"


@pytest.mark.parametrize(
    ("raw", "type_", "expected"),
    [
        ([[1, 2], [3, 4]], np.ndarray, np.array([[1, 2], [3, 4]])),
        ([1, 2], NDArray[np.float32], np.array([1, 2], dtype=np.float32)),
        ([1, 2], NDArray[np.uint8], np.array([1, 2], dtype=np.uint8)),
        ([], NDArray[np.int16], np.array([], dtype=np.int16)),
        ([0.1], NDArray[np.float32], np.array([0.1], dtype=np.float32)),
    ],
    ids=spelled,
)
def test_lists_of_numbers_are_arrays(raw: object, type_: Any, expected: NDArray[Any]) -> None:
    """Programs in other languages send nested lists."""
    result = CODEC.from_json(raw, type_)
    assert expected.dtype == result.dtype
    assert expected.tolist() == result.tolist()


@pytest.mark.parametrize(
    ("raw", "type_", "message"),
    [
        (5, np.ndarray, "expected ndarray, got int 5 at $"),
        ([[1], [2, 3]], np.ndarray, "inhomogeneous shape"),
        (["a"], np.ndarray, "a nested list of numbers"),
        ([None], np.ndarray, "a nested list of numbers"),
        ([2**70], np.ndarray, "a nested list of numbers"),
        ([300], NDArray[np.int8], "its items are not int8"),
        ([1.5], NDArray[np.int64], "its items are not int64"),
        ([True], NDArray[np.int64], "its items are not int64"),
        ([1e300], NDArray[np.float32], "too large for float32"),
        ({}, np.ndarray, "an array is an object with its dtype, shape and data"),
        ({"dtype": "object", "shape": [1], "data": "AAAA"}, np.ndarray, "an array is an object with its dtype"),
        ({"dtype": "int8", "shape": [-1], "data": "AAAA"}, np.ndarray, "an array is an object with its dtype"),
        ({"dtype": "int8", "shape": [2], "data": "AAAA"}, np.ndarray, "3 bytes are not an array of that shape"),
        ({"dtype": "int8", "shape": [10**30], "data": "AAAA"}, np.ndarray, "3 bytes are not an array of that shape"),
        ({"dtype": "int8", "shape": [1] * 99, "data": "AA=="}, np.ndarray, "dimension"),
        ({"dtype": "int8", "shape": [10**30, 0], "data": ""}, np.ndarray, "expected ndarray"),
        ({"dtype": "int8", "shape": [1], "data": "!"}, np.ndarray, "not base64"),
        ({"dtype": "int8", "shape": [1], "data": "é"}, np.ndarray, "not base64"),
        ({"dtype": "int8", "shape": [1], "data": "AA=="}, NDArray[np.int16], "its items are int8, not int16"),
        (300, np.int8, "expected int8, got int 300"),
        (1.5, np.int64, "expected int64, got float 1.5"),
        (True, np.int64, "expected int64, got bool True"),
        (1, np.bool_, "got int 1"),
        (1e300, np.float32, "it is too large"),
        ("x", np.float32, "expected float32, got str 'x'"),
        (None, np.complex64, "a complex number is [real, imaginary]"),
        ("2024-01-01", np.datetime64, "annotate a number"),
    ],
    ids=spelled,
)
def test_what_does_not_fit_numpy(raw: object, type_: Any, message: str) -> None:
    """Nothing is guessed, wrapped around or rounded to infinity."""
    with pytest.raises(DecodeError) as caught:
        CODEC.from_json(raw, type_)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        (np.array([object()]), np.ndarray, "an array of object cannot be turned into JSON at $: arrays of bools"),
        (np.array(["a"]), Any, "cannot be turned into JSON"),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), np.ndarray, "datetime64[D] cannot be turned into JSON"),
        (np.ma.masked_array([1], mask=[True]), Any, "a subclass has more than its numbers"),
        ({"a": [np.array([1])]}, dict[str, list[NDArray[np.float64]]], "its items are int64, not float64"),
        ([1], np.ndarray, "expected ndarray, got list [1]"),
        (np.float64("nan"), Any, "JSON has no nan at $"),
        (np.float32("inf"), np.float32, "JSON has no inf at $"),
        (np.datetime64("2024-01-01"), Any, "convert it to a type of Python's own"),
        (np.longdouble(1) / 3, Any, "has more digits than a float of JSON keeps"),
        (np.complex64(complex("nan")), Any, "JSON has no nan at $[0]"),
    ],
    ids=spelled,
)
def test_numpy_values_that_cannot_be_written(value: object, type_: Any, message: str) -> None:
    """Items that are no numbers, and what would lose something, are refused."""
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(value, type_)
    assert message in str(caught.value)


# --- the standard library's


@pytest.mark.parametrize(
    ("value", "type_", "plain"),
    [
        (Fraction(1, 3), Fraction, "1/3"),
        (Fraction(-4), Fraction, "-4/1"),
        (1 - 2j, complex, [1.0, -2.0]),
        (complex(-0.0, 1e300), complex, [-0.0, 1e300]),
        (ipaddress.ip_address("10.0.0.1"), ipaddress.IPv4Address, "10.0.0.1"),
        (ipaddress.ip_address("::1"), ipaddress.IPv6Address, "::1"),
        (ipaddress.ip_network("10.0.0.0/8"), ipaddress.IPv4Network, "10.0.0.0/8"),
        (ipaddress.ip_network("::/8"), ipaddress.IPv6Network, "::/8"),
        (ipaddress.ip_interface("10.0.0.1/8"), ipaddress.IPv4Interface, "10.0.0.1/8"),
        (ipaddress.ip_interface("fe80::1/64"), ipaddress.IPv6Interface, "fe80::1/64"),
        (ipaddress.ip_address("::1"), ipaddress.IPv4Address | ipaddress.IPv6Address, "::1"),
        (ipaddress.ip_address("1.2.3.4"), ipaddress.IPv4Address | ipaddress.IPv6Address | None, "1.2.3.4"),
        ({ipaddress.ip_address("1.2.3.4"): Fraction(1)}, dict[ipaddress.IPv4Address, Fraction], {"1.2.3.4": "1/1"}),
        ([Fraction(1, 2), None], list[Fraction | None], ["1/2", None]),
        (3j, complex | None, [0.0, 3.0]),
        (Fraction(1, 2), Fraction | int, "1/2"),
    ],
    ids=spelled,
)
def test_numbers_and_addresses(value: object, type_: Any, plain: object) -> None:
    """Fractions and addresses are text, complex numbers their two parts; without an annotation they stay that."""
    assert plain == recorded(value, type_)
    result = back(value, type_)
    assert value == result
    assert type(value) is type(result)
    assert plain == CODEC.decode(CODEC.encode_result(value, Any, function="f"))


@pytest.mark.parametrize(
    ("raw", "type_", "message"),
    [
        ("1/0", Fraction, "expected Fraction, got str '1/0'"),
        ("1e999999999", Fraction, "text such as '1/3' is expected"),
        (0.5, Fraction, "a float has lost what a Fraction keeps"),
        (True, Fraction, "expected Fraction"),
        ("9" * 5000, Fraction, "expected Fraction"),
        ([1], Fraction, "expected Fraction"),
        ([1, 2, 3], complex, "a complex number is [real, imaginary]"),
        ([], complex, "a complex number is [real, imaginary]"),
        (["1", 2], complex, "a complex number is [real, imaginary]"),
        ([10**400, 1], complex, "expected complex"),
        ("1+2j", complex, "a complex number is [real, imaginary]"),
        ("300.0.0.1", ipaddress.IPv4Address, "expected IPv4Address, got str '300.0.0.1'"),
        (5, ipaddress.IPv4Address, "expected IPv4Address, got int 5"),
        ("10.0.0.1/8", ipaddress.IPv4Network, "has host bits set"),
    ],
    ids=spelled,
)
def test_what_does_not_fit_numbers_and_addresses(raw: object, type_: Any, message: str) -> None:
    """Text that costs without bound to read is refused too."""
    with pytest.raises(DecodeError) as caught:
        CODEC.from_json(raw, type_)
    assert message in str(caught.value)


def test_real_numbers_pass_for_complex_ones() -> None:
    """As an int passes for a float."""
    assert 1 == CODEC.from_json(1, complex)
    assert isinstance(CODEC.from_json(1, complex), complex)
    assert Fraction(3) == CODEC.from_json(3, Fraction)


# --- none of it is needed


@pytest.mark.wall(limit=60)
@pytest.mark.parametrize("module", ["numpy", "pydantic"])
def test_nothing_is_imported_for_it(module: str) -> None:
    """A program that does not use Pydantic or numpy runs without either, whether or not they are installed."""
    program = textwrap.dedent(
        f"""
        import sys
        sys.modules[{module!r}] = None  # an import fails
        import anyio
        from dataclasses import dataclass
        from resonate_anyio import Context, Resonate

        @dataclass
        class Point:
            x: int | str | None

        async def leaf(point: Point) -> Point | None:
            return point

        async def fail() -> None:
            raise ValueError(1)

        async def flow(ctx: Context) -> list[Point | None]:
            try:
                await ctx.run(fail)
            except ValueError:
                return [await ctx.run(leaf, Point(1))]
            return []

        async def main() -> None:
            resonate = Resonate()
            resonate.register(flow)
            async with resonate:
                assert [Point(1)] == await resonate.run("w", flow)

        anyio.run(main)
        print(sorted(name for name in sys.modules if name.split(".")[0] in ("numpy", "pydantic")))
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert ("", f"[{module!r}]\n") == (done.stderr, done.stdout)


def test_types_are_known_by_their_names() -> None:
    """The names by which types of Pydantic and numpy are known without an import still exist."""
    from resonate_anyio._codec import _types  # noqa: PLC0415 - its private parts are the matter here

    tells = (_types.is_model, _types.is_secret, _types.is_numpy_scalar, _types.is_numpy_array)
    types = (Item, SecretStr, np.int64, np.ndarray)
    assert [True] * 4 == [tell(type_) for tell, type_ in zip(tells, types, strict=True)]
    assert [False] * 4 == [tell(int) for tell in tells]
