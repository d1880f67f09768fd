"""Finished steps: a leaf that is recorded after it has run, with one request (docs/semantics.md 7.5).

Its promise is born resolved, as a choice is. Its param is what the leaf has returned, and one tag has the rest. Only
this module knows the shape: `as_call` returns the record that the call has when it is recorded before it runs.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ._protocol import Promise, PromiseCreate, PromiseState, Value

FINISHED_TAG: Final = "resonate-anyio:finished"
"""The mark of such a record: see `Finished`."""

_TIMER_TAG: Final = "resonate:timer"


class Finished(NamedTuple):
    """All that is on record of a finished step beside its id, its value and its place, as `FINISHED_TAG` has it.

    Attributes:
        started_at: the instant at which the leaf began, in milliseconds of the server's time.
        ended_at: the instant at which it returned.
        timeout_at: the deadline of the call.
        attempts: the number of its attempts.
        param: the data of what is otherwise recorded as its param: function, version, digest.
        pid: the name of the process that ran it.
    """

    started_at: int
    ended_at: int
    timeout_at: int
    attempts: int
    param: str
    pid: str

    def encode(self) -> str:
        """Return the text of the tag."""
        return " ".join(map(str, self))

    @classmethod
    def of(cls, record: Promise) -> Finished | None:
        """Return what the tag of a record says; None if it has none, or one of another shape."""
        text = record.tags.get(FINISHED_TAG)
        fields = () if text is None else text.split(" ")
        if len(fields) != len(cls._fields) or not all(number.isdecimal() for number in fields[:4]):
            return None
        started_at, ended_at, timeout_at, attempts = map(int, fields[:4])
        return cls(started_at, ended_at, timeout_at, attempts, *fields[4:])


def create_finished(call: PromiseCreate, value: Value, finished: Finished, born_at: int) -> PromiseCreate:
    """Return the request that records a finished step.

    Args:
        call: the request that would record the call before it runs.
        value: what the leaf has returned.
        finished: the rest.
        born_at: an instant in the past by the server's clock, so that the promise is born resolved.
    """
    tags = {**call.tags, _TIMER_TAG: "true", FINISHED_TAG: finished.encode()}
    return PromiseCreate(id=call.id, timeout_at=born_at, param=value, tags=tags)


def as_call(record: Promise) -> Promise:
    """Return a record as the rest of this package reads it: a finished step as a call that was settled."""
    if FINISHED_TAG not in record.tags:
        return record
    finished = Finished.of(record)
    if finished is None or record.state is not PromiseState.RESOLVED:
        return record
    return Promise(
        id=record.id,
        state=PromiseState.RESOLVED,
        param=Value(finished.param),
        value=record.param,
        tags={tag: text for tag, text in record.tags.items() if tag not in {FINISHED_TAG, _TIMER_TAG}},
        timeout_at=finished.timeout_at,
        created_at=finished.started_at,
        settled_at=finished.ended_at,
    )
