"""Every small example does what it says, on both backends, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import anyio
import pytest

from resonate_anyio import Resonate
from resonate_anyio.abc import Network

from .conftest import EXAMPLES

Import: TypeAlias = Callable[[str], ModuleType]
Output: TypeAlias = pytest.CaptureFixture[str]


async def test_quickstart_countdown(example: Import, network: Network, capsys: Output) -> None:
    """The countdown says every number once, with a pause after each."""
    started = anyio.current_time()

    result = await example("quickstart_countdown").main(network)

    assert "counted down from 3" == result
    assert ["3 ...", "2 ...", "1 ...", "Lift-off!", result] == capsys.readouterr().out.splitlines()
    assert 1.5 == pytest.approx(anyio.current_time() - started, abs=0.1)


async def test_quickstart_countdown_can_be_asked_again(example: Import, network: Network, capsys: Output) -> None:
    """A second run under the same id and on the same network gives the recorded result and does nothing again."""
    quickstart = example("quickstart_countdown")
    await quickstart.main(network)
    capsys.readouterr()

    assert "counted down from 3" == await quickstart.main(network)
    assert ["counted down from 3"] == capsys.readouterr().out.splitlines()


async def test_parallel_spawns(example: Import, network: Network, capsys: Output) -> None:
    """Three slow calls take as long as the slowest."""
    assert 825 == await example("parallel_spawns").main(network)
    assert [
        "car: 95.00",
        "hotel: 310.00",
        "flight: 420.00",
        "825.00 in all, after 0.9 seconds instead of 1.8",
    ] == capsys.readouterr().out.splitlines()


async def test_rpc_two_workers(example: Import, network: Network, capsys: Output) -> None:
    """One worker calls the other's function by name and gets the declared type back."""
    module = example("rpc_two_workers")

    photos = await module.main(network)

    assert [module.Photo(f"{name}@800", 800) for name in ("cat", "dog", "fox")] == photos
    output = capsys.readouterr().out
    assert 3 == output.count("[images] album-7.shrink-")
    assert 1 == output.count("[web]")


async def test_rpc_two_workers_brings_a_network_of_its_own(example: Import) -> None:
    """Without a network given, both workers share one in memory."""
    assert 3 == len(await example("rpc_two_workers").main())


async def test_human_in_the_loop(example: Import, network: Network, capsys: Output) -> None:
    """The answer, either way or none in time, decides how the workflow goes on."""
    assert [
        "Ida gets 12.50",
        "Ada gets 640.00",
        "Bob gets nothing: refused",
        "Cyd gets nothing: no answer",
    ] == await example("human_in_the_loop").main(network)
    assert 3 == capsys.readouterr().out.count("to the manager:")


async def test_saga_compensation(example: Import, network: Network, capsys: Output) -> None:
    """What was booked before the card was declined is cancelled in reverse order, and the error arrives."""
    assert ["flight", "hotel", "charge"] == await example("saga_compensation").main(network)
    rome = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Rome")]
    assert [
        "Rome: flight booked",
        "Rome: hotel booked",
        "Rome: hotel cancelled",
        "Rome: flight cancelled",
        "Rome: not booked, CardDeclinedError('expired')",
    ] == rome


async def test_recursive_fan_out(example: Import, network: Network, capsys: Output) -> None:
    """The numbers are sorted, and every call of the recursion is on record below its caller."""
    assert list(range(16)) == await example("recursive_fan_out").main(network)
    output = capsys.readouterr().out
    assert 4 == output.count("sort_small-1 ->")
    assert "        sort-1.merge_sort-2.merge_sort-1 -> [2, 5, 8, 11]\n" in output


async def test_scheduled_job(example: Import, network: Network) -> None:
    """The schedule fires at its instants, in order."""
    started = anyio.current_time()

    reports = await example("scheduled_job").main(network, cron="0 9 * * mon-fri", reports=6)

    assert ["status report of 09:00:00"] * 6 == reports
    # six working days begin with at least one week-end among them
    assert 7 <= (anyio.current_time() - started) / 86400 <= 9


async def test_scheduled_job_leaves_no_schedule(example: Import, network: Network) -> None:
    """The example deletes the schedule that it made."""
    await example("scheduled_job").main(network)

    async with Resonate(network=network) as resonate:
        assert [] == [schedule.id async for schedule in resonate.schedules.search()]


async def test_retries(example: Import, network: Network, capsys: Output) -> None:
    """Errors are retried as the policies say: this type, so often, no longer than that."""
    assert [
        "Lisbon: 21.5 degrees",
        "Atlantis: never heard of it",
        "Reykjavik: too slow",
    ] == await example("retries").main(network)
    output = capsys.readouterr().out
    assert [3, 1, 2] == [output.count(f"{city}: attempt") for city in ("Lisbon", "Atlantis", "Reykjavik")]


async def test_trio_version(
    anyio_backend: tuple[str, dict[str, Any]], example: Import, network: Network, capsys: Output
) -> None:
    """The program runs in plain trio, and its workflow on asyncio just as well."""
    module = example("trio_version")
    if anyio_backend[0] == "trio":
        assert ["counted down from 2", "counted down from 3"] == await module.main(network)
    else:
        resonate = Resonate(network=network)
        resonate.register(module.countdown)
        async with resonate:
            assert "counted down from 3" == await resonate.run("countdown-1", module.countdown, 3, pause=0.5)
    assert {"3 ...", "2 ...", "1 ...", "Lift-off!"} <= set(capsys.readouterr().out.splitlines())


def test_every_example_is_tested() -> None:
    """No program in examples/ is without a test of its name, here or in a file of its own."""
    tests = {name for name in globals() if name.startswith("test_")}
    files = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert set() == {path.stem for path in EXAMPLES.glob("*.py") if f"test_{path.stem}" not in tests | files}
