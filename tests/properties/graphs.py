"""What a generated workflow does, as data: frozen descriptions that travel through the codec as arguments.

Every wait of a description has a length of its own: `2 ** exponent` units, each exponent at most once in a whole
description. The instant of anything that happens is then the sum of some subset of the lengths, and two instants that
come of different subsets are at least one unit apart. What goes wrong in an example delays everything by less than half
a unit altogether, so it cannot change what comes first: the outcome is determined, and comparing it is fair.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import field, frozen

UNIT: Final = 6 * 3600.0
"""Seconds that exponent 0 stands for."""

MOST_WAITS: Final = 12
"""How many waits a description has at most."""

WHOLE_LIFE: Final = UNIT * 2**MOST_WAITS
"""Seconds in which every workflow ends: longer than all waits together."""

ROOT: Final = "w"
"""The id of the root."""

CANCELLED: Final = "cancelled"
"""Ids of calls that somebody outside is to cancel end in `cancelled-{exponent}`."""


class Broken(Exception):
    """What generated workflows and steps fail with."""


def seconds(exponent: int) -> float:
    """The length of a wait."""
    return UNIT * (1 << exponent)


@frozen(kw_only=True)
class Leaf:
    """A step that works for a while, and then returns or fails.

    Attributes:
        work: the exponent of how long it works. The work goes on outside while no process looks, as a job elsewhere
            would; None: some seconds, which begin anew after a crash. Such a step may only delay others, never race.
        failures: how many attempts fail; None: all.
        timeout: the exponent of its own deadline.
        cancelled: the exponent of when somebody outside cancels it.
    """

    kind: Literal["leaf"] = "leaf"
    work: int | None = None
    failures: int | None = 0
    timeout: int | None = None
    cancelled: int | None = None


@frozen(kw_only=True)
class Sleep:
    """`ctx.sleep`."""

    kind: Literal["sleep"] = "sleep"
    length: int


Settlement: TypeAlias = Literal["resolved", "rejected", "rejected_canceled"]


@frozen(kw_only=True)
class External:
    """`ctx.promise`, settled by somebody outside.

    Attributes:
        settled: the exponent of when; None: never.
        state: how.
        timeout: the exponent of its own deadline.
    """

    kind: Literal["external"] = "external"
    settled: int | None
    state: Settlement = "resolved"
    timeout: int | None = None


@frozen(kw_only=True)
class Call:
    """A nested workflow, here (`run`) or as an execution of its own (`rpc`)."""

    kind: Literal["call"] = "call"
    how: Literal["run", "rpc"] = "run"
    flow: Flow
    timeout: int | None = None
    cancelled: int | None = None


Startable: TypeAlias = Leaf | Sleep | External | Call
"""What is started with one durable call."""


@frozen(kw_only=True)
class Detached:
    """`ctx.detached` of a workflow."""

    kind: Literal["detached"] = "detached"
    flow: Flow


@frozen(kw_only=True)
class Spawn:
    """A call that runs beside what follows, and is awaited at the end of its block, or never."""

    kind: Literal["spawn"] = "spawn"
    call: Startable
    awaited: bool = True


@frozen(kw_only=True)
class Try:
    """A block whose failure is caught and kept as its outcome."""

    kind: Literal["try"] = "try"
    flow: Flow


@frozen(kw_only=True)
class Fail:
    """Raise."""

    kind: Literal["fail"] = "fail"


@frozen(kw_only=True)
class Group:
    """`ctx.task_group`: calls and plain code (`start_soon`) that run beside a body."""

    kind: Literal["group"] = "group"
    calls: tuple[Startable, ...] = ()
    codes: tuple[Flow, ...] = ()
    body: Flow
    limit: int | None = None


@frozen(kw_only=True)
class Gather:
    """`ctx.gather`."""

    kind: Literal["gather"] = "gather"
    calls: tuple[Startable, ...]
    limit: int | None = None


@frozen(kw_only=True)
class First:
    """`ctx.first` of some calls, and of some that were spawned before and are kept."""

    kind: Literal["first"] = "first"
    calls: tuple[Startable, ...]
    kept: tuple[Startable, ...] = ()


@frozen(kw_only=True)
class Completed:
    """`ctx.as_completed`, left after some of the calls; what becomes of the others is awaited by nobody."""

    kind: Literal["completed"] = "completed"
    calls: tuple[Startable, ...]
    taken: int


@frozen(kw_only=True)
class Scope:
    """`ctx.fail_after` or `ctx.move_on_after` around a block."""

    kind: Literal["scope"] = "scope"
    length: int
    fails: bool
    flow: Flow


@frozen(kw_only=True)
class Nursery:
    """A plain task group of anyio's, whose tasks make durable calls."""

    kind: Literal["nursery"] = "nursery"
    codes: tuple[Flow, ...]


@frozen(kw_only=True)
class Facts:
    """`ctx.now`, `ctx.random` and `ctx.uuid`."""

    kind: Literal["facts"] = "facts"


@frozen(kw_only=True)
class Pause:
    """A plain await in the body, of which nothing is on record: it waits for something that goes on outside.

    Attributes:
        length: the exponent of how long that takes, from when it is waited for first; None: some seconds, which begin
            anew after a crash.
    """

    kind: Literal["pause"] = "pause"
    length: int | None = None


Step: TypeAlias = (
    Leaf
    | Sleep
    | External
    | Call
    | Detached
    | Spawn
    | Try
    | Fail
    | Group
    | Gather
    | First
    | Completed
    | Scope
    | Nursery
    | Facts
    | Pause
)


@frozen
class Flow:
    """The body of a workflow, or of a block in one: its steps, one after the other."""

    steps: tuple[Step, ...] = ()


@frozen(kw_only=True)
class Plan:
    """A whole example: the root workflow, and when somebody cancels it, if anybody does."""

    flow: Flow = field(factory=Flow)
    cancelled: int | None = None
