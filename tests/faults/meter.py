"""`Meter`: what was sent, when, by whom; so that a busy loop is seen."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Final

from attrs import define, field

from .weather import Call


@define(eq=False)
class Meter:
    """Everything that clients have sent, in order.

    Attributes:
        calls: each request and each opening of a stream, whatever became of it.
    """

    calls: list[Call] = field(factory=list, init=False)

    def count(self, *kinds: str, who: str | None = None) -> int:
        """How often these kinds were sent."""
        return sum(call.kind in kinds and who in {None, call.who} for call in self.calls)

    @property
    def kinds(self) -> Counter[str]:
        """How often each kind was sent."""
        return Counter(call.kind for call in self.calls)

    def busiest(self, seconds: float, *, since: float = -math.inf) -> tuple[int, str]:
        """The most that one client has sent within so many seconds, and who it was."""
        return self._most(seconds, (call for call in self.calls if call.at >= since), lambda call: call.who)

    def most_repeated(self, seconds: float, *, since: float = -math.inf, but: str = "") -> tuple[int, str]:
        """The most often that one client has said the same (of any kind `but` one) within so many seconds."""
        return self._most(
            seconds,
            (call for call in self.calls if call.at >= since and call.kind != but),
            lambda call: (call.who, call.kind, call.subject),
        )

    @staticmethod
    def _most(seconds: float, calls: Iterable[Call], key: Callable[[Call], Hashable]) -> tuple[int, str]:
        instants: dict[Hashable, list[float]] = defaultdict(list)
        for each in calls:
            instants[key(each)].append(each.at)
        counts = [(_most_within(seconds, at), str(what)) for what, at in instants.items()]
        return max(counts, default=(0, "nothing"))


def _most_within(seconds: float, instants: list[float]) -> int:
    """How many of these (in order) fit into a window of that length."""
    most = first = 0
    for last, instant in enumerate(instants):
        while instants[first] <= instant - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


BEAT: Final = "task.heartbeat"

BEATS_A_MINUTE: Final = 40
"""A lease that cannot be renewed is tried to be renewed 20 times while it lasts, twice each time; it lasts a minute."""

SAME_A_MINUTE: Final = 27
"""Pauses double from a quarter of a second on, each varied by a half: nine attempts in the half minute until the caller
gets an error. The program here begins anew then: a minute holds two such rounds, and the first attempts of a third."""

ALL_A_MINUTE: Final = 120
"""Heartbeats, and all else that the job has under way at once: four things at most, and the stream of messages."""

ALL_A_SECOND: Final = 30
"""The job begins with a dozen; when a stream is there again, everything that is waited for is asked for once."""


def busy_loops(meter: Meter) -> list[str]:
    """Whoever has said more than can be explained, in words."""
    found = {
        f"requests in a second, more than {ALL_A_SECOND}": (ALL_A_SECOND, meter.busiest(1)),
        f"requests in a minute, more than {ALL_A_MINUTE}": (ALL_A_MINUTE, meter.busiest(60)),
        f"times the same in a minute, more than {BEATS_A_MINUTE}": (BEATS_A_MINUTE, meter.most_repeated(60)),
        f"times the same but a heartbeat in a minute, more than {SAME_A_MINUTE}": (
            SAME_A_MINUTE,
            meter.most_repeated(60, but=BEAT),
        ),
    }
    return [f"{who}: {count} {what}" for what, (limit, (count, who)) in found.items() if count > limit]
