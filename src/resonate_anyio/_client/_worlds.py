"""The check of calls that may not be made inside durable functions."""

from __future__ import annotations

from .._errors import WrongWorld
from .._functions._signatures import Kind
from .._workflow._lanes import current_frame


def check_world(call: str, instead: str | None) -> None:
    """Refuse a call of the client inside a durable function.

    Args:
        call: the call, for the message.
        instead: the corresponding call of `Context`, if there is one.

    Raises:
        WrongWorld: a durable function is running.
    """
    frame = current_frame()
    if frame is None:
        return
    advice = "that belongs outside of durable functions"
    if instead is not None and frame.function.kind is Kind.WORKFLOW:
        advice = f"use {instead} of its own context instead"
    elif instead is not None:
        advice = "a leaf makes no durable calls; annotate its first parameter with Context to make it a workflow"
    msg = (
        f"{call} was called inside the durable function {frame.function.name!r} ({frame.id!r}), where it would not "
        f"be part of its history; {advice}"
    )
    raise WrongWorld(msg)
