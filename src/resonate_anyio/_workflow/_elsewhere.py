"""Invocations of calls that are settled elsewhere: remote calls, sleeps, promises, detached calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define, evolve, field

from .._history import LANE_TAG, POSITION_TAG, is_made_by_hand
from .._ids import hashed
from .._protocol import Promise, PromiseCreate, PromiseState
from ._invocation import Invocation
from ._node import External, Node
from ._operations import DETACHED, PROMISE, RPC, SLEEP, CallIdentity, content_of, identity_of
from ._reasons import Reason, reason_of
from ._scopes import fix_instants

if TYPE_CHECKING:
    from ._lanes import Lane


ONE_YEAR_MS: Final = 365 * 24 * 3600 * 1000


@define(kw_only=True, eq=False, repr=False)
class RemoteInvocation(Invocation):
    """A call that a worker of the target runs, as an execution of its own."""

    operation = RPC

    target: str

    def _target(self) -> str:
        return self.target

    async def open(self, lane: Lane | None = None) -> Node:
        node = await Invocation.open(self, lane)
        cancelled = self.replayed and node.record.state is PromiseState.CANCELED
        if cancelled and self.execution.history.has_pending_below(self.id):
            # The process that cancelled the call died before it had cancelled the calls below.
            await self.execution.journal.cancel_below(self.id)
        return node


@define(kw_only=True, eq=False, repr=False)
class SleepInvocation(Invocation):
    """A timer. Its due instant is recorded, so that a restart does not extend it."""

    operation = SLEEP

    duration_ms: int

    def _request(self, now: int) -> PromiseCreate:
        due = (now or self.execution.now()) + self.duration_ms
        request = Invocation._request(self, now)
        return evolve(request, param=self.execution.codec.encode({"due": due}), timeout_at=min(due, request.timeout_at))

    def _same_call(self, record: Promise) -> bool:
        return identity_of(record, self.execution.codec) == CallIdentity(SLEEP.name)

    def _node(self, record: Promise) -> External:
        node = Invocation._node(self, record)
        assert isinstance(node, External)
        due = content_of(record, self.execution.codec).get("due")
        node.due = due if isinstance(due, int) else record.timeout_at
        return node


@define(kw_only=True, eq=False, repr=False)
class PromiseInvocation(Invocation):
    """A promise that is settled from outside. One that was created ahead, by its id, is used as it is.

    A promise that was created ahead does not carry the instants of the durable scopes around the call. They are
    recorded beside it, so that the scopes do not begin anew on a replay.
    """

    operation = PROMISE

    _noted: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        Invocation.__attrs_post_init__(self)
        if self._scopes:
            self._take_note()

    def _take_note(self) -> None:
        note = self.execution.history.take(self._note_id)
        if note is not None:
            self._noted = True
            fix_instants(self._scopes, note)
            self.frame.asked()

    async def _look_up(self) -> None:
        await Invocation._look_up(self)
        history = self.execution.history
        if not self._scopes or self._noted or not history.may_lack(self.frame.id, "local"):
            return
        note = await self.execution.journal.look_up(self._note_id)
        if note is not None:
            history.add(note)
            self._take_note()

    @property
    def _note_id(self) -> str:
        return self.execution.naming.local(self.frame.id, f"~scopes-{hashed(self.id)}")

    async def _check(self, record: Promise, request: PromiseCreate) -> None:
        # The creator of such a promise knew only its id, so its content is not compared.
        if not is_made_by_hand(record):
            await Invocation._check(self, record, request)
        elif record.pending and self._scopes and not self._noted:
            self._noted = True
            await self._note()

    async def _note(self) -> None:
        """Record the instants of the scopes in a promise that is born resolved: its deadline is in the past."""
        branch = self.execution.naming.branch(self.frame.id, self._note_id)
        local = {"resonate:branch": branch, "resonate:scope": "local", "resonate:timer": "true"}
        tags = self._tags(local)
        # The note is not a call: it has no position, and a lane does not begin with it.
        tags.pop(LANE_TAG, None)
        tags.pop(POSITION_TAG, None)
        param = self.execution.codec.encode({"fact": "ctx.promise"})
        note = PromiseCreate(id=self._note_id, timeout_at=self.frame.record.created_at, param=param, tags=tags)
        await self.execution.journal.create_local(note)


@define(kw_only=True, eq=False, repr=False)
class DetachedInvocation(Invocation):
    """A call that does not end with its caller. It is not a child; the caller only waits until it is on record."""

    operation = DETACHED

    target: str

    @property
    def unfinished(self) -> bool:
        return False

    @property
    def replayed(self) -> bool:
        return self.recorded is not None

    async def open_cancelled(self, why: Reason | None = None) -> Node:
        if self.recorded is not None:
            # It was started, and is independent of the code that started it.
            return self._node(self.recorded)
        return await super().open_cancelled(why)

    def _target(self) -> str:
        return self.target

    def _timeout_at(self, now: int) -> int:
        return (now or self.execution.now()) + (ONE_YEAR_MS if self.timeout_ms is None else self.timeout_ms)

    def _node(self, record: Promise) -> External:
        reason = reason_of(record, self.execution.codec) if record.state is PromiseState.CANCELED else None
        if reason is None or reason.started:
            started = self.execution.codec.encode(record.id)
            record = evolve(record, state=PromiseState.RESOLVED, value=started)
        node = Invocation._node(self, record)
        assert isinstance(node, External)
        return node
