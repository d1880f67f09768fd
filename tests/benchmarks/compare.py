"""The comparison with peers: everything is measured interleaved in one run, since machines differ from run to run."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from attrs import evolve

from .bars import ALONE, BARS, RUNS, STEPS, WORKS, Alone, Figures, Results, Work
from .chart import chart
from .participants import OURS, PACKAGES, PARTICIPANTS, RIVALS, Package, Participant, import_cost, run

HERE: Final = Path(__file__).parent

IMPORTS: Final = "import anyio, attrs, cattrs"
"""What the import of this package is compared with."""


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


def measure(rounds: int, folder: Path, participants: Sequence[Participant], divisor: int) -> Results:
    """Measure all work of all participants in turn, so many times, and return the medians."""
    samples: dict[tuple[Participant, Work], list[dict[str, float]]] = {}
    alone: dict[Alone, list[dict[str, float]]] = {}
    failed: set[tuple[Participant, Work]] = set()
    for number in range(1, rounds + 1):
        for work in WORKS:
            _note(f"round {number} of {rounds}: {work.name}")
            for each in participants:
                if work.kind in each.without or (each, work) in failed:
                    continue
                found = each.measure(folder, work.kind, max(4, work.count // divisor), work.at_once)
                if found is None:
                    failed.add((each, work))
                else:
                    samples.setdefault((each, work), []).append(found)
        for each_alone in ALONE:
            _note(f"round {number} of {rounds}: {each_alone.key}")
            command = ["tests.benchmarks.peers.alone", each_alone.key, str(max(4, each_alone.count // divisor))]
            found = run(OURS, folder, command, 600)
            if found is not None:
                alone.setdefault(each_alone, []).append(found)
    return Results(
        figures={key: _medians(found) for key, found in samples.items()},
        alone={each.key: _medians(found) for each, found in alone.items()},
    )


def _medians(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: median(each[name] for each in samples) for name in samples[0]}


def imports(rounds: int, folder: Path, packages: Sequence[Package]) -> dict[str, float]:
    """Return the cost of importing each package, and of what this one is compared with."""
    programs = {package.imports: package.python(folder) for package in packages if package.imports is not None}
    programs[IMPORTS] = OURS.python(folder)
    samples: dict[str, list[float]] = {program: [] for program in programs}
    for number in range(3 * rounds + 1):
        for program, python in programs.items():
            cost = import_cost(python, program)
            # The first one compiles.
            if number:
                samples[program].append(cost)
    return {program: median(found) for program, found in samples.items()}


def bars(results: Results) -> str:
    """Return the table of bars, with whether each is met."""
    rows = [[each.row, each.words, _shown(each.value(results)), each.verdict(results)] for each in BARS]
    return _table(["", "bar", "measured", ""], rows)


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
    return _table(*_turned(["", *(work.name for work in WORKS)], rows))


def _turned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the table with its rows as columns."""
    first, *others = zip(head, *rows, strict=True)
    return first, others


def _ratio(ours: float | None, theirs: float | None) -> str:
    return "-" if ours is None or theirs is None else f"{ours / theirs:.2f}"


def absolute(figures: Figures, participants: Sequence[Participant]) -> str:
    """Return the table of milliseconds."""
    rows = [
        [each.name, *(_milliseconds(figures.get((each, work))) for work in WORKS)]
        for each in participants
    ]  # fmt: skip
    return _table(*_turned(["", *(work.name for work in WORKS)], rows))


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


def plot(figures: Figures, participants: Sequence[Participant], into: Path) -> None:
    """Write the two charts."""
    steps = {
        each.name: [(work.count, figures[each, work]["cpu"]) for work in STEPS if (each, work) in figures]
        for each in participants
    }
    (into / "steps.svg").write_text(
        chart("Processor time of a step", "steps in the workflow", "milliseconds a step", steps), encoding="utf-8"
    )
    runs = {
        each.name: [(work.at_once, 1000 / figures[each, work]["wall"]) for work in RUNS if (each, work) in figures]
        for each in participants
    }
    (into / "throughput.svg").write_text(
        chart("Throughput of workflows of one step", "workflows at once", "workflows a second", runs), encoding="utf-8"
    )


def import_table(costs: Mapping[str, float], folder: Path, packages: Sequence[Package]) -> str:
    """Return the table of imports and installed sizes."""
    rows = []
    for package in packages:
        if package.imports is None:
            continue
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
{system}, a load of {load:.0f}.{tried}

The other programs of this folder measure one thing each; [Testing](../../docs/testing.md#tools) lists them.

## Bars

What a row has to cost at most. Ratios are of this run. Milliseconds were set on one machine, so read them with a look
at the floors.

{bars}

## Ratios

Processor time of this package, divided by that of a peer or of a floor that promises about the same: below 1.00 this
package is cheaper. A floor does only what cannot be avoided; `peers/floors.py` says what that is. Over HTTP, the server
is another process, whose processor time does not count.

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

Processor time of a process that only imports, with the start of Python. Distributions and megabytes are those of
Python: the server of Restate is not among them.

{imports}
"""


def _missing(missing: Mapping[Package, str], failed: Sequence[str]) -> str:
    lines = [f"- Missing in this run: {package.name}. {why.capitalize()}." for package, why in missing.items()]
    lines += [f"- Failed in this run: {each}." for each in failed]
    return "\n".join(lines) if lines else "No peer is missing."


def _failed(results: Results, participants: Sequence[Participant]) -> list[str]:
    missing = [
        f"{each.name}, {work.name}"
        for each in participants
        for work in WORKS
        if work.kind not in each.without and (each, work) not in results.figures
    ]
    return missing + [each.key for each in ALONE if each.key not in results.alone]


def compare(rounds: int, folder: Path, into: Path, divisor: int) -> None:
    """Measure, print the bars and ratios, and write the page and the charts."""
    folder.mkdir(parents=True, exist_ok=True)
    into.mkdir(parents=True, exist_ok=True)
    missing = install(folder)
    packages = [package for package in PACKAGES if package not in missing]
    participants = [each for each in PARTICIPANTS if {each.package, each.server}.isdisjoint(missing)]
    costs = imports(rounds, folder, packages)
    results = evolve(
        measure(rounds, folder, participants, divisor),
        imports=costs[str(OURS.imports)] / costs[IMPORTS],
        size=OURS.size(folder),
    )
    figures = results.figures
    plot(figures, participants, into)
    gaps = _missing(missing, _failed(results, participants))
    page = _PAGE.format(
        rounds=rounds,
        python=platform.python_version(),
        cpus=os.cpu_count(),
        system=platform.system(),
        load=os.getloadavg()[2],
        tried=""
        if divisor == 1
        else f" Counts and sizes were divided by {divisor}, to try it out: these are no figures.",
        bars=bars(results),
        ratios=ratios(figures),
        missing=gaps,
        absolute=absolute(figures, participants),
        latencies=latencies(figures, participants),
        imports=import_table(costs, folder, packages),
    )
    (into / "README.md").write_text(page, encoding="utf-8")
    sys.stdout.write(f"{bars(results)}\n\n{ratios(figures)}\n\n{gaps}\n")
