"""`Info`: what a durable function may know about its own execution."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from anyio import from_thread
from attrs import field, frozen

if TYPE_CHECKING:
    from ._dependencies import Dependencies

T = TypeVar("T")


@frozen(kw_only=True)
class Info:
    """Metadata of one run of a durable function. A leaf asks for it by annotating its first parameter with `Info`.

    Attributes:
        id: the id of the function's promise.
        parent_id: the id of the function that called it; None for a root.
        origin_id: the id of the root of its lineage, across workers.
        branch_id: the id of the root of its part of the call graph: what one worker runs as one execution.
        func_name: the registered name of the function.
        timeout_at: its deadline, in UTC.
        tags: the tags of its promise.
        attempt: 1 for the first attempt of this run, one more for each retry (see `RetryPolicy`).
    """

    id: str
    parent_id: str | None
    origin_id: str
    branch_id: str
    func_name: str
    timeout_at: datetime
    tags: Mapping[str, str]
    attempt: int = 1
    _dependencies: Dependencies = field(alias="dependencies", repr=False, eq=False)

    def get_dependency(self, kind: type[T]) -> T:
        """The object that was given to `Resonate.with_dependency` for this type.

        Raises:
            UsageError: none was given.
        """
        return self._dependencies.get(kind)

    def check_cancelled(self) -> None:
        """Let a synchronous leaf stop early: raises the backend's cancellation once its result is no longer wanted.

        Call it from time to time in long loops. Asynchronous functions need no such call: they are cancelled at their
        next `await`.
        """
        from_thread.check_cancelled()
