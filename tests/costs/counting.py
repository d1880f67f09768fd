"""What work costs, in things that can be counted: the same number each time, on any machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import get_ident
from typing import Any, Final, TypeVar
from unittest.mock import patch

import anyio
import httpx
import trio
from anyio._backends import _asyncio as anyio_asyncio
from attrs import define, fields

from resonate_anyio._embedded._engine import Engine
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.protocol import Request, Step, View
from resonate_anyio.stores import MemoryStore, SQLiteStore
from resonate_anyio.testing import virtual_backend
from resonate_anyio.testing._virtual_asyncio import VirtualEventLoop

from ..asgi_transport import AsgiTransport
from ..benchmarks.works import Work, live
from ..over_http import OverHttp

T = TypeVar("T")


@define
class Costs:
    """How often each of these happens.

    Attributes:
        requests: requests to the engine.
        transactions: transactions of its store in memory, reads not counted.
        turns: turns of the event loop in which a task runs.
        scopes: cancel scopes that are made, with those of task groups.
        tasks: tasks that are started.
        commits: transactions of a store in a file. The requests of one turn share one.
        statements: SQL statements of these transactions, and of reads.
        posts: HTTP requests if the engine is reached over HTTP, with heartbeats.
    """

    requests: float = 0
    transactions: float = 0
    turns: float = 0
    scopes: float = 0
    tasks: float = 0
    commits: float = 0
    statements: float = 0
    posts: float = 0

    def minus(self, other: Costs, times: int = 1) -> Costs:
        """Return the difference for one of so many units."""
        names = [each.name for each in fields(Costs)]
        return Costs(**{name: (getattr(self, name) - getattr(other, name)) / times for name in names})


class _CountedLoop(VirtualEventLoop):
    def __init__(self, costs: Costs) -> None:
        super().__init__()
        self._costs = costs

    def _run_once(self) -> None:
        self._costs.turns += 1
        super()._run_once()  # type: ignore[misc]

    def create_task(self, *args: Any, **options: Any) -> Any:
        self._costs.tasks += 1
        return super().create_task(*args, **options)


class _CountedRun(trio.abc.Instrument):
    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._ran = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._ran = True

    def before_io_wait(self, timeout: float) -> None:
        self._costs.turns += self._ran
        self._ran = False

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._costs.tasks += 1


class _InOrder(Random):
    def shuffle(self, x: object) -> None:
        """Leave the order as it is."""


@contextmanager
def _in_order() -> Iterator[None]:
    """Let trio run tasks in the order in which they were started. It draws the order of the tasks that are ready."""
    with (
        patch("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", new=True),
        patch("trio._core._run._r", _InOrder()),
    ):
        yield


@contextmanager
def counted(costs: Costs, backend: str) -> Iterator[None]:
    """Count cancel scopes, requests and transactions."""
    scope: Any = anyio_asyncio.CancelScope if backend == "asyncio" else trio.CancelScope
    make, ask, transact = scope.__init__, Engine.request, MemoryStore.transact

    def counted_init(self: object, *args: Any, **options: Any) -> None:
        costs.scopes += 1
        make(self, *args, **options)

    async def counted_request(self: Engine, request: Request, **options: Any) -> Any:
        costs.requests += 1
        return await ask(self, request, **options)

    def counted_transact(self: MemoryStore, steps: Sequence[Step]) -> Any:
        costs.transactions += 1
        return transact(self, steps)

    with (
        patch.object(scope, "__init__", counted_init),
        patch.object(Engine, "request", counted_request),
        patch.object(MemoryStore, "transact", counted_transact),
    ):
        yield


@contextmanager
def counted_in_a_file(costs: Costs) -> Iterator[None]:
    """Count the transactions and statements of SQLite, but not those of its checkpoints, which another thread makes."""
    transact, read, connect = SQLiteStore.transact, SQLiteStore.read, sqlite3.connect
    inside, thread = False, get_ident()

    def note(_: str) -> None:
        costs.statements += inside and get_ident() == thread

    def counted_connect(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(note)
        return connection

    def counted_transact(self: SQLiteStore, steps: Sequence[Step]) -> Any:
        nonlocal inside
        costs.commits += 1
        inside = True
        try:
            return transact(self, steps)
        finally:
            inside = False

    def counted_read(self: SQLiteStore, query: Callable[[View], T]) -> T:
        nonlocal inside
        inside = True
        try:
            return read(self, query)
        finally:
            inside = False

    with (
        patch.object(sqlite3, "connect", counted_connect),
        patch.object(SQLiteStore, "transact", counted_transact),
        patch.object(SQLiteStore, "read", counted_read),
    ):
        yield


@contextmanager
def counted_over_http(costs: Costs) -> Iterator[None]:
    """Count HTTP requests."""
    handle = AsgiTransport.handle_async_request

    async def counted_handle(self: AsgiTransport, request: httpx.Request) -> httpx.Response:
        costs.posts += request.method == "POST"
        return await handle(self, request)

    with patch.object(AsgiTransport, "handle_async_request", counted_handle):
        yield


def costs_of(work: Work, count: int, lives: int, backend: str) -> Costs:
    """Do the work in so many processes, and return what all of it has cost.

    It is done three times: on a store in memory, on a store in a file, and over HTTP.
    """
    costs = Costs()
    name, options = virtual_backend(backend)
    memory = MemoryStore()
    counting = dict(options)
    if backend == "asyncio":
        counting["loop_factory"] = partial(_CountedLoop, costs)
    else:
        counting["instruments"] = [*options["instruments"], _CountedRun(costs)]
    with _in_order(), counted(costs, backend):
        run = partial(live, work, count, lives, lambda clock: LocalNetwork(memory, clock=clock))
        anyio.run(run, backend=name, backend_options=counting)

    with _in_order(), TemporaryDirectory() as folder, counted_in_a_file(costs):
        file = SQLiteStore(Path(folder, "engine.db"))
        run = partial(live, work, count, lives, lambda clock: LocalNetwork(file, clock=clock))
        anyio.run(run, backend=name, backend_options=options)

    remote = MemoryStore()
    with _in_order(), counted_over_http(costs):
        run = partial(live, work, count, lives, lambda clock: OverHttp(LocalNetwork(remote, clock=clock), clock))
        anyio.run(run, backend=name, backend_options=options)

    return costs


COUNTS: Final = (10, 50)
"""Of how many units the two runs are whose difference is taken, so that neither start nor end are in it."""


def costs_per_unit(work: Work, backend: str) -> Costs:
    """Return what one unit of the work costs."""
    few, many = COUNTS

    def measured(count: int) -> Costs:
        costs = costs_of(work, count, work.lives, backend)
        return costs.minus(costs_of(work, count, work.without, backend)) if work.without else costs

    return measured(many).minus(measured(few), many - few)
