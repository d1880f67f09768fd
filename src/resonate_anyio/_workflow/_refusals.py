"""Refusals: errors about calls that may not be made, with what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from anyio.lowlevel import checkpoint_if_cancelled

from .._errors import TooLate, UsageError, WrongWorld

if TYPE_CHECKING:
    from ._run import Run

DEEPEST: Final = 200
"""The largest number of calls nested in each other. Deeper nesting is taken for endless recursion."""


def refuse_caller(frame: Run, call: str, running: Run | None) -> NoReturn:
    """Refuse a call that is not made by the running code of the frame whose `ctx` is used.

    Args:
        frame: the frame that the `ctx` belongs to.
        call: what is called.
        running: the frame whose code runs, or None outside of durable functions.

    Raises:
        WrongWorld: always.
    """
    if frame.ended:
        msg = f"{call} was called after {frame.function.name!r} ({frame.id!r}) had ended; await it before that"
        raise WrongWorld(msg)
    where = "code outside of it" if running is None else f"{running.function.name!r} ({running.id!r})"
    msg = (
        f"{call}: this ctx belongs to {frame.function.name!r} ({frame.id!r}) and was used by {where}; a durable "
        f"function uses its own first parameter, annotated with Context"
    )
    raise WrongWorld(msg)


def refuse_depth(name: str) -> NoReturn:
    """Refuse a recursion that does not seem to end.

    Args:
        name: the function that is called.

    Raises:
        UsageError: always.
    """
    call = f"ctx.run({name}, ...)"
    msg = (
        f"{call} is nested {DEEPEST} calls deep, which looks like a recursion without end; if it is meant, "
        f"spawn it: await (await {call}.spawn()), or give it an execution of its own: await ctx.rpc(...)"
    )
    raise UsageError(msg)


async def refuse_late(frame: Run, id: str) -> None:
    """Refuse a call of a function whose promise is settled: the call could be neither recorded nor awaited.

    Args:
        frame: the frame of the function.
        id: the id of the call.

    Raises:
        TooLate: always, unless the code is being cancelled, and does not shield the call.
    """
    await checkpoint_if_cancelled()
    msg = (
        f"a durable call ({id!r}) was made after the promise of {frame.function.name!r} ({frame.id!r}) had been "
        f"settled, by its deadline or from outside; what has to be done in that case belongs in its caller, whose "
        f"promise is still pending"
    )
    raise TooLate(msg)
