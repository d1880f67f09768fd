"""Awaiting a child: wait for its outcome, cancel it if the wait is cancelled, deliver the outcome.

Awaiting a call is awaiting the child: to cancel the await is to cancel the child, durably (docs/semantics.md 3.2). A
replay repeats that. An await whose child was cancelled because of a scope, a group or a parent around the await does
not raise an error on a replay: the code is cancelled at the same place again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from anyio import CancelScope, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from attrs import evolve

from .._concurrency._cancellation import Owed
from .._concurrency._tasks import is_being_started
from .._errors import NonDeterminismError
from .._protocol import PromiseState
from ._frame import Frame
from ._host import halt
from ._lanes import insist, lane_of
from ._reasons import DEADLINE, GROUP, PARENT, SCOPE, Reason, reason_of
from ._regions import PATIENCE, Region, reason_for, regions_around
from ._scopes import Scope, durable_scopes, instants

if TYPE_CHECKING:
    from ._node import Node

logger = logging.getLogger("resonate_anyio")


async def outcome(frame: Frame, child: Node) -> None:
    """Wait for the outcome of a pending child. To cancel this wait is to cancel the child.

    If the child ended otherwise before the cancellation was recorded, that outcome stands, and the cancellation stays
    owed to the lane.
    """
    if not child.pending:
        return
    await frame.before_wait(lane_of(frame))
    try:
        await child.wait()
    except get_cancelled_exc_class() as exc:
        if frame.execution.interrupted():
            raise
        if child.pending:
            await _cancel(frame, child)
        if frame.execution.dropped is not None or ended_by_cancellation(child):
            raise
        lane_of(frame).owe(Owed.of(exc))


def ended_by_cancellation(child: Node) -> bool:
    """Return whether `child` has no other outcome to deliver than the cancellation itself."""
    return child.record.state is PromiseState.CANCELED or child.expired_at is not None


async def _cancel(frame: Frame, child: Node) -> None:
    reason = reason_for(frame)
    if reason.by == DEADLINE and reason.instant is not None and child.record.timeout_at <= reason.instant:
        await child.time_out()
        if child.record.state is PromiseState.TIMEDOUT:
            frame.children.mark_seen(child)
        return
    await child.cancel(reason)
    if reason.by == SCOPE:
        frame.pin()


async def deliver(frame: Frame, child: Node) -> object:
    """Deliver the outcome of a settled child to the code of `frame`: return its value or raise its failure."""
    if is_being_started():
        # The code that starts the task goes on first, as it did on the live run: a task group accepts no more tasks
        # once one of them has failed.
        await insist(checkpoint)
    await rejoin(frame, child)
    await frame.order.turn(lane_of(frame))
    return child.value()


async def end_again(frame: Frame, child: Node) -> None:
    """End the running code where it waits for `child`, if its wait ended in that way the first time."""
    expired = expired_scope(frame, child)
    if expired is not None:
        await _end(frame, child, expired)
    if child.replayed and child.record.state is PromiseState.CANCELED:
        await _cancel_again(frame, child)


def expired_scope(frame: Frame, child: Node) -> Scope | None:
    """Return the outermost durable scope around the running code whose deadline has ended `child`, or None."""
    expired_at = child.expired_at
    if expired_at is None or expired_at not in instants(child.record):
        return None
    return next((scope for scope in durable_scopes(frame) if scope.instant == expired_at), None)


async def rejoin(frame: Frame, child: Node) -> None:
    """End the running code as it was ended the first time, if `child` says so; mark the outcome of `child` as seen."""
    await end_again(frame, child)
    frame.children.mark_seen(child)


async def _end(frame: Frame, child: Node, region: Region) -> None:
    """End the block of `region` here, as the record of `child` says."""
    frame.children.mark_seen(child)
    await region.end_again()


async def _cancel_again(frame: Frame, child: Node) -> None:
    """Interrupt the running code, if its await of `child` was cancelled the first time, and the child with it."""
    reason, record = reason_of(child.record, frame.execution.codec), child.record
    if reason is not None:
        await interrupt_again(
            frame, child, reason, lived_ms=(record.settled_at or record.created_at) - record.created_at
        )


async def interrupt_again(frame: Frame, child: Node, reason: Reason, *, lived_ms: int) -> None:
    """Cancel the running code again, which was cancelled in its wait for `child` the first time.

    Args:
        frame: the frame of the running code.
        child: the child that the code waits for.
        reason: the recorded reason of the cancellation.
        lived_ms: the longest time that the code can have waited for `child` the first time, in milliseconds.
    """
    if reason.by in {SCOPE, PARENT}:
        await _wait_for_scope(frame, child, lived_ms)
    elif reason.by in {GROUP, DEADLINE}:
        region = _at_depth(reason)
        if region is not None and _was_around(region, child):
            # Only once: a later await of the same child gets the outcome, as on the live run.
            child.cancelled_again()
            await _end(frame, child, region)


def _at_depth(reason: Reason) -> Region | None:
    stack, depth = regions_around.get(), reason.depth
    return stack[depth] if depth is not None and depth < len(stack) else None


def _was_around(region: Region, child: Node) -> bool:
    """Return whether `region` may have been around `child`: not, if it was entered after the group of `child`."""
    group = child.group
    return group is None or region in group.stack or group in regions_around.get()


async def _wait_for_scope(frame: Frame, child: Node, lived_ms: int) -> None:
    """Wait for a plain scope around this await to be cancelled again, as it was on the live run."""
    execution = frame.execution
    frame.pin()
    await frame.before_wait(lane_of(frame))
    try:
        with move_on_after(lived_ms / 1000 + PATIENCE):
            await child.wait_cancelled_again()
            return
    except get_cancelled_exc_class():
        # Other waiters, which nothing had cancelled, get the outcome, as on the live run.
        child.cancelled_again()
        raise
    recorded, requested = "an await that a scope around it had cancelled", "the same await, not cancelled"
    await halt(execution, NonDeterminismError(child.id, recorded, requested, execution.id))


async def end_if_cancelled(frame: Frame, node: Node) -> None:
    """End a recorded call if the code that starts it is being cancelled: no request of this run shows that."""
    try:
        await checkpoint_if_cancelled()
    except get_cancelled_exc_class():
        if not frame.execution.interrupted():
            with CancelScope(shield=True):
                await node.forgo(evolve(reason_for(frame), started=False))
            frame.children.mark_seen(node)
        raise
