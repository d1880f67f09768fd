"""The leaves that the workflows of the corpus call. Each notes in the journal that it runs."""

from __future__ import annotations

from typing import Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from resonate_anyio import Info

from ..lives import Journal

T = TypeVar("T")


class Oops(Exception):
    """What leaves and workflows of the corpus fail with."""


def note(info: Info) -> None:
    info.get_dependency(Journal).note(info)


async def step(info: Info, value: T) -> T:
    """Give back the value, after letting others run."""
    note(info)
    await checkpoint()
    return value


async def slow(info: Info, seconds: float, value: T) -> T:
    """Give back the value after a while."""
    note(info)
    await anyio.sleep(seconds)
    return value


async def fail(info: Info, text: str, seconds: float = 0) -> None:
    """Fail after a while."""
    note(info)
    await anyio.sleep(seconds)
    raise Oops(text)


async def flaky(info: Info, failures: int) -> int:
    """Fail so many times in a row, then give back the number of the attempt."""
    note(info)
    await checkpoint()
    if info.attempt <= failures:
        msg = f"attempt {info.attempt}"
        raise Oops(msg)
    return info.attempt


def threaded(info: Info, value: T) -> T:
    """Give back the value from a worker thread."""
    note(info)
    return value


LEAVES: Final = frozenset(leaf.__name__ for leaf in (step, slow, fail, flaky, threaded))
