"""`State`: everything that a store holds at an instant, to look at and to begin again from.

A process that is killed leaves exactly this behind. So a crash needs no victim: the state is copied at the instant of
the kill, and the next process starts on the copy, while the first runs on in a world of its own, unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

from attrs import field, frozen

from resonate_anyio._protocol import (
    Change,
    Outcome,
    Promise,
    PromiseState,
    PutCallback,
    PutListener,
    PutPromise,
    PutTask,
    Response,
    Task,
    TaskState,
    View,
)
from resonate_anyio._protocol._pages import all_promises, all_tasks
from resonate_anyio._protocol._sweep import TIMER_PID
from resonate_anyio.abc import Store
from resonate_anyio.testing._virtual_clock import DEFAULT_EPOCH_MS


@frozen(slots=False)
class State:
    """What a store holds at an instant.

    Attributes:
        instant: the time on the engine's clock, in milliseconds.
        records: what has to be written into an empty store to make it.
    """

    instant: int
    records: tuple[Change, ...] = field(repr=False)

    @classmethod
    def of(cls, store: Store, instant: int) -> State:
        """The present state of an open store."""
        return cls(instant, tuple(store.read(_everything)))

    def restore(self, store: Store) -> None:
        """Make an empty store, which is not open, hold this."""
        store.open()
        try:
            store.transact([lambda _: Outcome(response=Response(status=200), changes=self.records)])
        finally:
            store.close()

    @cached_property
    def promises(self) -> Mapping[str, Promise]:
        return {change.promise.id: change.promise for change in self.records if isinstance(change, PutPromise)}

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        return {change.task.id: change.task for change in self.records if isinstance(change, PutTask)}

    def settled(self, id: str) -> bool:
        return id in self.promises and not self.promises[id].pending

    @cached_property
    def pending(self) -> list[str]:
        return [id for id, promise in self.promises.items() if promise.state is PromiseState.PENDING]

    @cached_property
    def leases(self) -> dict[str, str]:
        """Who holds which task. Those of timers are nobody's."""
        held = (task for task in self.tasks.values() if task.state is TaskState.ACQUIRED and task.pid != TIMER_PID)
        return {task.id: task.pid or "" for task in held}


def _everything(view: View) -> Iterator[Change]:
    return iter(
        [
            *map(PutPromise, all_promises(view)),
            *map(PutTask, all_tasks(view)),
            *map(PutCallback, view.all_callbacks()),
            *(PutListener(*listener) for listener in view.all_listeners()),
        ]
    )


EMPTY: Final = State(DEFAULT_EPOCH_MS, ())
"""Before the first process has started."""
