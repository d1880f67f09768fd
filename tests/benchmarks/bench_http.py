"""What a request and a step over HTTP cost this process: `python -m tests.benchmarks.bench_http`.

Prints microseconds of processor time. Requests, one after the other and many at once, go to a server in another process
that does as little as it can: over httpx alone, over the network with httpx's transport, and over the network with its
own. Steps go to `resonate-anyio dev`. The rows of a table are measured in turns, and the figures are medians. They
depend on the machine and on what else it does: compare within one run only.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection as Pipe
from statistics import median
from typing import Any, Final, TypeAlias
from unittest.mock import patch

import anyio
import httpx

from resonate_anyio import Context, Resonate
from resonate_anyio._protocol import PromiseGet
from resonate_anyio.abc import Identity
from resonate_anyio.networks import HttpNetwork, _http

REQUESTS = 1000
WIDTHS = (1, 10, 50)
STEPS = (50, 300)
ROUNDS = 3

Measure: TypeAlias = Callable[[str, int], Awaitable[float]]
"""Gives microseconds of processor time, for the URL of a server and a number."""

_EXCHANGE: Final = re.compile(rb"content-length: (\d+).*?\r\n\r\n|GET .*?\r\n\r\n", re.DOTALL | re.IGNORECASE)
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
_RECORD: Final = {"id": "p", "state": "pending", "param": {}, "value": {}, "tags": {}, "timeoutAt": 9, "createdAt": 1}


class Answers(asyncio.Protocol):
    """One connection of the server."""

    _transport: Any = None
    _received: bytes = b""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._received += data
        while head := _EXCHANGE.search(self._received):
            end = head.end() + int(head[1] or 0)
            if len(self._received) < end:
                return
            body, self._received = self._received[head.end() : end], self._received[end:]
            self._transport.write(answer(json.loads(body)) if body else _STREAM)


def answer(envelope: dict[str, Any]) -> bytes:
    """The answer to a request, with a pending promise in it."""
    head = {"corrId": envelope["head"]["corrId"], "status": 200, "version": "2026-04-01"}
    body = json.dumps({"kind": envelope["kind"], "head": head, "data": {"promise": _RECORD}}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def serve(port: Pipe) -> None:
    """Serve until the process is ended."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


async def timed(request: Callable[[], Awaitable[object]], width: int) -> float:
    """Microseconds for each request when so many are made at once."""

    async def lane() -> None:
        for _ in range(REQUESTS // width):
            await request()

    await request()
    begun = time.process_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(width):
            tasks.start_soon(lane)
    return (time.process_time() - begun) / REQUESTS * 1e6


async def measure_httpx(url: str, width: int) -> float:
    """Measure httpx alone."""
    head = {"corrId": "x" * 32, "version": "2026-04-01"}
    body = json.dumps({"kind": "promise.get", "head": head, "data": {"id": "p"}}).encode()
    async with httpx.AsyncClient() as client:

        async def request() -> object:
            return (await client.post(url, content=body)).json()

        return await timed(request, width)


async def measure_network(url: str, width: int) -> float:
    """Measure the network."""
    async with HttpNetwork(url).connect(Identity(group="g", pid="p", holder="p.0")) as connection:
        return await timed(partial(connection.request, PromiseGet(id="p")), width)


async def measure_steps(url: str, steps: int) -> float:
    """Measure the steps of one workflow."""
    id = f"bench-{time.time_ns()}"
    resonate = Resonate(network=HttpNetwork(url))
    resonate.register(_flow)
    async with resonate:
        await resonate.run(f"{id}-first", _flow, 5)
        begun = time.process_time()
        await resonate.run(id, _flow, steps)
        return (time.process_time() - begun) / steps * 1e6


async def _flow(ctx: Context, steps: int) -> None:
    for number in range(steps):
        await ctx.run(_step, number)


async def _step(number: int) -> int:
    return number


def over_httpx(measure: Measure) -> Measure:
    """Return the same measurement with the transport of httpx."""

    async def measured(url: str, number: int) -> float:
        with patch.object(_http, "is_plain", lambda *_: False):
            return await measure(url, number)

    return measured


def print_table(title: str, url: str, measures: dict[str, Measure], numbers: tuple[int, ...]) -> None:
    """Measure everything in turns, and print a row for each measurement."""
    sys.stdout.write(f"{title:>32}" + "".join(f"{number:>8}" for number in numbers) + "   µs of processor time each\n")
    for backend in ("asyncio", "trio"):
        figures: dict[tuple[str, int], list[float]] = {}
        for _ in range(ROUNDS):
            for number in numbers:
                for name, measure in measures.items():
                    figure = anyio.run(measure, url, number, backend=backend)
                    figures.setdefault((name, number), []).append(figure)
        for name in measures:
            row = "".join(f"{median(figures[name, number]):>8.0f}" for number in numbers)
            sys.stdout.write(f"{backend:>12}{name:>20}{row}\n")


@contextmanager
def small_server() -> Generator[str, None, None]:
    """Serve in another process, and give the URL."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        server.terminate()


@contextmanager
def dev() -> Generator[str, None, None]:
    """Serve `resonate-anyio dev` in another process, and give the URL."""
    command = [sys.executable, "-u", "-m", "resonate_anyio", "dev", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def main() -> None:
    """Measure everything and print two tables."""
    network = {"by httpx": over_httpx(measure_network), "network": measure_network}
    with small_server() as url:
        print_table("requests at once", url, {"httpx": measure_httpx, **network}, WIDTHS)
    with dev() as url:
        print_table("steps", url, {"by httpx": over_httpx(measure_steps), "network": measure_steps}, STEPS)


if __name__ == "__main__":
    main()
