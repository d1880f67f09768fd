"""`Site`: a server in this process that can be stopped, and programs that use it through bad weather."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import httpx
from anyio import Event, create_task_group
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field

from resonate_anyio import Resonate
from resonate_anyio.abc import Clock
from resonate_anyio.networks import HttpNetwork, LocalNetwork
from resonate_anyio.server import make_app

from ..asgi_transport import asgi_transport
from ..properties.ledger import Ledger
from .job import FUNCTIONS, Name
from .meter import Meter
from .runs import Runs
from .transport import FaultyTransport
from .weather import Weather

URL: Final = "http://server:8001"


@define(eq=False)
class _Door(httpx.AsyncBaseTransport):
    """Where the server is reached, as long as it is there.

    Attributes:
        inner: the server.
    """

    inner: httpx.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.inner is None:
            msg = "connection refused"
            raise httpx.ConnectError(msg, request=request)
        return await self.inner.handle_async_request(request)


@define(eq=False)
class Site:
    """What outlives a server and its clients: the store, the weather, and what was seen.

    Attributes:
        records: what is on record, watched.
        runs: the runs of all steps.
        meter: what was sent.
        cables: what connects each client, by its pid.
    """

    clock: Clock
    _tasks: TaskGroup
    _options: Mapping[str, Any] = field(factory=dict)
    weather: Weather = field(factory=Weather, init=False)
    meter: Meter = field(factory=Meter, init=False)
    records: Ledger = field(init=False)
    runs: Runs = field(init=False)
    cables: dict[str, FaultyTransport] = field(factory=dict, init=False)
    _door: _Door = field(factory=_Door, init=False)
    _changed: Event = field(factory=Event, init=False)
    _stopping: Event = field(factory=Event, init=False)
    _stopped: Event = field(factory=Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.records = Ledger(self.clock)
        self.records.on_commit = self._stir
        self.runs = Runs(self.records)

    @classmethod
    @asynccontextmanager
    async def open(cls, clock: Clock, **options: Any) -> AsyncIterator[Self]:
        """A site whose server, with these options of `make_app`, runs while the block does, unless it is stopped."""
        async with create_task_group() as tasks:
            site = cls(clock, tasks, options)
            await site.start()
            yield site
            if not site._stopped.is_set():
                await site.stop()
            # What was late for everybody.
            tasks.cancel_scope.cancel()

    async def until(self, condition: Callable[[Ledger], bool]) -> None:
        """Wait until something holds of what is on record."""
        while not condition(self.records):
            await self._changed.wait()

    def _stir(self) -> None:
        self._changed.set()
        self._changed = Event()

    def settled(self, id: str) -> bool:
        """Whether that is on record with an outcome."""
        return id in self.records.promises and not self.records.promises[id].pending

    # The server

    @asynccontextmanager
    async def down(self) -> AsyncIterator[None]:
        """The server is away while the block lasts."""
        await self.stop()
        yield
        await self.start()

    async def start(self) -> None:
        """Start the server on what is on record."""
        self._stopping, self._stopped = Event(), Event()
        await self._tasks.start(self._serve)

    async def stop(self) -> None:
        """Stop the server. Its streams end, and nothing can be connected to until it is started again."""
        self._stopping.set()
        await self._stopped.wait()

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        network = LocalNetwork(self.records, clock=self.clock, safety_sweep=math.inf, keep_leases=True)
        async with asgi_transport(make_app(network, allowed_hosts=["server"], **self._options)) as server:
            self._door.inner = server
            task_status.started()
            await self._stopping.wait()
            self._door.inner = None
        self._stopped.set()

    # Its clients

    def client(
        self,
        pid: str,
        *functions: Callable[..., Any],
        request_timeout: float = 10.0,
        token: str | None = None,
        **settings: Any,
    ) -> Resonate:
        """A program that uses the server, with the job's functions and these."""
        transport = self.cables[pid] = FaultyTransport(pid, self._door, self.weather, self.meter, self._tasks)
        network = HttpNetwork(URL, token=token, transport=transport, request_timeout=request_timeout, clock=self.clock)
        resonate = Resonate(network=network, pid=pid, **settings)
        for function in (*FUNCTIONS, *functions):
            resonate.register(function)
        return resonate.with_dependency(self.runs).with_dependency(Name(pid))
