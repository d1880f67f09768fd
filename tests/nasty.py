"""Values and errors that do what they should not: each raises, or does not end, when it is looked at."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import attrs
from cattrs import Converter

from resonate_anyio import make_converter


class Raising(dict[str, int]):
    """A dict that cannot be read."""

    def items(self) -> Any:
        msg = "it has gone"
        raise RuntimeError(msg)


class Hidden(list[int]):
    """A list that raises what is no Exception when it is read."""

    def __iter__(self) -> Iterator[int]:
        raise GeneratorExit


class Endless(dict[str, int]):
    """A dict whose items never end."""

    def items(self) -> Any:
        return ((str(number), number) for number in itertools.count())


@attrs.define(slots=False)
class Fickle:
    """A class whose only field raises when it is read."""

    x: int = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            msg = "not now"
            raise ValueError(msg)
        return object.__getattribute__(self, name)


@dataclass
class Wide:
    """A dataclass that holds one of the others."""

    inner: Any = None


class Taught:
    """A type with a hook of the user's."""


class Panic(BaseException):
    """What is no Exception and does not end a program."""


def containing_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError

    def __reduce__(self) -> Any:
        raise RuntimeError

    def __getattribute__(self, name: str) -> Any:
        if name in {"args", "__notes__"}:
            raise RuntimeError
        return object.__getattribute__(self, name)


class Panicking(Exception):
    def __str__(self) -> str:
        raise Panic


@attrs.frozen
class Frozen(Exception):
    code: int


class NotesOfItsOwn(Exception):
    __notes__ = 5  # type: ignore[assignment]


def _panic(_: object) -> None:
    raise Panic


def converter_with_a_panic() -> Converter:
    """A converter whose hook for `Taught` raises what is no Exception."""
    converter = make_converter()
    converter.register_unstructure_hook(Taught, _panic)
    converter.register_structure_hook(Taught, lambda raw, _: _panic(raw))
    return converter
