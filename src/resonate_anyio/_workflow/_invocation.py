"""`Invocation`: one durable call, from its plan to its outcome. Read `invoke` from top to bottom.

1. *Plan.* Determine the id of the call, its place in the code, and whether it is on record. This awaits nothing.
2. *Find or create.* A recorded call has to match the call that the code makes; otherwise the execution is halted
   (docs/semantics.md 2.7). A new call is recorded before it begins. A new call in a cancelled scope is recorded as
   cancelled (docs/semantics.md 3.4).
3. *Run or wait.* A function of this process runs in the task of its caller. Every other call is waited for.
4. *Settle.* The frame records its own outcome (see `_frame`).
5. *Deliver.* The recorded outcome is delivered to the code.

A call is *doubtful* if another call is on record at its position: the first run was cancelled before it reached the
call, or the code has changed. If the code is then cancelled here as well, the call is *void*: it is not recorded (see
`_positions`).
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyio import CancelScope, get_cancelled_exc_class
from attrs import define, evolve, field

from .._concurrency._tasks import EAGER_TASKS
from .._errors import NonDeterminismError
from .._functions._signatures import Kind
from .._history import ORDER_TAG, PARENT_TAG, POSITION_TAG, Placed, Position
from .._ids import SEPARATORS, is_below
from .._protocol import Promise, PromiseCreate, PromiseState, Value
from . import _events
from ._awaits import deliver, end_if_cancelled, outcome
from ._frame import Frame
from ._host import halt
from ._lanes import insist, lane_of
from ._leaf import ShortStep, begin_short
from ._node import External, Node
from ._operations import RUN, Operation, difference
from ._positions import PositionCheck, is_refused
from ._reasons import Reason, reason_of
from ._refusals import DEEPEST, refuse_depth, refuse_late
from ._regions import reason_for, regions_around
from ._scopes import SCOPES_TAG, Scope, clamping, durable_scopes, encode_instants, fix_instants

if TYPE_CHECKING:
    from .._functions._function import Function
    from .._functions._retry import RetryPolicy
    from ._host import Host
    from ._lanes import Lane

_STACK_SLICE: Final = 20
"""The number of nested calls that run in one task. Each takes a dozen of the interpreter's thousand stack frames."""


async def invoke(invocation: Invocation) -> object:
    """Make a planned call, wait for its outcome, and deliver that: return its value or raise its failure."""
    frame, lane = invocation.frame, lane_of(invocation.frame)
    if frame.depth >= DEEPEST and isinstance(invocation, LocalInvocation):
        refuse_depth(invocation.function.name)
    try:
        # 2. Find or create.
        if lane.label == "":
            node = await invocation.open(lane)
        else:
            # The function must not end while another of its tasks is recording a call.
            with frame.children.invoking():
                node = await invocation.open(lane)
        if invocation.recorded is not None:
            await invocation.refuse_again(node)
        # 3. and 4. Run the call, which settles it, or wait for it.
        if node.pending:
            await _complete(frame, node)
        # 5. Deliver.
        if EAGER_TASKS or node.record.state is not PromiseState.RESOLVED or not isinstance(node, Frame):
            return await deliver(frame, node)
        # The usual case of `deliver`, without its checks.
        if not node.replayed:
            frame.children.mark_seen(node)
        if frame.order.shared or frame.order.past:
            await frame.order.turn(lane)
        else:
            lane.count_return()
        return frame.execution.codec.decode(node.record.value, node.type)
    except get_cancelled_exc_class():
        # A void call was never made, and so its cancellation is not a return.
        if not invocation.void:
            await frame.order.turn_of_cancelled(lane)
        raise


async def _complete(frame: Frame, node: Node) -> None:
    """Run a local call in the task of its caller, and wait for any other call."""
    if not isinstance(node, Frame):
        await outcome(frame, node)
    elif (depth := frame.depth + 1) % _STACK_SLICE:
        await node.run(depth)
    else:
        # A task of its own, so that the interpreter's stack does not overflow in the code of this package.
        frame.start(node, depth)
        await outcome(frame, node)


@define(kw_only=True, eq=False, repr=False)
class Invocation(PositionCheck):
    """One durable call that is about to be made.

    Attributes:
        operation: the kind of the call.
        param: the value that is recorded with the call.
        type: the type that its value is decoded as.
        timeout_ms: the longest duration from its start, or None.
        id: the id of its promise.
        recorded: its record from the history, or None.
        apart: whether the code goes on once the call is on record, and awaits it later, if ever.
        short: how the call gets on record, if it runs before that; else None.
    """

    operation: ClassVar[Operation]

    param: Value
    type: Any = Any
    timeout_ms: int | None = None
    id: str = field(init=False)
    recorded: Promise | None = field(default=None, init=False)
    apart: bool = field(default=False, init=False)
    short: ShortStep | None = field(default=None, init=False)
    _segment: str = field(init=False)
    _number: int = field(init=False)
    _lane_tags: Mapping[str, str] = field(init=False)
    _returns: int = field(init=False)
    _order_tags: Mapping[str, str] | None = field(default=None, init=False)
    _matches: bool = field(default=False, init=False)
    _scopes: tuple[Scope, ...] = field(default=(), init=False)
    _clamping: tuple[Scope, ...] = field(default=(), init=False)

    def __attrs_post_init__(self) -> None:
        frame, lane, operation = self.frame, self.place.lane, self.operation
        self.execution: Host = frame.execution
        execution = self.execution
        self._segment, self._lane_tags = self.place.resolve(self._id_of, self._same_call, self._content)
        self._number = frame.claim(self._segment)
        self.id = execution.naming.of(operation.naming, frame.id, self._segment)
        if regions_around.get():
            self._scopes = durable_scopes(frame)
            self._clamping = clamping(self._scopes)
        if frame.order.floor is lane:
            frame.order.rest(lane)
        self._returns = lane.returns
        if frame.replaying or execution.history.records:
            self.compare()
        else:
            self.position: Position = self.place.position(frame.blocks_here())
        if execution.facilities.observers.given:
            _events.call_planned(self)

    @property
    def unfinished(self) -> bool:
        """Whether the call is on record and pending."""
        return self.recorded is not None and self.recorded.pending

    @property
    def in_doubt(self) -> bool:
        """Whether the call would run here because it is pending in the history, and may have an outcome by now."""
        return False

    @property
    def replayed(self) -> bool:
        """Whether the call has an outcome on record already."""
        return self.recorded is not None and not self.recorded.pending

    def preview(self) -> Node:
        """Return the node of the recorded call, for reading only."""
        assert self.recorded is not None
        return self._node(self.recorded)

    def set_apart(self) -> None:
        """Let the code go on once the call is on record: see `apart`."""
        self.apart = True

    @property
    def new(self) -> bool:
        return self.recorded is None

    def _take(self) -> None:
        self.recorded = self.execution.history.take(self.id)
        if self.recorded is not None:
            if ORDER_TAG in self.recorded.tags:
                self.frame.order.asked(self.recorded)
            if self._scopes:
                fix_instants(self._scopes, self.recorded)
            self.frame.asked()

    def _release(self) -> None:
        self.frame.release(self._segment)

    def _difference(self) -> Placed | None:
        frame, history = self.frame, self.execution.history
        recorded = history.look(self.id)
        placed = history.placed(frame.id).get((self.position.label, self.position.number))
        if placed is None:
            return None if recorded is None else history.place_of(recorded)
        if recorded is None or placed.id != self.id:
            return placed
        if not self._stands_at(placed.position, recorded):
            return placed
        self._matches = self._asks_for(recorded)
        return None if self._matches else placed

    def _stands_at(self, position: Position, record: Promise) -> bool:
        """Return whether `record`, which has this position, was made in the regions around the running code."""
        here, there = self.position.blocks, position.blocks
        if here == there:
            return True
        # A refused call ended with its region at this very place, even if other regions had been cancelled by then.
        return here.replace("!", "") == there.replace("!", "") and is_refused(record, self.execution)

    async def open(self, lane: Lane | None = None) -> Node:
        """Find or create the record of the call, make the call a child of its frame, and return that child.

        Args:
            lane: the lane of the running code, if the caller knows it.
        """
        frame = self.frame
        if self.doubt is not None or self.void or self.place.lane.unsure or (frame.replaying and self.recorded is None):
            # The first run may not have reached this call.
            await self.meet()
        now = await self._admit(lane)
        if (record := self.recorded) is None:
            record = await self._create(self._request(now), now)
        elif record.pending or not self._matches:
            record = await self._take_up(record, self._request(now))
        if record.pending and record.timeout_at <= now:
            record = await self.execution.journal.fresh(record)
        node = self._node(record)
        if self.operation.awaited and record.state is not PromiseState.RESOLVED:
            frame.children.adopt(node, self._number)
        if self.execution.facilities.observers.calls and self.short is None:
            _events.call_recorded(self, record)
        if self.apart and self.unfinished and node.pending:
            await end_if_cancelled(frame, node)
        return node

    async def _admit(self, lane: Lane | None) -> int:
        """Wait until the call may begin, and return the server's time. Record a cancellation of this wait."""
        frame, execution, condemned, now = self.frame, self.execution, False, 0
        try:
            await execution.gate()
            if self.recorded is None and execution.history.partial:
                await self._look_up()
            if self.recorded is None or not self.replayed:
                now = execution.now()
                if frame.settles_before(now):
                    await refuse_late(frame, self.id)
                if self.recorded is None or not self.apart:
                    condemned = frame.replaying and self.is_condemned()
                    await frame.before_wait(lane or lane_of(frame), self.made_at)
        except get_cancelled_exc_class():
            await self._admission_cancelled(condemned=condemned)
            raise
        return now

    async def _admission_cancelled(self, *, condemned: bool) -> None:
        """Record the cancellation of a call that has not begun, unless the first run did not reach the call."""
        if self.execution.interrupted() or self.void:
            return
        if condemned:
            self.withdraw()
        else:
            await self.open_cancelled()

    async def _create(self, request: PromiseCreate, now: int) -> Promise:
        """Record a new call before it begins, or begin a short step, and return the record."""
        try:
            record = await self._record(request, now)
        except get_cancelled_exc_class() as exc:
            earlier = await self._create_interrupted(exc)
            if earlier is None:
                raise
            record = earlier
        same = record.param == request.param and record.tags == request.tags
        if self.short is None and (not same or self.frame.order.shared):
            await self._check(record, request)
        return record

    def _record(self, request: PromiseCreate, now: int) -> Coroutine[Any, Any, Promise]:  # noqa: ARG002
        return self.create(request)

    async def _take_up(self, record: Promise, request: PromiseCreate) -> Promise:
        """Check that `record` is a record of this call, and return its present state."""
        if self.in_doubt:
            # The former holder of the lease may have settled it since the history was read, because that needs no
            # lease. Its outcome is history then, and is delivered even in a cancelled scope.
            record = self.recorded = await insist(partial(self.create, request))
            try:
                if record.pending:
                    # A cancellation that came meanwhile: the call does not begin after that.
                    lane_of(self.frame).collect()
            except get_cancelled_exc_class():
                await self._admission_cancelled(condemned=False)
                raise
        await self._check(record, request)
        return record

    async def _create_interrupted(self, cancellation: BaseException) -> Promise | None:  # noqa: ARG002
        """Record that the call was cancelled, if `cancellation` has ended the request that creates it.

        Return the record to go on with, if it shows that the call was made before; None to raise the cancellation.
        """
        if not self.execution.interrupted() and not self.frame.settles_before(self.execution.now()):
            await self.open_cancelled()
        return None

    async def _look_up(self) -> None:
        """Look for the record of the call on the server, if the history may lack it."""
        history = self.execution.history
        lacks = history.may_lack(self.frame.id, self.operation.scope)
        record = await self.execution.journal.look_up(self.id) if lacks else None
        if record is not None:
            history.add(record)
            self.frame.recount()
            self.compare()
            await self.meet()

    async def open_cancelled(self, why: Reason | None = None) -> Node:
        """Record that the call was cancelled before it began, make it a child of its frame, and return that child.

        Args:
            why: the reason; None for the reason of the cancellation in progress.
        """
        reason = evolve(why or reason_for(self.frame), started=False)
        with CancelScope(shield=True):
            request = self._request(self.execution.now())
            record = await insist(partial(self.create, request))
            await self._check(record, request)
            node = self._node(record)
            if self.operation.awaited:
                self.frame.children.adopt(node, self._number)
            if self.execution.facilities.observers.calls:
                _events.call_recorded(self, record)
            if record.pending:
                await node.forgo(reason)
            self.frame.children.mark_seen(node)
        return node

    async def refuse_again(self, node: Node) -> None:
        """Cancel the code if the call was not even begun the first time, because the code was cancelled here."""
        if not self.replayed or node.record.state is not PromiseState.CANCELED:
            return
        reason = reason_of(node.record, self.execution.codec)
        if reason is not None and not reason.started:
            await deliver(self.frame, node)

    def _request(self, now: int) -> PromiseCreate:
        tags = self._tags(self._kind_tags())
        return PromiseCreate(id=self.id, timeout_at=self._timeout_at(now), param=self.param, tags=tags)

    def _timeout_at(self, now: int) -> int:
        """Return the deadline of the call: its own, if it has one, or an earlier one of something around the call."""
        limit = self.frame.record.timeout_at
        for scope in self._clamping:
            limit = min(limit, scope.instant)
        if self.timeout_ms is None:
            return limit
        return min((now or self.execution.now()) + self.timeout_ms, limit)

    def _tags(self, own: dict[str, str]) -> dict[str, str]:
        execution, parent, tags = self.execution, self.frame.id, own
        tags.update(self._lane_tags)
        if self.frame.order.shared or self.recorded is not None:
            tags.update(self._numbered())
        tags["resonate:origin"] = execution.naming.origin
        if parent not in execution.history.unplaced:
            tags[POSITION_TAG] = "/".join(self.position)
        if self._scopes:
            tags[SCOPES_TAG] = encode_instants(self._scopes, self._clamping)
        if self.id.startswith(parent) and self.id[len(parent) : len(parent) + 1] in SEPARATORS:
            tags["resonate:parent"] = parent
            return tags
        branch = tags["resonate:branch"]
        tags["resonate:parent"] = branch if is_below(self.id, branch) else execution.naming.origin
        tags[PARENT_TAG] = parent
        return tags

    def _numbered(self) -> Mapping[str, str]:
        """Return the tag for the order of the frame's tasks. The call is numbered when it is about to be recorded."""
        if self.recorded is not None:
            return {tag: self.recorded.tags[tag] for tag in (ORDER_TAG,) if tag in self.recorded.tags}
        if self._order_tags is None:
            self._order_tags = self.frame.order.number(self.place.lane, self._returns)
        return self._order_tags

    async def confirm(self, record: Promise, request: PromiseCreate) -> None:
        """Check the record of a call that ran before it was recorded, and tell that it is on record."""
        await self._check(record, request)
        if self.execution.facilities.observers.calls:
            _events.call_recorded(self, record)

    async def _check(self, record: Promise, request: PromiseCreate) -> None:
        if self.frame.order.shared:
            self.frame.order.recorded(record)
        if record.param == request.param and record.tags == request.tags:
            return
        if (sides := difference(record, request.param, request.tags, self.execution.codec)) is not None:
            await halt(self.execution, NonDeterminismError(record.id, *sides, self.execution.id))

    def _asks_for(self, record: Promise) -> bool:
        """Return whether `record` was made for the same operation, function, version and arguments."""
        tags = self._kind_tags()
        if record.param == self.param and tags.items() <= record.tags.items():
            return True
        return difference(record, self.param, tags, self.execution.codec) is None

    def _content(self) -> str:
        """Return a text that describes the call apart from its place."""
        return self.param.data or ""

    def _same_call(self, record: Promise) -> bool:
        """Return whether `record` may be of this call. This is asked before the place of the call is known."""
        return record.param == self.param

    def _id_of(self, segment: str) -> str:
        """Return the id of the call with this segment."""
        return self.execution.naming.of(self.operation.naming, self.frame.id, segment)

    def _kind_tags(self) -> dict[str, str]:
        """Return the tags of its promise, except for those of its lineage."""
        if self.operation.scope == "local":
            branch = self.execution.naming.branch(self.frame.id, self.id)
            return {"resonate:branch": branch, "resonate:scope": "local", **self.operation.tags}
        return {
            "resonate:branch": self.id,
            "resonate:scope": "global",
            "resonate:target": self._target(),
            **self.operation.tags,
        }

    def _target(self) -> str:
        """Return the address that the task of its promise is sent to."""
        return self.execution.facilities.nowhere

    def create(self, request: PromiseCreate) -> Coroutine[Any, Any, Promise]:
        """Create its promise, and return the record."""
        journal = self.execution.journal
        match self.operation.create:
            case "local":
                return journal.create_local(request, again=self.recorded is not None)
            case "remote":
                return journal.create_remote(request)
            case "timer":
                return journal.create_timer(request)

    def _node(self, record: Promise) -> Node:
        """Return the child that the call becomes."""
        return External(
            execution=self.execution,
            caller=self.frame,
            record=record,
            replayed=self.replayed,
            type=self.type,
            has_descendants=self.operation.has_descendants,
        )


@define(kw_only=True, eq=False, repr=False)
class LocalInvocation(Invocation):
    """A call that runs in this execution. It is certain if a replay is sure to come to it: see `Lane.certain`."""

    operation = RUN

    certain: bool
    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    retry: RetryPolicy | None

    @property
    def in_doubt(self) -> bool:
        return self.unfinished and self.function.kind is not Kind.WORKFLOW

    async def _record(self, request: PromiseCreate, now: int) -> Promise:
        if self.apart or not self.certain or self.frame.replaying or self.function.kind is Kind.WORKFLOW:
            return await self.create(request)
        self.short = await begin_short(self, request, now)
        return await self.create(request) if self.short is None else self.short.provisional()

    def _node(self, record: Promise) -> Frame:
        frame = Frame(
            execution=self.execution,
            record=record,
            replayed=self.recorded is not None and not self.recorded.pending,
            type=self.type,
            parent=self.frame,
            function=self.function,
            args=self.args,
            kwargs=self.kwargs,
            retry=self.retry,
            short=self.short,
            first_attempt=1 if self.recorded is None else 1 + self.execution.history.lives_since(record),
        )
        return frame if self.short is None else self.short.begin(frame)
