"""The phases of an execution, the events that lead from one to another, and what a table says about each pair.

The table itself is `Suspension.TABLE`. It has one row for each event and one cell for each phase, so that every pair is
decided: the event leads to a phase, or is ignored, or cannot happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, TypeAlias

from attrs import frozen

from .._values import ValueObject


class Phase(Enum):
    """The state of an execution with respect to its lease."""

    HOT = "hot"
    """The task is leased."""
    SUSPENDING = "suspending"
    """The task is being suspended: the answer of the server is not known yet."""
    PARKED = "parked"
    """The task is suspended."""
    RESUMING = "resuming"
    """The task is being acquired again."""
    VERIFYING = "verifying"
    """The lease may have lapsed, and the server is being asked. Code that runs goes on; no durable call starts."""


class Trigger(Enum):
    """An event of the table. The value is its meaning, as the documentation shows it."""

    # From outside
    SUSPEND = "the worker suspends the task"
    RESUME = "code waits for the lease"
    RESUME_TOO_LATE = "the same, but the worker drains or the execution was dropped"
    EXECUTE_EARLIER = "an `execute` message names an earlier version"
    EXECUTE_PRESENT = "an `execute` message names the present version"
    EXECUTE_LATER = "an `execute` message names a later version"
    LEASE_IN_DOUBT = "the lease may have lapsed"
    ADOPT = "another request of this worker has acquired the task at the next version"
    NEVER_BEGAN = "an interrupt ended the attempt before its first step"
    GIVEN_UP = "the worker does not wait for the attempt any longer"
    DROP = "the execution is dropped"

    # Results of attempts to suspend
    NOT_CERTAIN = "the lease is found not to be certain"
    WAKE_MADE = "the wake promise exists"
    SUSPENDED = "`task.suspend` is answered with 200, or the task is found suspended at this version"
    SUSPENDED_AND_WOKEN = "the task is found pending at this version: it was suspended, and a promise has settled"
    SETTLED_BEFORE = "`task.suspend` is answered with 300: a promise had settled before"
    UNANSWERED = "`task.suspend` is not answered; the attempt reads the task"

    # Results of attempts to resume
    ACQUIRED = "`task.acquire` is answered with 200, or the task is found acquired by this worker at the next version"
    CAUGHT_UP = "all that settled meanwhile is known"
    REFUSED = "the task cannot be acquired"
    REFUSED_TOO_LATE = "the same, and the worker drains"

    # Results of attempts to verify
    FOUND_MINE = "the task is found acquired by this worker at this version"
    FOUND_FREE = "the task is found pending at this version; the attempt acquires it"

    # Results of several
    LOST = "`task.suspend` is answered with 404 or 409, or the task is found in any other state"
    ENDED = "the attempt ends without a result, because it failed, was cancelled or got no answer"


Action: TypeAlias = Callable[..., None]
"""A method of `Suspension`. It takes the facts that come with the event."""


@frozen(eq=False, repr=False)
class Transition(ValueObject):
    """What an event does in a phase.

    Attributes:
        phase: the new phase; None if the phase stays.
        actions: what is done then, in this order.
    """

    phase: Phase | None
    actions: tuple[Action, ...]


class Unmoved(Enum):
    """Why an event does nothing in a phase."""

    IGNORED = "ignored"
    """The event may happen in this phase, and means nothing in it."""
    IMPOSSIBLE = "impossible"
    """The event does not happen in this phase. If it does, that is a fault of this package."""


IGNORED: Final = Unmoved.IGNORED
IMPOSSIBLE: Final = Unmoved.IMPOSSIBLE

Decision: TypeAlias = Transition | Unmoved
Row: TypeAlias = Mapping[Phase, Decision]


def to(phase: Phase, *actions: Action) -> Transition:
    """Return a transition into another phase."""
    return Transition(phase, actions)


def stay(*actions: Action) -> Transition:
    """Return a transition that leaves the phase as it is."""
    return Transition(None, actions)


def row(
    others: Decision,
    *,
    hot: Decision | None = None,
    suspending: Decision | None = None,
    parked: Decision | None = None,
    resuming: Decision | None = None,
    verifying: Decision | None = None,
) -> Row:
    """Return what one event does in each phase.

    Args:
        others: the decision for all phases that are not named.
        hot: the decision for this phase; and so on.
        suspending: the same.
        parked: the same.
        resuming: the same.
        verifying: the same.
    """
    named = {
        Phase.HOT: hot,
        Phase.SUSPENDING: suspending,
        Phase.PARKED: parked,
        Phase.RESUMING: resuming,
        Phase.VERIFYING: verifying,
    }
    return {phase: others if decision is None else decision for phase, decision in named.items()}
