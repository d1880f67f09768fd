"""Networks keep their contract, and `check_network` finds the ones that do not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
import httpx
import pytest
from anyio import CancelScope

from resonate_anyio._protocol import ANNOUNCED, EMBEDDED, SNAPSHOT, Rules
from resonate_anyio.abc import Clock, Network
from resonate_anyio.networks import HttpNetwork, LocalNetwork
from resonate_anyio.server import make_app
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import check_network
from resonate_anyio.testing._bench import Check
from resonate_anyio.testing._check_network import CHECKS, run_check

from ..asgi_transport import AsgiTransport, asgi_transport
from ..chosen import RULES
from ..over_http import OverHttp
from . import faulty
from .faulty import Around, Passing

Make: TypeAlias = Callable[[Clock, Rules], Network]


def local(clock: Clock, rules: Rules = EMBEDDED) -> Network:
    """The embedded engine."""
    return LocalNetwork(MemoryStore(), clock=clock, rules=rules)


def dev(clock: Clock, rules: Rules = EMBEDDED) -> Network:
    """The same over HTTP."""
    return OverHttp(LocalNetwork(MemoryStore(), clock=clock, rules=rules, keep_leases=True), clock)


class Cuttable(httpx.AsyncBaseTransport):
    """A way to a server whose streams can be cut."""

    def __init__(self, inner: AsgiTransport) -> None:
        self._inner = inner
        self._streams: list[_Cuttable] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if request.method == "GET":
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = stream = _Cuttable(response.stream)
            self._streams.append(stream)
        return response

    async def cut(self) -> None:
        """Break every stream that is open."""
        for stream in self._streams:
            stream.scope.cancel()
        self._streams.clear()
        await anyio.sleep(0.01)


class _Cuttable(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner
        self.scope = CancelScope()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._inner)
        while True:
            with CancelScope() as self.scope:
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            if self.scope.cancel_called:
                msg = "cut"
                raise httpx.ReadError(msg)
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def cuttable(clock: Clock) -> AsyncIterator[tuple[Network, Cuttable]]:
    """A network over HTTP to an application that outlives its connections, and what cuts its streams."""
    app = make_app(LocalNetwork(MemoryStore(), clock=clock, keep_leases=True), allowed_hosts=["dev"])
    async with asgi_transport(app) as inner:
        transport = Cuttable(inner)
        yield HttpNetwork("http://dev", transport=transport, clock=clock), transport


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.strip("_"))
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("make", [local, dev])
async def test_networks_keep_their_contract(make: Make, check: Check, rules: str, clock: Clock) -> None:
    """Each network of the package keeps each duty, by the rules of each server."""
    await run_check(check, make(clock, RULES[rules]))


async def test_a_network_is_checked_as_a_whole(clock: Clock) -> None:
    """All checks may be made of one server, one after the other, and streams may be cut meanwhile."""
    async with cuttable(clock) as (network, transport):
        await check_network(lambda: network, interrupt=transport.cut)


async def test_what_passes_everything_on_keeps_the_contract(clock: Clock) -> None:
    """The wrapper that the faults are planted in has none itself."""
    await check_network(lambda: Around(local(clock)))
    async with cuttable(clock) as (network, transport):
        await check_network(lambda: Around(network), interrupt=transport.cut)


async def complaints(make: Callable[[], Network]) -> str:
    """What all checks say of a network, one after the other."""
    said: list[str] = []
    for check in CHECKS:
        try:
            await run_check(check, make())
        except Exception as error:  # noqa: BLE001 - what a broken network raises is its affair
            said.append(f"{type(error).__name__}: {error}")
    return "\n".join(said)


FAULTS: list[tuple[type[Passing], Make, Rules, str]] = [
    (faulty.MixesAnswersUp, local, EMBEDDED, "each gets its own answer"),
    (faulty.RaisesRefusals, local, EMBEDDED, "NotFound"),
    (faulty.SwallowsReasons, local, EMBEDDED, "a refusal of promise.get says why"),
    (faulty.LosesHeaders, local, EMBEDDED, "every field of a request reaches the server"),
    (faulty.CutsValues, local, EMBEDDED, "what was taken is kept whole"),
    (faulty.IsCancelledAfterTheEffect, local, EMBEDDED, "a request that was cancelled has no effect"),
    (faulty.SendsWhatWasCancelled, local, EMBEDDED, "a request that was cancelled has no effect"),
    (faulty.AnswersWhenClosed, local, EMBEDDED, "a closed connection refuses requests"),
    (faulty.AnswersOtherwiseWithin, local, EMBEDDED, "request_within answers as request does"),
    (faulty.AnswersOtherwiseInThreads, local, EMBEDDED, "blocking_request answers as request does"),
    (faulty.HangsOnSearches, local, EMBEDDED, "promise.search is answered: it did not happen"),
    (faulty.DeliversTwice, local, EMBEDDED, "a message arrives once"),
    (faulty.LosesUnblocks, local, EMBEDDED, "a listener gets a message"),
    (faulty.LosesWhatIsCancelled, local, EMBEDDED, "messages wait until they are read"),
    (faulty.KeepsReceiving, local, EMBEDDED, "messages arrive elsewhere when a stream is closed"),
    (faulty.GoesBack, local, EMBEDDED, "now.. never goes back"),
    (faulty.CountsSeconds, local, EMBEDDED, "now.. counts milliseconds"),
    (faulty.IsAnHourAhead, local, EMBEDDED, "now.. is the server's instant"),
    (faulty.CountsMilliseconds, local, EMBEDDED, "elapsed.. counts seconds"),
    (faulty.ClaimsToKeepLeases, dev, EMBEDDED, "a lease is renewed by the network"),
    (faulty.DeniesToKeepLeases, local, EMBEDDED, "without heartbeats a lease lapses"),
    (faulty.JoinsByDots, local, ANNOUNCED, "the server reads '.' as the end of the id of a root"),
    (faulty.MixesOrigins, local, SNAPSHOT, "a heartbeat may name tasks of several roots"),
]


@pytest.mark.parametrize(("kind", "make", "rules", "duty"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
async def test_faults_of_connections_are_found(
    kind: type[Passing], make: Make, rules: Rules, duty: str, clock: Clock
) -> None:
    """A network whose connections break one duty fails the check of that duty, with its words."""
    assert re.search(duty, await complaints(lambda: Around(make(clock, rules), kind)))


async def test_a_gap_that_is_hidden_is_found(clock: Clock) -> None:
    """A network that lost messages has to say so."""
    async with cuttable(clock) as (network, transport):
        with pytest.raises(AssertionError, match="reported as a Gap"):
            await check_network(lambda: Around(network, faulty.HidesGaps), interrupt=transport.cut)


NETWORKS: list[tuple[Callable[[Clock], Network], str]] = [
    (lambda clock: faulty.OtherPid(local(clock)), "a task is sent for: it did not happen"),
    (lambda clock: faulty.OtherGroup(local(clock)), "each message for a group arrives at one connection of it"),
    (lambda clock: faulty.Forgets(lambda: local(clock)), "what was recorded is there for the next connection"),
    (lambda clock: faulty.EndsWithTheHost(local(clock)), "requests under a shield are answered"),
    (lambda clock: faulty.EndsSlowly(local(clock)), "a block whose task is cancelled ends"),
]


@pytest.mark.parametrize(
    ("make", "duty"), NETWORKS, ids=["other pid", "other group", "forgets", "ends with the host", "ends slowly"]
)
async def test_faults_of_networks_are_found(make: Callable[[Clock], Network], duty: str, clock: Clock) -> None:
    """A network that breaks one duty fails the check of that duty, with its words."""
    assert re.search(duty, await complaints(lambda: make(clock)))
