"""The source of the package as syntax trees, and the room that each module is in.

A room is a package or a module directly below `resonate_anyio`. Their order is that of the first contract of
import-linter in `pyproject.toml`.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from attrs import field, frozen

PACKAGE: Final = "resonate_anyio"
TOP: Final = Path(__file__).parents[2]
SOURCE: Final = TOP / "src" / PACKAGE


@frozen(slots=False)
class Module:
    """One module of the package.

    Attributes:
        name: its full name.
        path: its file.
        tree: its syntax tree.
    """

    name: str
    path: Path
    tree: ast.Module = field(repr=False, eq=False)

    @property
    def room(self) -> str:
        """The room that it is in; empty for the package's own `__init__`."""
        return room_of(self.name)

    @property
    def short(self) -> str:
        """Its name below the package."""
        return self.name.removeprefix(f"{PACKAGE}.")

    @cached_property
    def imports(self) -> dict[str, str]:
        """Each name that is imported anywhere in the module, and the full name of what it stands for."""
        return dict(self._imports())

    def _imports(self) -> Iterator[tuple[str, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    yield alias.asname or first, alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node)
                for alias in node.names:
                    yield alias.asname or alias.name, f"{origin}.{alias.name}"

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.name.split(".") if self.path.name == "__init__.py" else self.name.split(".")[:-1]
        above = package[: len(package) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])


def room_of(name: str) -> str:
    """The room that a name of the package is in; empty for the package itself."""
    return name.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


@cache
def modules() -> dict[str, Module]:
    """Every module of the package by its full name."""
    return {module.name: module for module in map(_read, sorted(SOURCE.rglob("*.py")))}


def _read(path: Path) -> Module:
    parts = [PACKAGE, *path.relative_to(SOURCE).with_suffix("").parts]
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))


def order() -> list[list[str]]:
    """The rooms from the highest to the lowest; those of one row do not import each other."""
    settings = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    layers: list[str] = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[room.strip(" ()") for room in row.replace(":", "|").split("|")] for row in layers]


def rooms() -> set[str]:
    """Every room."""
    return {room for row in order() for room in row}


def rooms_above(room: str) -> set[str]:
    """Every room that is higher than this one."""
    above: set[str] = set()
    for row in order():
        if room in row:
            return above
        above.update(row)
    raise LookupError(room)


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore and is not one of Python's own."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))
