"""What the client knows of the worker."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import resonate_anyio

MODULES = sorted(Path(resonate_anyio.__file__).parent.glob("_client/*.py"))
KNOWN = {"_worker._face", "_worker._settings"}

by_name = pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)


def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text("utf-8"))


def imports(module: Path) -> Iterator[str]:
    """The modules of the package that a module imports from, seen from the root of the package."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            yield node.module or ""


@by_name
def test_the_client_sees_the_worker_by_its_face(module: Path) -> None:
    """Of the worker's modules the client imports the face and the settings, and nothing else."""
    assert {name for name in imports(module) if name.startswith("_worker")} <= KNOWN


@by_name
def test_the_client_does_not_look_behind_the_face(module: Path) -> None:
    """The worker that is behind the face is not touched, nor is the execution behind a local one."""
    names = [node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)]
    chains = [ast.unparse(node) for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)]

    assert "_execution" not in names
    assert not [chain for chain in chains if chain.endswith("worker.worker")]


def test_the_face_is_used() -> None:
    """The tests above find imports, if there are any."""
    assert set().union(*map(set, map(imports, MODULES))) >= KNOWN


@by_name
def test_no_module_of_the_client_is_long(module: Path) -> None:
    """A module has at most 500 lines, and a function at most 60."""
    lengths = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert len(module.read_text("utf-8").splitlines()) <= 500
    assert {name: length for name, length in lengths.items() if length > 60} == {}
