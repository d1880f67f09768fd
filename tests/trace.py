"""What one step costs in calls: `python -m tests.trace`; `-v` lists each call in its order.

It counts the calls of the package's functions during one `await ctx.run(leaf)` on asyncio, with a server in memory: of
a live step, and of one that a replay takes from the history. A coroutine that is resumed counts again.

The figures are those of Python 3.11, which the bars of tests/house/test_trace.py are for.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Final

from anyio import Event
from attrs import field, frozen

import resonate_anyio
from resonate_anyio import Context, Resonate
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import run_virtual

from .house.source import rooms_above

STEPS: Final = 12
"""Steps of the workflow. All but the first two and the last one make the same calls."""

TRACED: Final = 5
"""The step that is counted, from 0."""

_FOLDER: Final = f"{Path(resonate_anyio.__file__).parent}/"

_LOOP: Final = f"{_FOLDER}testing/"
"""The loop in virtual time, which no timer of the worker interrupts: it is not the step's."""


@frozen
class Call:
    """One call of a function of the package, or one resumption of a coroutine.

    Attributes:
        module: the module below the package, as the path of its file.
        function: the qualified name of the function.
        line: where it begins.
    """

    module: str
    function: str
    line: int

    @property
    def room(self) -> str:
        """The room of the module."""
        return self.module.partition("/")[0].removesuffix(".py")


@frozen
class Trace:
    """The calls of one step, in their order."""

    calls: tuple[Call, ...] = field(repr=False)

    @property
    def modules(self) -> Counter[str]:
        """How many calls each module has."""
        return Counter(call.module for call in self.calls)

    def above(self, room: str) -> Trace:
        """The calls of rooms that are higher than this one."""
        higher = rooms_above(room)
        return Trace(tuple(call for call in self.calls if call.room in higher))

    def __str__(self) -> str:
        return f"{len(self.calls)} calls in {len(self.modules)} modules"


@contextmanager
def _profiled(calls: list[Call]) -> Iterator[None]:
    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_FOLDER) and not code.co_filename.startswith(_LOOP):
            calls.append(Call(code.co_filename.removeprefix(_FOLDER), code.co_qualname, code.co_firstlineno))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


async def leaf() -> Any:
    """Do nothing."""
    return 1


def live() -> Trace:
    """Trace a step that is made for the first time."""
    return run_virtual(_traced, 1)


def replayed() -> Trace:
    """Trace a step whose outcome is on record, in the process that takes over."""
    return run_virtual(_traced, 2)


async def _traced(lives: int) -> Trace:
    calls: list[Call] = []
    store = MemoryStore()
    marks: list[int] = []
    for life in range(1, lives + 1):
        reached = Event()
        marks.clear()
        steps = _workflow(calls, marks, reached)
        async with Resonate(network=LocalNetwork(store), pid="p", grace=0) as resonate:
            resonate.register(steps)
            resonate.register(leaf)
            with _profiled(calls) if life == lives else nullcontext():
                await resonate.run("w", steps).spawn()
                await reached.wait()
    first, after = marks[TRACED : TRACED + 2]
    return Trace(tuple(calls[first:after]))


def _workflow(calls: list[Call], marks: list[int], reached: Event) -> Callable[[Context], Awaitable[None]]:
    async def steps(ctx: Context) -> None:
        for _ in range(STEPS):
            marks.append(len(calls))
            await ctx.run(leaf)
        reached.set()
        # The first life ends here, and the next one takes over.
        await ctx.promise()

    return steps


def main() -> None:
    """Print the figures of both."""
    for name, trace in (("live", live()), ("replayed", replayed())):
        sys.stdout.write(f"a {name} step: {trace}; above the network {trace.above('networks')}\n")
        for module, count in trace.modules.most_common():
            sys.stdout.write(f"{count:6} {module}\n")
        if "-v" in sys.argv:
            sys.stdout.writelines(f"       {call.module}:{call.line} {call.function}\n" for call in trace.calls)


if __name__ == "__main__":
    main()
