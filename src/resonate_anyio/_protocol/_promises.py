"""The operations on promises (docs/protocol.md 8.1 to 8.5)."""

from __future__ import annotations

from typing import Final

from ._draft import Draft
from ._messages import PromiseCreate, PromiseGet, PromiseSettle, RegisterCallback, RegisterListener, Response
from ._records import Callback, Promise, Task, TaskState
from ._settlement import dispatch, new_promise, resume, settle_by, touch

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
