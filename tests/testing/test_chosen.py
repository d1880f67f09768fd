"""How a run of the tests takes samples: by a seed, so that each run tries other cases, and any run can be repeated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from attrs import asdict

from tests.chosen import CHOSEN, RULES, Chosen, again, choose, select


class Item:
    """A test as far as sampling looks at it."""

    def __init__(self, nodeid: str, *, sampled: bool = True, backend: str = "asyncio") -> None:
        self.nodeid = nodeid
        self.callspec = SimpleNamespace(params={"anyio_backend": backend})
        self._marker = pytest.mark.sampled(one_in=5, elsewhere=20).mark if sampled else None

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self._marker if name == "sampled" else None


ITEMS = [Item(f"tests/test_a.py::test_{number}") for number in range(100)]


@pytest.fixture(autouse=True)
def _chosen_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vars_of(Chosen(seed="a")).items():
        monkeypatch.setattr(CHOSEN, name, value)


def vars_of(options: Chosen) -> dict[str, Any]:
    """Its attributes."""
    return asdict(options, recurse=False)


def kept(items: list[Item], *args: str) -> list[str]:
    """The names of the tests that a run with these arguments is left with."""
    left = list(items)
    config: Any = SimpleNamespace(args=args, hook=SimpleNamespace(pytest_deselected=lambda items: None))
    select(config, cast("list[pytest.Item]", left))
    return [item.nodeid for item in left]


def test_a_seed_takes_a_sample() -> None:
    """About one in so many is taken, and the same ones by the same seed."""
    sample = kept(ITEMS)
    assert 10 <= len(sample) <= 30
    assert sample == kept(ITEMS)


def test_other_seeds_take_others() -> None:
    """Over several runs every test is run."""
    seen: set[str] = set()
    for number in range(60):
        CHOSEN.seed = str(number)
        seen.update(kept(ITEMS))
    assert {item.nodeid for item in ITEMS} == seen


def test_samples_are_smaller_elsewhere() -> None:
    """Over another network, by other rules and on another loop fewer are taken."""
    CHOSEN.network = "dev"
    assert 1 <= len(kept(ITEMS)) <= 12


def test_all_of_it() -> None:
    """`--campaigns all` leaves nothing out, and neither does a test that is named."""
    names = [item.nodeid for item in ITEMS]
    assert names == kept(ITEMS, "tests/test_a.py::test_1")
    CHOSEN.campaigns = 1
    assert names == kept(ITEMS)


def test_what_is_not_sampled_is_run() -> None:
    """A test without the marker is in every run."""
    assert ["t"] == kept([Item("t", sampled=False)])


@pytest.mark.parametrize("option", [{"network": "dev"}, {"rules": RULES["snapshot"]}])
def test_one_backend_elsewhere(option: dict[str, Any]) -> None:
    """Over another network and by other rules each test runs on one backend, by some seeds on the other one."""
    pairs = [
        Item(f"tests/test_a.py::test_{number}[{backend}-x]", sampled=False, backend=backend)
        for number in range(40)
        for backend in ("asyncio", "trio")
    ]
    assert 80 == len(kept(pairs))
    for name, value in option.items():
        setattr(CHOSEN, name, value)
    seen: set[str] = set()
    for CHOSEN.seed in "abcdefghijklmnopqrst":
        names = kept(pairs)
        assert 40 == len({name.replace("asyncio", "trio") for name in names}) == len(names)
        assert len({name.partition("[")[2] for name in names}) == 2
        seen.update(names)
    assert 80 == len(seen)
    CHOSEN.campaigns = 1
    assert 80 == len(kept(pairs))


def test_loops_of_asyncio_are_for_its_tests() -> None:
    """A run on another loop of asyncio has no test on trio."""
    CHOSEN.asyncio = "debug"
    assert ["a"] == kept([Item("a", sampled=False), Item("t", sampled=False, backend="trio")])


def test_cases_are_chosen_by_seed_and_test() -> None:
    """A test tries the same cases when it runs with the same seed, and others with another one."""
    CHOSEN.test = "t"
    first = CHOSEN.chance().random()
    assert first == CHOSEN.chance().random()
    CHOSEN.test = "u"
    assert first != CHOSEN.chance().random()
    CHOSEN.test, CHOSEN.seed = "t", "b"
    assert first != CHOSEN.chance().random()


@pytest.mark.parametrize(("campaigns", "expected"), [(0, 25), (1, 100), (20, 2000)])
def test_generated_cases(campaigns: int, expected: int) -> None:
    """A sample has a quarter of the cases, and `--campaigns N` so many times as many."""
    CHOSEN.campaigns = campaigns
    assert expected == CHOSEN.cases(100)


def test_a_failure_says_how_to_repeat_it() -> None:
    """The command has what differs from a run without options, and the seed."""
    assert "python -m pytest --seed a 'tests/t.py::t[x]'" == again("tests/t.py::t[x]")
    CHOSEN.network, CHOSEN.rules, CHOSEN.asyncio, CHOSEN.campaigns = "dev", RULES["snapshot"], "eager", 3
    assert "python -m pytest --network dev --rules snapshot --asyncio eager --campaigns 3 --seed a t.py::t" == again(
        "t.py::t"
    )


@pytest.mark.parametrize(
    ("given", "own", "expected"), [(None, None, "a"), (None, "own", "own"), ("given", None, "given"), ("b", "own", "b")]
)
def test_processes_of_one_run_have_one_seed(given: str | None, own: str | None, expected: str) -> None:
    """A process of pytest-xdist has the seed of the one that started it."""
    options = {"--campaigns": 0, "--rules": "embedded", "--seed": own}
    config: Any = SimpleNamespace(getoption=options.get, **({} if given is None else {"workerinput": {"seed": given}}))
    choose(config)
    assert expected == CHOSEN.seed
