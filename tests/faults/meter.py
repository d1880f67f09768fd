"""`Meter`: what was sent, when, by whom; so that a busy loop is seen."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable

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

    def most_repeated(self, seconds: float, *, since: float = -math.inf) -> tuple[int, str]:
        """The most often that one client has said the same thing within so many seconds, and what it was."""
        return self._most(
            seconds,
            (call for call in self.calls if call.at >= since),
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
