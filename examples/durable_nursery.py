"""All or nothing: files are checked and copied in parallel; one that is bad cancels the rest, and copies are removed.

    python examples/durable_nursery.py                     two releases of packages of Python's own library
    python examples/durable_nursery.py --crash-after 30    dies by kill -9 on the way; the next run continues
    python examples/durable_nursery.py json email          one release, of these packages
    python examples/durable_nursery.py --backend trio

A file is bad if it does not say in a docstring what it is for. In the standard library there are such files: the first
release has none, the second one has some. Each release is a task group of packages, each package one of files. What is
undone, and how far that has come, is on record as well, so the program may be killed while it tidies up.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import CancelScope, to_thread

from resonate_anyio import Context, DurableFuture, Info, Resonate, StoreError

RELEASES = {
    "release-1": ["html", "json", "logging", "urllib", "wsgiref"],
    "release-2": ["json", "email", "encodings", "wsgiref"],
}

STEPS = {
    ("copy_file", "resolved"): "copied",
    ("copy_file", "rejected"): "refused",
    ("copy_file", "rejected_canceled"): "cancelled",
    ("remove_copy", "resolved"): "removed",
}


class BadFileError(Exception):
    """The file must not be released."""


# --- The durable functions -------------------------------------------------------------------------------------------


async def release(ctx: Context, root: str, packages: list[str], target: str) -> int:
    """Copy all packages or none; return how many files there are. If one fails the others are cancelled."""
    copies: dict[str, DurableFuture[list[str]]] = {}
    try:
        async with ctx.task_group() as tg:
            copies = {package: tg.run(copy_package, root, package, target) for package in packages}
    except* BadFileError:
        # Packages that were on the way have undone their part. Those that were there already are undone here.
        complete = [copy.result() for copy in copies.values() if copy.exception() is None]
        await ctx.map(remove_copy, [f"{target}/{file}" for files in complete for file in files], limit=4)
        raise
    return sum(len(copy.result()) for copy in copies.values())


async def copy_package(ctx: Context, root: str, package: str, target: str) -> list[str]:
    """Copy all files of a package, four at a time, or none; return their paths below the root."""
    files = await ctx.run(list_files, root, package)
    try:
        async with ctx.task_group(limit=4) as tg:
            for file in files:
                tg.run(copy_file, root, file, target)
    except BaseException:
        # A file of this package is bad, or one of another, whose failure has cancelled this one. Under the shield
        # durable calls can be made all the same, and the release does not end before this does.
        with CancelScope(shield=True):
            await ctx.map(remove_copy, [f"{target}/{file}" for file in files], limit=4)
        raise
    return files


async def copy_file(info: Info, root: str, file: str, target: str) -> None:
    """Check a file and copy it.

    A leaf without `async` would run in a thread that is left behind when its call is cancelled, and might copy the
    file after it was removed. This one is not over before its thread is.
    """
    await to_thread.run_sync(check_and_copy, root, file, target)
    info.get_dependency(Journal).note(info)


async def remove_copy(info: Info, copy: str) -> bool:
    """Remove what was copied, if it was: a call that was cancelled may have got that far. Return whether it had."""
    there = await to_thread.run_sync(remove, Path(copy))
    info.get_dependency(Journal).note(info)
    return there


def list_files(root: str, package: str) -> list[str]:
    """The paths of the package's Python files below the root."""
    files = (path for path in Path(root, package).rglob("*.py") if "__pycache__" not in path.parts)
    return sorted(path.relative_to(root).as_posix() for path in files)


# --- Plain functions: nothing below knows of durability --------------------------------------------------------------


def check_and_copy(root: str, file: str, target: str) -> None:
    """Copy a file if it is good. It may have been done before, or half done: a step may run twice."""
    source, copy = Path(root, file), Path(target, file)
    if not has_docstring(source):
        msg = f"{file} has no docstring"
        raise BadFileError(msg)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, part_of(copy))
    part_of(copy).replace(copy)


def has_docstring(source: Path) -> bool:
    """Whether a file begins with a string, comments aside, or is empty."""
    with tokenize.open(source) as lines:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type not in {tokenize.COMMENT, tokenize.NL}:
                return token.type in {tokenize.STRING, tokenize.ENDMARKER}
    return False


def remove(copy: Path) -> bool:
    """Remove a copy and what a killed process has left of one; tell whether there was anything."""
    there = [path for path in (copy, part_of(copy)) if path.exists()]
    for path in there:
        path.unlink()
    return bool(there)


def part_of(copy: Path) -> Path:
    """Where a copy is made before it is complete."""
    return copy.with_suffix(".part")


# --- The program -----------------------------------------------------------------------------------------------------


@dataclass
class Journal:
    """Counts what this process has done. A dependency of the durable functions: it is not recorded."""

    crash_after: int | None = None
    steps: int = 0

    def note(self, info: Info) -> None:
        """A step is done, and about to be recorded."""
        self.steps += 1
        if self.steps == self.crash_after:
            print(f"crashing in {info.id}; run me again without --crash-after", flush=True)
            # Windows has no SIGKILL; SIGTERM does there what SIGKILL does elsewhere.
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


async def main(root: Path, releases: dict[str, list[str]], database: Path, crash_after: int | None = None) -> None:
    """Make the releases, or continue with them, or show what came of them before."""
    journal = Journal(crash_after)
    resonate = Resonate.local(database, grace=1)
    resonate.register(release)
    resonate.with_dependency(journal)
    async with resonate:
        for id, packages in releases.items():
            target = database.with_suffix("") / id
            if earlier := await steps(resonate, id):
                print(f"{id}: {sum(earlier.values())} steps are on record from an earlier run")
            try:
                files = await resonate.run(id, release, str(root), packages, str(target))
                print(f"{id}: released, {files} files")
            except* BadFileError as refused:
                print(f"{id}: refused, {', '.join(map(str, leaves(refused)))}")
            found = await steps(resonate, id)
            print("  on record:", ", ".join(f"{found[step]} {step}" for step in STEPS.values() if step in found))
            print(f"  on disk: {sum(path.is_file() for path in target.rglob('*'))} files in {target}")
    print(f"{journal.steps} files copied or removed by this run")


async def steps(resonate: Resonate, id: str) -> dict[str, int]:
    """How many files are on record as copied, refused, and so on. Ids tell what they are: release-2.copy_file-7."""
    found: dict[str, int] = {}
    async for promise in resonate.promises.search(tags={"resonate:origin": id}):
        step = STEPS.get((promise.id.rpartition(".")[2].partition("-")[0], promise.state))
        if step is not None:
            found[step] = found.get(step, 0) + 1
    return found


def leaves(group: BaseExceptionGroup[BadFileError]) -> Iterator[BaseException]:
    """What is in a group, and in the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Release packages of the standard library, all or nothing.")
    parser.add_argument("packages", nargs="*", help="default: two releases, a good one and a bad one")
    parser.add_argument("--database", type=Path, default=Path("releases.db"), help="default: %(default)s")
    parser.add_argument("--crash-after", type=int, metavar="N", help="die by kill -9 after N steps")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    releases = {f"release-{'-'.join(args.packages)}": args.packages} if args.packages else RELEASES
    program = partial(main, Path(sysconfig.get_path("stdlib")), releases, args.database, args.crash_after)
    try:
        anyio.run(program, backend=args.backend)
    except StoreError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run the same command again to continue")
