"""What the command line chooses for a run of the tests: `pytest --network dev --rules snapshot --campaigns all`.

The same tests hold over each network, by each server's rules and on each kind of asyncio loop. `network_on` makes the
network of a test out of a store and a clock, which are the test's own: so all of it happens in this process, and in
virtual time.

Campaigns try a great many cases: every crash point, every interruption, generated call graphs. A run takes a sample of
them, which the seed chooses: other ones in each run, and the same ones again with the seed that the run has printed.
"""

from __future__ import annotations

import random
import shlex
import zlib
from secrets import token_hex
from typing import Any, Final

import pytest
from attrs import define, field

from resonate_anyio._protocol import ANNOUNCED, EMBEDDED, RELEASE, SNAPSHOT, SPECIFIED, Rules
from resonate_anyio.abc import Clock, Network, Store
from resonate_anyio.networks import LocalNetwork

from .loops import KINDS
from .over_http import OverHttp

RULES: Final = {
    "embedded": EMBEDDED,
    "release": RELEASE,
    "snapshot": SNAPSHOT,
    "announced": ANNOUNCED,
    "specified": SPECIFIED,
}


BACKENDS: Final = ("asyncio", "trio")


@define
class Chosen:
    """What was chosen for this run of the tests.

    Attributes:
        network: `local`: the engine is embedded; `dev`: it is reached by HTTP.
        rules: those of the engine.
        asyncio: how asyncio runs: `plain`, in `debug` mode, with `eager` tasks, or by `uvloop`.
        campaigns: 0: a sample; 1: all there is; more: so many times as many generated cases, too.
        seed: what chooses the samples.
        test: the test that is running.
    """

    network: str = "local"
    rules: Rules = EMBEDDED
    asyncio: str = "plain"
    campaigns: int = 0
    seed: str = field(factory=lambda: token_hex(4))
    test: str = ""

    @property
    def whole(self) -> bool:
        """Whether a campaign tries all that it has."""
        return self.campaigns > 0

    @property
    def usual(self) -> bool:
        """Whether tests run as they do without options. Of what is slow, other ways to run take smaller samples."""
        return self.network == "local" and self.rules is EMBEDDED and self.asyncio == "plain"

    def cases(self, count: int) -> int:
        """How many cases a campaign generates that has `count` of them as a whole."""
        return count * self.campaigns or max(1, count // (4 if self.usual else 12))

    def chance(self) -> random.Random:
        """What chooses for the test that is running: the same each time that it runs with this seed."""
        return random.Random(f"{self.seed} {self.test}")  # noqa: S311 - nothing here is secret


CHOSEN: Final = Chosen()


def add_options(parser: pytest.Parser) -> None:
    """Let the command line choose."""
    group = parser.getgroup("resonate-anyio")
    group.addoption("--network", choices=["local", "dev"], default="local", help="the network that tests run over")
    group.addoption("--rules", choices=[*RULES], default="embedded", help="the rules that its engine follows")
    group.addoption("--asyncio", choices=[*KINDS], default="plain", help="how asyncio runs; trio is left out then")
    group.addoption(
        "--campaigns",
        type=_campaigns,
        default=0,
        metavar="sample|all|N",
        help="how much of a campaign is tried: a sample (default), all, or N times as many generated cases as well",
    )
    group.addoption("--seed", help="what samples are chosen by; as a failure or the head of the report tells it")


def choose(config: pytest.Config) -> None:
    """Take what the command line has chosen."""
    CHOSEN.network = str(config.getoption("--network"))
    CHOSEN.rules = RULES[str(config.getoption("--rules"))]
    CHOSEN.asyncio = str(config.getoption("--asyncio"))
    CHOSEN.campaigns = int(config.getoption("--campaigns") or 0)
    # Processes of pytest-xdist have it from the one that started them.
    given = getattr(config, "workerinput", {}).get("seed")
    CHOSEN.seed = given or config.getoption("--seed") or CHOSEN.seed


def _campaigns(text: str) -> int:
    return {"sample": 0, "all": 1}[text] if text in {"sample", "all"} else int(text)


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not in the sample, and the tests on trio where asyncio runs in another way than usually.

    A test that the command line names is not left out.
    """
    named = any("::" in arg for arg in config.args)
    kept = [item for item in items if (named or _in_sample(item)) and not _is_on_another_backend(item)]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


def _in_sample(item: pytest.Item) -> bool:
    if CHOSEN.whole:
        return True
    marker = item.get_closest_marker("sampled")
    if marker is not None:
        one_in: int = marker.kwargs["one_in"] if CHOSEN.usual else marker.kwargs["elsewhere"]
        return _drawn(item.nodeid) % one_in == 0
    if CHOSEN.usual or CHOSEN.asyncio != "plain":
        return True
    # Elsewhere than usual, each test runs on one of the backends: another one in each run.
    parameters = _parameters(item)
    backend = parameters.get("anyio_backend", parameters.get("backend"))
    pair = item.nodeid.replace("asyncio", "trio")
    return backend not in BACKENDS or backend == BACKENDS[_drawn(pair) % len(BACKENDS)]


def _drawn(text: str) -> int:
    return zlib.crc32(f"{CHOSEN.seed} {text}".encode())


def _is_on_another_backend(item: pytest.Item) -> bool:
    return CHOSEN.asyncio != "plain" and _parameters(item).get("anyio_backend") != "asyncio"


def _parameters(item: pytest.Item) -> dict[str, Any]:
    """Return the parameters of a test; there are none if it is not parametrized."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return parameters


def again(nodeid: str) -> str:
    """The command that runs a test as it has just run."""
    options = {
        "--network": ("local", CHOSEN.network),
        "--rules": ("embedded", next(name for name, rules in RULES.items() if rules is CHOSEN.rules)),
        "--asyncio": ("plain", CHOSEN.asyncio),
        "--campaigns": ("sample", {0: "sample", 1: "all"}.get(CHOSEN.campaigns, str(CHOSEN.campaigns))),
    }
    given = [f"{option} {value}" for option, (default, value) in options.items() if value != default]
    return " ".join(["python -m pytest", *given, f"--seed {CHOSEN.seed}", shlex.quote(nodeid)])


def dotted(id: str) -> str:
    """An id as tests write it. By some rules what stands between a root and the first part below it is a colon."""
    return id.replace(CHOSEN.rules.separator, ".", 1)


def native(id: str) -> str:
    """An id that a test has written, as the chosen rules read it."""
    return id.replace(".", CHOSEN.rules.separator, 1)


def skip_if_not_meant(test: pytest.Function) -> None:
    """Skip what holds for the embedded engine only when that is not what was chosen."""
    marker = test.get_closest_marker("embedded")
    if marker is not None and CHOSEN.network != "local":
        test.add_marker(pytest.mark.skip(reason=marker.args[0]))


def network_on(
    store: Store,
    clock: Clock,
    *,
    rules: Rules | None = None,
    safety_sweep: float | None = None,
    keep_leases: bool = False,
) -> Network:
    """A network on this store, for several `Resonate` objects to share. See `LocalNetwork` for the arguments."""
    rules = rules or CHOSEN.rules
    engine = LocalNetwork(store, clock=clock, rules=rules, safety_sweep=safety_sweep, keep_leases=keep_leases)
    return OverHttp(engine, clock) if CHOSEN.network == "dev" else engine
