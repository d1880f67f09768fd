"""What a durable step costs in the embedded engine: `python -m tests.benchmarks.bench_stores`.

Prints microseconds per step, a step being one create and one settle, each a request of its own: for the store alone,
and through the network with one and with 50 requests at a time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from resonate_anyio._protocol import EMBEDDED, PromiseCreate, PromiseSettle, PromiseState, Request, Value, apply
from resonate_anyio.abc import Connection, Identity, Store
from resonate_anyio.networks import LocalNetwork, system_clock
from resonate_anyio.stores import MemoryStore, SQLiteStore

STEPS = 2_000
BLOCKING_STEPS = 500

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(),
    "sqlite, process": SQLiteStore,
    "sqlite, power": lambda path: SQLiteStore(path, durability="power"),
}


def requests(id: str, now: int) -> tuple[Request, Request]:
    """The two requests of one local step."""
    root = id.partition(".")[0]
    tags = {"resonate:scope": "local"} | {f"resonate:{name}": root for name in ("branch", "origin", "parent")}
    call = Value("eyJmdW5jIjogImZldGNoIiwgImFyZ3MiOiBbXSwgInZlcnNpb24iOiAxfQ==")
    return (
        PromiseCreate(id=id, timeout_at=now + 3_600_000, param=call, tags=tags),
        PromiseSettle(id=id, state=PromiseState.RESOLVED, value=Value("IjQyIg==")),
    )


def alone(store: Store, steps: int) -> float:
    """Seconds that the steps take without a network."""
    store.open()
    now = system_clock()
    began = time.perf_counter()
    for number in range(steps):
        for request in requests(f"wf.{number}", now):
            store.transact([partial(apply, now=now, request=request, rules=EMBEDDED)])

    taken = time.perf_counter() - began
    store.close()
    return taken


async def together(store: Store, steps: int, concurrency: int) -> float:
    """Seconds that the steps take, so many at a time."""
    async with LocalNetwork(store).connect(Identity(group="g", pid="p", holder="p.0")) as connection:
        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            for number in range(concurrency):
                group.start_soon(_worker, connection, f"wf{number}", steps // concurrency)

        return time.perf_counter() - began


async def _worker(connection: Connection, root: str, steps: int) -> None:
    for number in range(steps):
        for request in requests(f"{root}.{number}", connection.now()):
            await connection.request(request)


def row(name: str, *cells: str) -> None:
    """Print one line of the table."""
    sys.stdout.write(f"{name:34}" + "".join(f"{cell:>14}" for cell in cells) + "\n")


def main(backend: str = "asyncio") -> None:
    """Print a table."""
    row(f"microseconds per step on {backend}", "store alone", "network, 1", "network, 50")
    for name, make in STORES.items():
        with TemporaryDirectory(dir=Path.cwd()) as directory:
            stores = [make(Path(directory, f"{number}.db")) for number in range(3)]
            steps = BLOCKING_STEPS if stores[0].blocking else STEPS
            taken = [
                alone(stores[0], steps),
                anyio.run(together, stores[1], steps, 1, backend=backend),
                anyio.run(together, stores[2], steps, 50, backend=backend),
            ]
            row(name, *(f"{seconds / steps * 1e6:.0f}" for seconds in taken))


if __name__ == "__main__":
    main(*sys.argv[1:])
