"""Opening children: the promise of a durable call is found in the history, or created.

What is found has to be what is asked for: same operation, same function, same version and, for a call that runs
elsewhere, same arguments. Otherwise the code has changed under its history, and the execution is halted (semantics 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from .._errors import DecodeError, NonDeterminismError
from .._graph import DETACHED_TAG, PARENT_TAG, child_id, detached_id
from .._protocol import Promise, PromiseCreate, PromiseState, Value
from .._time import from_ms
from ._frame import Frame
from ._info import Info
from ._nodes import External

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._codec import Codec
    from ._execution import Execution
    from ._functions import Function
    from ._retry import RetryPolicy

ONE_YEAR_MS: Final = 365 * 24 * 3600 * 1000


@frozen
class Asked:
    """What a promise was made for, as recorded and as asked for by a replay.

    `arguments` are compared for remote calls only: those of a local one are passed as they are, and the digest that
    is recorded with it decides nothing.
    """

    operation: str
    func: str | None = None
    version: int | None = None
    arguments: Any = field(default=None)

    def __str__(self) -> str:
        if self.func is None:
            return f"{self.operation}()"
        arguments = "" if self.arguments is None else f" with {_short(self.arguments)}"
        return f"{self.operation}({self.func}, version {self.version}){arguments}"


def _short(arguments: Any) -> str:
    text = ", ".join([*map(repr, arguments[0]), *(f"{k}={v!r}" for k, v in arguments[1].items())])
    return f"({text})" if len(text) <= 200 else f"({text[:200]}...)"


def recorded_as(record: Promise, codec: Codec) -> Asked:
    """What `record` was made for."""
    if record.timer:
        return Asked("ctx.sleep")
    if record.tags.get("resonate:external") == "true":
        return Asked("ctx.promise")
    content = _content(record, codec)
    func, version = content.get("func"), content.get("version")
    if record.tags.get("resonate:scope") == "local":
        return Asked("ctx.run", func, version)
    operation = "ctx.detached" if DETACHED_TAG in record.tags else "ctx.rpc"
    return Asked(operation, func, version, (content.get("args") or [], content.get("kwargs") or {}))


def _content(record: Promise, codec: Codec) -> dict[str, Any]:
    """What was recorded with a call; nothing, if somebody else has recorded something else under its id."""
    try:
        param = codec.decode(record.param)
    except DecodeError:
        return {}
    return param if isinstance(param, dict) else {}


@frozen(kw_only=True)
class Opening:
    """One durable call that is about to be made.

    Attributes:
        param: what is recorded with it.
        tags: what its promise is tagged with, lineage aside.
        timeout_at: its deadline if it is made anew; a recorded one keeps its own.
    """

    frame: Frame
    param: Value
    timeout_at: int
    tags: Mapping[str, str] = field(factory=dict)

    @property
    def execution(self) -> Execution:
        return self.frame.execution

    async def open(
        self, id: str, *, branch: str, scope: str, create: Callable[[PromiseCreate], Awaitable[Promise]]
    ) -> tuple[Promise, bool]:
        """The record of the call, from the history or created now, and whether it is history."""
        request = PromiseCreate(
            id=id, timeout_at=self.timeout_at, param=self.param, tags=self._tags(id, branch=branch, scope=scope)
        )
        recorded = self.execution.recorded(id)
        record = recorded or await create(request)
        await self._check(record, request)
        return await self.execution.fresh(record), recorded is not None and not recorded.pending

    def _tags(self, id: str, *, branch: str, scope: str) -> dict[str, str]:
        execution, parent = self.execution, self.frame.id
        tags = {**self.tags, "resonate:origin": execution.origin, "resonate:branch": branch, "resonate:scope": scope}
        if id.startswith(f"{parent}."):
            return {**tags, "resonate:parent": parent}
        base = branch if id.startswith(f"{branch}.") else execution.origin
        return {**tags, "resonate:parent": base, PARENT_TAG: parent}

    async def _check(self, record: Promise, request: PromiseCreate) -> None:
        if record.param == request.param and record.tags == request.tags:
            return
        codec = self.execution.codec
        recorded = recorded_as(record, codec)
        asked = recorded_as(
            Promise(id=record.id, timeout_at=0, created_at=0, param=self.param, tags=request.tags), codec
        )
        if recorded != asked:
            await self.execution.halt(NonDeterminismError(record.id, str(recorded), str(asked), self.execution.id))


def clamp(frame: Frame, timeout_ms: int | None) -> int:
    """The deadline of a child of `frame`: its own if it has one, but never after the frame's."""
    limit = frame.record.timeout_at
    return limit if timeout_ms is None else min(frame.execution.now() + timeout_ms, limit)


async def open_local(  # noqa: PLR0913 - one value each, all by name
    frame: Frame,
    part: str,
    *,
    function: Function,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    timeout_ms: int | None,
    retry: RetryPolicy | None,
    type_: Any,
) -> Frame:
    """A call that runs in this execution."""
    execution = await _claim(frame, part)
    identity: dict[str, object] = {"func": function.name, "version": function.version}
    digest = execution.codec.digest(args, kwargs)
    if digest is not None:
        identity["digest"] = digest
    opening = Opening(
        frame=frame,
        param=execution.codec.encode(identity),
        timeout_at=clamp(frame, timeout_ms),
    )
    id = child_id(frame.id, part, base=execution.id)
    record, replayed = await opening.open(id, branch=execution.id, scope="local", create=execution.create_local)
    child = Frame(
        execution=execution,
        record=record,
        replayed=replayed,
        type=type_,
        parent=frame,
        function=function,
        args=args,
        kwargs=kwargs,
        retry=retry,
        info=make_info(execution, record, parent=frame.id, function=function),
    )
    frame.adopt(child)
    return child


async def open_remote(
    frame: Frame, part: str, *, param: Value, target: str, timeout_ms: int | None, type_: Any
) -> External:
    """A call that any worker of the target runs, as an execution of its own."""
    execution = await _claim(frame, part)
    id = child_id(frame.id, part, base=execution.origin)
    opening = Opening(
        frame=frame,
        param=param,
        timeout_at=clamp(frame, timeout_ms),
        tags={"resonate:target": target},
    )
    record, replayed = await opening.open(id, branch=id, scope="global", create=execution.create_remote)
    if replayed and record.state is PromiseState.CANCELED and execution.history.has_pending_below(id):
        # The process that cancelled it died before it had ended what was below.
        await execution.end_elsewhere(id)
    return _external(frame, record, replayed, type_=type_, has_descendants=True)


async def open_sleep(frame: Frame, part: str, *, duration_ms: int) -> External:
    """A timer. Its due instant is recorded, so that a restart does not extend it."""
    execution = await _claim(frame, part)
    due = execution.now() + duration_ms
    opening = Opening(
        frame=frame,
        param=execution.codec.encode({"due": due}),
        timeout_at=min(due, frame.record.timeout_at),
        tags={"resonate:timer": "true", "resonate:target": execution.nowhere},
    )
    id = child_id(frame.id, part, base=execution.origin)
    found = await opening.open(id, branch=id, scope="global", create=execution.create_timer)
    return _external(frame, *found, type_=type(None), due=_due(found[0], execution.codec))


async def open_promise(frame: Frame, part: str, *, param: Value, timeout_ms: int | None, type_: Any) -> External:
    """A promise that somebody outside settles."""
    execution = await _claim(frame, part)
    opening = Opening(
        frame=frame,
        param=param,
        timeout_at=clamp(frame, timeout_ms),
        tags={"resonate:external": "true", "resonate:target": execution.nowhere},
    )
    id = child_id(frame.id, part, base=execution.origin)
    found = await opening.open(id, branch=id, scope="global", create=execution.create_timer)
    return _external(frame, *found, type_=type_)


async def start_detached(frame: Frame, part: str, *, param: Value, target: str, timeout_ms: int | None) -> str:
    """A call that does not end with this one. Returns its id; it is no child, and nobody waits for it."""
    execution = await _claim(frame, part)
    id = detached_id(execution.origin, frame.id, part)
    opening = Opening(
        frame=frame,
        param=param,
        timeout_at=execution.now() + (ONE_YEAR_MS if timeout_ms is None else timeout_ms),
        tags={"resonate:target": target, DETACHED_TAG: "true"},
    )
    record, _ = await opening.open(id, branch=id, scope="global", create=execution.create_remote)
    return record.id


async def _claim(frame: Frame, part: str) -> Execution:
    frame.namer.claim(part)
    await frame.execution.gate()
    return frame.execution


def _external(
    frame: Frame,
    record: Promise,
    replayed: bool,  # noqa: FBT001 - the second half of what `Opening.open` gives
    *,
    type_: Any,
    due: int | None = None,
    has_descendants: bool = False,
) -> External:
    node = External(
        execution=frame.execution,
        caller=frame,
        record=record,
        replayed=replayed,
        type=type_,
        due=due,
        has_descendants=has_descendants,
    )
    frame.adopt(node)
    return node


def _due(record: Promise, codec: Codec) -> int:
    due = _content(record, codec).get("due")
    return due if isinstance(due, int) else record.timeout_at


def make_info(execution: Execution, record: Promise, *, parent: str | None, function: Function) -> Info:
    """What a function that runs here may know about itself."""
    return Info(
        id=record.id,
        parent_id=parent,
        origin_id=execution.origin,
        branch_id=execution.id,
        func_name=function.name,
        timeout_at=from_ms(record.timeout_at),
        tags=dict(record.tags),
        dependencies=execution.worker.dependencies,
    )
