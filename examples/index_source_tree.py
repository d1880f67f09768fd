"""Index a tree of Python source files, durably and in parallel. It survives a crash.

    python examples/index_source_tree.py                      the standard library of the running Python
    python examples/index_source_tree.py --crash-after 500    dies by kill -9 halfway; the next run continues
    python examples/index_source_tree.py path/to/sources --backend trio

Each file is a durable step, recorded in a SQLite file (`--database`), so a file that was indexed is not indexed again.
A workflow for the tree calls a workflow for each package, which calls a leaf for each file. Parsing keeps a processor
busy, and threads of one Python share one processor, so the leaves parse in worker processes.
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import signal
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path

import anyio
from anyio import BrokenWorkerProcess, CapacityLimiter, to_process
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from resonate_anyio import Constant, Context, Info, Resonate, StoreError

SKIPPED = {"site-packages", "dist-packages", "node_modules", "__pycache__"}


# --- Recorded values: plain dataclasses, read back as the same types ------------------------------------------------


@dataclass(frozen=True)
class Stats:
    """The counts of one file, or of many."""

    files: int = 0
    unreadable: int = 0
    lines: int = 0
    classes: int = 0
    functions: int = 0
    imports: int = 0
    longest: int = 0
    longest_name: str = ""

    def __add__(self, other: Stats) -> Stats:
        longest = max(self, other, key=lambda stats: stats.longest)
        return Stats(
            files=self.files + other.files,
            unreadable=self.unreadable + other.unreadable,
            lines=self.lines + other.lines,
            classes=self.classes + other.classes,
            functions=self.functions + other.functions,
            imports=self.imports + other.imports,
            longest=longest.longest,
            longest_name=longest.longest_name,
        )


@dataclass(frozen=True)
class Package:
    """A folder directly below the root, with the paths of all its files below the root."""

    name: str
    files: list[str]


@dataclass(frozen=True)
class PackageStats:
    """The counts of one package."""

    name: str
    stats: Stats


# --- The durable functions -------------------------------------------------------------------------------------------


async def index_tree(ctx: Context, root: str, limit: int | None) -> list[PackageStats]:
    """Index the tree: the root workflow. After a crash it runs again from the top; finished calls return at once."""
    packages = await ctx.run(list_packages, root, limit)
    ctx.get_dependency(Board).expect(sum(len(package.files) for package in packages))
    futures = [await ctx.run(index_package, root, package).spawn() for package in packages]
    return [await future for future in futures]


async def index_package(ctx: Context, root: str, package: Package) -> PackageStats:
    """Index one package: a workflow that starts all files at once. `index_file` limits how many are parsed at once."""
    board = ctx.get_dependency(Board)
    again = Constant(attempts=3, on=BrokenWorkerProcess)
    futures = [await ctx.run(index_file, root, file).retry(again).spawn() for file in package.files]
    total = Stats()
    for future in futures:
        total += await future
        board.is_recorded(future.id)
    return PackageStats(package.name, total)


async def index_file(info: Info, root: str, file: str) -> Stats:
    """Index one file: a leaf. After its result is recorded, no later run calls it again."""
    processes = info.get_dependency(CapacityLimiter)
    counts = await to_process.run_sync(count_file, root, file, cancellable=True, limiter=processes)
    info.get_dependency(Board).parsed.add(info.id)
    return Stats(**counts)  # type: ignore[arg-type]


def list_packages(root: str, limit: int | None) -> list[Package]:
    """List all files, by package: a leaf, because the disk may have changed when the workflow runs again.

    It is not `async`, so it runs in a worker thread and may block.
    """
    packages: dict[str, list[str]] = {}
    for file in sorted(python_files(root))[:limit]:
        folder, _, _ = file.rpartition("/")
        packages.setdefault(folder.partition("/")[0] or "(top level)", []).append(file)
    return [Package(name, files) for name, files in packages.items()]


# --- Plain functions: none of them is durable ------------------------------------------------------------------------


def python_files(root: str) -> Iterator[str]:
    """Yield the paths of all Python files below the root, relative to it, with slashes."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.startswith(".")]
        paths = [Path(folder, name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
        # Names that cannot be decoded by the file system's encoding cannot be recorded as text.
        yield from filter(str.isprintable, paths)


def count_file(root: str, file: str) -> dict[str, int | str]:
    """Parse a file and count. This runs in a worker process."""
    try:
        source = Path(root, file).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return {"files": 1, "unreadable": 1}
    nodes = list(statements(tree))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max(functions, key=length, default=None)
    return {
        "files": 1,
        "lines": len(source.splitlines()),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "functions": len(functions),
        "imports": sum(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes),
        "longest": 0 if longest is None else length(longest),
        "longest_name": "" if longest is None else f"{file}:{longest.lineno} {longest.name}",
    }


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all statements of a tree. `ast.walk` visits expressions too, which takes as long as parsing."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, block, None)
            if isinstance(inner, list):
                waiting.extend(inner)


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


# --- The program -----------------------------------------------------------------------------------------------------


@dataclass
class Board:
    """Shows the progress. It is a dependency of the durable functions and not an argument, so it is not recorded."""

    progress: Progress
    crash_after: int | None = None
    parsed: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)
    bar: TaskID = field(init=False)

    def __post_init__(self) -> None:
        self.bar = self.progress.add_task("listing files", total=None)

    def expect(self, files: int) -> None:
        """Set the number of all files."""
        self.progress.update(self.bar, description="indexing", total=files)

    def is_recorded(self, id: str) -> None:
        """Note that the result of a file is recorded, by this run or by an earlier one."""
        self.recorded.add(id)
        self.progress.update(self.bar, completed=len(self.recorded))
        if self.crash_after is not None and len(self.recorded & self.parsed) >= self.crash_after:
            self.crash()

    def crash(self) -> None:
        """Die without cleaning up."""
        self.progress.stop()
        self.progress.console.print(f"crashing after {self.crash_after} files; run me again without --crash-after")
        sys.stdout.flush()
        # Windows has no SIGKILL; SIGTERM does there what SIGKILL does elsewhere.
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


async def main(root: Path, database: Path, limit: int | None, crash_after: int | None) -> list[PackageStats]:
    """Index the tree, continue an earlier run, or show the result of one that has finished."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # The id depends on the arguments only, so a second run with the same arguments joins the same execution.
    job = "index-" + blake2b(repr((str(root), limit)).encode(), digest_size=8).hexdigest()
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    board = Board(progress, crash_after)

    # An interrupted run (Ctrl-C) waits `grace` seconds for its leaves.
    resonate = Resonate.local(database, grace=1)
    resonate.register(index_tree)
    resonate.with_dependency(board)
    resonate.with_dependency(CapacityLimiter(os.cpu_count() or 1))

    async with resonate:
        found = await indexed_files(resonate, job)
        handle = await resonate.run(job, index_tree, str(root), limit).spawn()
        earlier = len(found - board.parsed)
        if await handle.done():
            console.print(f"{root} was indexed before; this is what is recorded in {database}")
        elif earlier:
            console.print(f"continuing: {earlier} files were indexed before the crash")
        started = time.perf_counter()
        with progress:
            packages = await handle
        elapsed = time.perf_counter() - started

    show(console, packages)
    console.print(f"{len(board.parsed)} files parsed by this run in {elapsed:.1f} s, {earlier} by those before it")
    return packages


async def indexed_files(resonate: Resonate, job: str) -> set[str]:
    """Return the ids of all files with a result, such as index-1f2e.index_package-3.index_file-7."""
    done = resonate.promises.search(state="resolved", tags={"resonate:origin": job})
    return {promise.id async for promise in done if promise.id.rpartition(".")[2].startswith("index_file-")}


def show(console: Console, packages: list[PackageStats], rows: int = 15) -> None:
    """Print the largest packages, and the sum of all packages."""
    largest = sorted(packages, key=lambda package: (-package.stats.lines, package.name))
    total = sum((package.stats for package in packages), Stats())
    rest = sum((package.stats for package in largest[rows:]), Stats())
    table = Table(show_footer=True)
    table.add_column("package", f"all {len(packages)}")
    for what in ("files", "lines", "classes", "functions", "imports"):
        table.add_column(what, f"{getattr(total, what):,}", justify="right")
    for package in largest[:rows]:
        table.add_row(package.name, *numbers(package.stats))
    if rest.files:
        table.add_row(f"{len(largest) - rows} more", *numbers(rest))
    console.print(table)
    if total.longest:
        console.print(f"longest function: {total.longest_name}, {total.longest} lines")
    if total.unreadable:
        console.print(f"not readable as Python: {total.unreadable} files")


def numbers(stats: Stats) -> list[str]:
    """Return the cells of a row."""
    return [f"{n:,}" for n in (stats.files, stats.lines, stats.classes, stats.functions, stats.imports)]


def arguments() -> argparse.Namespace:
    """Return the checked arguments of the command line."""
    parser = argparse.ArgumentParser(description="Index a tree of Python source files, durably.")
    stdlib = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("root", nargs="?", type=Path, default=stdlib, help="default: Python's own standard library")
    parser.add_argument("--database", type=Path, default=Path("index.db"), help="SQLite file (default: %(default)s)")
    parser.add_argument("--limit", type=positive, metavar="N", help="index the first N files only")
    parser.add_argument("--crash-after", type=positive, metavar="N", help="die by kill -9 after N files")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio", help="default: %(default)s")
    args = parser.parse_args()
    args.root = args.root.absolute()
    if not args.root.is_dir():
        parser.error(f"there is no directory {args.root}")
    if next(python_files(args.root), None) is None:
        parser.error(f"there are no Python files below {args.root}")
    return args


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"a whole number of at least 1, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


if __name__ == "__mp_main__":
    # This is a worker process. The main process handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

if __name__ == "__main__":
    args = arguments()
    # asyncio of Python 3.11 may log a warning about a worker process that anyio has just ended.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        program = partial(main, args.root, args.database, args.limit, args.crash_after)
        anyio.run(program, backend=args.backend)
    except StoreError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run the same command again to continue")
