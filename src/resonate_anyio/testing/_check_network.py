"""The contract of a network, as checks that any implementation can be run through.

A check makes one claim of `abc.Network` or `abc.Connection`, with names that no other check uses. What is checked of
the server behind the network is only what a network could spoil: that each kind of request reaches it, and that answers
and messages come back whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from ..abc import Network
from ._bench import Bench, Check
from ._check_connections import CONNECTION_CHECKS
from ._check_requests import REQUEST_CHECKS

CHECKS: Final = (*REQUEST_CHECKS, *CONNECTION_CHECKS)


async def check_network(
    make: Callable[[], Network],
    *,
    patience: float = 60.0,
    interrupt: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Check that a network keeps the contract of `abc.Network` and `abc.Connection`.

    It runs on the event loop of the caller, asyncio or trio. If all of the network lives in virtual time, run it so
    (see `run_virtual`); else it takes some seconds. Several runs may use one server: every name is a new one.

    Args:
        make: returns a new network on a server that works. It is called once for each check.
        patience: seconds after which something that has to happen is taken not to happen. It should be longer than the
            server's pause before it sends for a task again.
        interrupt: breaks the message streams of all open connections once, if the network has any that can break. It
            returns when that is done.

    Raises:
        AssertionError: it does not; the message names the duty, what was expected and what was found.
    """
    for check in CHECKS:
        await run_check(check, make(), patience=patience, interrupt=interrupt)


async def run_check(
    check: Check,
    network: Network,
    *,
    patience: float = 60.0,
    interrupt: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run one of `CHECKS` on a new network."""
    failure: BaseException
    try:
        return await check(Bench(network, patience, interrupt))
    except BaseExceptionGroup as group:
        # Task groups of the network, and of the check itself.
        failure = group
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
    raise failure
