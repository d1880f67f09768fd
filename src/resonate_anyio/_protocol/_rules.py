"""Which server's rules the machine follows.

Servers that answer to one protocol version differ in a handful of behaviours (protocol 1, 17). Each is one flag here,
named by what it does; a whole server is a value.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from ._records import Armed

LAST_INSTANT: Final = 2**63 - 1
"""The largest instant that the wire and the stores can hold; sums of instants and durations stop there."""


@frozen(kw_only=True)
class Rules:
    """The behaviours that differ between servers.

    Attributes:
        retry_timeout: milliseconds after which a pending task that nobody acquired is sent for again.
        separator: what ends the origin of an id; the whole id is the origin if it is not there.
        armed: which pending promises the sweep settles at their deadlines.
        checks_lineage: a promise id must equal its tags `resonate:origin`, `branch` and `parent`, or continue them with
            a separator or a dot; `resonate:origin` and `prefix` must not contain the separator.
        checks_delay: `resonate:delay` must be an instant before the deadline of a targeted promise, and is refused
            in `task.create`.
        honours_delay: a task is not sent for before its `resonate:delay`; otherwise the tag does nothing.
        awaits_within_origin: awaiter and awaited must have one origin.
        awaits_external: only what has a target, is a timer, or is tagged `resonate:external` or `resonate:scope=global`
            may be awaited or listened to.
        refuses_targeted_timers: a timer must not have a target.
        heartbeats_within_origin: a heartbeat names at least one task, and all of one origin.
        checks_schedules: a schedule's id must not contain the separator and its promises must have a target.
        firings_per_sweep: how many missed occurrences one sweep fires for one schedule; None fires all of them.
        fired_retry_from_occurrence: the retry clock of a fired task starts at its occurrence, not at the sweep.
        tick_matches_head: `debug.tick` is refused when the debug time of its head is another instant.
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
"""The newer snapshot of the Resonate Server (protocol 1, right column)."""

ANNOUNCED: Final = evolve(SNAPSHOT, separator=":", armed=Armed.EXTERNAL, awaits_external=True)
"""What is announced for the server after that: ids like `root:child`, and the specification's word on what is awaited.

The SDKs that name children so (TypeScript 0.11.5, Python 0.8) give the timer of a sleep a target. It is accepted.
"""

SPECIFIED: Final = evolve(ANNOUNCED, refuses_targeted_timers=True)
"""The same with the specification's word on timers, too: one with a target is refused, and those SDKs cannot sleep."""

# A retry clock that starts at an occurrence long missed would be overdue at birth and send everything twice.
EMBEDDED: Final = evolve(RELEASE, honours_delay=True, firings_per_sweep=None, fired_retry_from_occurrence=False)
"""The embedded engine: lenient about ids as the release is, and nothing sleeps for ever."""
