"""The corpus: workflows by theme. `CORPUS` has them all."""

from ..scenarios import CORPUS as CORPUS
from . import (
    cancels as cancels,
    choices as choices,
    deadlines as deadlines,
    failures as failures,
    groups as groups,
    own_concurrency as own_concurrency,
    plain_awaits as plain_awaits,
    pools as pools,
    remote as remote,
    scopes as scopes,
    steps as steps,
    waits as waits,
)
