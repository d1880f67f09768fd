"""A sample of the generated workflows on a server that others use, too, by the wall clock.

What a workflow comes to is told by the embedded engine in virtual time, where its waits take days. Here they take
seconds, and the same has to come out, however executions that wait are kept: hot, parked, or unloaded and replayed.
Nobody from outside settles or cancels anything, and no process dies: in so short a time that would change what comes
first. `test_sample.py` has the processes that die.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import anyio
import pytest
from anyio import create_task_group
from attrs import define
from hypothesis import Phase, given, settings

from resonate_anyio import Resonate
from resonate_anyio.testing import VirtualClock
from tests.properties import graphs
from tests.properties.graphs import ROOT, Leaf, Plan, seconds
from tests.properties.interpreter import FUNCTIONS, flow
from tests.properties.ledger import Ledger
from tests.properties.outside import Outside
from tests.properties.play import _lasting, play
from tests.properties.strategies import plans

from .conftest import TTL, Site

pytestmark = [
    pytest.mark.wall(limit=200),
    # The sample is made by a fixture, which takes its time.
    pytest.mark.timeout(200, func_only=True),
    pytest.mark.skipif(not os.environ.get("RESONATE_TEST_URL"), reason="dev has such a sample in virtual time"),
]

SAMPLE: Final = 50

AT_ONCE: Final = 25
"""How many of them are under way in one test."""

UNIT: Final = 4.0
"""Seconds that the shortest wait takes. Servers look once a second for what is due, so several waits may be late."""

KEPT: Final[tuple[Mapping[str, Any], ...]] = ({}, {"hot_for": 0}, {"hot_for": 0, "parked_limit": 0})

_BY_OTHERS: Final = re.compile(
    r"External\(|cancelled=\d|failures=(None|[1-9])|work=None|plan=Plan\(flow=Flow\(steps=\(\)\)"
)


def sample() -> list[Plan]:
    """Plans that need nobody from outside, and in which nothing but waits takes time."""
    found: dict[str, Plan] = {}

    @settings(max_examples=5000, derandomize=True, database=None, phases=[Phase.generate], deadline=None)
    @given(plans(waits=3))
    def collect(plan: Plan) -> None:
        if plan.flow.steps and not _BY_OTHERS.search(repr(plan)):
            found.setdefault(repr(plan), plan)
        if len(found) == SAMPLE:
            raise _Enough

    with suppress(_Enough):
        collect()
    return list(found.values())


class _Enough(Exception):
    """The sample is whole. Nothing else ends the generation of examples early."""


@define(eq=False)
class Alone(Outside):
    """Nobody is outside; a step takes as long as it says."""

    async def work(self, id: str, plan: Leaf) -> str:
        assert plan.work is not None
        end = self._ends.setdefault(id, anyio.current_time() + seconds(plan.work))
        await anyio.sleep_until(end)
        return self._result(id, plan)


@pytest.fixture(scope="module")
def plans_and_ends() -> list[tuple[Plan, str]]:
    """The sample, and what each plan comes to."""
    return [(plan, _told(*play(plan, "asyncio").outcomes[ROOT][0])) for plan in sample()]


def _told(state: str, value: object) -> str:
    return json.dumps([state, value], sort_keys=True)


@pytest.mark.parametrize("first", range(0, SAMPLE, AT_ONCE))
async def test_generated_workflows(
    site: Site, monkeypatch: pytest.MonkeyPatch, plans_and_ends: list[tuple[Plan, str]], first: int
) -> None:
    """Each comes to the same as on the embedded engine, however its executions are kept while they wait."""
    assert SAMPLE == len(plans_and_ends)
    batch = plans_and_ends[first : first + AT_ONCE]
    monkeypatch.setattr(graphs, "UNIT", UNIT)
    outside = Alone(Plan(), Ledger(VirtualClock()))
    found: dict[str, str] = {}
    async with outside._intend, outside._intended, AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(_worker(site, number, outside)) for number in range(len(KEPT))]
        async with create_task_group() as tasks:
            for number, (plan, _) in enumerate(batch):
                tasks.start_soon(_run, workers[number % len(KEPT)], f"p{number}", plan, found)
    assert {f"p{number}": end for number, (_, end) in enumerate(batch)} == found
    assert [] == outside.faults


def _worker(site: Site, number: int, outside: Outside) -> Resonate:
    network, group = site.network(), site.group(f"-{number}")
    resonate = Resonate(network=network, group=group, prefix=f"{site.name}-", ttl=TTL, grace=0, **KEPT[number])
    for function in FUNCTIONS:
        resonate.register(function)
    return resonate.with_dependency(outside, Outside)


async def _run(resonate: Resonate, id: str, plan: Plan, found: dict[str, str]) -> None:
    handle = await resonate.run(id, flow, plan.flow).spawn()
    # However it ends, what is on record is what counts.
    with suppress(Exception):
        await handle
    promise = await resonate.promises.get(handle.id)
    found[id] = _told(promise.state, _lasting(promise.value)).replace(handle.id, ROOT)
