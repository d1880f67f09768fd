"""The Resonate protocol as pure functions: records, messages and the server's state machine.

The page `docs/protocol.md` describes it. The functions here read no clock, draw no random numbers, do no I/O and log
nothing: the current instant is an argument, and effects are returned as data.
"""

from __future__ import annotations

import importlib
import typing

from ._addresses import PollAddress as PollAddress, parse_poll as parse_poll, valid_address as valid_address
from ._messages import (
    Execute as Execute,
    Message as Message,
    Outgoing as Outgoing,
    PromiseCreate as PromiseCreate,
    PromiseGet as PromiseGet,
    PromiseSearch as PromiseSearch,
    PromiseSettle as PromiseSettle,
    RegisterCallback as RegisterCallback,
    RegisterListener as RegisterListener,
    Request as Request,
    Response as Response,
    ScheduleCreate as ScheduleCreate,
    ScheduleDelete as ScheduleDelete,
    ScheduleGet as ScheduleGet,
    ScheduleSearch as ScheduleSearch,
    TaskAcquire as TaskAcquire,
    TaskContinue as TaskContinue,
    TaskCreate as TaskCreate,
    TaskFence as TaskFence,
    TaskFulfill as TaskFulfill,
    TaskGet as TaskGet,
    TaskHalt as TaskHalt,
    TaskHeartbeat as TaskHeartbeat,
    TaskRef as TaskRef,
    TaskRelease as TaskRelease,
    TaskSearch as TaskSearch,
    TaskSuspend as TaskSuspend,
    Unblock as Unblock,
    subject_of as subject_of,
)
from ._records import (
    EMPTY as EMPTY,
    Armed as Armed,
    Callback as Callback,
    Missed as Missed,
    Promise as Promise,
    PromiseState as PromiseState,
    Schedule as Schedule,
    Task as Task,
    TaskRecord as TaskRecord,
    TaskState as TaskState,
    Value as Value,
)
from ._rules import (
    ANNOUNCED as ANNOUNCED,
    EMBEDDED as EMBEDDED,
    RELEASE as RELEASE,
    SNAPSHOT as SNAPSHOT,
    SPECIFIED as SPECIFIED,
    TIMER_PID as TIMER_PID,
    Rules as Rules,
)
from ._view import (
    Change as Change,
    DropCallback as DropCallback,
    DropListener as DropListener,
    DropPromise as DropPromise,
    DropSchedule as DropSchedule,
    DropTask as DropTask,
    Kind as Kind,
    Outcome as Outcome,
    PutCallback as PutCallback,
    PutListener as PutListener,
    PutPromise as PutPromise,
    PutSchedule as PutSchedule,
    PutTask as PutTask,
    Step as Step,
    View as View,
)

if typing.TYPE_CHECKING:
    from ._cron import (
        Cron as Cron,
        counts_weekdays as counts_weekdays,
        next_after as next_after,
        parse_cron as parse_cron,
    )
    from ._debug import reset as reset, snapshot as snapshot, tick_time as tick_time
    from ._machine import apply as apply
    from ._outbox import Outbox as Outbox
    from ._search import Search as Search, Searching as Searching
    from ._sweep import next_due as next_due, recover as recover, tick as tick
    from ._validation import validate as validate
    from ._wire import (
        DEBUG_KINDS as DEBUG_KINDS,
        KINDS as KINDS,
        MAX_BODY as MAX_BODY,
        VERSION as VERSION,
        BadRequest as BadRequest,
        Envelope as Envelope,
        NotProtocol as NotProtocol,
        decode_message as decode_message,
        decode_request as decode_request,
        decode_response as decode_response,
        encode_message as encode_message,
        encode_refusal as encode_refusal,
        encode_request as encode_request,
        encode_response as encode_response,
        open_envelope as open_envelope,
        read_envelope as read_envelope,
        reply as reply,
    )
    from ._wire_records import decode_promise as decode_promise, encode_promise as encode_promise


# The rules are imported by the engine of this process, if there is one, and cron with the first schedule. That engine
# passes requests on as they are, so only programs with a server import the JSON of requests.
_LATER: typing.Final = {
    **dict.fromkeys(("Cron", "counts_weekdays", "next_after", "parse_cron"), "_cron"),
    "apply": "_machine",
    "Outbox": "_outbox",
    **dict.fromkeys(("Search", "Searching"), "_search"),
    **dict.fromkeys(("next_due", "recover", "tick"), "_sweep"),
    "validate": "_validation",
    **dict.fromkeys(("decode_promise", "encode_promise"), "_wire_records"),
    **dict.fromkeys(("reset", "snapshot", "tick_time"), "_debug"),
    **dict.fromkeys(
        (
            "DEBUG_KINDS",
            "KINDS",
            "MAX_BODY",
            "VERSION",
            "BadRequest",
            "Envelope",
            "NotProtocol",
            "decode_message",
            "decode_request",
            "decode_response",
            "encode_message",
            "encode_refusal",
            "encode_request",
            "encode_response",
            "open_envelope",
            "read_envelope",
            "reply",
        ),
        "_wire",
    ),
}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
