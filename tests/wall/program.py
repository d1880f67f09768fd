"""A worker: `python -m tests.wall.program BACKEND URL NAME GROUP [SETTING=NUMBER ...]`.

It says `ready` once it is connected, and then which steps it begins, a line each.
"""

from __future__ import annotations

import sys

import anyio

from .conftest import Site
from .flows import Journal


def tell(line: str) -> None:
    """Say it at once: whoever listens may kill this process for it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(url: str, name: str, group: str, *given: str) -> None:
    """Serve until killed."""
    settings = {key: int(value) for key, _, value in (each.partition("=") for each in given)}
    async with Site(url, name).client(group, Journal(tell=tell), **settings):
        tell("ready")
        await anyio.sleep_forever()


if __name__ == "__main__":
    _, backend, url, name, group, *given = sys.argv
    anyio.run(main, url, name, group, *given, backend=backend)
