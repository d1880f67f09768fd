"""What `docs/architecture.md` says of the rooms is what the code has."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from .draw_rooms import PAGE, drawings, rooms, without_implied
from .drawing import drawn_into


def test_the_page_is_current() -> None:
    """The drawings in the page are those of the present code; `python -m tests.docs.draw_rooms` renews them."""
    page = PAGE.read_text(encoding="utf-8")

    assert drawn_into(page, drawings()).splitlines() == page.splitlines()


def test_every_drawing_is_in_the_page() -> None:
    """The page has a place for each drawing, so that none of them goes unseen."""
    page = PAGE.read_text(encoding="utf-8")

    assert [] == [name for name, drawing in drawings().items() if drawing not in page]


def test_every_room_is_described() -> None:
    """Each room has a paragraph that says what it is for, in the order of the layers, the highest first."""
    page = PAGE.read_text(encoding="utf-8")

    assert rooms() == re.findall(r"^\*\*`(\w+)`\*\*", page, re.MULTILINE)


@pytest.mark.parametrize(
    ("arrows", "expected"),
    [
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, {"a": {"b"}, "b": {"c"}, "c": set()}),
        (
            {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()},
            {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()},
        ),
        ({"a": {"b", "c"}, "b": set(), "c": set()}, {"a": {"b", "c"}, "b": set(), "c": set()}),
    ],
    ids=["over one", "over two", "not implied"],
)
def test_implied_arrows_are_left_out(arrows: Mapping[str, set[str]], expected: Mapping[str, set[str]]) -> None:
    """An import that follows from others is not drawn; each other import is."""
    assert expected == without_implied(arrows)
