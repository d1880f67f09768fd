"""Networks with one fault each, around a network that has none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ClassVar

import anyio
from anyio import CancelScope, create_task_group
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint
from attrs import evolve

from resonate_anyio import NotFound, UsageError
from resonate_anyio.abc import Connection, Dialect, Gap, Identity, Network
from resonate_anyio.protocol import Execute, Message, PromiseCreate, Request, Response, Unblock, Value


class Passing(Connection):
    """A connection that passes everything on."""

    def __init__(self, inner: Connection) -> None:
        self.inner = inner
        self.messages = PassingMessages(inner.messages)
        self.keeps_leases = inner.keeps_leases
        self.blocking_request = inner.blocking_request
        self.clock_check, self.recheck = inner.clock_check, inner.recheck

    @property
    def dialect(self) -> Dialect:
        return self.inner.dialect

    def now(self) -> int:
        return self.inner.now()

    def elapsed(self) -> float:
        return self.inner.elapsed()

    async def request(self, request: Request) -> Response:
        return await self.inner.request(request)

    async def request_within(self, request: Request, seconds: float) -> Response:
        return await self.inner.request_within(request, seconds)


class PassingMessages(ObjectReceiveStream[Message | Gap]):
    """A stream of messages that passes everything on."""

    def __init__(self, inner: ObjectReceiveStream[Message | Gap]) -> None:
        self.inner = inner

    async def receive(self) -> Message | Gap:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Around(Network):
    """A network whose connections are of some kind."""

    def __init__(self, inner: Network, kind: Callable[[Connection], Connection] = Passing) -> None:
        self.inner = inner
        self.kind = kind
        self.request_timeout = inner.request_timeout

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        async with self.inner.connect(identity) as connection:
            yield self.kind(connection)


# Faults of requests


class MixesAnswersUp(Passing):
    _latest = Response(status=500)

    async def request(self, request: Request) -> Response:
        self._latest = await super().request(request)
        await checkpoint()
        return self._latest


class RaisesRefusals(Passing):
    async def request(self, request: Request) -> Response:
        response = await super().request(request)
        if response.status == 404:
            kind = "promise"
            raise NotFound(kind, "x")
        return response


class SwallowsReasons(Passing):
    async def request(self, request: Request) -> Response:
        return evolve(await super().request(request), error=None)


class LosesHeaders(Passing):
    async def request(self, request: Request) -> Response:
        if isinstance(request, PromiseCreate):
            request = evolve(request, param=Value(request.param.data))
        return await super().request(request)


class CutsValues(Passing):
    async def request(self, request: Request) -> Response:
        if isinstance(request, PromiseCreate) and request.param.data is not None:
            request = evolve(request, param=evolve(request.param, data=request.param.data[: 2**20]))
        return await super().request(request)


class IsCancelledAfterTheEffect(Passing):
    async def request(self, request: Request) -> Response:
        response = await super().request(request)
        for _ in range(3):
            await checkpoint()
        return response


class SendsWhatWasCancelled(Passing):
    async def request(self, request: Request) -> Response:
        try:
            await checkpoint()
        except BaseException:
            with CancelScope(shield=True):
                await super().request(request)
            raise
        return await super().request(request)


class AnswersWhenClosed(Passing):
    async def request(self, request: Request) -> Response:
        try:
            return await super().request(request)
        except UsageError:
            return Response(status=500, error="closed")


class AnswersOtherwiseWithin(Passing):
    async def request_within(self, request: Request, seconds: float) -> Response:
        return evolve(await super().request_within(request, seconds), promise=None)


class AnswersOtherwiseInThreads(Passing):
    def __init__(self, inner: Connection) -> None:
        super().__init__(inner)
        self.blocking_request = lambda _: Response(status=404, error="nothing here")


class HangsOnSearches(Passing):
    async def request(self, request: Request) -> Response:
        if request.kind.endswith("search"):
            await anyio.sleep_forever()
        return await super().request(request)


# Faults of messages


class OtherMessages(Passing):
    stream: ClassVar[type[PassingMessages]]

    def __init__(self, inner: Connection) -> None:
        super().__init__(inner)
        self.messages = self.stream(inner.messages)


class DeliversTwice(OtherMessages):
    class stream(PassingMessages):  # noqa: N801
        _again: Message | Gap | None = None

        async def receive(self) -> Message | Gap:
            if self._again is not None:
                message, self._again = self._again, None
                return message
            message = await super().receive()
            self._again = message if isinstance(message, Execute) else None
            return message


class LosesUnblocks(OtherMessages):
    class stream(PassingMessages):  # noqa: N801
        async def receive(self) -> Message | Gap:
            while isinstance(message := await super().receive(), Unblock):
                pass
            return message


class LosesWhatIsCancelled(OtherMessages):
    class stream(PassingMessages):  # noqa: N801
        async def receive(self) -> Message | Gap:
            taken: list[Message | Gap] = []
            with CancelScope(shield=True), anyio.move_on_after(0.01):
                taken.append(await super().receive())
            # It is no longer in the stream when this is cancelled.
            await checkpoint()
            return taken[0] if taken else await super().receive()


class HidesGaps(OtherMessages):
    class stream(PassingMessages):  # noqa: N801
        async def receive(self) -> Message | Gap:
            while isinstance(message := await super().receive(), Gap):
                pass
            return message


class KeepsReceiving(OtherMessages):
    class stream(PassingMessages):  # noqa: N801
        async def aclose(self) -> None:
            await checkpoint()


# Faults of clocks, leases and dialects


class GoesBack(Passing):
    _readings = 0

    def now(self) -> int:
        self._readings += 1
        return super().now() - 20 * (self._readings % 2)


class CountsSeconds(Passing):
    def now(self) -> int:
        return super().now() // 1000


class IsAnHourAhead(Passing):
    def now(self) -> int:
        return super().now() + 3_600_000


class CountsMilliseconds(Passing):
    def elapsed(self) -> float:
        return super().elapsed() * 1000


class ClaimsToKeepLeases(Passing):
    def __init__(self, inner: Connection) -> None:
        super().__init__(inner)
        self.keeps_leases = True


class DeniesToKeepLeases(Passing):
    def __init__(self, inner: Connection) -> None:
        super().__init__(inner)
        self.keeps_leases = False


class JoinsByDots(Passing):
    @property
    def dialect(self) -> Dialect:
        return evolve(super().dialect, separator=".")


class MixesOrigins(Passing):
    @property
    def dialect(self) -> Dialect:
        return evolve(super().dialect, origins_mix=True)


# Faults of the network itself


class OtherPid(Around):
    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        async with super().connect(evolve(identity, pid=f"{identity.pid}-x")) as connection:
            yield connection


class OtherGroup(Around):
    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        group = identity.group.replace("other-", "g-")
        async with super().connect(evolve(identity, group=group, pid=f"{identity.group}{identity.pid}")) as connection:
            yield connection


class Forgets(Around):
    def __init__(self, make: Callable[[], Network]) -> None:
        super().__init__(make())
        self.make = make

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        self.inner = self.make()
        async with super().connect(identity) as connection:
            yield connection


class EndsWithTheHost(Around):
    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        async with super().connect(identity) as connection, create_task_group() as tasks:
            ended = anyio.Event()

            async def live() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    ended.set()

            class Ended(Passing):
                async def request(self, request: Request) -> Response:
                    if ended.is_set():
                        msg = "the host has ended"
                        raise UsageError(msg)
                    return await super().request(request)

            tasks.start_soon(live)
            yield Ended(connection)
            tasks.cancel_scope.cancel()


class EndsSlowly(Around):
    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        async with super().connect(identity) as connection:
            try:
                yield connection
            finally:
                with CancelScope(shield=True):
                    await anyio.sleep(1000)
