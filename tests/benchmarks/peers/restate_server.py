"""Restate: its server in a process of its own, and its Python SDK, whose handlers the server calls over HTTP/2."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import restate  # type: ignore[import-not-found, import-untyped, unused-ignore]
from hypercorn.asyncio import serve
from hypercorn.config import Config

from . import measuring

service: Any = restate.Service("benchmark")


async def leaf(number: int) -> int:
    """Return the argument."""
    return number


@service.handler()  # type: ignore[untyped-decorator, unused-ignore]
async def called(ctx: restate.Context, number: int) -> int:
    """Return the argument."""
    return number


@service.handler()  # type: ignore[untyped-decorator, unused-ignore]
async def steps(ctx: restate.Context, count: int) -> int:
    """Call so many steps, one after the other."""
    for number in range(count):
        await ctx.run_typed("leaf", leaf, number=number)
    return count


@service.handler()  # type: ignore[untyped-decorator, unused-ignore]
async def fan_out(ctx: restate.Context, count: int) -> int:
    """Call so many steps at once."""
    futures = [ctx.run_typed("leaf", leaf, number=number) for number in range(count)]
    await restate.gather(*futures)
    return count


@service.handler()  # type: ignore[untyped-decorator, unused-ignore]
async def remote(ctx: restate.Context, count: int) -> int:
    """Call so many handlers, one after the other."""
    for number in range(count):
        await ctx.service_call(called, arg=number)
    return count


@service.handler()  # type: ignore[untyped-decorator, unused-ignore]
async def remote_fan_out(ctx: restate.Context, count: int) -> int:
    """Call so many handlers at once."""
    futures = [ctx.service_call(called, arg=number) for number in range(count)]
    await restate.gather(*futures)
    return count


class Restate:
    """A client of the server's ingress. An id makes a call idempotent."""

    def __init__(self, ingress: httpx.AsyncClient) -> None:
        self._ingress: Final = ingress

    async def _call(self, id: str, handler: str, count: int) -> None:
        response = await self._ingress.post(f"/benchmark/{handler}", json=count, headers={"idempotency-key": id})
        response.raise_for_status()

    async def steps(self, id: str, count: int) -> None:
        await self._call(id, "steps", count)

    async def empty(self, id: str) -> None:
        await self._call(id, "called", 0)

    async def fan_out(self, id: str, count: int) -> None:
        await self._call(id, "fan_out", count)

    async def spawn(self, id: str, count: int) -> None:
        await self.fan_out(id, count)

    async def remote(self, id: str, count: int) -> None:
        await self._call(id, "remote", count)

    async def remote_fan_out(self, id: str, count: int) -> None:
        await self._call(id, "remote_fan_out", count)


@contextmanager
def server(folder: Path) -> Any:
    """Run the server, which listens on sockets in the folder."""
    environment = {**os.environ, "DO_NOT_TRACK": "1", "RESTATE_DISABLE_TELEMETRY": "true"}
    command = [os.environ["RESTATE_SERVER"], "--no-logo", "--listen-mode", "unix", "--base-dir", str(folder)]
    with (
        (folder / "log").open("w", encoding="utf-8") as log,
        subprocess.Popen([*command, "--node-name", "node"], env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def client(folder: Path, name: str) -> httpx.AsyncClient:
    """Return a client of one of the sockets of the server."""
    transport = httpx.AsyncHTTPTransport(uds=str(folder / "node" / f"{name}.sock"))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{name}", timeout=120)


async def until_ready(ingress: httpx.AsyncClient) -> None:
    """Wait until the server serves."""
    for _ in range(300):
        with suppress(httpx.HTTPError):
            if (await ingress.get("/restate/health")).status_code == httpx.codes.OK:
                return
        await asyncio.sleep(0.1)
    msg = "the server of Restate does not serve"
    raise TimeoutError(msg)


@asynccontextmanager
async def start(variant: str, folder: Path) -> AsyncIterator[Restate]:
    """Start the server, and a deployment of the service in this process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    ended = asyncio.Event()
    app: Any = restate.app([service])
    with server(folder):
        serving = asyncio.create_task(serve(app, config, shutdown_trigger=ended.wait))  # type: ignore[arg-type, unused-ignore]
        async with client(folder, "ingress") as ingress, client(folder, "admin") as admin:
            await until_ready(ingress)
            registered = await admin.post("/deployments", json={"uri": f"http://127.0.0.1:{port}"})
            registered.raise_for_status()
            yield Restate(ingress)
    ended.set()
    await serving


if __name__ == "__main__":
    measuring.main(start)
