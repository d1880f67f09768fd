"""The durable world: functions, the frames that they run in, and the worker that holds them."""

from ._calls import DurableFuture as DurableFuture
from ._context import Context as Context
from ._functions import durable as durable
from ._info import Info as Info
from ._retry import (
    Constant as Constant,
    Exponential as Exponential,
    Linear as Linear,
    Never as Never,
    Retry as Retry,
    RetryPolicy as RetryPolicy,
)
from ._scopes import DurableScope as DurableScope
from ._task_group import DurableTaskGroup as DurableTaskGroup
