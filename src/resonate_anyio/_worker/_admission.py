"""`Admission`: how many executions may be in progress, and the tasks that wait until another one may begin.

A worker may have a maximum number of executions (`max_executions`). A task that arrives in a message while that many
are in progress waits here; another worker of the group may take it meanwhile. Parked executions do not count.

Only one piece of code at a time acquires or declines a task: it *claims* the task before its first request. Otherwise
a lease whose execution has not begun yet would look like a lease whose grant was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import Event
from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._execution._execution import Execution
    from ._residency import Residency


@define(eq=False, repr=False)
class Admission:
    """See the module's docstring.

    Attributes:
        claims: the tasks that are being acquired or declined; each with an event that is set when that ends.
    """

    _limit: float
    _executions: Mapping[str, Execution]
    _residency: Residency
    _acquire: Callable[[str, int], None]
    claims: dict[str, Event] = field(factory=dict, init=False)
    _beginning: set[str] = field(factory=set, init=False)
    _waiting: dict[str, int] = field(factory=dict, init=False)
    _later: dict[str, int] = field(factory=dict, init=False)

    @property
    def full(self) -> bool:
        """Whether no further execution may begin."""
        return self._residency.hot_count + len(self._beginning) >= self._limit

    # Claims

    def claim(self, id: str) -> None:
        """Claim a task: until `unclaim`, messages about it wait."""
        self.claims[id] = Event()
        if id not in self._executions:
            self._beginning.add(id)

    def unclaim(self, id: str) -> None:
        """End a claim, and handle the message that arrived meanwhile."""
        self.claims.pop(id).set()
        self._beginning.discard(id)
        if id in self._later:
            self.handle_execute(id, self._later.pop(id))
        self.admit()

    def begun(self, id: str) -> None:
        """Count a claimed task as an execution from now on, and no longer as one that is about to begin."""
        self._beginning.discard(id)

    def latest_version(self, id: str, version: int) -> int:
        """Return the highest version that messages have named for a claimed task, `version` included."""
        return max(version, self._later.pop(id, version))

    # Messages

    def handle_execute(self, id: str, version: int) -> None:
        """Handle an `execute` message for task `id` at `version`."""
        if id in self.claims:
            self._later[id] = max(version, self._later.get(id, 0))
        elif not self._handled_by_execution(id, version):
            self._waiting[id] = max(version, self._waiting.get(id, 0))
            self.admit()

    def _handled_by_execution(self, id: str, version: int) -> bool:
        """Return whether an execution in this process handles the message. That needs no admission."""
        execution = self._executions.get(id)
        return execution is not None and execution.suspension.handle_execute(version)

    def admit(self) -> None:
        """Acquire waiting tasks while further executions may begin."""
        while self._waiting and not self.full:
            id = next(iter(self._waiting))
            version = self._waiting.pop(id)
            # A caller in this process may have started it since.
            if not self._handled_by_execution(id, version):
                self.claim(id)
                self._acquire(id, version)
        self._residency.make_room(len(self._waiting))
