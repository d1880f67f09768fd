"""`python -m tests.benchmarks compare` compares this package with its peers, and writes `README.md` of this folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import gettempdir

from .compare import HERE, compare


def main() -> None:
    """Read the options, and compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("compare", help="compare this package with its peers")
    command.add_argument("--rounds", type=int, default=3, help="how often each measurement is repeated")
    command.add_argument(
        "--environments",
        type=Path,
        default=Path(gettempdir(), "resonate-anyio-peers"),
        help="the folder for the environments of the peers, which are kept",
    )
    command.add_argument("--into", type=Path, default=HERE, help="the folder for the page and the charts")
    command.add_argument("--divisor", type=int, default=1, help="by what counts and sizes are divided, to try it out")
    options = parser.parse_args()
    compare(options.rounds, options.environments, options.into, options.divisor)


if __name__ == "__main__":
    main()
