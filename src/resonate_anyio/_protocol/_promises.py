"""Promises: how they are made and settled, and the requests about them (docs/protocol.md 7 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ._draft import Draft
from ._messages import PromiseCreate, PromiseGet, PromiseSettle, RegisterCallback, RegisterListener, Response, Unblock
from ._records import Callback, Promise, PromiseState, Task, TaskRecord, TaskState
from ._view import View


def dispatch(draft: Draft, promise: Promise, version: int = 0, *, given_back: bool = False) -> None:
    """Make the task of a targeted promise pending, and queue its `execute`, unless the promise is delayed.

    Args:
        draft: the draft to write to.
        promise: the promise of the task.
        version: the version of the task, which does not change.
        given_back: whether a worker released the task or its lease ended.
    """
    if draft.rules.honours_delay and (delay := promise.delay) is not None and delay > draft.now:
        draft.put_task(Task(id=promise.id, state=TaskState.PENDING, version=version, due_at=delay))
        return

    retry_at = draft.after(draft.rules.retry_timeout)
    draft.put_task(Task(id=promise.id, state=TaskState.PENDING, version=version, due_at=retry_at))
    draft.send_execute(promise, version, given_back=given_back)


def new_promise(draft: Draft, action: PromiseCreate) -> Promise:
    """Return the promise that `action` creates. If its deadline has passed, it is created settled."""
    promise = Promise(
        id=action.id,
        param=action.param,
        tags=action.tags,
        timeout_at=action.timeout_at,
        created_at=min(draft.now, action.timeout_at),
    )
    return timed_out(promise) if promise.timeout_at <= draft.now else promise


def timed_out(promise: Promise) -> Promise:
    """Return the promise as settled by its deadline. `settled_at` is the deadline, not the current instant."""
    state = PromiseState.RESOLVED if promise.timer else PromiseState.TIMEDOUT
    return promise.with_outcome(state, promise.value, promise.timeout_at)


def touch(draft: Draft, *ids: str) -> list[Promise | None]:
    """Settle those of the promises whose deadlines have passed. Return all of them, in the order of `ids`."""
    promises: list[Promise | None] = []
    expired: dict[str, Promise] = {}
    for id in ids:
        promise = draft.promise(id)
        promises.append(promise)
        if promise is not None and promise.pending and promise.timeout_at <= draft.now:
            expired[id] = timed_out(promise)

    if not expired:
        return promises

    put_settled(draft, list(expired.values()))
    return [draft.promise(id) for id in ids]


def settle_by(draft: Draft, promise: Promise, action: PromiseSettle) -> Promise:
    """Settle a pending promise as a client requested, and return it."""
    settled = promise.with_outcome(action.state, action.value, draft.now)
    put_settled(draft, [settled])
    return settled


def put_settled(draft: Draft, promises: Sequence[Promise]) -> None:
    """Write settled promises, with all effects of the settlement (docs/protocol.md 7.2).

    The tasks of the whole batch are fulfilled before any awaiter is resumed, so that an awaiter in the same batch gets
    no `execute`.
    """
    for promise in promises:
        draft.put_promise(promise)
        if promise.target is not None:
            _finish_task(draft, draft.task_of(promise.id))

    for promise in promises:
        for callback in draft.awaiters(promise.id):
            draft.put_callback(Callback(promise.id, callback.awaiter, ready=True))
            resume(draft, draft.task_of(callback.awaiter))

        for address in draft.listeners(promise.id):
            draft.send(address, Unblock(promise))
            draft.drop_listener(promise.id, address)


def _finish_task(draft: Draft, task: Task) -> None:
    draft.put_task(Task(id=task.id, state=TaskState.FULFILLED, version=task.version))
    for callback in draft.awaited(task.id):
        draft.drop_callback(callback)


def resume(draft: Draft, task: Task) -> None:
    """Dispatch the task if it is suspended. In any other state its ready callback remains until the next acquire."""
    if task.state is TaskState.SUSPENDED:
        dispatch(draft, draft.owner(task.id), task.version)


def clear_ready(draft: Draft, awaiter: str) -> None:
    """Remove the ready callbacks of a task."""
    for callback in draft.awaited(awaiter):
        if callback.ready:
            draft.drop_callback(callback)


def preload(draft: Draft, promise: Promise) -> tuple[Promise, ...]:
    """Return the other promises of the promise's branch, as they are stored (docs/protocol.md 8.0)."""
    if promise.branch is None:
        return ()

    return tuple(other for other in draft.branch(promise.branch) if other.id != promise.id)


def task_record(state: Draft | View, task: Task) -> TaskRecord:
    """Return the task as it appears in a response."""
    return _record(task, sum(callback.ready for callback in state.awaited(task.id)))


def new_task_record(task: Task) -> TaskRecord:
    """Do the same for a task whose promise is new. It awaits nothing, because callbacks are of existing promises."""
    return _record(task, 0)


def _record(task: Task, resumes: int) -> TaskRecord:
    return TaskRecord(id=task.id, state=task.state, version=task.version, resumes=resumes, ttl=task.ttl, pid=task.pid)


_NOT_FOUND: Final = Response(status=404, error="Promise not found")


def get(draft: Draft, request: PromiseGet) -> Response:
    [promise] = touch(draft, request.id)
    return _NOT_FOUND if promise is None else Response(status=200, promise=promise)


def create(draft: Draft, request: PromiseCreate) -> Response:
    [promise] = touch(draft, request.id)
    if promise is None:
        promise = new_promise(draft, request)
        draft.put_promise(promise)
        if promise.target is not None:
            if promise.pending:
                dispatch(draft, promise)
            else:
                draft.put_task(Task(id=promise.id, state=TaskState.FULFILLED))

    return Response(status=200, promise=promise)


def settle(draft: Draft, request: PromiseSettle) -> Response:
    [promise] = touch(draft, request.id)
    if promise is None:
        return _NOT_FOUND

    if promise.pending:
        promise = settle_by(draft, promise, request)

    return Response(status=200, promise=promise)


NOT_EXTERNAL: Final = Response(status=422, error="Awaited promise is internal")


def may_await(draft: Draft, promise: Promise) -> bool:
    """Return whether the rules allow a callback or a listener on this promise."""
    return promise.awaitable or not draft.rules.awaits_external


def register_callback(draft: Draft, request: RegisterCallback) -> Response:
    awaited, awaiter = touch(draft, request.awaited, request.awaiter)
    if awaited is None:
        return Response(status=404, error="Awaited promise not found")

    if awaiter is None:
        return Response(status=422, error="Awaiter promise not found")

    if awaiter.target is None:
        return Response(status=422, error="Awaiter promise has no resonate:target tag")

    if not may_await(draft, awaited):
        return NOT_EXTERNAL

    if not awaited.pending:
        _callback_to_settled(draft, awaited.id, awaiter.id)
    elif awaiter.pending:
        draft.put_callback(Callback(awaited.id, awaiter.id))

    return Response(status=200, promise=awaited)


#: A task in one of these states records that an awaited promise is already settled.
_LISTENING: Final = {TaskState.PENDING, TaskState.ACQUIRED, TaskState.SUSPENDED}


def _callback_to_settled(draft: Draft, awaited: str, awaiter: str) -> None:
    task = draft.task_of(awaiter)
    if task.state in _LISTENING:
        draft.put_callback(Callback(awaited, awaiter, ready=True))
        resume(draft, task)


def register_listener(draft: Draft, request: RegisterListener) -> Response:
    [awaited] = touch(draft, request.awaited)
    if awaited is None:
        return Response(status=404, error="Awaited promise not found")

    if not may_await(draft, awaited):
        return NOT_EXTERNAL

    if awaited.pending:
        draft.put_listener(awaited.id, request.address)

    return Response(status=200, promise=awaited)
