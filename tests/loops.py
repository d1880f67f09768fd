"""The ways in which asyncio may run a test: plainly, in debug mode, with eager tasks, or by uvloop (`--asyncio`).

Each in virtual time and by the wall clock. What a way needs that is not there makes the run fail, since it was chosen.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeAlias

from resonate_anyio.testing import VirtualEventLoop


def _in_debug_mode(make: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    loop = make()
    loop.set_debug(True)
    return loop


def _with_eager_tasks(make: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    if sys.version_info < (3, 12):
        msg = "asyncio has eager tasks from Python 3.12 on"
        raise RuntimeError(msg)
    loop = make()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _plain_virtual() -> asyncio.AbstractEventLoop:
    return VirtualEventLoop()


def _uvloop_virtual() -> asyncio.AbstractEventLoop:
    from .uvloop_virtual import VirtualUvLoop  # noqa: PLC0415 - uvloop is optional

    return VirtualUvLoop()


def _uvloop() -> asyncio.AbstractEventLoop:
    # It is optional.
    loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
    return loop


Factory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]

KINDS: Final[dict[str, tuple[Factory, Factory]]] = {
    "plain": (_plain_virtual, asyncio.new_event_loop),
    "debug": (lambda: _in_debug_mode(_plain_virtual), lambda: _in_debug_mode(asyncio.new_event_loop)),
    "eager": (lambda: _with_eager_tasks(_plain_virtual), lambda: _with_eager_tasks(asyncio.new_event_loop)),
    "uvloop": (_uvloop_virtual, _uvloop),
}
"""What makes a loop, in virtual time and by the wall clock."""


def options(kind: str, *, virtual: bool) -> dict[str, Any]:
    """Options of `anyio.run` and of an `anyio_backend`, so that asyncio runs in this way."""
    in_virtual_time, by_the_wall = KINDS[kind]
    return {"loop_factory": in_virtual_time if virtual else by_the_wall, "debug": kind == "debug"}
