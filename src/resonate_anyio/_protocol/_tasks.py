"""The operations on tasks (docs/protocol.md 8.7 to 8.16).

Only an acquire raises the version of a task, so the version serves as a fencing token.
"""

from __future__ import annotations

from attrs import evolve

from . import _promises
from ._draft import Draft
from ._messages import (
    PromiseCreate,
    PromiseSettle,
    Response,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRelease,
    TaskSuspend,
)
from ._promises import clear_ready, dispatch, new_promise, new_task_record, preload, settle_by, task_record, touch
from ._records import Callback, Promise, Task, TaskState
from ._validation import validate

_OK = Response(status=200)
_NO_TASK = Response(status=404, error="Task not found")


def _conflict(text: str) -> Response:
    return Response(status=409, error=text)


def get(draft: Draft, request: TaskGet) -> Response:
    touch(draft, request.id)
    task = draft.task(request.id)
    return _NO_TASK if task is None else Response(status=200, task=task_record(draft, task))


def create(draft: Draft, request: TaskCreate) -> Response:
    [promise] = touch(draft, request.action.id)
    if promise is None:
        return _create_new(draft, request)

    task = draft.task(promise.id)
    if task is None:
        return Response(status=422, error="The promise does not have a resonate:target tag")

    if task.state is TaskState.PENDING:
        return _acquired(draft, promise, task, request.pid, request.ttl)

    if task.state is TaskState.FULFILLED:
        return Response(status=200, task=task_record(draft, task), promise=promise)

    return _conflict("Already exists")


def _create_new(draft: Draft, request: TaskCreate) -> Response:
    promise = new_promise(draft, request.action)
    draft.put_promise(promise)
    if promise.pending:
        held = _hold(draft, Task(id=promise.id, state=TaskState.PENDING), request.pid, request.ttl)
        return Response(status=200, task=new_task_record(held), promise=promise, preload=preload(draft, promise))

    task = Task(id=promise.id, state=TaskState.FULFILLED)
    draft.put_task(task)
    return Response(status=200, task=task_record(draft, task), promise=promise)


def acquire(draft: Draft, request: TaskAcquire) -> Response:
    [promise] = touch(draft, request.id)
    task = draft.task(request.id)
    if promise is None or task is None:
        return _NO_TASK

    if task.state is not TaskState.PENDING:
        return _conflict("Task is not pending")

    if task.version != request.version:
        return _conflict("Version mismatch")

    return _acquired(draft, promise, task, request.pid, request.ttl)


def _acquired(draft: Draft, promise: Promise, task: Task, pid: str, ttl: int) -> Response:
    held = _hold(draft, task, pid, ttl)
    clear_ready(draft, task.id)
    return Response(status=200, task=task_record(draft, held), promise=promise, preload=preload(draft, promise))


def _hold(draft: Draft, task: Task, pid: str, ttl: int) -> Task:
    """Give the next version of a task to a worker, and return it."""
    held = Task(
        id=task.id,
        state=TaskState.ACQUIRED,
        version=task.version + 1,
        ttl=ttl,
        pid=pid,
        due_at=draft.after(ttl),
    )
    draft.put_task(held)
    return held


def _holds(task: Task, version: int) -> bool:
    return task.state is TaskState.ACQUIRED and task.version == version


def release(draft: Draft, request: TaskRelease) -> Response:
    touch(draft, request.id)
    task = draft.task(request.id)
    if task is None:
        return _NO_TASK

    if not _holds(task, request.version):
        return _conflict("Task version mismatch or invalid state")

    dispatch(draft, draft.owner(task.id), task.version, given_back=True)
    return _OK


def fulfill(draft: Draft, request: TaskFulfill) -> Response:
    [promise] = touch(draft, request.id)
    task = draft.task(request.id)
    if promise is None or task is None:
        return _NO_TASK

    if not _holds(task, request.version):
        return _conflict("Task version mismatch or invalid state")

    return Response(status=200, promise=settle_by(draft, promise, request.action))


def suspend(draft: Draft, request: TaskSuspend) -> Response:
    own, *awaited = touch(draft, request.id, *request.awaited)
    task = draft.task(request.id)
    if own is None or task is None:
        return _NO_TASK

    if not _holds(task, request.version):
        return _conflict("Task is not acquired or version mismatch")

    found = [promise for promise in awaited if promise is not None]
    if len(found) < len(awaited):
        return Response(status=422, error="Awaited promise not found")

    if not all(_promises.may_await(draft, promise) for promise in found):
        return _promises.NOT_EXTERNAL

    clear_ready(draft, task.id)
    if not all(promise.pending for promise in found):
        return Response(status=300, preload=preload(draft, own))

    for id in request.awaited:
        draft.put_callback(Callback(id, task.id))

    draft.put_task(Task(id=task.id, state=TaskState.SUSPENDED, version=task.version))
    return _OK


def fence(draft: Draft, request: TaskFence) -> Response:
    """Run the inner operation if the task is held at this version.

    As in the servers, the inner operation is validated after expired promises are settled and before the task is looked
    up.
    """
    touch(draft, request.id, request.action_id)
    if request.action is None:
        return Response(status=400, error=request.action_error or "Invalid fence action kind")

    if wrong := validate(request.action, draft.rules):
        return Response(status=400, error=wrong)

    task = draft.task(request.id)
    if task is None:
        return _NO_TASK

    if not _holds(task, request.version):
        return _conflict("Version mismatch")

    inner = _fenced(draft, request.action)
    return Response(status=200, action=inner, preload=preload(draft, draft.owner(task.id)))


def _fenced(draft: Draft, action: PromiseCreate | PromiseSettle) -> Response:
    return _promises.create(draft, action) if isinstance(action, PromiseCreate) else _promises.settle(draft, action)


def heartbeat(draft: Draft, request: TaskHeartbeat) -> Response:
    """Extend the leases that are held, and ignore all other entries."""
    for ref in request.tasks:
        task = draft.task(ref.id)
        if task is not None and _holds(task, ref.version) and task.pid == request.pid:
            draft.put_task(renewed(draft, task))

    return _OK


def renewed(draft: Draft, task: Task) -> Task:
    """Return an acquired task with a lease of full length from now."""
    return evolve(task, due_at=draft.after(task.ttl or 0))


def halt(draft: Draft, request: TaskHalt) -> Response:
    touch(draft, request.id)
    task = draft.task(request.id)
    if task is None:
        return _NO_TASK

    if task.state is TaskState.FULFILLED:
        return _conflict("Task is fulfilled")

    draft.put_task(Task(id=task.id, state=TaskState.HALTED, version=task.version))
    return _OK


def continue_(draft: Draft, request: TaskContinue) -> Response:
    touch(draft, request.id)
    task = draft.task(request.id)
    if task is None:
        return _NO_TASK

    if task.state is not TaskState.HALTED:
        return _conflict("Task is not halted")

    dispatch(draft, draft.owner(task.id), task.version)
    return _OK
