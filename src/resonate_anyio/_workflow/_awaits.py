"""What it means to await a child: to wait for its outcome, to be cancelled meanwhile, to be given the outcome.

Awaiting a call is awaiting the child: whoever cancels the await cancels the child, durably (docs/semantics.md 3.2). A
replay hands the same to the code, a cancellation too: a child that was cancelled because of something around its await
does not fail on a replay, it is what it was the first time, the place where the code is cancelled.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from anyio import get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint

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
    """Wait for a child that is on its way. To cancel this wait is to cancel the child.

    If it has ended otherwise by then, that outcome stands, and the cancellation has to come again.
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
    """Whether there is nothing else to hand to the code than the cancellation itself."""
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
    """Hand the outcome of a settled child to the code of `frame`: its value is returned, its failure raised."""
    if is_being_started():
        # The code that starts the task goes on first, as it did when the outcome was not on record yet: a task group
        # takes no more tasks once one of them has failed.
        await insist(checkpoint)
    await rejoin(frame, child)
    await frame.order.turn(lane_of(frame))
    return child.value()


async def end_again(frame: Frame, child: Node) -> None:
    """End the running code where it waits for `child`, if that is how its wait ended the first time."""
    expired = expired_scope(frame, child)
    if expired is not None:
        await _end(frame, child, expired)
    if child.replayed and child.record.state is PromiseState.CANCELED:
        await _cancel_again(frame, child)


def expired_scope(frame: Frame, child: Node) -> Scope | None:
    """The outermost durable scope around the running code whose deadline it was that has ended `child`."""
    expired_at = child.expired_at
    if expired_at is None or expired_at not in instants(child.record):
        return None
    return next((scope for scope in durable_scopes(frame) if scope.instant == expired_at), None)


async def rejoin(frame: Frame, child: Node) -> None:
    """End the running code as it was ended the first time, if that is what `child` tells; nobody has awaited it."""
    await end_again(frame, child)
    frame.children.mark_seen(child)


async def _end(frame: Frame, child: Node, region: Region) -> None:
    """End the block of `region`, here and now: that is what `child` has ended of."""
    frame.children.mark_seen(child)
    await region.end_again()


async def _cancel_again(frame: Frame, child: Node) -> None:
    """The first time, the await of `child` was cancelled, and the child with it."""
    reason, record = reason_of(child.record, frame.execution.codec), child.record
    if reason is not None:
        await interrupt_again(
            frame, child, reason, lived_ms=(record.settled_at or record.created_at) - record.created_at
        )


async def interrupt_again(frame: Frame, child: Node, reason: Reason, *, lived_ms: int) -> None:
    """The first time, the running code was cancelled when it had waited for `child` for so long at most."""
    if reason.by in {SCOPE, PARENT}:
        await _wait_for_scope(frame, child, lived_ms)
    elif reason.by in {GROUP, DEADLINE}:
        region = _at_depth(reason)
        if region is not None and _was_around(region, child):
            # Only once: whoever awaits it again gets the outcome, as they did then.
            child.cancelled_again()
            await _end(frame, child, region)


def _at_depth(reason: Reason) -> Region | None:
    stack, depth = regions_around.get(), reason.depth
    return stack[depth] if depth is not None and depth < len(stack) else None


def _was_around(region: Region, child: Node) -> bool:
    """Whether an region of the running code may have been around `child`: not, if it came after its group."""
    group = child.group
    return group is None or region in group.stack or group in regions_around.get()


async def _wait_for_scope(frame: Frame, child: Node, lived_ms: int) -> None:
    """Live, a plain scope around this await was cancelled. It has begun anew, and is to be cancelled again."""
    execution = frame.execution
    frame.pin()
    await frame.before_wait(lane_of(frame))
    try:
        with move_on_after(lived_ms / 1000 + PATIENCE):
            await execution.wait(child.recancelled)
            return
    except get_cancelled_exc_class():
        # Others who wait for it, whom nothing had cancelled, get the outcome as they did then.
        child.cancelled_again()
        child.recancelled.set()
        raise
    recorded, requested = "an await that a scope around it had cancelled", "one that none cancels"
    await halt(execution, NonDeterminismError(child.id, recorded, requested, execution.id))
