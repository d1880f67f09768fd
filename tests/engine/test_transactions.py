"""How many transactions of the SQLite file work costs: requests of one turn of the event loop share one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from resonate_anyio import Context, Resonate
from resonate_anyio._protocol import Outcome, Step
from resonate_anyio.abc import Clock
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import SQLiteStore

pytestmark = pytest.mark.embedded("counts the transactions of the engine of this process")


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of requests in each transaction."""
    sizes: list[int] = []
    transact = SQLiteStore.transact

    def counted(self: SQLiteStore, steps: Sequence[Step]) -> list[Outcome]:
        sizes.append(len(steps))
        return transact(self, steps)

    monkeypatch.setattr(SQLiteStore, "transact", counted)
    return sizes


@pytest.fixture
def on_file(tmp_path: Path, clock: Clock) -> Resonate:
    """A `Resonate` object on a file that has not been entered yet, with the functions of this module."""
    resonate = Resonate(network=LocalNetwork(SQLiteStore(tmp_path / "engine.db"), clock=clock), pid="p")
    for function in (double, steps, mapped, gathered):
        resonate.register(function)

    return resonate


async def double(x: int) -> int:
    return x * 2


async def steps(ctx: Context, count: int) -> int:
    return sum([await ctx.run(double, number) for number in range(count)])


async def mapped(ctx: Context, count: int) -> int:
    return sum(await ctx.map(double, range(count)))


async def gathered(ctx: Context, count: int) -> int:
    return sum(await ctx.gather(*(ctx.run(double, number) for number in range(count))))


async def test_one_step_after_the_other(on_file: Resonate, transactions: list[int]) -> None:
    """Requests that are made one after the other cost a transaction each."""
    async with on_file:
        transactions.clear()
        await on_file.run("w", steps, 10)
        assert [1] * 12 == transactions


@pytest.mark.parametrize("function", [mapped, gathered])
async def test_a_fan_out(on_file: Resonate, transactions: list[int], function: object) -> None:
    """A fan-out costs three transactions: its start, the records of all short steps, its end."""
    async with on_file:
        transactions.clear()
        await on_file.run("w", function, 100)  # type: ignore[call-overload]
        assert [1, 100, 1] == transactions


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_many_workflows_at_once(on_file: Resonate, transactions: list[int], count: int) -> None:
    """A hundred workflows in step cost as many transactions as one."""
    async with on_file:
        transactions.clear()

        async def run(id: str) -> None:
            await on_file.run(id, steps, count)

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(run, f"w{number}")

        assert [100] * (2 + count) == transactions
