"""What `import resonate_anyio` and a first `Resonate.local()` import: what most programs need, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Final

import pytest

PROGRAM: Final = """
import json, sys
import anyio, attrs, cattrs
before = set(sys.modules)
import resonate_anyio
resonate_anyio.Resonate.local()
modules = sorted(set(sys.modules) - before)

def written_by_attrs(kind):
    codes = (getattr(vars(kind).get(name), "__code__", None) for name in ("__eq__", "__hash__", "__repr__"))
    return any(code.co_filename.startswith("<attrs generated") for code in codes if code)

own = [vars(sys.modules[name]).values() for name in modules if name.startswith("resonate_anyio")]
kinds = {thing for values in own for thing in values if isinstance(thing, type)}
names = sorted(f"{kind.__module__}.{kind.__name__}" for kind in kinds if written_by_attrs(kind))
print(json.dumps([modules, [name for name in names if name.startswith("resonate_anyio")]]))
"""
"""A program that prints which modules it has imported besides those libraries, and for which classes attrs has written
methods to compare, hash or show them."""

NOT_AT_ONCE: Final = {
    "anyio.streams": "the backends import it",
    "asyncio": "programs on trio do without",
    "concurrent": "it is for synchronous leaves",
    "croniter": "it is for schedules",
    "cryptography": "it is for the server",
    "dateutil": "it is for schedules",
    "email": "it is for servers that are reached by HTTP",
    "hashlib": "it loads OpenSSL, and is for large arguments",
    "h11": "it is for servers that are reached by HTTP",
    "http": "it is for servers that are reached by HTTP",
    "httpcore": "it is for servers that are reached by HTTP",
    "httpx": "it is for servers that are reached by HTTP",
    "hypercorn": "it is for the server",
    "jwt": "it is for the server",
    "multiprocessing": "nothing needs it",
    "numpy": "programs that use it have imported it",
    "prometheus_client": "it is for the server",
    "pydantic": "programs that use it have imported it",
    "pytz": "it is for schedules",
    "sqlite3": "it is for stores in a file",
    "ssl": "it is for servers that are reached by HTTPS",
    "subprocess": "nothing needs it",
    "tempfile": "nothing needs it",
    "trio": "programs on asyncio do without",
    "zoneinfo": "it is for schedules",
    "resonate_anyio._concurrency._watched": "it is for asyncio",
    "resonate_anyio._observe._events": "it is for programs with observers",
    "resonate_anyio._protocol._debug": "it is for the server",
    "resonate_anyio._protocol._wire": "it is for servers that are reached by HTTP",
    "resonate_anyio._protocol._wire_requests": "it is for servers that are reached by HTTP",
    "resonate_anyio._requests._observed": "it is for programs with observers",
    "resonate_anyio._worker._heartbeats": "it is for servers that are reached by HTTP",
    "resonate_anyio.cli": "it is a program",
    "resonate_anyio.networks._http": "it is for servers that are reached by HTTP",
    "resonate_anyio.observe": "it is for programs with observers",
    "resonate_anyio.server": "it is for the server",
    "resonate_anyio.stores._sqlite": "it is for stores in a file",
    "resonate_anyio.testing": "it is for tests",
}
"""Modules that are imported where they are first needed, and who needs them."""

OWN_MODULES: Final = 156
"""How many modules of this package are imported at most."""

OTHER_MODULES: Final = 60
"""How many of anyio and of the standard library are imported at most, besides those of the libraries above."""

WRITTEN_BY_ATTRS: Final = [
    # The contracts are written in public names only, and `ValueObject` is not one.
    "resonate_anyio.abc.Dialect",
    "resonate_anyio.abc.Gap",
    "resonate_anyio.abc.Identity",
    # Each step compares two.
    "resonate_anyio.protocol.Value",
]
"""The classes for which attrs writes more than `__init__`."""


ENGINE: Final = (
    "resonate_anyio._embedded",
    "resonate_anyio._protocol._cron",
    "resonate_anyio._protocol._machine",
    "resonate_anyio._protocol._sweep",
    "resonate_anyio._protocol._validation",
    "resonate_anyio.networks._local",
    "resonate_anyio.stores._memory",
)
"""Modules that are imported when an embedded engine is made: programs with a server have none."""


@cache
def imported() -> tuple[frozenset[str], list[str]]:
    """Return the modules, and the names of the classes."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    modules, classes = json.loads(done.stdout)
    return frozenset(modules), classes


@pytest.mark.parametrize("name", NOT_AT_ONCE)
def test_what_few_programs_need_is_imported_where_it_is_needed(name: str) -> None:
    """The import, and a first object with a store in memory, do not import what few programs need."""
    modules, _ = imported()

    assert [] == sorted(each for each in modules if f"{each}.".startswith(f"{name}."))


def test_without_an_engine_its_modules_are_not_imported() -> None:
    """The import alone does not import the embedded engine, its store or the rules of a server."""
    program = "import json, sys, resonate_anyio; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert set() == set(ENGINE).intersection(json.loads(done.stdout))


def test_number_of_modules() -> None:
    """Few modules are imported: each one is a file to find, to read and to execute."""
    modules, _ = imported()
    own = {each for each in modules if each.startswith("resonate_anyio")}

    assert len(own) <= OWN_MODULES
    assert len(modules - own) <= OTHER_MODULES, sorted(modules - own)


def test_attrs_writes_only_init() -> None:
    """Attrs compiles what it writes when a class is made: that is `__init__` only, with few exceptions."""
    assert WRITTEN_BY_ATTRS == imported()[1]
