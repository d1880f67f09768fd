"""What the networks' tests ask for and how they listen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio
from attrs import define, field

from resonate_anyio._protocol import (
    Execute,
    Message,
    Outcome,
    Promise,
    PromiseCreate,
    PromiseGet,
    Response,
    Step,
    TaskAcquire,
    TaskGet,
    TaskRecord,
    Unblock,
    View,
)
from resonate_anyio.abc import Connection, Gap, Identity, Store

T = TypeVar("T")

YEAR = 365 * 24 * 3600 * 1000


def worker(pid: str, group: str = "g") -> Identity:
    return Identity(group=group, pid=pid, holder=f"{pid}.0")


async def create(
    connection: Connection, id: str, *, target: str | None = None, after: int = YEAR, **tags: str
) -> Response:
    """Create a promise with a deadline `after` milliseconds from now."""
    targeted = {} if target is None else {"resonate:target": target}
    return await connection.request(
        PromiseCreate(id=id, timeout_at=connection.now() + after, tags={**tags, **targeted})
    )


async def acquire(connection: Connection, identity: Identity, message: Message | Gap, ttl: int = 1000) -> Response:
    """Acquire the task of an `execute`."""
    assert isinstance(message, Execute)
    return await connection.request(
        TaskAcquire(id=message.task_id, version=message.version, pid=identity.holder, ttl=ttl)
    )


async def promise(connection: Connection, id: str) -> Promise:
    found = (await connection.request(PromiseGet(id=id))).promise
    assert found is not None
    return found


async def task(connection: Connection, id: str) -> TaskRecord:
    found = (await connection.request(TaskGet(id=id))).task
    assert found is not None
    return found


async def received(connection: Connection) -> list[str]:
    """The ids of the messages that have arrived, without waiting for more."""
    messages: list[Message | Gap] = []
    # In virtual time nothing happens in so short a while but what is there already.
    with anyio.move_on_after(0.0001):
        while True:
            messages.append(await connection.messages.receive())

    return [name_of(message) for message in messages]


def name_of(message: Message | Gap) -> str:
    match message:
        case Execute(task_id=id):
            return id
        case Unblock(promise=promise):
            return f"unblock {promise.id}"
        case Gap():
            return "gap"


@define
class Watched(Store):
    """A store that is seen through: it counts commits and reads, and fails when told to."""

    inner: Store
    blocking: bool = False
    costly_transactions: bool = False
    commits: list[int] = field(factory=list)
    reads: int = 0
    #: The changes of the largest outcome.
    largest: int = 0
    opened: int = 0
    closed: int = 0
    #: Called with the steps of each commit, before it.
    before: Callable[[Sequence[Step]], None] = field(default=lambda _: None)

    def open(self) -> None:
        self.inner.open()
        self.opened += 1

    def close(self) -> None:
        self.inner.close()
        self.closed += 1

    def transact(self, steps: Sequence[Step]) -> list[Outcome]:
        self.commits.append(len(steps))
        self.before(steps)
        outcomes = self.inner.transact(steps)
        self.largest = max(self.largest, *(len(outcome.changes) for outcome in outcomes))
        return outcomes

    def read(self, query: Callable[[View], T]) -> T:
        self.reads += 1
        return self.inner.read(query)
