"""The draft of the next state: the changes that one step has made so far, on top of the state it started from.

Handlers read and write the draft, and so see their own writes. The view below the draft is never changed. At the end of
the step the store writes the content of the draft: each changed record once, in its final form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from attrs import define, field

from ._messages import Execute, Message, Outgoing, Response
from ._records import Callback, Promise, Schedule, Task
from ._rules import LAST_INSTANT, Rules
from ._view import (
    Change,
    DropCallback,
    DropListener,
    DropSchedule,
    Outcome,
    PutCallback,
    PutListener,
    PutPromise,
    PutSchedule,
    PutTask,
    View,
)

T = TypeVar("T")


@define(eq=False, repr=False)
class Draft:
    """The state as one step sees it, at the instant `now` and under `rules`."""

    view: View
    now: int
    rules: Rules
    _messages: list[Outgoing] = field(init=False, factory=list)
    _promises: dict[str, Promise] = field(init=False, factory=dict)
    _tasks: dict[str, Task] = field(init=False, factory=dict)
    _schedules: dict[str, Schedule | None] = field(init=False, factory=dict)
    # Each callback is stored under its awaiter and under its awaited promise, so that a sweep over many promises takes
    # linear time.
    _awaiters: dict[str, dict[str, Callback | None]] = field(init=False, factory=dict)
    _awaited: dict[str, dict[str, Callback | None]] = field(init=False, factory=dict)
    _listeners: dict[str, dict[str, str | None]] = field(init=False, factory=dict)

    def promise(self, id: str) -> Promise | None:
        return self._promises.get(id) or self.view.promise(id)

    def owner(self, task_id: str) -> Promise:
        """Return the promise of an existing task."""
        return cast("Promise", self.promise(task_id))

    def task(self, id: str) -> Task | None:
        return self._tasks.get(id) or self.view.task(id)

    def task_of(self, promise_id: str) -> Task:
        """Return the task of an existing promise that has a target. The two are always created together."""
        return cast("Task", self.task(promise_id))

    def schedule(self, id: str) -> Schedule | None:
        return self._schedules[id] if id in self._schedules else self.view.schedule(id)

    def branch(self, branch: str) -> Sequence[Promise]:
        stored = self.view.branch(branch)
        written = {id: promise for id, promise in self._promises.items() if promise.branch == branch}
        return _merge({promise.id: promise for promise in stored}, written) if written else stored

    def awaiters(self, awaited: str) -> Sequence[Callback]:
        stored, written = self.view.awaiters(awaited), self._awaiters.get(awaited)
        return _merge({callback.awaiter: callback for callback in stored}, written) if written else stored

    def awaited(self, awaiter: str) -> Sequence[Callback]:
        stored, written = self.view.awaited(awaiter), self._awaited.get(awaiter)
        return _merge({callback.awaited: callback for callback in stored}, written) if written else stored

    def listeners(self, promise: str) -> Sequence[str]:
        stored, written = self.view.listeners(promise), self._listeners.get(promise)
        return _merge({address: address for address in stored}, written) if written else stored

    def put_promise(self, promise: Promise) -> None:
        self._promises[promise.id] = promise

    def put_task(self, task: Task) -> None:
        self._tasks[task.id] = task

    def put_schedule(self, schedule: Schedule) -> None:
        self._schedules[schedule.id] = schedule

    def drop_schedule(self, id: str) -> None:
        self._schedules[id] = None

    def put_callback(self, callback: Callback) -> None:
        self._write_callback(callback, callback)

    def drop_callback(self, callback: Callback) -> None:
        self._write_callback(callback, None)

    def _write_callback(self, key: Callback, written: Callback | None) -> None:
        self._awaiters.setdefault(key.awaited, {})[key.awaiter] = written
        self._awaited.setdefault(key.awaiter, {})[key.awaited] = written

    def put_listener(self, promise: str, address: str) -> None:
        self._listeners.setdefault(promise, {})[address] = address

    def drop_listener(self, promise: str, address: str) -> None:
        self._listeners.setdefault(promise, {})[address] = None

    def send(self, address: str, message: Message, *, given_back: bool = False) -> None:
        self._messages.append(Outgoing(address, message, given_back=given_back))

    def send_execute(self, promise: Promise, version: int, *, given_back: bool = False) -> None:
        """Queue an `execute` message for the task of this targeted promise."""
        self.send(promise.tags["resonate:target"], Execute(promise.id, version), given_back=given_back)

    def after(self, duration: int) -> int:
        """Return the instant `duration` milliseconds from now, or the last possible one."""
        return min(self.now + duration, LAST_INSTANT)

    def outcome(self, response: Response) -> Outcome:
        """Return the outcome of the step, with this response."""
        changes: list[Change] = [*map(PutPromise, self._promises.values()), *map(PutTask, self._tasks.values())]
        for id, schedule in self._schedules.items():
            changes.append(DropSchedule(id) if schedule is None else PutSchedule(schedule))

        for awaited, awaiters in self._awaiters.items():
            for awaiter, callback in awaiters.items():
                changes.append(DropCallback(awaited, awaiter) if callback is None else PutCallback(callback))

        for promise, addresses in self._listeners.items():
            for address, written in addresses.items():
                changes.append((DropListener if written is None else PutListener)(promise, address))

        return Outcome(response=response, changes=tuple(changes), messages=tuple(self._messages))


def _merge(stored: dict[str, T], written: Mapping[str, T | None]) -> list[T]:
    """Return `stored` updated with `written`, in the order of the keys. None in `written` means deleted."""
    merged = {**stored, **written}
    return [value for key in sorted(merged) if (value := merged[key]) is not None]
