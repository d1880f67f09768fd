"""All or nothing: files are checked and copied in parallel. A bad file cancels the rest, and all copies are removed.

    python examples/durable_nursery.py                     two releases of packages of the standard library
    python examples/durable_nursery.py --crash-after 30    dies by kill -9 halfway; the next run continues
    python examples/durable_nursery.py json email          one release, of these packages
    python examples/durable_nursery.py --backend trio

A file is bad if it has no docstring. The standard library has such files: the first release contains none of them, the
second one some. Each release is a task group of packages, and each package is a task group of files. Removing copies is
recorded too, so the program may be killed during that and continues it.
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
    """Copy all packages or none, and return the number of files. If one fails, the others are cancelled."""
    copies: dict[str, DurableFuture[list[str]]] = {}
    try:
        async with ctx.task_group() as tg:
            copies = {package: tg.run(copy_package, root, package, target) for package in packages}
    except* BadFileError:
        # Unfinished packages have removed their own copies. The copies of finished packages are removed here.
        complete = [copy.result() for copy in copies.values() if copy.exception() is None]
        await ctx.map(remove_copy, [f"{target}/{file}" for files in complete for file in files], limit=4)
        raise
    return sum(len(copy.result()) for copy in copies.values())


async def copy_package(ctx: Context, root: str, package: str, target: str) -> list[str]:
    """Copy all files of a package, four at a time, or none. Return their paths below the root."""
    files = await ctx.run(list_files, root, package)
    try:
        async with ctx.task_group(limit=4) as tg:
            for file in files:
                tg.run(copy_file, root, file, target)
    except BaseException:
        # A file of this package is bad, or a file of another one, whose failure has cancelled this package. Under the
        # shield durable calls can still be made, and the release does not end before they do.
        with CancelScope(shield=True):
            await ctx.map(remove_copy, [f"{target}/{file}" for file in files], limit=4)
        raise
    return files


async def copy_file(info: Info, root: str, file: str, target: str) -> None:
    """Check a file and copy it.

    A leaf without `async` would run in a thread that goes on when its call is cancelled, and that might copy the file
    after it was removed. This leaf does not end before its thread has ended.
    """
    await to_thread.run_sync(check_and_copy, root, file, target)
    info.get_dependency(Journal).note(info)


async def remove_copy(info: Info, copy: str) -> bool:
    """Remove a copy if it exists, because a cancelled call may have made it. Return whether it existed."""
    there = await to_thread.run_sync(remove, Path(copy))
    info.get_dependency(Journal).note(info)
    return there


def list_files(root: str, package: str) -> list[str]:
    """Return the paths of the package's Python files below the root."""
    files = (path for path in Path(root, package).rglob("*.py") if "__pycache__" not in path.parts)
    return sorted(path.relative_to(root).as_posix() for path in files)


# --- Plain functions: none of them is durable ------------------------------------------------------------------------


def check_and_copy(root: str, file: str, target: str) -> None:
    """Copy a file if it is good. The copy may exist already, or a part of it, because a step may run twice."""
    source, copy = Path(root, file), Path(target, file)
    if not has_docstring(source):
        msg = f"{file} has no docstring"
        raise BadFileError(msg)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, part_of(copy))
    part_of(copy).replace(copy)


def has_docstring(source: Path) -> bool:
    """Return whether the first token of a file that is not a comment is a string, or the file is empty."""
    with tokenize.open(source) as lines:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type not in {tokenize.COMMENT, tokenize.NL}:
                return token.type in {tokenize.STRING, tokenize.ENDMARKER}
    return False


def remove(copy: Path) -> bool:
    """Remove a copy, and a partial copy of a killed process. Return whether there was one."""
    there = [path for path in (copy, part_of(copy)) if path.exists()]
    for path in there:
        path.unlink()
    return bool(there)


def part_of(copy: Path) -> Path:
    """Return the path of an incomplete copy."""
    return copy.with_suffix(".part")


# --- The program -----------------------------------------------------------------------------------------------------


@dataclass
class Journal:
    """Counts the steps of this process. It is a dependency of the durable functions, so it is not recorded."""

    crash_after: int | None = None
    steps: int = 0

    def note(self, info: Info) -> None:
        """Count a step that has ended and will be recorded next."""
        self.steps += 1
        if self.steps == self.crash_after:
            print(f"crashing in {info.id}; run me again without --crash-after", flush=True)
            # Windows has no SIGKILL; SIGTERM does there what SIGKILL does elsewhere.
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


async def main(root: Path, releases: dict[str, list[str]], database: Path, crash_after: int | None = None) -> None:
    """Make the releases, continue an earlier run, or show the result of one that has finished."""
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
    """Return how many files are recorded as copied, refused, and so on. An id is like release-2.copy_file-7."""
    found: dict[str, int] = {}
    async for promise in resonate.promises.search(tags={"resonate:origin": id}):
        step = STEPS.get((promise.id.rpartition(".")[2].partition("-")[0], promise.state))
        if step is not None:
            found[step] = found.get(step, 0) + 1
    return found


def leaves(group: BaseExceptionGroup[BadFileError]) -> Iterator[BaseException]:
    """Yield the errors of a group, and of the groups inside it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
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
