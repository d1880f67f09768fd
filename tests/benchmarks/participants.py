"""What is compared: this package, its peers and the floors, each in an environment of its own."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

TOP: Final = Path(__file__).parents[2]

_LIMIT: Final = 120
"""Seconds after which a measurement of a participant is given up."""


@frozen
class Package:
    """A package that is installed into an environment of its own.

    Attributes:
        name: the name of the environment.
        requirements: what pip installs.
        imports: what a program imports, as `python -c`. None if it is not compared by its import.
        npm: what npm installs besides.
    """

    name: str
    requirements: tuple[str, ...]
    imports: str | None = None
    npm: str | None = None

    def install(self, folder: Path) -> str | None:
        """Install it, unless it is there. Return why it is missing, if it could not be installed."""
        done = folder / self.name / "installed"
        if done.exists() and not self.requirements[0].startswith(str(TOP)):
            return None
        try:
            subprocess.run([sys.executable, "-m", "venv", folder / self.name], check=True)
            pip = [str(self.python(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *self.requirements], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return f"pip could not install it for Python {sys.version_info[0]}.{sys.version_info[1]}"
        if self.npm is not None:
            npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder / self.name)]
            try:
                subprocess.run([*npm, self.npm], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                return f"npm could not install {self.npm}"
        done.touch()
        return None

    def python(self, folder: Path) -> Path:
        """Return the interpreter of the environment."""
        return folder / self.name / "bin" / "python"

    def size(self, folder: Path) -> tuple[int, float]:
        """Return how many distributions are installed, pip aside, and how many megabytes they are."""
        [site] = (folder / self.name / "lib").glob("python*/site-packages")
        found = [each for each in site.glob("*.dist-info") if not each.name.startswith("pip-")]
        files = [each for each in site.rglob("*") if each.is_file() and each.suffix != ".pyc"]
        files = [each for each in files if each.relative_to(site).parts[0].partition("-")[0] != "pip"]
        return len(found), sum(each.stat().st_size for each in files) / 1e6


OURS: Final = Package("ours", (str(TOP),), "import resonate_anyio")
SERVER: Final = Package("server", (f"{TOP}[server]",))
OFFICIAL: Final = Package("official", ("resonate-sdk",), "import resonate.resonate")
DBOS: Final = Package("dbos", ("dbos",), "import dbos")
UNHINGED: Final = Package("unhinged", ("unhinged",), "import unhinged")
RESTATE: Final = Package(
    "restate", ("restate-sdk", "hypercorn", "httpx"), "import restate", npm="@restatedev/restate-server"
)

PACKAGES: Final = (OURS, SERVER, OFFICIAL, DBOS, UNHINGED, RESTATE)

SERVERS: Final = {
    "SERVER_PYTHON": "server/bin/python",
    "RESTATE_SERVER": "restate/node_modules/@restatedev/*/bin/restate-server",
}
"""Where the programs of `peers` find the servers, as variables of the environment."""


@frozen
class Participant:
    """A package with one place for its records.

    Attributes:
        name: as in the tables.
        package: what it needs.
        module: the module of `peers` that runs it.
        variant: the variant that the module runs.
        without: the kinds of work that it does not have.
        server: the package of the server that it needs.
    """

    name: str
    package: Package
    module: str
    variant: str = "-"
    without: tuple[str, ...] = ()
    server: Package | None = None

    def measure(self, folder: Path, work: str, count: int, at_once: int) -> dict[str, float] | None:
        """Measure one kind of work in a process of its own. Return None if it has failed, or took too long."""
        command = [f"tests.benchmarks.peers.{self.module}", self.variant, work, str(count), str(at_once)]
        return run(self.package, folder, command)


def run(package: Package, folder: Path, command: Sequence[str], limit: float = _LIMIT) -> dict[str, float] | None:
    """Run a module, and return the figures that it prints. Return None if it has failed, or took too long."""
    environment = clean_environment() | {
        name: str(found) for name, place in SERVERS.items() for found in folder.glob(place)
    }
    with subprocess.Popen(
        [str(package.python(folder)), "-m", *command],
        cwd=TOP, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            printed, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            # With the server that it has started.
            os.killpg(process.pid, signal.SIGKILL)
            sys.stderr.write(f"{command}: took too long\n")
            return None
    if process.returncode:
        sys.stderr.write(f"{command}: {errors.splitlines()[-1:]}\n")
        return None
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


_REMOTE: Final = ("remote", "remote-fan-out")

OURS_IN_MEMORY: Final = Participant("ours, in memory", OURS, "ours", "memory")
OURS_ON_SQLITE: Final = Participant("ours, SQLite", OURS, "ours", "process")
OURS_ON_POWER: Final = Participant("ours, SQLite, power", OURS, "ours", "power")
OURS_OVER_HTTP: Final = Participant("ours, HTTP", OURS, "ours", "http", server=SERVER)
FLOOR_IN_MEMORY: Final = Participant("floor: anyio, JSON", OURS, "floors", "memory", _REMOTE)
FLOOR_ON_SQLITE: Final = Participant("floor: SQLite, NORMAL", OURS, "floors", "process", _REMOTE)
FLOOR_ON_POWER: Final = Participant("floor: a hop, SQLite, FULL", OURS, "floors", "power", _REMOTE)
OFFICIAL_SDK: Final = Participant("official SDK, in memory", OFFICIAL, "official")
OFFICIAL_OVER_HTTP: Final = Participant("official SDK, HTTP", OFFICIAL, "official", "http", server=SERVER)
DBOS_ON_SQLITE: Final = Participant("DBOS, SQLite", DBOS, "dbos_sqlite", without=_REMOTE)
UNHINGED_ON_SQLITE: Final = Participant(
    "Unhinged, SQLite, FULL", UNHINGED, "unhinged_sqlite", without=("fan-out", "spawn", *_REMOTE)
)
RESTATE_SERVER: Final = Participant("Restate, HTTP", RESTATE, "restate_server")

RIVALS: Final = {
    OURS_IN_MEMORY: (OFFICIAL_SDK, FLOOR_IN_MEMORY),
    OURS_ON_SQLITE: (DBOS_ON_SQLITE, FLOOR_ON_SQLITE),
    OURS_ON_POWER: (UNHINGED_ON_SQLITE, FLOOR_ON_POWER),
    OURS_OVER_HTTP: (OFFICIAL_OVER_HTTP, RESTATE_SERVER),
}
"""What each of ours is compared with: peers and floors that promise about the same."""

PARTICIPANTS: Final = tuple(each for ours, rivals in RIVALS.items() for each in (ours, *rivals))


def clean_environment() -> dict[str, str]:
    """Return the environment without what would change how Python finds modules, or keeps compiled ones."""
    hidden = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def import_cost(python: Path, imports: str) -> float:
    """Return the milliseconds of processor time of a process that imports something, with its start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([python, "-c", imports], env=clean_environment(), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
