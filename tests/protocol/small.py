"""A small store and a small network, written as one outside of this package would be: from its public modules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import anyio
from anyio import Event, create_memory_object_stream, create_task_group
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream
from attrs import define, field

from resonate_anyio import StoreError, UsageError
from resonate_anyio.abc import Clock, Connection, Dialect, Gap, Identity, Network, Store
from resonate_anyio.protocol import (
    Armed,
    Callback,
    Change,
    DropCallback,
    DropListener,
    DropPromise,
    DropSchedule,
    DropTask,
    Kind,
    Message,
    Outcome,
    Outgoing,
    Promise,
    PromiseState,
    PutCallback,
    PutListener,
    PutPromise,
    PutSchedule,
    PutTask,
    Request,
    Response,
    Rules,
    Schedule,
    Step,
    Task,
    TaskState,
    View,
    apply,
    next_due,
    parse_poll,
    recover,
    tick,
)

T = TypeVar("T")
Record = TypeVar("Record", Promise, Task, Schedule)


@define
class State:
    """All records, by id. It is a `View` that answers every question by looking at all of them."""

    promises: dict[str, Promise] = field(factory=dict)
    tasks: dict[str, Task] = field(factory=dict)
    schedules: dict[str, Schedule] = field(factory=dict)
    callbacks: dict[tuple[str, str], Callback] = field(factory=dict)
    hearers: dict[tuple[str, str], None] = field(factory=dict)

    def copy(self) -> State:
        return State(
            dict(self.promises), dict(self.tasks), dict(self.schedules), dict(self.callbacks), dict(self.hearers)
        )

    def write(self, change: Change) -> None:
        match change:
            case PutPromise(promise):
                self.promises[promise.id] = promise
            case PutTask(task):
                self.tasks[task.id] = task
            case PutSchedule(schedule):
                self.schedules[schedule.id] = schedule
            case PutCallback(callback):
                self.callbacks[callback.awaited, callback.awaiter] = callback
            case PutListener(promise=id, address=address):
                self.hearers[id, address] = None
            case DropPromise() | DropTask() | DropSchedule() | DropCallback() | DropListener():
                self._drop(change)

    def _drop(self, change: DropPromise | DropTask | DropSchedule | DropCallback | DropListener) -> None:
        match change:
            case DropPromise(id):
                self.promises.pop(id, None)
            case DropTask(id):
                self.tasks.pop(id, None)
            case DropSchedule(id):
                self.schedules.pop(id, None)
            case DropCallback(awaited, awaiter):
                self.callbacks.pop((awaited, awaiter), None)
            case DropListener(promise=id, address=address):
                self.hearers.pop((id, address), None)

    def promise(self, id: str) -> Promise | None:
        return self.promises.get(id)

    def task(self, id: str) -> Task | None:
        return self.tasks.get(id)

    def schedule(self, id: str) -> Schedule | None:
        return self.schedules.get(id)

    def branch(self, branch: str) -> Sequence[Promise]:
        return [promise for promise in in_order(self.promises) if promise.branch == branch]

    def awaiters(self, awaited: str) -> Sequence[Callback]:
        return [found for found in self.all_callbacks() if found.awaited == awaited]

    def awaited(self, awaiter: str) -> Sequence[Callback]:
        return [found for found in self.all_callbacks() if found.awaiter == awaiter]

    def listeners(self, promise: str) -> Sequence[str]:
        return [address for id, address in self.all_listeners() if id == promise]

    def search_promises(
        self,
        *,
        state: PromiseState | None,
        tags: Mapping[str, str],
        after: str | None,
        limit: int,
        until: str | None = None,
    ) -> Sequence[Promise]:
        among = between(self.promises, after, until)
        return [p for p in among if state in {None, p.state} and tags.items() <= p.tags.items()][:limit]

    def search_tasks(
        self, *, state: TaskState | None, after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Task]:
        return [task for task in between(self.tasks, after, until) if state in {None, task.state}][:limit]

    def search_schedules(
        self, *, tags: Mapping[str, str], after: str | None, limit: int, until: str | None = None
    ) -> Sequence[Schedule]:
        among = between(self.schedules, after, until)
        return [schedule for schedule in among if tags.items() <= schedule.promise_tags.items()][:limit]

    def id_ahead(self, kind: Kind, after: str | None, count: int) -> str | None:
        among: Mapping[str, Promise | Task | Schedule] = getattr(self, kind)
        ids = sorted((id for id in among if after is None or id.encode() > after.encode()), key=str.encode)
        return ids[count - 1] if count <= len(ids) else None

    def due_promises(self, now: int, *, armed: Armed, limit: int | None = None) -> Sequence[Promise]:
        return due(((p.timeout_at, p) for p in self.promises.values() if p.pending and p.armed <= armed), now, limit)

    def due_tasks(self, now: int, *, limit: int | None = None) -> Sequence[Task]:
        return due(((task.due_at, task) for task in self.tasks.values() if task.due_at is not None), now, limit)

    def due_schedules(self, now: int, *, limit: int | None = None) -> Sequence[Schedule]:
        return due(((schedule.next_run_at, schedule) for schedule in self.schedules.values()), now, limit)

    def next_due(self, *, armed: Armed) -> int | None:
        instants = [p.timeout_at for p in self.promises.values() if p.pending and p.armed <= armed]
        instants += [task.due_at for task in self.tasks.values() if task.due_at is not None]
        instants += [schedule.next_run_at for schedule in self.schedules.values()]
        return min(instants, default=None)

    def all_callbacks(self) -> Sequence[Callback]:
        return sorted(self.callbacks.values(), key=lambda found: (found.awaiter.encode(), found.awaited.encode()))

    def all_listeners(self) -> Sequence[tuple[str, str]]:
        return sorted(self.hearers, key=lambda pair: (pair[0].encode(), pair[1].encode()))


def in_order(records: Mapping[str, Record]) -> list[Record]:
    """The records in ascending byte order of their ids."""
    return [records[id] for id in sorted(records, key=str.encode)]


def between(records: Mapping[str, Record], after: str | None, until: str | None) -> list[Record]:
    """The records whose ids are greater than the one and not greater than the other."""
    chosen = {
        id: record
        for id, record in records.items()
        if (after is None or id.encode() > after.encode()) and (until is None or id.encode() <= until.encode())
    }
    return in_order(chosen)


def due(records: Iterable[tuple[int, Record]], now: int, limit: int | None) -> list[Record]:
    """The records whose instants have come, the first of them, in the order of their ids."""
    found = sorted((pair for pair in records if pair[0] <= now), key=lambda pair: (pair[0], pair[1].id.encode()))
    return in_order({record.id: record for _, record in found[:limit]})


class SmallStore(Store):
    """Keeps everything in memory. A transaction works on a copy."""

    def __init__(self) -> None:
        self._state = State()
        self._opened = False

    def open(self) -> None:
        if self._opened:
            msg = "this store is open already"
            raise StoreError(msg)
        self._opened = True

    def close(self) -> None:
        self._opened = False

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        state, outcomes = self._state.copy(), list[Outcome]()
        for step in steps:
            outcomes.append(step(state))
            for change in outcomes[-1].changes:
                state.write(change)
        self._state = state
        return outcomes

    def read(self, query: Callable[[View], T]) -> T:
        return query(self._state)


@define(eq=False)
class SmallNetwork(Network):
    """A server in this process, on any store, that is as good as one at the other end of a wire.

    It does not renew leases: whoever holds one sends heartbeats.
    """

    _store: Store
    _clock: Clock
    _rules: Rules
    _open: list[SmallConnection] = field(factory=list, init=False)
    _turn: int = field(default=0, init=False)
    _moved: Event = field(factory=Event, init=False)

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        connection = SmallConnection(self, identity)
        with self._using_the_store():
            self._open.append(connection)
            try:
                async with create_task_group() as tasks:
                    tasks.start_soon(self._keep_time)
                    yield connection
                    tasks.cancel_scope.cancel()
            finally:
                connection.close()

    @contextmanager
    def _using_the_store(self) -> Iterator[None]:
        if not self._open:
            self._store.open()
            self.write(partial(recover, now=self.now(), rules=self._rules))
        try:
            yield
        finally:
            if not self._open:
                self._store.close()

    async def _keep_time(self) -> None:
        while True:
            moved = self._moved
            instant = self._store.read(partial(next_due, rules=self._rules))
            with anyio.move_on_after(None if instant is None else max(0, instant - self.now()) / 1000):
                await moved.wait()
            if instant is not None and instant <= self.now():
                self.write(partial(tick, now=self.now(), rules=self._rules))

    def now(self) -> int:
        return self._clock()

    @property
    def dialect(self) -> Dialect:
        return Dialect(separator=self._rules.separator, origins_mix=not self._rules.heartbeats_within_origin)

    def decide(self, request: Request) -> Response:
        """Decide a request now."""
        return self.write(partial(apply, now=self.now(), request=request, rules=self._rules))

    def write(self, step: Step) -> Response:
        """Take a step, and send what it has to send."""
        [outcome] = self._store.transact([step])
        for outgoing in outcome.messages:
            self.send(outgoing)
        self._moved.set()
        self._moved = Event()
        return outcome.response

    def send(self, outgoing: Outgoing) -> None:
        """Give a message to the connection that it is for. If there is none, the server sends it again some time."""
        address = parse_poll(outgoing.address)
        members = [] if address is None else [c for c in self._open if c.receives and c.identity.group == address.group]
        named = [c for c in members if address is not None and c.identity.pid == address.id]
        chosen = named or (members if address is not None and address.cast == "any" else [])
        if chosen:
            self._turn += 1
            chosen[self._turn % len(chosen)].deliver(outgoing.message)

    def leave(self, connection: SmallConnection) -> None:
        self._open.remove(connection)


class SmallConnection(Connection):
    """A participant of a small network."""

    # A message for nobody is dropped.
    recheck = 60.0

    def __init__(self, network: SmallNetwork, identity: Identity) -> None:
        self.identity = identity
        self._network: SmallNetwork | None = network
        self._now, self._dialect = network.now, network.dialect
        self._send, receive = create_memory_object_stream[Message | Gap](float("inf"))
        self.messages = self._mailbox = SmallMessages(receive, self.stop_receiving)
        self.receives = True

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    def now(self) -> int:
        return self._now()

    async def request(self, request: Request) -> Response:
        await checkpoint()
        if self._network is None:
            msg = "this connection is closed"
            raise UsageError(msg)
        return self._network.decide(request)

    def deliver(self, message: Message) -> None:
        self._send.send_nowait(message)

    def stop_receiving(self) -> None:
        self.receives = False
        self._send.close()

    def close(self) -> None:
        if self._network is not None:
            self._network.leave(self)
            self._network = None
            self._mailbox.close()


class SmallMessages(ObjectReceiveStream[Message | Gap]):
    """The messages for a connection. Those that are not read when it is closed are dropped."""

    def __init__(self, receive: MemoryObjectReceiveStream[Message | Gap], when_closed: Callable[[], None]) -> None:
        self._receive = receive
        self._when_closed = when_closed

    async def receive(self) -> Message | Gap:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self.close()
        await checkpoint()

    def close(self) -> None:
        self._when_closed()
        self._receive.close()
