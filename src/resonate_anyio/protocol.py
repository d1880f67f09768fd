"""The vocabulary of stores and networks: what the contracts of `resonate_anyio.abc` are written in.

- A `Network` carries each `Request` to a server, returns its `Response`, and delivers each `Message`. One that speaks
  JSON uses `encode_request`, `decode_response` and `decode_message`; `parse_poll` reads the addresses of messages.
- A `Store` runs each `Step` on a `View` of its state, keeps every `Change` of the `Outcome`, and returns the outcomes.
- A network that is itself the server decides requests with `apply`, by one server's `Rules`. It sends for what an
  earlier process left with `recover`, and calls `tick` at each instant that `next_due` names.

`resonate_anyio.testing` checks stores and networks against their contracts.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from types import FunctionType
from typing import ClassVar, Literal

from . import _protocol
from ._protocol import (
    ANNOUNCED,
    EMBEDDED,
    EMPTY,
    RELEASE,
    SNAPSHOT,
    SPECIFIED,
    Armed,
    Callback,
    Change,
    DropCallback,
    DropListener,
    DropPromise,
    DropSchedule,
    DropTask,
    Execute,
    Kind,
    Message,
    Missed,
    Outcome,
    Outgoing,
    PollAddress,
    Promise,
    PromiseCreate,
    PromiseGet,
    PromiseSearch,
    PromiseSettle,
    PromiseState,
    PutCallback,
    PutListener,
    PutPromise,
    PutSchedule,
    PutTask,
    RegisterCallback,
    RegisterListener,
    Request,
    Response,
    Rules,
    Schedule,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    ScheduleSearch,
    Step,
    Task,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFence,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskHeartbeat,
    TaskRecord,
    TaskRef,
    TaskRelease,
    TaskSearch,
    TaskState,
    TaskSuspend,
    Unblock,
    Value,
    View,
    parse_poll,
)

if typing.TYPE_CHECKING:
    from ._protocol import MAX_BODY, apply, decode_message, decode_response, encode_request, next_due, recover, tick

__all__ = (
    "ANNOUNCED",
    "EMBEDDED",
    "EMPTY",
    "MAX_BODY",
    "RELEASE",
    "SNAPSHOT",
    "SPECIFIED",
    "Armed",
    "Callback",
    "Change",
    "DropCallback",
    "DropListener",
    "DropPromise",
    "DropSchedule",
    "DropTask",
    "Execute",
    "Kind",
    "Message",
    "Missed",
    "Outcome",
    "Outgoing",
    "PollAddress",
    "Promise",
    "PromiseCreate",
    "PromiseGet",
    "PromiseSearch",
    "PromiseSettle",
    "PromiseState",
    "PutCallback",
    "PutListener",
    "PutPromise",
    "PutSchedule",
    "PutTask",
    "RegisterCallback",
    "RegisterListener",
    "Request",
    "Response",
    "Rules",
    "Schedule",
    "ScheduleCreate",
    "ScheduleDelete",
    "ScheduleGet",
    "ScheduleSearch",
    "Step",
    "Task",
    "TaskAcquire",
    "TaskContinue",
    "TaskCreate",
    "TaskFence",
    "TaskFulfill",
    "TaskGet",
    "TaskHalt",
    "TaskHeartbeat",
    "TaskRecord",
    "TaskRef",
    "TaskRelease",
    "TaskSearch",
    "TaskState",
    "TaskSuspend",
    "Unblock",
    "Value",
    "View",
    "apply",
    "decode_message",
    "decode_response",
    "encode_request",
    "next_due",
    "parse_poll",
    "recover",
    "tick",
)

# Annotations are resolved in the module that their class names, which is this one.
_IN_ANNOTATIONS = (ClassVar, Literal, Mapping)


def __getattr__(name: str) -> object:
    # Only programs with a server import the JSON of requests, and only those with an engine its rules.
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return _named(getattr(_protocol, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _named(thing: object) -> object:
    """Return a class or function, with the name that users import in its repr and its pickles. Others have none."""
    if isinstance(thing, type | FunctionType):
        thing.__module__ = __name__
    return thing


for _name in set(__all__).intersection(globals()):
    _named(globals()[_name])
del _name
