"""Servers and workers as processes of their own, none of which outlives its test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from attrs import define, field


@define(eq=False)
class Told:
    """The lines that a process writes to its standard output.

    Attributes:
        text: what of it was read.
    """

    process: Process
    text: str = field(default="", init=False)
    _lines: AsyncIterator[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = self._read()

    async def _read(self) -> AsyncIterator[str]:
        assert self.process.stdout is not None
        rest = ""
        async for text in TextReceiveStream(self.process.stdout):
            self.text += text
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                yield line

    async def until(self, wanted: str) -> str:
        """Read up to a line that contains `wanted`."""
        async for line in self._lines:
            if wanted in line:
                return line
        msg = f"the process ended without saying {wanted!r}"
        raise AssertionError(msg)

    async def skip(self, count: int) -> None:
        """Read so many lines."""
        for _ in range(count):
            await anext(self._lines)

    async def drain(self) -> None:
        """Read what else comes, so that the process need not wait for it."""
        async for _ in self._lines:
            pass


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """What takes longer is ended in order, so that no process is left."""
    with anyio.fail_after(seconds):
        yield


@asynccontextmanager
async def started(*command: object, errors: Path | None = None) -> AsyncIterator[Told]:
    """A process that does not outlive the block. Its standard error goes to a file, or where that of the test goes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
    arguments = [sys.executable, *map(str, command)]
    with nullcontext() if errors is None else errors.open("w") as stderr:
        process = await anyio.open_process(arguments, stdin=subprocess.DEVNULL, stderr=stderr, env=environment)
        try:
            yield Told(process)
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.aclose()


@define(eq=False)
class Server:
    """A server that is ready.

    Attributes:
        url: where it is reached.
        told: what it prints.
    """

    url: str
    told: Told

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        self.told.process.kill()
        await self.told.process.wait()

    @property
    def port(self) -> int:
        """The port in its address."""
        port = urlsplit(self.url).port
        assert port is not None
        return port


@asynccontextmanager
async def served(*options: object, errors: Path | None = None) -> AsyncIterator[Server]:
    """A server on a spare port, with these options: a file, or none to keep all in memory."""
    async with started("-m", "resonate_anyio", "dev", *options, "--port", 0, errors=errors) as told:
        line = await told.until("listening on")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(told.drain)
            yield Server(line[line.index("http://") :].split()[0], told)
            tasks.cancel_scope.cancel()
