"""`Weather`: what goes wrong between clients and a server, and when.

What is hit is named by what is said (the kind of a request, the id that it is about, who says it, the how-many-th of
these) or by when it is said. The first is the same in every run, however tasks take turns.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import Final

from anyio import current_time
from attrs import define, field, frozen

STREAM: Final = "poll"
"""The kind of what is no request: the opening of a stream of messages."""


class Effect(Enum):
    """What happens to a request."""

    REFUSED = "the connection is refused"
    CUT_BEFORE = "the connection is cut before the request has an effect"
    CUT_AFTER = "the connection is cut after the request has had its effect"
    SLOW = "the request reaches the server late, whether or not anybody still waits"
    LATE = "the answer is late"
    TWICE = "something in between sends the request twice, and hands on the second answer"
    PAGE_BEFORE = "a proxy answers with a page, and the request has no effect"
    PAGE_AFTER = "the request has its effect, and a proxy answers with a page"
    REDIRECTED = "a proxy sends the client elsewhere, and the request has no effect"
    ERROR_BEFORE = "the server fails, and the request has no effect"
    ERROR_AFTER = "the server fails after the request has had its effect"
    GARBAGE = "the answer is no text at all"
    MIXED_UP = "the answer is to another request"
    OTHER_KIND = "the answer is to another kind of request"
    TORN = "the connection is cut in the middle of the answer"
    SHORT = "the answer ends in the middle, as if that were its end"

    @property
    def early(self) -> bool:
        """Whether the request has no effect."""
        return self in _EARLY

    @property
    def takes_time(self) -> bool:
        """Whether it is a matter of seconds."""
        return self in {Effect.SLOW, Effect.LATE}


_EARLY: Final = frozenset(
    {
        Effect.REFUSED,
        Effect.CUT_BEFORE,
        Effect.PAGE_BEFORE,
        Effect.REDIRECTED,
        Effect.ERROR_BEFORE,
    }
)


class Trick(Enum):
    """What happens to a stream of messages."""

    REFUSED = "the connection is refused"
    FULL = "the server takes no more streams (503)"
    PAGE = "a proxy answers with a page"
    UNANSWERED = "nothing answers"
    STALLED = "it is open, what is sent is lost, and after a while it is cut"
    ENDED = "it ends after the first message"
    TORN = "it is cut in the middle of the first message"
    REPEATED = "each message arrives three times"
    STALE = "each message arrives again after each later one"
    LATE = "each message is late"
    CRUMBLED = "it arrives byte by byte"
    NOISY = "between the messages there are comments, fields and events that mean nothing"
    FORGED = "each message arrives after others like it that are not true"


@frozen(kw_only=True)
class Trouble:
    """One thing that goes wrong.

    Attributes:
        what: an effect for requests, a trick for streams.
        kind: the kind of request that it happens to; None for any.
        subject: the id that the request is about; None for any.
        who: the pid of the client; None for any.
        nth: how many of those that match go well before, counted from when the trouble began.
        times: how many of them in a row it happens to.
        seconds: how long, for what takes time.
    """

    what: Effect | Trick
    kind: str | None = None
    subject: str | None = None
    who: str | None = None
    nth: int = 0
    times: float = 1
    seconds: float = 0

    def concerns(self, call: Call) -> bool:
        """Whether it may happen to this."""
        return (
            isinstance(self.what, Trick) == (call.kind == STREAM)
            and self.kind in {None, call.kind}
            and self.subject in {None, call.subject}
            and self.who in {None, call.who}
        )

    def __str__(self) -> str:
        about = f"{self.kind or 'any'} {self.subject or ''} of {self.who or 'anybody'}"
        return f"{about}, number {self.nth}, {self.times} times: {self.what.value} ({self.seconds} s)"


@frozen(kw_only=True)
class Call:
    """What a client sends.

    Attributes:
        who: its pid.
        kind: the operation, or `STREAM`.
        subject: the id that it is about, or that of the stream.
        at: when, in seconds of the loop's clock.
    """

    who: str
    kind: str
    subject: str
    at: float


@define(eq=False)
class Weather:
    """All that goes wrong.

    Attributes:
        seed: of what is left to chance.
        happened: what has gone wrong, for whoever reads about a test that fails.
    """

    seed: int = 0
    happened: list[str] = field(factory=list, init=False)
    random: random.Random = field(init=False)
    _troubles: list[Trouble] = field(factory=list, init=False)
    _seen: Counter[Trouble] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - the same in every run

    def expect(self, *troubles: Trouble) -> None:
        """From now on, these go wrong."""
        self._troubles.extend(troubles)

    def clear(self) -> None:
        """From now on, nothing goes wrong."""
        self._troubles.clear()
        self._seen.clear()

    def strike(self, call: Call) -> Trouble | None:
        """What goes wrong with this, if anything does."""
        struck = [trouble for trouble in self._troubles if trouble.concerns(call) and self._is_its_turn(trouble)]
        if not struck:
            return None
        self.happened.append(f"{call.at:.3f} {call.who} {call.kind} {call.subject}: {struck[0].what.value}")
        return struck[0]

    def _is_its_turn(self, trouble: Trouble) -> bool:
        number = self._seen[trouble]
        self._seen[trouble] += 1
        return trouble.nth <= number < trouble.nth + trouble.times


def always(what: Effect | Trick, *, who: str | None = None, seconds: float = 0) -> Trouble:
    """The trouble that never ends by itself."""
    return Trouble(what=what, who=who, times=math.inf, seconds=seconds)


def call(who: str, kind: str, subject: str) -> Call:
    """What is sent now."""
    return Call(who=who, kind=kind, subject=subject, at=current_time())


def mixed(seed: int, kinds: Sequence[str], count: int, *, longest: float) -> list[Trouble]:
    """So many things that go wrong, at random.

    Args:
        seed: the same seed gives the same troubles.
        kinds: of requests that a run without trouble has had.
        count: how many.
        longest: how many seconds what is late is late by, at most.
    """
    rng = random.Random(seed)  # noqa: S311 - the same in every run
    return [_any_trouble(rng, kinds, longest) for _ in range(count)]


def _any_trouble(rng: random.Random, kinds: Sequence[str], longest: float) -> Trouble:
    seconds = round(rng.uniform(0, longest), 3)
    # one in four is about messages
    if rng.random() < 0.25:
        return Trouble(what=rng.choice(list(Trick)), nth=rng.randrange(3), times=rng.choice((1, 1, 2)), seconds=seconds)
    return Trouble(
        what=rng.choice(list(Effect)),
        kind=rng.choice(kinds),
        nth=rng.randrange(4),
        times=rng.choice((1, 1, 1, 2, 5)),
        seconds=seconds,
    )
