"""Invocation children: the promise of a durable call is found in the history, or created.

An opening is planned at once, which settles its id and whether it is history; only what follows needs a request.

What is found has to be what is asked for: same operation, same function, same version and, for a call that runs
elsewhere, same arguments. Otherwise the code has changed under its history, and the execution is halted
(docs/semantics.md 2.7). A new call that is reached in a cancelled scope is recorded as cancelled, so that a replay does
not run it (docs/semantics.md 3.4).

A call that is not what is on record at its position is *doubtful*: the first run was cancelled before it came to that
call, unless the code has changed. If the code is cancelled here as well, the call is *void*: nothing is recorded of it
(see `_positions`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, evolve, field

from .._errors import NonDeterminismError, TooLate
from .._functions._function import Kind
from .._functions._info import Info
from .._history import DETACHED_TAG, LANE_TAG, ORDER_TAG, PARENT_TAG, POSITION_TAG, Placed, Position, is_made_by_hand
from .._ids import hashed, is_below
from .._protocol import Promise, PromiseCreate, PromiseState, Value
from .._time import from_ms
from . import _log
from ._awaits import before_wait, deliver
from ._frame import Frame
from ._host import halt
from ._lanes import insist
from ._node import External, Node
from ._operations import Operation, content_of, operation_of
from ._positions import PositionCheck, is_refused
from ._reasons import Reason, reason_of
from ._regions import reason_for
from ._scopes import SCOPES_TAG, Scope, clamping, durable_scopes, encode_instants, fix_instants

if TYPE_CHECKING:
    from .._functions._function import Function
    from .._functions._retry import RetryPolicy
    from ._host import Host

ONE_YEAR_MS: Final = 365 * 24 * 3600 * 1000


@define(kw_only=True, eq=False)
class Invocation(PositionCheck, ABC):
    """One durable call that is about to be made.

    Attributes:
        in_branch: whether its record comes with the lease of the execution.
        param: what is recorded with it.
        type: what its value is decoded as.
        timeout_ms: how long it may take from its start, or None.
        id: the id of its promise.
        recorded: its record, if it is history.
        apart: whether the code goes on when the call is on record, and does not wait for it in the same breath.
    """

    in_branch: ClassVar[bool] = False

    param: Value
    type: Any = Any
    timeout_ms: int | None = None
    id: str = field(init=False)
    recorded: Promise | None = field(default=None, init=False)
    _segment: str = field(init=False)
    _number: int = field(init=False)
    apart: bool = field(default=False, init=False)
    _lane_tags: Mapping[str, str] = field(init=False)
    _returns: int = field(init=False)
    _order_tags: Mapping[str, str] | None = field(default=None, init=False)
    _scopes: tuple[Scope, ...] = field(init=False)
    _clamping: tuple[Scope, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._number = self.frame.number_call()
        self._segment, self._lane_tags = self.place.resolve(self._id_of, self._same_call, self._content)
        self.frame.names.claim(self._segment)
        self.id = self._id_of(self._segment)
        self._scopes = durable_scopes(self.frame)
        self._clamping = clamping(self._scopes)
        self.frame.order.rest(self.place.lane)
        self._returns = self.place.lane.returns
        self.compare()

    @property
    def unfinished(self) -> bool:
        """Whether it is on record, and has no outcome."""
        return self.recorded is not None and self.recorded.pending

    @property
    def in_doubt(self) -> bool:
        """Whether it would begin to run here because it is pending in the history, and may have an outcome by now."""
        return False

    @property
    def replayed(self) -> bool:
        """Whether it has an outcome on record already."""
        return self.recorded is not None and not self.recorded.pending

    def preview(self) -> Node:
        """What the recorded call is, for someone who only looks at it."""
        assert self.recorded is not None
        return self._node(self.recorded)

    # Whether the first run came to this call

    @property
    def new(self) -> bool:
        return self.recorded is None

    def _take(self) -> None:
        self.recorded = self.execution.history.take(self.id)
        if self.recorded is not None:
            self.frame.order.asked(self.recorded)
            fix_instants(self._scopes, self.recorded)
            self.frame.asked()

    def _release(self) -> None:
        self.frame.names.release(self._segment)

    def _difference(self) -> Placed | None:
        frame, history = self.frame, self.execution.history
        recorded = history.look(self.id)
        placed = history.placed(frame.id).get((self.position.label, self.position.number))
        if placed is None:
            return None if recorded is None else history.place_of(recorded)
        if recorded is None or placed.id != self.id:
            return placed
        return None if self._stands_at(placed.position, recorded) and self._asks_for(recorded) else placed

    def _stands_at(self, position: Position, record: Promise) -> bool:
        """Whether `record`, which is on record at this position, was made in the blocks around the code."""
        here, there = self.position.blocks, position.blocks
        if here == there:
            return True
        # One that was refused ended with its block at that very place, whatever else had been cancelled.
        return here.replace("!", "") == there.replace("!", "") and is_refused(record, self.execution)

    # Making it

    async def open(self) -> Node:
        """Find or make the record of the call, and make the call a child of its frame."""
        await self.begin()
        request = self._request()
        if self.in_doubt:
            # The former holder may have settled it since the history was read: that needs no lease. Then it is history,
            # which a cancelled scope does not hide.
            self.recorded = await insist(partial(self.create, request))
        record = self.recorded or await self._create(request)
        await self._check(record, request)
        _log.call_opened(self, record)
        node = self._node(await self.execution.journal.fresh(record))
        self._adopt(node)
        if self.apart and self.unfinished and node.pending:
            await self._check_not_cancelled(node)
        return node

    async def _check_not_cancelled(self, node: Node) -> None:
        """End a call that was on record if the code that starts it is cancelled: no request of this run tells it."""
        try:
            await checkpoint_if_cancelled()
        except get_cancelled_exc_class():
            if not self.execution.interrupted():
                with CancelScope(shield=True):
                    await node.forgo(evolve(reason_for(self.frame), started=False))
                self.frame.children.mark_seen(node)
            raise

    async def begin(self) -> None:
        """Wait until the call may begin: one that has no outcome yet has to, and ends if it is cancelled meanwhile."""
        await self.meet()
        condemned = False
        try:
            await self.execution.gate()
            await self._look_up()
            if not self.replayed:
                await self._check_in_time()
            if self.recorded is None or (self.unfinished and not self.apart):
                condemned = self.is_condemned()
                await before_wait(self.frame, self.made_at)
        except get_cancelled_exc_class():
            if not self.execution.interrupted() and not self.void:
                if condemned:
                    self.withdraw()
                else:
                    await self.open_cancelled()
            raise

    async def _look_up(self) -> None:
        """See whether it is history after all, if not all of that is known."""
        history = self.execution.history
        if self.recorded is None and history.partial and not self.in_branch:
            record = await self.execution.journal.look_up(self.id)
            if record is not None:
                history.add(record)
                self.compare()
                await self.meet()

    async def open_cancelled(self, why: Reason | None = None) -> Node:
        """Put on record that the call was cancelled before it began, and make it a child of its frame.

        Args:
            why: why; None: because the running code is being cancelled.
        """
        reason = evolve(why or reason_for(self.frame), started=False)
        with CancelScope(shield=True):
            request = self._request()
            record = await insist(partial(self.create, request))
            await self._check(record, request)
            _log.call_opened(self, record)
            node = self._node(record)
            self._adopt(node)
            if record.pending:
                await node.forgo(reason)
            self.frame.children.mark_seen(node)
        return node

    async def _check_in_time(self) -> None:
        """Refuse a call of a function whose promise is settled: it could be neither recorded nor waited for."""
        if self.frame.settled_early:
            # One that is being cancelled, and does not shield the call, ends like at any other.
            await checkpoint_if_cancelled()
            msg = (
                f"a durable call ({self.id!r}) was made after the promise of {self.frame.function.name!r} "
                f"({self.frame.id!r}) had been settled, by its deadline or from outside; what has to be done in that "
                f"case belongs into its caller, whose promise is still pending"
            )
            raise TooLate(msg)

    async def _create(self, request: PromiseCreate) -> Promise:
        try:
            return await self.create(request)
        except get_cancelled_exc_class():
            if not self.execution.interrupted() and not self.frame.settled_early:
                await self.open_cancelled()
            raise

    async def refuse_again(self, node: Node) -> None:
        """If the call was not even begun the first time, then the code that makes it was cancelled here."""
        if not self.replayed or node.record.state is not PromiseState.CANCELED:
            return
        reason = reason_of(node.record, self.execution.codec)
        if reason is not None and not reason.started:
            await deliver(self.frame, node)

    def _request(self) -> PromiseCreate:
        return PromiseCreate(
            id=self.id, timeout_at=self._timeout_at(), param=self.param, tags=self._tags(self._kind_tags())
        )

    def _timeout_at(self) -> int:
        """Its own deadline if it has one, but never after that of anything around it."""
        limit = min([self.frame.instant, *(scope.instant for scope in self._clamping)])
        return limit if self.timeout_ms is None else min(self.execution.now() + self.timeout_ms, limit)

    def _tags(self, own: Mapping[str, str]) -> dict[str, str]:
        execution, parent = self.execution, self.frame.id
        tags = {**own, **self._lane_tags, **self._numbered(), "resonate:origin": execution.naming.origin}
        if execution.history.is_placed(parent):
            tags[POSITION_TAG] = self.position.encode()
        if self._scopes:
            tags[SCOPES_TAG] = encode_instants(self._scopes, self._clamping)
        if is_below(self.id, parent):
            return {**tags, "resonate:parent": parent}
        branch = tags["resonate:branch"]
        base = branch if is_below(self.id, branch) else execution.naming.origin
        return {**tags, "resonate:parent": base, PARENT_TAG: parent}

    def _numbered(self) -> Mapping[str, str]:
        """Where it stands in the order of the frame's tasks. It gets its number when it is about to be recorded."""
        if self.recorded is not None:
            return {tag: self.recorded.tags[tag] for tag in (ORDER_TAG,) if tag in self.recorded.tags}
        if self._order_tags is None:
            self._order_tags = self.frame.order.number(self.place.lane, self._returns)
        return self._order_tags

    async def _check(self, record: Promise, request: PromiseCreate) -> None:
        self.frame.order.recorded(record)
        if record.param == request.param and record.tags == request.tags:
            return
        recorded, asked = operation_of(record, self.execution.codec), self._asked(request.tags)
        if recorded != asked:
            await halt(self.execution, NonDeterminismError(record.id, str(recorded), str(asked), self.execution.id))

    def _asked(self, tags: Mapping[str, str]) -> Operation:
        request = Promise(id=self.id, timeout_at=0, created_at=0, param=self.param, tags=tags)
        return operation_of(request, self.execution.codec)

    def _asks_for(self, record: Promise) -> bool:
        """Whether `record` was made for the same operation, function and version, and with the same arguments."""
        tags = self._kind_tags()
        if record.param == self.param and tags.items() <= record.tags.items():
            return True
        return operation_of(record, self.execution.codec) == self._asked(tags)

    def _content(self) -> str:
        """What the call is, its place aside."""
        return self.param.data or ""

    def _adopt(self, node: Node) -> None:
        node.number = self._number
        self.frame.children.adopt(node)

    def _same_call(self, record: Promise) -> bool:
        """Whether `record` is one of such a call, for all that is known before its place is."""
        return record.param == self.param

    @abstractmethod
    def _id_of(self, segment: str) -> str:
        """The id that it has with this segment."""

    @abstractmethod
    def _kind_tags(self) -> dict[str, str]:
        """What its promise is tagged with, lineage aside."""

    @abstractmethod
    async def create(self, request: PromiseCreate) -> Promise:
        """Create its promise."""

    @abstractmethod
    def _node(self, record: Promise) -> Node:
        """The child that it becomes."""


@define(kw_only=True, eq=False)
class LocalInvocation(Invocation):
    """A call that runs in this execution."""

    in_branch = True

    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    retry: RetryPolicy | None

    def _id_of(self, segment: str) -> str:
        return self.execution.naming.local(self.frame.id, segment)

    def _kind_tags(self) -> dict[str, str]:
        return {"resonate:branch": self.execution.id, "resonate:scope": "local"}

    async def create(self, request: PromiseCreate) -> Promise:
        return await self.execution.journal.create_local(request, again=self.recorded is not None)

    @property
    def in_doubt(self) -> bool:
        return self.unfinished and self.function.kind is not Kind.WORKFLOW

    def _node(self, record: Promise) -> Frame:
        return Frame(
            execution=self.execution,
            record=record,
            replayed=self.replayed,
            type=self.type,
            parent=self.frame,
            function=self.function,
            args=self.args,
            kwargs=self.kwargs,
            retry=self.retry,
            info=make_info(self.execution, record, parent=self.frame.id, function=self.function),
        )


@define(kw_only=True, eq=False)
class _ExternalInvocation(Invocation, ABC):
    """A call whose promise is settled elsewhere."""

    def _id_of(self, segment: str) -> str:
        return self.execution.naming.remote(self.frame.id, segment)

    def _node(self, record: Promise) -> External:
        return External(
            execution=self.execution, caller=self.frame, record=record, replayed=self.replayed, type=self.type
        )

    def _global_tags(self, target: str) -> dict[str, str]:
        return {"resonate:branch": self.id, "resonate:scope": "global", "resonate:target": target}


@define(kw_only=True, eq=False)
class RemoteInvocation(_ExternalInvocation):
    """A call that any worker of the target runs, as an execution of its own."""

    target: str

    def _kind_tags(self) -> dict[str, str]:
        return self._global_tags(self.target)

    async def create(self, request: PromiseCreate) -> Promise:
        return await self.execution.journal.create_remote(request)

    def _node(self, record: Promise) -> External:
        node = _ExternalInvocation._node(self, record)
        node.has_descendants = True
        return node

    async def open(self) -> Node:
        node = await Invocation.open(self)
        cancelled = self.replayed and node.record.state is PromiseState.CANCELED
        if cancelled and self.execution.history.has_pending_below(self.id):
            # The process that cancelled it died before it had ended what was below.
            await self.execution.journal.cancel_below(self.id)
        return node


@define(kw_only=True, eq=False)
class _TimerInvocation(_ExternalInvocation, ABC):
    """A promise whose deadline fires by itself."""

    async def create(self, request: PromiseCreate) -> Promise:
        return await self.execution.journal.create_timer(request)


@define(kw_only=True, eq=False)
class SleepInvocation(_TimerInvocation):
    """A timer. Its due instant is recorded, so that a restart does not extend it."""

    duration_ms: int

    def _request(self) -> PromiseCreate:
        due = self.execution.now() + self.duration_ms
        request = Invocation._request(self)
        return evolve(request, param=self.execution.codec.encode({"due": due}), timeout_at=min(due, request.timeout_at))

    def _kind_tags(self) -> dict[str, str]:
        return {**self._global_tags(self.execution.facilities.nowhere), "resonate:timer": "true"}

    def _same_call(self, record: Promise) -> bool:
        return operation_of(record, self.execution.codec) == Operation("ctx.sleep")

    def _node(self, record: Promise) -> External:
        node = _ExternalInvocation._node(self, record)
        due = content_of(record, self.execution.codec).get("due")
        node.due = due if isinstance(due, int) else record.timeout_at
        return node


@define(kw_only=True, eq=False)
class PromiseInvocation(_TimerInvocation):
    """A promise that somebody outside settles. One that was made ahead, by its id, is taken as it is.

    Such a one does not carry the instants of the durable scopes around the call, which must not begin anew on a replay;
    they are put on record beside it.
    """

    _noted: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        Invocation.__attrs_post_init__(self)
        note = self.execution.history.take(self._note_id) if self._scopes else None
        if note is not None:
            self._noted = True
            fix_instants(self._scopes, note)
            self.frame.asked()

    @property
    def _note_id(self) -> str:
        return self.execution.naming.local(self.frame.id, f"~scopes-{hashed(self.id)}")

    async def _check(self, record: Promise, request: PromiseCreate) -> None:
        # Whatever it was made with: who made it knew the id, and nothing of this code.
        if not is_made_by_hand(record):
            await Invocation._check(self, record, request)
        elif record.pending and self._scopes and not self._noted:
            self._noted = True
            await self._note()

    async def _note(self) -> None:
        """Record the instants of the scopes. In the past for certain, by the server's clock: it is born resolved."""
        local = {"resonate:branch": self.execution.id, "resonate:scope": "local", "resonate:timer": "true"}
        tags = self._tags(local)
        # It is no call: it has no position, and no lane begins with it.
        tags.pop(LANE_TAG, None)
        tags.pop(POSITION_TAG, None)
        param = self.execution.codec.encode({"fact": "ctx.promise"})
        note = PromiseCreate(id=self._note_id, timeout_at=self.frame.record.created_at, param=param, tags=tags)
        await self.execution.journal.create_local(note)

    def _kind_tags(self) -> dict[str, str]:
        return {**self._global_tags(self.execution.facilities.nowhere), "resonate:external": "true"}


@define(kw_only=True, eq=False)
class DetachedInvocation(_ExternalInvocation):
    """A call that does not end with this one. It is no child; all that is waited for is that it is on record."""

    target: str

    @property
    def unfinished(self) -> bool:
        return False

    @property
    def replayed(self) -> bool:
        return self.recorded is not None

    async def open_cancelled(self, why: Reason | None = None) -> Node:
        if self.recorded is not None:
            # It was started, and has nothing to do with the code that did it any more.
            return self._node(self.recorded)
        return await super().open_cancelled(why)

    def _id_of(self, segment: str) -> str:
        return self.execution.naming.detached(self.frame.id, segment)

    def _kind_tags(self) -> dict[str, str]:
        return {**self._global_tags(self.target), DETACHED_TAG: "true"}

    def _timeout_at(self) -> int:
        return self.execution.now() + (ONE_YEAR_MS if self.timeout_ms is None else self.timeout_ms)

    async def create(self, request: PromiseCreate) -> Promise:
        return await self.execution.journal.create_remote(request)

    def _node(self, record: Promise) -> External:
        reason = reason_of(record, self.execution.codec) if record.state is PromiseState.CANCELED else None
        if reason is None or reason.started:
            started = self.execution.codec.encode(record.id)
            record = evolve(record, state=PromiseState.RESOLVED, value=started)
        return _ExternalInvocation._node(self, record)

    def _adopt(self, node: Node) -> None:
        pass


def make_info(execution: Host, record: Promise, *, parent: str | None, function: Function) -> Info:
    """What a function that runs here may know about itself."""
    return Info(
        id=record.id,
        parent_id=parent,
        origin_id=execution.naming.origin,
        branch_id=execution.id,
        func_name=function.name,
        timeout_at=from_ms(record.timeout_at),
        tags=dict(record.tags),
        dependencies=execution.facilities.dependencies,
    )
