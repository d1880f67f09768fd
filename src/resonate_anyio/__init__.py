"""Durable execution for anyio: the durable call graph is a structured-concurrency tree.

Register ordinary functions with a `Resonate` object and call them durably. They survive crashes, sleep for weeks, call
functions in other processes and wait for people. Everything works on asyncio and on trio.
"""

from __future__ import annotations

from ._api._calls import DurableFuture as DurableFuture
from ._api._context import Context as Context
from ._api._task_group import DurableTaskGroup as DurableTaskGroup
from ._client import (
    DurablePromise as DurablePromise,
    Handle as Handle,
    Promises as Promises,
    Resonate as Resonate,
    Schedule as Schedule,
    Schedules as Schedules,
)
from ._codec import make_converter as make_converter
from ._errors import (
    AlreadyRegistered as AlreadyRegistered,
    ApplicationError as ApplicationError,
    BadAnswer as BadAnswer,
    BuilderUsed as BuilderUsed,
    DecodeError as DecodeError,
    DuplicateId as DuplicateId,
    DurableCancelledError as DurableCancelledError,
    DurableError as DurableError,
    DurableTimeoutError as DurableTimeoutError,
    EncodeError as EncodeError,
    ExecutionMismatch as ExecutionMismatch,
    InvalidArgument as InvalidArgument,
    InvalidFunction as InvalidFunction,
    InvalidId as InvalidId,
    NetworkError as NetworkError,
    NonDeterminismError as NonDeterminismError,
    NotFound as NotFound,
    NotRegistered as NotRegistered,
    NotRunning as NotRunning,
    RequestError as RequestError,
    ResonateError as ResonateError,
    StoreError as StoreError,
    StoreInUse as StoreInUse,
    StoreLost as StoreLost,
    StoreUnavailable as StoreUnavailable,
    TooLarge as TooLarge,
    TooLate as TooLate,
    UsageError as UsageError,
    WrongWorld as WrongWorld,
)
from ._functions._durable import durable as durable
from ._functions._info import Info as Info
from ._functions._retry import (
    Constant as Constant,
    Exponential as Exponential,
    Linear as Linear,
    Never as Never,
    Retry as Retry,
    RetryPolicy as RetryPolicy,
)
from ._observe import Observer as Observer
from ._workflow._scopes import DurableScope as DurableScope

__all__ = (
    "AlreadyRegistered",
    "ApplicationError",
    "BadAnswer",
    "BuilderUsed",
    "Constant",
    "Context",
    "DecodeError",
    "DuplicateId",
    "DurableCancelledError",
    "DurableError",
    "DurableFuture",
    "DurablePromise",
    "DurableScope",
    "DurableTaskGroup",
    "DurableTimeoutError",
    "EncodeError",
    "ExecutionMismatch",
    "Exponential",
    "Handle",
    "Info",
    "InvalidArgument",
    "InvalidFunction",
    "InvalidId",
    "Linear",
    "NetworkError",
    "Never",
    "NonDeterminismError",
    "NotFound",
    "NotRegistered",
    "NotRunning",
    "Observer",
    "Promises",
    "RequestError",
    "Resonate",
    "ResonateError",
    "Retry",
    "RetryPolicy",
    "Schedule",
    "Schedules",
    "StoreError",
    "StoreInUse",
    "StoreLost",
    "StoreUnavailable",
    "TooLarge",
    "TooLate",
    "UsageError",
    "WrongWorld",
    "durable",
    "make_converter",
)

# Tracebacks and reprs show the names that users import, and errors are recorded under them.
for _name in __all__:
    vars()[_name].__module__ = __name__
del _name
