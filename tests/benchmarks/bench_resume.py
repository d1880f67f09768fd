"""What it costs to take up suspended executions again: `python -m tests.benchmarks.bench_resume [BACKEND [COUNT]]`.

Many workflows wait for a promise, and their process is killed with SIGKILL. The next process settles all the promises.
Printed are, from its start until all workflows are done, the seconds, the seconds of the processor, and for each
execution the requests and the records that were read for its history: with a first page of a search as it was (1,000
records) and as it is. The two are measured in turns in one run; compare within one run only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio._protocol import PromiseSearch, Request, Response
from resonate_anyio._requests import _queries as _requests
from resonate_anyio.abc import Connection, Identity, Network
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import SQLiteStore

COUNT = 1000
ROUNDS = 2


async def one(number: int) -> int:
    """Do next to nothing."""
    return number


async def workflow(ctx: Context) -> int:
    """Take a step, wait, and take another one."""
    before = await ctx.run(one, 1)
    await ctx.promise().named("go")
    return before + await ctx.run(one, 2)


class Counting(Network):
    """A network that counts requests, and the records which searches are answered with."""

    def __init__(self, inner: Network) -> None:
        self._inner = inner
        self.requests = 0
        self.records = 0

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[Connection]:
        async with self._inner.connect(identity) as connection:
            request = connection.request

            async def counted(asked: Request) -> Response:
                response = await request(asked)
                self.requests += 1
                if isinstance(asked, PromiseSearch):
                    self.records += len(response.promises)
                return response

            connection.request = counted  # type: ignore[assignment, method-assign]
            connection.request_within = lambda asked, _: counted(asked)  # type: ignore[assignment, method-assign]
            yield connection


def program(path: Path) -> tuple[Resonate, Counting]:
    """A program on the file."""
    network = Counting(LocalNetwork(SQLiteStore(path)))
    resonate = Resonate(network=network, pid="p")
    resonate.register(workflow)
    return resonate, network


async def suspend(path: Path, count: int) -> None:
    """Start the workflows, wait until they wait, and die."""
    resonate, _ = program(path)
    async with resonate:
        for number in range(count):
            await resonate.run(f"w{number:05}", workflow).spawn()
        await anyio.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)


async def resume(path: Path, count: int) -> list[float]:
    """Seconds, seconds of the processor, and for each execution requests and records read."""
    begun, worked = time.perf_counter(), time.process_time()
    resonate, network = program(path)
    async with resonate:
        handles = [await resonate.get(f"w{number:05}", int) for number in range(count)]
        for number in range(count):
            await resonate.promises.resolve(f"w{number:05}.go")
        for handle in handles:
            assert await handle.result() == 3
        seconds = [time.perf_counter() - begun, time.process_time() - worked]
        return [*seconds, network.requests / count, network.records / count]


def main(backend: str = "asyncio", count: str = str(COUNT), doomed: str | None = None) -> None:
    """Print a table; with a third argument, be the process that is killed, on this file."""
    if doomed is not None:
        anyio.run(suspend, Path(doomed), int(count), backend=backend)
    now = _requests._FIRST_PAGE
    head = f"{backend}, {count} executions"
    sys.stdout.write(f"{head:30}{'seconds':>10}{'CPU s':>10}{'requests each':>15}{'records each':>14}\n")
    for _ in range(ROUNDS):
        for label, page in (("before, first page 1,000", 1000), (f"now, first page {now}", now)):
            _requests._FIRST_PAGE = page  # type: ignore[misc]
            with TemporaryDirectory(dir=Path.cwd()) as directory:
                path = Path(directory, "engine.db")
                subprocess.run(
                    [sys.executable, "-m", "tests.benchmarks.bench_resume", backend, count, path], check=False
                )
                wall, cpu, requests, records = anyio.run(resume, path, int(count), backend=backend)
            sys.stdout.write(f"{label:30}{wall:>10.1f}{cpu:>10.1f}{requests:>15.1f}{records:>14.1f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
