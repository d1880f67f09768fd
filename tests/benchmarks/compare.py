"""The comparison with peers: everything is measured interleaved in one run, since machines differ from run to run."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

from attrs import frozen

from .chart import chart
from .participants import OURS, PACKAGES, PARTICIPANTS, RIVALS, Package, Participant, import_cost

HERE: Final = Path(__file__).parent

IMPORTS: Final = "import anyio, attrs, cattrs"
"""What the import of this package is compared with."""


@frozen
class Work:
    """What is measured.

    Attributes:
        name: as in the tables.
        kind: the kind of work, as `peers.measuring` knows it.
        count: how many units.
        at_once: how many of them at once.
    """

    name: str
    kind: str
    count: int
    at_once: int = 1


STEPS: Final = tuple(Work(f"a step of a sequence of {count:,}", "steps", count) for count in (10, 100, 300, 1000))
RUNS: Final = tuple(
    Work(f"a workflow of one step, {at_once} at once", "runs", max(60, at_once), at_once) for at_once in (1, 10, 100)
)
WORKS: Final = (
    *STEPS,
    Work("an empty workflow, one by one", "empty", 60),
    *RUNS,
    Work("a step of a fan-out of 200", "fan-out", 200),
)

Figures: TypeAlias = dict[tuple[Participant, Work], dict[str, float]]
"""The medians: `cpu` and `wall` milliseconds of a unit, `p50` and `p99` of workflows."""


def _shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def install(folder: Path) -> dict[Package, str]:
    """Install each package, and return why some are missing."""
    missing: dict[Package, str] = {}
    for package in PACKAGES:
        _note(f"installing {package.name}")
        why = package.install(folder)
        if why is not None:
            missing[package] = why
    return missing


def measure(rounds: int, folder: Path, participants: Sequence[Participant]) -> Figures:
    """Measure all work of all participants in turn, so many times, and return the medians."""
    samples: dict[tuple[Participant, Work], list[dict[str, float]]] = {}
    failed: set[tuple[Participant, Work]] = set()
    for number in range(1, rounds + 1):
        for work in WORKS:
            _note(f"round {number} of {rounds}: {work.name}")
            for each in participants:
                if work.kind in each.without or (each, work) in failed:
                    continue
                found = each.measure(folder, work.kind, work.count, work.at_once)
                if found is None:
                    failed.add((each, work))
                else:
                    samples.setdefault((each, work), []).append(found)
    return {key: {name: median(each[name] for each in found) for name in found[0]} for key, found in samples.items()}


def imports(rounds: int, folder: Path, packages: Sequence[Package]) -> dict[str, float]:
    """Return the cost of importing each package, and of what this one is compared with."""
    programs = {package.imports: package.python(folder) for package in packages} | {IMPORTS: OURS.python(folder)}
    samples: dict[str, list[float]] = {program: [] for program in programs}
    for number in range(3 * rounds + 1):
        for program, python in programs.items():
            cost = import_cost(python, program)
            # The first one compiles.
            if number:
                samples[program].append(cost)
    return {program: median(found) for program, found in samples.items()}


def ratios(figures: Figures) -> str:
    """Return the table of ratios: this package's processor time by that of each rival."""
    rows = []
    for ours, rivals in RIVALS.items():
        for rival in rivals:
            cells = [
                _ratio(figures.get((ours, work), {}).get("cpu"), figures.get((rival, work), {}).get("cpu"))
                for work in WORKS
            ]
            if set(cells) != {"-"}:
                rows.append([f"{ours.name} / {rival.name}", *cells])
    return _table(["", *(work.name for work in WORKS)], rows)


def _ratio(ours: float | None, theirs: float | None) -> str:
    return "-" if ours is None or theirs is None else f"{ours / theirs:.2f}"


def absolute(figures: Figures, participants: Sequence[Participant]) -> str:
    """Return the table of milliseconds."""
    rows = [
        [each.name, *(_milliseconds(figures.get((each, work))) for work in WORKS)]
        for each in participants
    ]  # fmt: skip
    return _table(["", *(work.name for work in WORKS)], rows)


def _milliseconds(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else f"{_shown(found['cpu'])} / {_shown(found['wall'])}"


def latencies(figures: Figures, participants: Sequence[Participant]) -> str:
    """Return the table of how long a workflow of one step takes."""
    rows = [
        [each.name, *(_percentiles(figures.get((each, work))) for work in RUNS)]
        for each in participants
    ]  # fmt: skip
    return _table(["", *(f"{work.at_once} at once" for work in RUNS)], rows)


def _percentiles(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else f"{_shown(found['p50'], 1)} / {_shown(found['p99'], 1)}"


def plot(figures: Figures, participants: Sequence[Participant]) -> None:
    """Write the two charts."""
    steps = {
        each.name: [(work.count, figures[each, work]["cpu"]) for work in STEPS if (each, work) in figures]
        for each in participants
    }
    (HERE / "steps.svg").write_text(
        chart("Processor time of a step", "steps in the workflow", "milliseconds a step", steps), encoding="utf-8"
    )
    runs = {
        each.name: [(work.at_once, 1000 / figures[each, work]["wall"]) for work in RUNS if (each, work) in figures]
        for each in participants
    }
    (HERE / "throughput.svg").write_text(
        chart("Throughput of workflows of one step", "workflows at once", "workflows a second", runs), encoding="utf-8"
    )


def import_table(costs: Mapping[str, float], folder: Path, packages: Sequence[Package]) -> str:
    """Return the table of imports and installed sizes."""
    rows = []
    for package in packages:
        distributions, megabytes = package.size(folder)
        cost = costs[package.imports]
        size = [str(distributions), f"{megabytes:.1f}"]
        rows.append([f"`{package.imports}`", _shown(cost, 0), _ratio(cost, costs[IMPORTS]), *size])
    rows.append([f"floor: `{IMPORTS}`", _shown(costs[IMPORTS], 0), "1.00", "", ""])
    return _table(["", "ms of processor time", "ratio to the floor", "distributions", "MB"], rows)


_PAGE: Final = """# Benchmarks

`python -m tests.benchmarks compare` has written this page and its charts. It installs each peer into an environment of
its own, measures everything interleaved in one run, and takes the median of {rounds} rounds. Compare figures of one run
only: they depend on the machine, and on what else it does. This run: Python {python}, {cpus} processors,
{system}, a load of {load:.0f}.

The other programs of this folder measure one thing each; [Testing](../../docs/testing.md#tools) lists them.

## Ratios

Processor time of this package, divided by that of a peer or of a floor that promises about the same: below 1.00 this
package is cheaper. A floor does only what cannot be avoided; `peers/floors.py` says what that is.

{ratios}

{missing}

## Milliseconds

Processor time / real time of one unit; `-` where it failed, took longer than two minutes, or does not exist.

{absolute}

![Processor time of a step, against the number of steps](steps.svg)

## Workflows of one step

Median / 99th percentile of how long one takes, in milliseconds.

{latencies}

![Throughput, against how many workflows run at once](throughput.svg)

## Import and size

Processor time of a process that only imports, with the start of Python.

{imports}
"""


def _missing(missing: Mapping[Package, str]) -> str:
    lines = [f"- Missing in this run: {package.name}. {why.capitalize()}." for package, why in missing.items()]
    lines.append("- Missing in each run: Restate, since this command cannot start its server yet.")
    return "\n".join(lines)


def compare(rounds: int, folder: Path) -> None:
    """Measure, print the ratios, and write the page and the charts."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = install(folder)
    packages = [package for package in PACKAGES if package not in missing]
    participants = [each for each in PARTICIPANTS if each.package not in missing]
    costs = imports(rounds, folder, packages)
    figures = measure(rounds, folder, participants)
    plot(figures, participants)
    page = _PAGE.format(
        rounds=rounds,
        python=platform.python_version(),
        cpus=os.cpu_count(),
        system=platform.system(),
        load=os.getloadavg()[2],
        ratios=ratios(figures),
        missing=_missing(missing),
        absolute=absolute(figures, participants),
        latencies=latencies(figures, participants),
        imports=import_table(costs, folder, packages),
    )
    (HERE / "README.md").write_text(page, encoding="utf-8")
    sys.stdout.write(f"{ratios(figures)}\n{_missing(missing)}\n")
