"""What the answers to the two heartbeats say about a server."""

from __future__ import annotations

import logging
from functools import partial

import pytest

from resonate_anyio._protocol import RELEASE, SNAPSHOT, Response, Rules, apply
from resonate_anyio.abc import Dialect
from resonate_anyio.networks._probe import dialect_of, probes
from resonate_anyio.stores import MemoryStore


@pytest.mark.parametrize(
    ("dots", "colons", "expected"),
    [
        (200, 200, Dialect(separator=".", origins_mix=True)),
        (200, 400, Dialect(separator=".", origins_mix=False)),
        (400, 200, Dialect(separator=":", origins_mix=False)),
        (400, 400, Dialect(separator=".", origins_mix=False)),
        (403, 403, Dialect(separator=".", origins_mix=False)),
        (401, 401, None),
        (500, 200, None),
        (200, 500, None),
    ],
)
def test_two_statuses_tell_the_dialect(dots: int, colons: int, expected: Dialect | None) -> None:
    """Each known server has its pair; what is none says nothing, so that it is asked again."""
    assert expected == dialect_of(Response(status=dots), Response(status=colons), "")


def test_a_server_that_refuses_both_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown server is treated with care, and the log has its own words."""
    with caplog.at_level(logging.WARNING, "resonate_anyio"):
        dialect_of(Response(status=400, error="why"), Response(status=400, error="because"), "")

    assert "why; because" in caplog.text


@pytest.mark.parametrize("prefix", ["app.", "prod:"])
def test_a_prefix_with_a_separator_says_nothing_about_mixing(prefix: str) -> None:
    """It makes one root of all four ids, so that accepting them is no sign."""
    answer = Response(status=200)

    assert Dialect(separator=".", origins_mix=False) == dialect_of(answer, answer, prefix)


def test_a_prefix_goes_before_each_id() -> None:
    """A token that is limited to it lets nothing else be named."""
    dots, colons = probes("me", "app1")

    assert ["app1a.x", "app1a.y"] == [task.id for task in dots.tasks]
    assert ["app1a:x", "app1a:y"] == [task.id for task in colons.tasks]
    assert {"me"} == {dots.pid, colons.pid}


@pytest.mark.parametrize(("rules", "mix"), [(RELEASE, True), (SNAPSHOT, False)])
def test_the_embedded_rules_are_told_apart(rules: Rules, mix: bool) -> None:
    """The machine answers the probes as the servers do whose rules it follows."""
    store = MemoryStore()
    store.open()

    steps = [partial(apply, now=0, request=probe, rules=rules) for probe in probes("me", "")]
    dots, colons = [outcome.response for outcome in store.transact(steps)]

    assert Dialect(separator=".", origins_mix=mix) == dialect_of(dots, colons, "")
