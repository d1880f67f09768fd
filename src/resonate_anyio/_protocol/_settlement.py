"""What happens when promises begin and end, and what makes a task ready to run (protocol 7.2, 7.3, 8.0).

Every operation and every timer ends up here, so that the chain of effects of a settlement is written once.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve

from ._draft import Draft
from ._messages import PromiseCreate, PromiseSettle, Unblock
from ._records import Callback, Promise, PromiseState, Task, TaskRecord, TaskState
from ._view import View


def dispatch(draft: Draft, promise: Promise, version: int = 0, *, given_back: bool = False) -> None:
    """Make the task of a targeted promise pending and send for a worker, at once or when its delay is over.

    Args:
        draft: what is written.
        promise: the promise of the task.
        version: the version of the task, which is kept.
        given_back: a worker has released the task, or has let its lease run out.
    """
    if draft.rules.honours_delay and (delay := promise.delay) is not None and delay > draft.now:
        draft.put_task(Task(id=promise.id, state=TaskState.PENDING, version=version, due_at=delay))
        return

    retry_at = draft.after(draft.rules.retry_timeout)
    draft.put_task(Task(id=promise.id, state=TaskState.PENDING, version=version, due_at=retry_at))
    draft.send_execute(promise, version, given_back=given_back)


def born(draft: Draft, action: PromiseCreate) -> Promise:
    """Give the new promise that was asked for; past its deadline it is born settled."""
    promise = Promise(
        id=action.id,
        param=action.param,
        tags=action.tags,
        timeout_at=action.timeout_at,
        created_at=min(draft.now, action.timeout_at),
    )
    return timed_out(promise) if promise.expired(draft.now) else promise


def timed_out(promise: Promise) -> Promise:
    """Give the promise as its deadline leaves it. It ends *at* the deadline, whenever that is noticed."""
    state = PromiseState.RESOLVED if promise.timer else PromiseState.TIMEDOUT
    return evolve(promise, state=state, settled_at=promise.timeout_at)


def touch(draft: Draft, *ids: str) -> list[Promise | None]:
    """Settle those of the promises whose deadline has passed, and give all of them, in the order of `ids`."""
    promises = [draft.promise(id) for id in ids]
    expired = {promise.id: promise for promise in promises if promise is not None and promise.expired(draft.now)}
    if not expired:
        return promises

    settle(draft, map(timed_out, expired.values()))
    return [draft.promise(id) for id in ids]


def settle_by(draft: Draft, promise: Promise, action: PromiseSettle) -> Promise:
    """Settle a pending promise as a client asks."""
    settled = evolve(promise, state=action.state, value=action.value, settled_at=draft.now)
    settle(draft, [settled])
    return settled


def settle(draft: Draft, promises: Iterable[Promise]) -> None:
    """Write promises that have just settled, with all that follows.

    The tasks of the whole batch are finished before anybody is woken: an awaiter that ends in the same instant must
    not be sent for.
    """
    batch = list(promises)
    for promise in batch:
        draft.put_promise(promise)
        _finish_task(draft, promise)

    for promise in batch:
        _wake_awaiters(draft, promise.id)
        _tell_listeners(draft, promise)


def _finish_task(draft: Draft, promise: Promise) -> None:
    if promise.target is None:
        return

    task = draft.task_of(promise.id)
    draft.put_task(Task(id=task.id, state=TaskState.FULFILLED, version=task.version))
    for callback in draft.awaited(task.id):
        draft.drop_callback(callback)


def _wake_awaiters(draft: Draft, awaited: str) -> None:
    for callback in draft.awaiters(awaited):
        draft.put_callback(Callback(awaited, callback.awaiter, ready=True))
        resume(draft, draft.task_of(callback.awaiter))


def resume(draft: Draft, task: Task) -> None:
    """Send for a worker if the task is suspended; in any other state the ready callback waits to be noticed."""
    if task.state is TaskState.SUSPENDED:
        dispatch(draft, draft.owner(task.id), task.version)


def _tell_listeners(draft: Draft, promise: Promise) -> None:
    for address in draft.listeners(promise.id):
        draft.send(address, Unblock(promise))
        draft.drop_listener(promise.id, address)


def clear_ready(draft: Draft, awaiter: str) -> None:
    """Forget the wake-ups that a task has now seen."""
    for callback in draft.awaited(awaiter):
        if callback.ready:
            draft.drop_callback(callback)


def preload(draft: Draft, promise: Promise) -> tuple[Promise, ...]:
    """Give the other promises of its branch, as they are stored."""
    if promise.branch is None:
        return ()

    return tuple(other for other in draft.branch(promise.branch) if other.id != promise.id)


def task_record(state: Draft | View, task: Task) -> TaskRecord:
    """Give the task as it is answered."""
    resumes = sum(callback.ready for callback in state.awaited(task.id))
    return TaskRecord(id=task.id, state=task.state, version=task.version, resumes=resumes, ttl=task.ttl, pid=task.pid)
