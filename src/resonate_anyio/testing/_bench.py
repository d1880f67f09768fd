"""What the checks of networks stand on: names that no other check uses, requests, and the messages that arrive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from typing import Final, TypeAlias

import anyio
from anyio import ClosedResourceError, EndOfStream
from attrs import define, field

from ..abc import Connection, Gap, Identity, Network
from ..protocol import (
    Execute,
    Message,
    Promise,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    PromiseState,
    RegisterListener,
    Request,
    Response,
    TaskAcquire,
    TaskRecord,
    Unblock,
    Value,
)

Check: TypeAlias = "Callable[[Bench], Awaitable[None]]"
"""A claim of the contract, made of one network."""

HOUR_MS: Final = 3_600_000

QUIET: Final = 0.2
"""Seconds after which a message that has not arrived is taken not to arrive."""

TTL_MS: Final = 1_000
"""The length of the leases that the checks take."""

GLOBAL: Final = {"resonate:scope": "global"}


def fail(duty: str) -> None:
    """Report a broken duty. It is not an assert statement: those are removed by `python -O`."""
    raise AssertionError(duty)


def expect(duty: str, expected: object, actual: object) -> None:
    """Compare two values."""
    if expected != actual:
        fail(f"{duty}: expected {expected!r}, got {actual!r}")


@define(eq=False)
class Bench:
    """One check of a network.

    Attributes:
        network: the network under test.
        patience: seconds after which something that has to happen is taken not to happen.
        interrupt: breaks the message streams of all open connections once.
        token: part of every name, so that several checks may use one server.
    """

    network: Network
    patience: float
    interrupt: Callable[[], Awaitable[None]] | None
    token: str = field(factory=lambda: token_hex(4), init=False)

    def identity(self, pid: str = "one", group: str = "g") -> Identity:
        """Return the identity of a connection of this check."""
        return Identity(group=f"{group}-{self.token}", pid=pid, holder=f"{pid}.{token_hex(4)}")

    def any_of(self, group: str = "g") -> str:
        """Return the address of any connection of a group of this check."""
        return f"poll://any@{group}-{self.token}"

    def id(self, name: str) -> str:
        """Return the id of a root of this check."""
        return f"{name}-{self.token}"

    @contextmanager
    def soon(self, duty: str) -> Iterator[None]:
        """Fail unless the block ends in time."""
        with anyio.move_on_after(self.patience) as scope:
            yield
        if scope.cancelled_caught:
            fail(f"{duty}: it did not happen within {self.patience:g} s")

    async def ask(self, connection: Connection, request: Request) -> Response:
        """Send a request, whose answer has to come in time."""
        with self.soon(f"{request.kind} is answered"):
            return await connection.request(request)

    async def succeed(self, connection: Connection, request: Request) -> Response:
        """Send a request, which has to succeed."""
        response = await self.ask(connection, request)
        if response.status not in {200, 300}:
            fail(f"{request.kind} succeeds: it was answered with {response.status} {response.error!r}")
        return response

    async def create(
        self, connection: Connection, name: str, *, target: str | None = None, value: Value | None = None
    ) -> str:
        """Create a promise, with a task if it has a target, and return its id."""
        id = self.id(name)
        await self.succeed(connection, self.creation(connection, id, target=target, value=value))
        return id

    @staticmethod
    def creation(
        connection: Connection,
        id: str,
        *,
        target: str | None = None,
        value: Value | None = None,
        tags: Mapping[str, str] = GLOBAL,
    ) -> PromiseCreate:
        """Return the request that creates a promise."""
        targeted = {} if target is None else {"resonate:target": target}
        return PromiseCreate(
            id=id, timeout_at=connection.now() + HOUR_MS, param=value or Value(), tags={**tags, **targeted}
        )

    async def found(self, connection: Connection, id: str) -> Promise | None:
        """Return the promise, or None if there is none."""
        response = await self.ask(connection, PromiseGet(id=id))
        if response.status not in {200, 404}:
            fail(f"a promise is found or not: the answer was {response.status} {response.error!r}")
        return response.promise

    async def settle(self, connection: Connection, id: str) -> None:
        """Resolve a promise."""
        await self.succeed(connection, PromiseSettle(id=id, state=PromiseState.RESOLVED))

    async def listen(self, connection: Connection, id: str, identity: Identity) -> None:
        """Ask for a message when the promise settles."""
        await self.succeed(connection, RegisterListener(awaited=id, address=identity.unicast))

    async def acquire(self, connection: Connection, identity: Identity, message: Message) -> TaskRecord:
        """Take the lease of a task, and return the task as it is held."""
        assert isinstance(message, Execute)
        request = TaskAcquire(id=message.task_id, version=message.version, pid=identity.holder, ttl=TTL_MS)
        response = await self.succeed(connection, request)
        expect("an acquired task comes with its promise", message.task_id, response.promise and response.promise.id)
        if response.task is None:
            msg = "an acquired task is returned: there is none in the answer"
            raise AssertionError(msg)
        return response.task

    async def message(self, connection: Connection, duty: str) -> Message:
        """Wait for the next message."""
        message: Message | Gap = Gap()
        with self.soon(duty):
            while isinstance(message, Gap):
                message = await connection.messages.receive()
        assert not isinstance(message, Gap)
        return message

    async def execute(self, connection: Connection, id: str, duty: str) -> Execute:
        """Wait for the next message, which has to send for the task `id`."""
        message = await self.message(connection, duty)
        expect(duty, f"execute {id}", name_of(message))
        assert isinstance(message, Execute)
        return message

    async def waiting(self, connection: Connection) -> list[str]:
        """Return the names of all messages that arrive shortly."""
        names: list[str] = []
        with anyio.move_on_after(QUIET):
            try:
                while True:
                    names.append(name_of(await connection.messages.receive()))
            except (EndOfStream, ClosedResourceError):
                pass
        return [name for name in names if name != "gap"]


def name_of(message: Message | Gap) -> str:
    """Return what a message says, in two words."""
    match message:
        case Execute(task_id=id):
            return f"execute {id}"
        case Unblock(promise=promise):
            return f"unblock {promise.id} {promise.state}"
        case Gap():
            return "gap"
