"""Digests of the arguments of calls: small arguments are hashed whole, and a sample of large ones."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

import attrs
import pytest

from resonate_anyio._codec import Codec

from . import nasty

CODEC = Codec()


@attrs.frozen
class Order:
    lines: list[int]


def digest(*args: object, **kwargs: object) -> str:
    """The digest, which is there."""
    found = CODEC.digest(args, kwargs)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, "wQWp42x8YSNc5KlfVlmYxw"),
        ((1, "a", None), {"b": [1.5, True]}, "kmcULYhbuPpgNBPp0k1wTw"),
        (("x" * 16_000,), {}, "Kx5cqw03mlOsR1gi4TAGKg"),
    ],
)
def test_whole_digests_stay_as_they_are(args: Any, kwargs: Any, expected: str) -> None:
    """Digests of small arguments are those that version 0.1.0 has recorded: lanes are recognised by them."""
    assert expected == CODEC.digest(args, kwargs)


LARGE: dict[str, tuple[Any, Any]] = {
    "text": ("x" * 20_000, "x" * 10_000 + "y" + "x" * 9_999),
    "bytes": (b"x" * 20_000, b"x" * 19_999 + b"y"),
    "longer": ([0] * 2_000, [0] * 2_001),
    "first": ([0] * 2_000, [1] + [0] * 1_999),
    "last": ([0] * 2_000, [0] * 1_999 + [1]),
    "nested": ([[{"a": 1}, 0]] * 500, [[{"a": 1}, 0]] * 499 + [[{"a": 2}, 0]]),
    "beside": ([[0] * 2_000, 50], [[0] * 2_000, 1_000]),
    "keys": (dict.fromkeys(map(str, range(2_000)), 0), {**dict.fromkeys(map(str, range(1_999)), 0), "~": 0}),
    "sets": (set(range(2_000)), set(range(1, 2_001))),
    "classes": (Order([0] * 2_000), Order([1] * 2_000)),
    "types": ("x" * 20_000, b"x" * 20_000),
}


@pytest.mark.parametrize(("one", "other"), LARGE.values(), ids=LARGE)
def test_large_arguments_are_sampled(one: Any, other: Any) -> None:
    """The digest of a sample names its algorithm, and tells lengths, ends and texts of large arguments apart."""
    assert "2:" == digest(one)[:2]
    assert 24 == len(digest(one))
    assert digest(one) != digest(other)
    assert digest(a=one) != digest(one)


@pytest.mark.parametrize("letter", ["x", "é", "☃", "𝄞"])
def test_long_text_is_hashed_in_slices(letter: str) -> None:
    """Beyond a million characters, or an eighth of it if they are not ASCII, a bounded part of a text is hashed."""
    text = letter * 3_000_000

    assert digest(text) != digest(text[:-1])
    assert digest(text) != digest("y" + text[1:])
    assert digest(text) != digest(text[:-1] + "y")
    middle = len(text) // 63 * 31
    assert digest(text) != digest(text[:middle] + "y" * 300_000 + text[middle + 300_000 :])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("x" * 20_000,), "2:FlYgip-FYVVCwad2odDhxA"),
        (("é" * 400_000,), "2:Q_PNgIMTMaHHup1_xIIaFA"),
        (([{"id": number, "tags": ["a", None]} for number in range(2_000)],), "2:j_eU7emq_PF0H8pIqB1Dzg"),
        ((b"x" * 2_000_000, 1.5, {1, 2}), "2:Pl_tJsWum6Kt_JGl0IfUaQ"),
    ],
    ids=["text", "slices", "rows", "bytes"],
)
def test_digests_of_samples_stay_as_they_are(args: tuple[object, ...], expected: str) -> None:
    """Digests of large arguments are those that version 0.2.0 records."""
    assert expected == digest(*args)


def test_large_arguments_that_are_equal() -> None:
    """Equal large arguments share a digest, in whatever order they were made."""
    forward = {str(number): [number] for number in range(2_000)}
    backward = {str(number): [number] for number in reversed(range(2_000))}

    assert digest(forward) == digest(backward) == digest(OrderedDict(forward))
    assert digest({*map(str, range(2_000))}) == digest({*map(str, reversed(range(2_000)))})
    assert digest(a=[0] * 2_000, b=1) == digest(b=1, a=(0,) * 2_000)


def test_a_whole_digest_of_large_arguments() -> None:
    """Where the digest must be different for different arguments, all of them are hashed."""
    one, other = [0] * 2_000, [0] * 1_001 + [1] + [0] * 998

    assert digest(one) == digest(other)
    whole = CODEC.digest((one,), {}, whole=True), CODEC.digest((other,), {}, whole=True)
    assert whole[0] != whole[1]
    assert [22, 22] == [len(each or "") for each in whole]


def test_a_sample_is_small() -> None:
    """The work for a digest does not grow with the arguments."""

    def calls(count: int) -> int:
        """The calls for some thousand parts."""
        value, made = [{"id": number, "tags": ["a", "b"]} for number in range(count)], 0

        def count_one(*_: object) -> None:
            nonlocal made
            made += 1

        before = sys.getprofile()
        sys.setprofile(count_one)
        try:
            CODEC.digest((value,), {})
        finally:
            sys.setprofile(before)
        return made

    assert calls(2_000) == calls(20_000)


@pytest.mark.parametrize("value", [nasty.containing_itself(), [[float("nan")]] * 2_000, [[object()]] * 2_000])
def test_samples_that_cannot_be_recorded(value: object) -> None:
    """Large arguments whose sample has no JSON form have no digest."""
    assert CODEC.digest((value, [0] * 2_000), {}) is None
