"""The corpus: workflows by theme. Importing this fills `scenarios.CORPUS`."""

from . import (
    cancels as cancels,
    deadlines as deadlines,
    failures as failures,
    own_concurrency as own_concurrency,
    remote as remote,
    steps as steps,
    waits as waits,
)
