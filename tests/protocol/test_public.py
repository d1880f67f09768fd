"""A store and a network can be written with public modules alone."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path
from typing import get_type_hints

import pytest

import resonate_anyio
from resonate_anyio import Context, Resonate, abc, protocol
from resonate_anyio.abc import Clock
from resonate_anyio.stores import MemoryStore
from resonate_anyio.testing import check_store
from resonate_anyio.testing._bench import Check
from resonate_anyio.testing._check_network import CHECKS, run_check

from ..chosen import RULES
from . import small
from .small import SmallNetwork, SmallStore

PACKAGE = Path(resonate_anyio.__file__).parent


def imported(source: str) -> set[str]:
    """The modules and names of this package that a program imports, absolutely or by way of the tests."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module, names, level):
                found |= {f"{'.' * level}{module or ''}.{alias.name}" for alias in names}
            case _:
                pass
    return {name for name in found if name.startswith(("resonate_anyio", "tests", "."))}


def is_private(name: str) -> bool:
    """Whether a part of a dotted name begins with an underscore, or it is not of this package."""
    return not name.startswith("resonate_anyio") or any(part.startswith("_") for part in name.split("."))


def test_the_small_ones_import_public_modules_only() -> None:
    """The store and the network of this test stand on what any user can import."""
    names = imported(Path(small.__file__).read_text("utf-8"))

    assert names
    assert set() == {name for name in names if is_private(name)}


@pytest.mark.parametrize(
    "line",
    [
        "from resonate_anyio._protocol import View",
        "import resonate_anyio._protocol",
        "from resonate_anyio import _errors",
        "from ..chosen import RULES",
        "from tests.chosen import RULES",
    ],
)
def test_a_private_import_is_noticed(line: str) -> None:
    """What the test above looks for would be found."""
    assert all(map(is_private, imported(line)))
    assert imported(line)


def test_the_small_store_keeps_its_contract() -> None:
    """A store that was written with public names passes every check of stores."""
    check_store(SmallStore)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.strip("_"))
@pytest.mark.parametrize("rules", RULES)
async def test_the_small_network_keeps_its_contract(check: Check, rules: str, clock: Clock) -> None:
    """A network that was written with public names passes every check of networks, by the rules of each server."""
    await run_check(check, SmallNetwork(SmallStore(), clock, RULES[rules]))


async def test_a_program_runs_on_the_small_ones(clock: Clock) -> None:
    """A workflow that sleeps and calls a leaf runs on a store and a network of somebody else's."""

    async def double(number: int) -> int:
        return 2 * number

    async def workflow(ctx: Context) -> int:
        await ctx.sleep(3600)
        return await ctx.run(double, 21)

    resonate = Resonate(network=SmallNetwork(SmallStore(), clock, protocol.EMBEDDED))
    resonate.register(workflow)
    async with resonate:
        assert 42 == await resonate.run("w", workflow)


@pytest.mark.parametrize("name", protocol.__all__)
def test_the_vocabulary_is_at_home_in_its_public_module(name: str) -> None:
    """Reprs and pickles of the vocabulary name the module that users import, and annotations can be resolved there."""
    thing = getattr(protocol, name)
    if isinstance(thing, type):
        assert "resonate_anyio.protocol" == thing.__module__
        get_type_hints(thing)
    assert thing == pickle.loads(pickle.dumps(thing))  # noqa: S301 - it was made here


def test_the_contracts_are_written_in_public_types() -> None:
    """Every name of the package in an annotation of the contracts can be imported from a public module."""
    tree = ast.parse((PACKAGE / "abc.py").read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    names = {alias.name for node in imports for alias in node.names}

    assert names
    assert set() == names - set(protocol.__all__)


def test_every_definition_of_the_contracts_is_named() -> None:
    """`abc.__all__` has each class and each alias that the module defines."""
    body = ast.parse((PACKAGE / "abc.py").read_text("utf-8")).body
    defined = {node.name for node in body if isinstance(node, ast.ClassDef)}
    defined |= {
        node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }

    assert sorted(defined) == list(abc.__all__)


def test_the_memory_store_is_like_the_small_one() -> None:
    """The package's own store passes the same checks."""
    check_store(MemoryStore)
