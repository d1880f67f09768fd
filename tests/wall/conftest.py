"""A server, names that nobody else uses on it, and programs that connect to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeAlias

import pytest
from anyio import to_thread
from attrs import define, field

from resonate_anyio import Resonate
from resonate_anyio.abc import Identity
from resonate_anyio.networks import HttpNetwork

from .flows import FUNCTIONS, Journal

TTL = 12.0
"""Seconds that a lease lasts here.

What a dead worker has left is taken up after that time. A worker that lives must not lose a lease on a slow server or
a busy machine: a quarter of this is how long a request may take.
"""

ROOT = Path(__file__).parents[2]


@define(eq=False)
class Program:
    """A worker as a process of its own (`program.py`)."""

    _process: subprocess.Popen[str]

    def lines(self) -> Iterator[str]:
        """What it tells, as it comes."""
        assert self._process.stdout is not None
        return (line.strip() for line in self._process.stdout)

    def wait_for(self, line: str) -> None:
        """Wait until it says this."""
        assert line in self.lines()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        # Leaving the block waits for the process and closes what it has told.
        with self._process:
            self._process.kill()


@define(eq=False)
class Site:
    """A server, and names on it that are one test's own.

    Attributes:
        name: what every id and group of the test starts with.
        programs: the workers that were started.
    """

    url: str
    name: str = field(factory=lambda: f"t{token_hex(5)}")
    programs: list[Program] = field(factory=list)

    def group(self, name: str = "") -> str:
        """A worker group of the test."""
        return f"{self.name}{name}"

    def identity(self) -> Identity:
        """Somebody who only asks."""
        name = token_hex(4)
        return Identity(group=self.group("looker"), pid=name, holder=name)

    def network(self) -> HttpNetwork:
        """The way to the server."""
        return HttpNetwork(self.url, request_timeout=TTL / 4)

    def client(self, group: str = "", journal: Journal | None = None, **settings: Any) -> Resonate:
        """A `Resonate` object that knows all functions. Ids that it is given get the name of the test before them."""
        settings = {"ttl": TTL, "grace": 0, **settings}
        resonate = Resonate(network=self.network(), group=self.group(group), prefix=f"{self.name}-", **settings)
        for function in FUNCTIONS:
            resonate.register(function)
        return resonate.with_dependency(journal or Journal())

    def start(self, backend: str, group: str = "", **settings: int) -> Program:
        """Start the same as a process of its own, and wait until it is connected."""
        given = [f"{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "tests.wall.program", backend, self.url, self.name, group, *given]
        pipe = subprocess.PIPE
        program = Program(subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=pipe, text=True))
        self.programs.append(program)
        program.wait_for("ready")
        return program

    async def heard(self, program: Program, line: str) -> None:
        """Wait until a program says this, while the event loop goes on."""
        await to_thread.run_sync(program.wait_for, line)


def environment() -> Mapping[str, str]:
    """For processes that use what these tests use."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(ROOT)]))}


@contextmanager
def dev_server() -> Iterator[str]:
    """`resonate-anyio dev` on a port that is free; gives its address."""
    command = [sys.executable, "-m", "resonate_anyio", "dev", "--port", "0"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The server's address."""
    if given := os.environ.get("RESONATE_TEST_URL"):
        yield given
    else:
        with dev_server() as found:
            yield found


Backend: TypeAlias = tuple[str, dict[str, Any]]
Settings: TypeAlias = dict[str, Any]
Make: TypeAlias = Callable[..., Resonate]


@pytest.fixture
def backend(anyio_backend: Backend) -> str:
    """The name of the test's backend."""
    return anyio_backend[0]


@pytest.fixture
def site(url: str) -> Iterator[Site]:
    """The server, and names of the test's own on it. No program outlives the test."""
    site = Site(url)
    yield site
    for program in site.programs:
        program.kill()


@pytest.fixture(params=[{}, {"hot_for": 0}, {"hot_for": 0, "parked_limit": 0}], ids=["hot", "parked", "unloaded"])
def settings(request: pytest.FixtureRequest) -> Settings:
    """How executions that wait are kept."""
    given: Settings = request.param
    return given


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "HOST", "PORT", "TOKEN", "PREFIX"):
        monkeypatch.delenv(f"RESONATE_{name}", raising=False)
