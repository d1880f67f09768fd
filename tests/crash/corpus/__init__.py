"""The corpus: workflows by theme. Importing this fills `scenarios.CORPUS`."""

from . import (
    cancels as cancels,
    choices as choices,
    deadlines as deadlines,
    failures as failures,
    groups as groups,
    own_concurrency as own_concurrency,
    remote as remote,
    scopes as scopes,
    steps as steps,
    waits as waits,
)
