"""Virtual time: timers of days and years that fire at once, in order, on asyncio and on trio.

Under a virtual backend, time stands still while code runs and jumps to the next timer when nothing is ready. A test of
a timeout of one year takes milliseconds and ends the same way every time.

Three things hold time back or escape it:

- Worker threads of `anyio.to_thread` are waited for: while one runs, time passes as it does on the wall. Such a test is
  as slow as its threads, and its instants are not exact.
- Other threads, processes and peers behind sockets are not seen: with a timer set, time jumps without waiting for what
  they are about to say. Tests with them need the wall clock.
- With no timer set there is nowhere to jump to: the loop waits for real, using no processor time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, TypeVarTuple

import anyio
from attrs import define, field

from ._virtual_asyncio import VirtualEventLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

DEFAULT_EPOCH_MS: Final = 1_700_000_000_000


@define(eq=False)
class VirtualClock:
    """A wall clock that follows the running loop's own clock. It is an `abc.Clock`: calling it gives milliseconds.

    Its time passes with the loop's, so an engine that reads it and the timers that the engine sets agree, on a virtual
    backend as on a real one. The first reading inside a loop continues from the instant that the last loop reached:
    what is started again in a second `anyio.run` finds itself later, never earlier. Outside any loop, and in worker
    threads, it gives the instant of the last loop it was read in; a virtual one that has ended stands still.

    Args:
        epoch_ms: the instant of the first reading.
    """

    _base: int = field(default=DEFAULT_EPOCH_MS, alias="epoch_ms")
    _source: Callable[[], float] = field(default=float, init=False)
    _based_at: float = field(default=0.0, init=False)

    def __call__(self) -> int:
        source = _running_time()
        if source is not None and source != self._source:
            self._carry_over_to(source)
        return self._reached()

    def advance(self, ms: int) -> None:
        """Move the clock by `ms` without any loop noticing: downtime between two runs, or a clock set by hand.

        TimerPromises that a running loop has set are not moved with it. A negative `ms` sets the clock back.
        """
        self._base += ms

    def _carry_over_to(self, source: Callable[[], float]) -> None:
        self._base = self._reached()
        self._source = source
        self._based_at = source()

    def _reached(self) -> int:
        # A timer set for a whole millisecond must find that millisecond begun, whatever binary fractions made of it.
        return self._base + int((self._source() - self._based_at) * 1000 + 0.001)


def virtual_backend(name: str) -> tuple[str, dict[str, Any]]:
    """Return the backend `name` with options that make its time virtual.

    The pair is what anyio's pytest plugin takes as `anyio_backend`, and what `anyio.run` takes as `backend` and
    `backend_options`. Ask for a new one for each run.

    Args:
        name: `asyncio` or `trio`.

    Raises:
        LookupError: there is no such backend, or trio is not installed.
    """
    if name == "asyncio":
        return name, {"loop_factory": VirtualEventLoop}
    if name == "trio":
        return name, _trio_options()
    msg = f"there is no backend {name!r}; use 'asyncio' or 'trio'"
    raise LookupError(msg)


def run_virtual(func: Callable[[*Ts], Awaitable[T]], *args: *Ts, backend: str = "asyncio") -> T:
    """Call `anyio.run(func, *args)` in virtual time.

    Args:
        func: an async function.
        args: its arguments.
        backend: `asyncio` or `trio`.

    Raises:
        LookupError: there is no such backend, or trio is not installed.
    """
    name, options = virtual_backend(backend)
    return anyio.run(func, *args, backend=name, backend_options=options)


def _trio_options() -> dict[str, Any]:
    try:
        from ._virtual_trio import options  # noqa: PLC0415 (trio is optional)
    except ImportError as error:
        msg = "the backend 'trio' is not installed; install it with: pip install 'resonate-anyio[trio]'"
        raise LookupError(msg) from error
    return options()


def _running_time() -> Callable[[], float] | None:
    """The clock of the loop that runs in this thread."""
    # A trio run may be the guest of an asyncio loop, so trio goes first. A program that runs trio has imported it.
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        current_time: Callable[[], float] = trio.lowlevel.current_clock().current_time
        return current_time
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:
        return None
