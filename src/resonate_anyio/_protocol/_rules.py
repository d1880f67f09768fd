"""The rules of several servers.

Servers that speak the same protocol version differ in a handful of behaviours (docs/protocol.md 1). Each behaviour is
one flag of `Rules`, and each server is one value. The table in docs/protocol.md 1 is made from this module.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from .._values import ValueObject
from ._records import Armed

LAST_INSTANT: Final = 2**63 - 1
"""The largest instant that the wire and the stores can represent. Sums of instants and durations stop here."""

TIMER_PID: Final = "timer"
"""The pid in the leases of timers and external promises. No process has it: such a lease ends after the deadline."""


@frozen(kw_only=True, eq=False, repr=False)
class Rules(ValueObject):
    """The behaviours that differ between servers.

    Attributes:
        retry_timeout: milliseconds after which a further `execute` is sent for a task that is still pending.
        separator: the text that ends the origin of an id. An id without it is its own origin.
        armed: the pending promises whose deadlines fire without a request.
        checks_lineage: a promise id must equal each of its tags `resonate:origin`, `resonate:branch` and
            `resonate:parent`, or continue it after the separator or a dot; `resonate:origin` and `resonate:prefix` must
            not contain the separator.
        checks_delay: `resonate:delay` must be an instant before the deadline of a targeted promise, and is refused in
            `task.create`.
        honours_delay: no `execute` is sent for a task before its `resonate:delay`; otherwise the tag has no effect.
        awaits_within_origin: awaiter and awaited promise must have the same origin.
        awaits_external: a promise may be awaited or listened to only if it has a target, is a timer, or is tagged
            `resonate:external=true` or `resonate:scope=global`.
        refuses_targeted_timers: a timer must not have a target.
        heartbeats_within_origin: a heartbeat must name at least one task, and only tasks of one origin.
        checks_schedules: the id of a schedule must not contain the separator, and its promises must have a target.
        firings_per_sweep: the number of due occurrences that one sweep fires for one schedule; None fires all of them.
        fired_retry_from_occurrence: the first retry of a task that a schedule creates counts from the occurrence, not
            from the sweep.
        tick_matches_head: `debug.tick` is refused if its head has a debug time that differs from its `time`.
    """

    retry_timeout: int = 30_000
    separator: str = "."
    armed: Armed
    checks_lineage: bool
    checks_delay: bool
    honours_delay: bool
    awaits_within_origin: bool
    awaits_external: bool = False
    refuses_targeted_timers: bool = False
    heartbeats_within_origin: bool
    checks_schedules: bool
    firings_per_sweep: int | None
    fired_retry_from_occurrence: bool
    tick_matches_head: bool


RELEASE: Final = Rules(
    armed=Armed.ALL,
    checks_lineage=False,
    checks_delay=False,
    honours_delay=False,
    awaits_within_origin=False,
    heartbeats_within_origin=False,
    checks_schedules=False,
    firings_per_sweep=1,
    fired_retry_from_occurrence=True,
    tick_matches_head=False,
)
"""The Resonate Server's release 0.9.8."""

SNAPSHOT: Final = Rules(
    armed=Armed.TARGETED,
    checks_lineage=True,
    checks_delay=True,
    honours_delay=False,
    awaits_within_origin=True,
    heartbeats_within_origin=True,
    checks_schedules=True,
    firings_per_sweep=1,
    fired_retry_from_occurrence=False,
    tick_matches_head=True,
)
"""The newer development snapshot of the Resonate Server."""

ANNOUNCED: Final = evolve(SNAPSHOT, separator=":", armed=Armed.EXTERNAL, awaits_external=True)
"""The announced rules of a later server: ids like `root:child`, and the specification's rule on what may be awaited.

The SDKs that name children like this (TypeScript 0.11.5, Python 0.8) give the timer of a sleep a target. These rules
accept that.
"""

SPECIFIED: Final = evolve(ANNOUNCED, refuses_targeted_timers=True)
"""`ANNOUNCED` with the specification's rule on timers: one with a target is refused, so those SDKs cannot sleep."""

# If the retry of a task counted from an occurrence that was missed long ago, it would be due as soon as the task is
# created, and every message would be sent twice.
EMBEDDED: Final = evolve(RELEASE, honours_delay=True, firings_per_sweep=None, fired_retry_from_occurrence=False)
"""The embedded engine: it accepts every id that the release accepts, and every deadline fires."""
