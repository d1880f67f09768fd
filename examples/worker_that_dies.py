"""A server, two workers and a client, each in a process of its own. One worker is killed, and the other continues.

    python examples/worker_that_dies.py
    python examples/worker_that_dies.py --backend trio

Needs the extra `server`. The lease of a worker that dies lapses after 4 seconds here, instead of the usual minute.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio import EndOfStream, IncompleteRead
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from resonate_anyio import Context, Resonate
from resonate_anyio.networks import HttpNetwork

PARCELS = 12
STOPS = ["packed", "sent", "at the customs", "in the van", "delivered"]


# --- The durable functions -------------------------------------------------------------------------------------------


async def move(parcel: int, stop: str) -> str:
    """Move a parcel. This takes a while."""
    await anyio.sleep(0.2)
    print(f"worker {os.getpid()}: parcel {parcel} is {stop}", flush=True)
    return stop


async def ship(ctx: Context, parcel: int) -> str:
    """Move a parcel through all stops."""
    for stop in STOPS:
        await ctx.run(move, parcel, stop)
    return f"parcel {parcel} went through {len(STOPS)} stops"


# --- The processes ---------------------------------------------------------------------------------------------------


def connected(url: str) -> Resonate:
    """Return an object for a worker or for a client."""
    # A request may take one second here. A lease must be at least four times as long.
    return Resonate(network=HttpNetwork(url, request_timeout=1), group="parcels", ttl=4)


async def work(url: str) -> None:
    """Run a worker."""
    resonate = connected(url)
    resonate.register(move)
    resonate.register(ship)
    async with resonate:
        print("ready", flush=True)
        await resonate.serve()


@asynccontextmanager
async def started(*command: str) -> AsyncIterator[tuple[Process, Lines]]:
    """Run a process of the same Python as long as the block runs, and yield it with the lines that it prints."""
    async with await anyio.open_process([sys.executable, *command], stderr=None) as process:
        assert process.stdout is not None
        try:
            yield process, Lines(process.stdout)
        finally:
            if process.returncode is None:
                process.terminate()


class Lines(BufferedByteReceiveStream):
    """The output of another process, by lines."""

    async def next(self) -> str:
        """Return the next line."""
        return (await self.receive_until(b"\n", 10_000)).decode()


async def show(output: Lines) -> None:
    """Print the output of another process until it ends."""
    with suppress(EndOfStream, IncompleteRead):
        while True:
            print(await output.next())


async def main(backend: str) -> list[str]:
    """Start everything, and wait until all parcels have arrived."""
    worker = (__file__, "--backend", backend, "--worker")
    async with started("-m", "resonate_anyio", "dev", "--port", "0") as (_, said):
        url = (await said.next()).split()[-1]
        async with started(*worker, url) as (one, of_one), started(*worker, url) as (_, of_other):
            for output in (of_one, of_other):
                await output.next()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(show, of_one)
                tasks.start_soon(show, of_other)
                results = await ask_for_all(url, one)
                tasks.cancel_scope.cancel()
    print(*results, sep="\n")
    return results


async def ask_for_all(url: str, victim: Process) -> list[str]:
    """Send all parcels, kill a worker, and return the results."""
    async with connected(url) as resonate:
        # This process has no functions and gets no work. `rpc` names a function, and a worker that has it runs it.
        calls = [resonate.rpc(f"parcel-{number}", "ship", number).returns(str) for number in range(PARCELS)]
        handles = [await call.spawn() for call in calls]
        await anyio.sleep(0.7)
        victim.send_signal(signal.SIGKILL)
        print(f"worker {victim.pid} was killed")
        return [await handle for handle in handles]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        anyio.run(work, options.worker, backend=options.backend)
    else:
        anyio.run(main, options.backend, backend=options.backend)
