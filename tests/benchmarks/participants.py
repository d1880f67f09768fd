"""What is compared: this package, its peers and the floors, each in an environment of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

from attrs import frozen

TOP: Final = Path(__file__).parents[2]

_LIMIT: Final = 120
"""Seconds after which a measurement is given up."""


@frozen
class Package:
    """A package that is installed into an environment of its own.

    Attributes:
        name: the name of the environment.
        requirements: what pip installs.
        imports: what a program imports, as `python -c`.
    """

    name: str
    requirements: tuple[str, ...]
    imports: str

    def install(self, folder: Path) -> str | None:
        """Install it, unless it is there. Return why it is missing, if it could not be installed."""
        done = folder / self.name / "installed"
        if done.exists() and self.requirements != (str(TOP),):
            return None
        try:
            subprocess.run([sys.executable, "-m", "venv", folder / self.name], check=True)
            pip = [str(self.python(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *self.requirements], check=True, capture_output=True)
            done.touch()
        except (OSError, subprocess.CalledProcessError):
            return f"pip could not install it for Python {sys.version_info[0]}.{sys.version_info[1]}"
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
OFFICIAL: Final = Package("official", ("resonate-sdk",), "import resonate.resonate")
DBOS: Final = Package("dbos", ("dbos",), "import dbos")
UNHINGED: Final = Package("unhinged", ("unhinged",), "import unhinged")

PACKAGES: Final = (OURS, OFFICIAL, DBOS, UNHINGED)


@frozen
class Participant:
    """A package with one place for its records.

    Attributes:
        name: as in the tables.
        package: what it needs.
        module: the module of `peers` that runs it.
        variant: the variant that the module runs.
        without: the kinds of work that it does not have.
    """

    name: str
    package: Package
    module: str
    variant: str = "-"
    without: tuple[str, ...] = ()

    def measure(self, folder: Path, work: str, count: int, at_once: int) -> dict[str, float] | None:
        """Measure one kind of work in a process of its own. Return None if it has failed, or took too long."""
        command = [str(self.package.python(folder)), "-m", f"tests.benchmarks.peers.{self.module}", self.variant]
        try:
            done = subprocess.run(
                [*command, work, str(count), str(at_once)],
                cwd=TOP, env=clean_environment(), capture_output=True, text=True, check=True, timeout=_LIMIT,
            )  # fmt: skip
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            why = "took too long" if isinstance(error, subprocess.TimeoutExpired) else error.stderr.splitlines()[-1:]
            sys.stderr.write(f"{self.name} has failed: {work} {count}: {why}\n")
            return None
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


OURS_IN_MEMORY: Final = Participant("ours, in memory", OURS, "ours", "memory")
OURS_ON_SQLITE: Final = Participant("ours, SQLite", OURS, "ours", "process")
OURS_ON_POWER: Final = Participant("ours, SQLite, power", OURS, "ours", "power")
FLOOR_IN_MEMORY: Final = Participant("floor: asyncio, JSON", OURS, "floors", "memory")
FLOOR_ON_SQLITE: Final = Participant("floor: SQLite, NORMAL", OURS, "floors", "process")
FLOOR_ON_POWER: Final = Participant("floor: SQLite, FULL", OURS, "floors", "power")
OFFICIAL_SDK: Final = Participant("official SDK, in memory", OFFICIAL, "official")
DBOS_ON_SQLITE: Final = Participant("DBOS, SQLite", DBOS, "dbos_sqlite")
UNHINGED_ON_SQLITE: Final = Participant("Unhinged, SQLite, FULL", UNHINGED, "unhinged_sqlite", without=("fan-out",))

RIVALS: Final = {
    OURS_IN_MEMORY: (OFFICIAL_SDK, FLOOR_IN_MEMORY),
    OURS_ON_SQLITE: (DBOS_ON_SQLITE, FLOOR_ON_SQLITE),
    OURS_ON_POWER: (UNHINGED_ON_SQLITE, FLOOR_ON_POWER),
}
"""What each of ours is compared with: a peer and a floor that promise about the same."""

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
