"""What a request over HTTP costs, beside one of plain httpx: `python -m tests.benchmarks.bench_http`.

Prints microseconds for each request, one after the other and many at once, against a server in another process that
does as little as it can. The figures depend on the machine and on what else it does: compare within one run only.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

import anyio
import httpx

from resonate_anyio._protocol import PromiseGet
from resonate_anyio.abc import Identity
from resonate_anyio.networks import HttpNetwork

REQUESTS = 2000
WIDTHS = (1, 10, 50, 200)

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
    begun = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(width):
            tasks.start_soon(lane)
    return (time.perf_counter() - begun) / REQUESTS * 1e6


async def measure_plain(url: str) -> list[float]:
    """Measure httpx alone."""
    head = {"corrId": "x" * 32, "version": "2026-04-01"}
    body = json.dumps({"kind": "promise.get", "head": head, "data": {"id": "p"}}).encode()
    async with httpx.AsyncClient() as client:

        async def request() -> object:
            return (await client.post(url, content=body)).json()

        return [await timed(request, width) for width in WIDTHS]


async def measure_network(url: str) -> list[float]:
    """Measure the network."""
    async with HttpNetwork(url).connect(Identity(group="g", pid="p", holder="p.0")) as connection:

        async def request() -> object:
            return await connection.request(PromiseGet(id="p"))

        return [await timed(request, width) for width in WIDTHS]


def main() -> None:
    """Measure everything and print a table."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    sys.stdout.write(f"{'at once':>24}" + "".join(f"{width:>8}" for width in WIDTHS) + "   µs each\n")
    for backend in ("asyncio", "trio"):
        for name, measure in (("httpx", measure_plain), ("network", measure_network)):
            figures = anyio.run(measure, url, backend=backend)
            sys.stdout.write(f"{backend:>12}{name:>12}" + "".join(f"{figure:>8.0f}" for figure in figures) + "\n")
    server.terminate()


if __name__ == "__main__":
    main()
