"""The client: what programs call from outside of durable functions."""

from ._handle import Handle as Handle
from ._promises import DurablePromise as DurablePromise, Promises as Promises
from ._resonate import Resonate as Resonate
from ._schedules import Schedule as Schedule, Schedules as Schedules
