"""`Runs`: which steps were started and which came to their end, by id, compared with what was on record then."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import current_time
from attrs import define, field, frozen

from ..properties.ledger import Ledger


@frozen(kw_only=True)
class Run:
    """One start of a step.

    Attributes:
        id: the step's.
        who: the pid of the worker that started it.
        at: when, in seconds of the loop's clock.
    """

    id: str
    who: str
    at: float


@define(eq=False)
class Runs:
    """Every run of every step, and what was wrong with it.

    A step that is on record as finished must not be started: it is looked up at the very moment of each start, past
    all networks.

    Attributes:
        started: each start, in order.
        ended: how often each step came to its end.
        faults: what must not have happened, in words.
    """

    _records: Ledger
    started: list[Run] = field(factory=list, init=False)
    ended: Counter[str] = field(factory=Counter, init=False)
    faults: list[str] = field(factory=list, init=False)

    @asynccontextmanager
    async def run(self, id: str, who: str) -> AsyncIterator[None]:
        """A step runs while the block does."""
        self._check(id, who)
        self.started.append(Run(id=id, who=who, at=current_time()))
        yield
        self.ended[id] += 1

    def _check(self, id: str, who: str) -> None:
        record = self._records.promises.get(id)
        if record is None:
            self.faults.append(f"{who} started {id}, which is not on record")
        elif not record.pending:
            self.faults.append(f"{who} started {id}, which was {record.state.value}")

    @property
    def counts(self) -> Counter[str]:
        """How often each step was started."""
        return Counter(run.id for run in self.started)

    def repeated(self) -> dict[str, int]:
        """The steps that were started more than once."""
        return {id: count for id, count in self.counts.items() if count > 1}
