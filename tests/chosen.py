"""The network that the tests run over, and the rules that its engine follows: `pytest --network dev --rules snapshot`.

The same tests hold over each. `network_on` makes what a test asks for out of a store and a clock, which are the test's
own: so all of it happens in this process, and in virtual time.
"""

from __future__ import annotations

from secrets import token_hex
from typing import Final

import pytest
from attrs import define, field

from resonate_anyio._protocol import ANNOUNCED, EMBEDDED, RELEASE, SNAPSHOT, SPECIFIED, Rules
from resonate_anyio.abc import Clock, Network, Store
from resonate_anyio.networks import LocalNetwork

from .over_http import OverHttp

RULES: Final = {
    "embedded": EMBEDDED,
    "release": RELEASE,
    "snapshot": SNAPSHOT,
    "announced": ANNOUNCED,
    "specified": SPECIFIED,
}


@define
class Chosen:
    """What was chosen for this run of the tests.

    Attributes:
        network: `local`: the engine is embedded; `dev`: it is reached by HTTP.
        rules: those of the engine.
        every_interrupt: whether every interruption is tried, and some hundred processes get a signal.
        seed: what samples that differ from run to run are chosen by.
    """

    network: str = "local"
    rules: Rules = EMBEDDED
    every_interrupt: bool = False
    seed: str = field(factory=lambda: token_hex(4))

    @property
    def exhaustive(self) -> bool:
        """Whether every crash point and every example is tried: the same of each network would take too long."""
        return self.network == "local" and self.rules is EMBEDDED


CHOSEN: Final = Chosen()


def add_options(parser: pytest.Parser) -> None:
    """Let the command line choose."""
    group = parser.getgroup("resonate-anyio")
    group.addoption("--network", choices=["local", "dev"], default="local", help="the network that tests run over")
    group.addoption("--rules", choices=[*RULES], default="embedded", help="the rules that its engine follows")
    group.addoption(
        "--interrupts", choices=["sample", "all"], default="sample", help="how many interruptions are tried"
    )
    group.addoption("--seed", help="what samples are chosen by; as a failure or the head of the report tells it")


def choose(config: pytest.Config) -> None:
    """Take what the command line has chosen."""
    CHOSEN.network = str(config.getoption("--network"))
    CHOSEN.rules = RULES[str(config.getoption("--rules"))]
    CHOSEN.every_interrupt = config.getoption("--interrupts") == "all"
    CHOSEN.seed = config.getoption("--seed") or CHOSEN.seed


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
