"""The sample of the crash corpus on a server that others use, too, by the wall clock.

The workers of a workflow are cut off at one of their requests, as if they had died over it, and started anew. They go
on when their leases have lapsed. Deadlines may pass meanwhile, so what is compared is what has to hold in any case: it
comes to an end, what is on record is not done again, nothing is left pending, and nothing is logged as an error.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import cycle
from typing import Final

import anyio
import httpx
import pytest
from anyio import CancelScope, create_task_group
from attrs import define, field

from resonate_anyio import NetworkError, NotRunning, Resonate
from resonate_anyio._protocol import Promise, PromiseSearch, PutPromise, Request, Response
from resonate_anyio.abc import Network
from resonate_anyio.networks import HttpNetwork, system_clock
from resonate_anyio.testing import run_virtual
from tests.crash.corpus import CORPUS
from tests.crash.crashes import Trial
from tests.crash.lives import GROUP, OUTSIDE, Journal, Platform, errors_logged, programs, start
from tests.crash.scenarios import ROOT, Outside, Scenario
from tests.crash.states import State
from tests.engine.harness import Unreachable, Wire

from .conftest import TTL, Site

pytestmark = [
    pytest.mark.wall(limit=240),
    pytest.mark.skipif(not os.environ.get("RESONATE_TEST_URL"), reason="dev has the same sample in virtual time"),
]

WAYS: Final = ("hot", "parked", "unloaded", "downtime", "outlived")
"""How a workflow goes on after its crash."""

SAMPLE: Final = list(zip(random.Random("resonate").sample(sorted(CORPUS), 50), cycle(WAYS), strict=False))  # noqa: S311
"""Fifty crashes: of which workflow, and in which way it goes on."""

AT_ONCE: Final = 10
"""How many workflows of the sample are under way in one test."""

SHORT: Final = 20.0
"""Seconds that a workflow may take to be tried by the wall clock."""

PATIENCE: Final = 150.0
"""Seconds after which a workflow will not end any more."""

PAUSE: Final = 0.5
"""Seconds from one look at the records to the next."""

CUT_OFF: Final = "the network does not answer"
"""What whoever is cut off is told."""


@define(eq=False)
class Apart(httpx.AsyncHTTPTransport):
    """The way to a server on which the worker groups of one world have names of their own."""

    _name: bytes

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            request.url = request.url.copy_with(path=request.url.path.replace("/poll/", f"/poll/{self._name.decode()}"))
            return await super().handle_async_request(request)
        body = _renamed(await request.aread(), b"", self._name)
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        sent = httpx.Request("POST", request.url, content=body, headers=headers, extensions=request.extensions)
        response = await super().handle_async_request(sent)
        content = _renamed(await response.aread(), self._name, b"")
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return httpx.Response(response.status_code, headers=headers, content=content)


def _renamed(text: bytes, old: bytes, new: bytes) -> bytes:
    for cast in (b"://any@", b"://uni@"):
        text = text.replace(cast + old, cast + new)
    return text


@define(eq=False)
class World:
    """One workflow on the server.

    Attributes:
        site: where it runs, and what its names begin with.
        scenario: what runs.
        settings: how what waits is kept.
    """

    site: Site
    scenario: Scenario
    settings: Mapping[str, object]
    complaints: list[str] = field(factory=list, init=False)
    _begun: float = field(factory=anyio.current_time, init=False)

    # What the world outside asks

    def age(self) -> float:
        return anyio.current_time() - self._begun

    async def has(self, id: str) -> bool:
        return id in await self.promises()

    def named(self, id: str) -> str:
        return f"{self.site.name}-{id}"

    # What is on record

    async def promises(self) -> dict[str, Promise]:
        """Everything of this workflow, as whoever asks for it is told."""
        root = self.named(ROOT)
        response = await self._request(PromiseSearch(cursor=f"{self.site.name}-", limit=1000))
        mine = [promise for promise in response.promises if promise.id == root or promise.id.startswith(f"{root}.")]
        return dict(State(system_clock(), tuple(map(PutPromise, mine))).promises)

    async def _request(self, request: Request) -> Response:
        """Ask the server, again and again if it does not answer in time."""
        while True:
            with suppress(NetworkError):
                async with self._network() as network, network.connect(self.site.identity()) as connection:
                    return await connection.request(request)
            await anyio.sleep(PAUSE)

    @asynccontextmanager
    async def _network(self) -> AsyncGenerator[Network, None]:
        async with Apart(self.site.name.encode()) as transport:
            yield HttpNetwork(self.site.url, request_timeout=TTL / 4, transport=transport)

    # Lives

    async def live(self, journal: Journal, *, dies_at: int | None = None, answered: bool = False) -> None:
        """Start all workers of the workflow, and live until it has ended or they are cut off."""
        async with self._network() as network:
            await self._live(Wire(network), journal, dies_at, answered=answered)

    async def _live(self, wire: Wire, journal: Journal, dies_at: int | None, *, answered: bool) -> None:
        body = CancelScope()
        sent = 0

        async def before(request: Request) -> None:
            nonlocal sent
            sent += request.kind != "task.heartbeat"
            if sent == dies_at and not answered:
                die()

        async def after(request: Request, _: Response) -> None:
            if sent == dies_at and answered:
                die()

        def die() -> None:
            wire.cut()
            body.cancel()

        wire.before, wire.after = before, after
        platform = Platform(settings={**self.settings, "ttl": TTL, "prefix": f"{self.site.name}-"})
        with body:
            async with programs(self.scenario, wire, platform, journal) as running, create_task_group() as tasks:
                if self.scenario.outside is not None:
                    tasks.start_soon(self._act, running[OUTSIDE])
                with suppress(Unreachable, NotRunning):
                    await self._to_its_end(running[GROUP])
                tasks.cancel_scope.cancel()

    async def _act(self, resonate: Resonate) -> None:
        assert self.scenario.outside is not None
        with suppress(Unreachable, NotRunning):
            await self.scenario.outside(Outside(resonate, self))

    async def _to_its_end(self, resonate: Resonate) -> None:
        await start(self.scenario, resonate)
        with anyio.move_on_after(PATIENCE) as scope:
            # How it ends is its own affair: after a crash its deadlines may have passed.
            with suppress(Exception):
                await (await resonate.get(ROOT))
            while any(promise.pending for promise in (await self.promises()).values()):  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(PAUSE)
        if scope.cancelled_caught:
            left = [promise.id for promise in (await self.promises()).values() if promise.pending]
            self.complaints.append(f"it does not end: {left}")

    async def crash(self, number: int, *, answered: bool) -> None:
        """Die over a request; then live on."""
        first, second = Journal(), Journal()
        await self.live(first, dies_at=number, answered=answered)
        settled = {id for id, promise in (await self.promises()).items() if not promise.pending}
        await self.live(second)
        self.complaints += [f"{id} ran again although its outcome was on record" for id in second.runs if id in settled]
        twice = first.runs + second.runs
        self.complaints += [f"{id} ran {count} times" for id, count in twice.items() if count > 2]


@pytest.fixture(scope="module")
def requests() -> dict[str, int]:
    """How many requests the workflows of the sample make that are over soon."""
    return {name: count for name, _ in SAMPLE if (count := run_virtual(_requests, CORPUS[name])) is not None}


async def _requests(scenario: Scenario) -> int | None:
    life = await Trial(scenario).without_crash()
    instants = [promise.settled_at or promise.timeout_at for promise in life.final.promises.values()]
    lasted = max(instants) - life.final.promises[ROOT].created_at
    return len(life.points) // 2 if lasted < SHORT * 1000 else None


@pytest.mark.parametrize("batch", range(0, len(SAMPLE), AT_ONCE))
async def test_sample(url: str, requests: dict[str, int], batch: int) -> None:
    """Cut off at one of its requests, a workflow comes to an end all the same, and does nothing twice that was done."""
    choice = random.Random(batch)  # noqa: S311
    worlds: dict[str, World] = {}
    with errors_logged() as errors:
        async with create_task_group() as tasks:
            for name, way in SAMPLE[batch : batch + AT_ONCE]:
                if name not in requests:
                    continue
                settings = {"parked": {"hot_for": 0}, "unloaded": {"hot_for": 0, "parked_limit": 0}}.get(way, {})
                number, answered = choice.randint(1, requests[name]), choice.random() < 0.5
                story = f"{name}, {way}, cut off {'after' if answered else 'before'} request {number}"
                worlds[story] = World(Site(url), CORPUS[name], settings)
                tasks.start_soon(partial(worlds[story].crash, number, answered=answered))

    # What the workers say that are cut off is no concern of anybody's.
    assert [] == [error for error in errors if CUT_OFF not in error]
    assert [] == [f"{story}: {text}" for story, world in worlds.items() for text in world.complaints]
