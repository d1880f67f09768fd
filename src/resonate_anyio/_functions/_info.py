"""`Info`: the metadata that a durable function can read about its own call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from attrs import field, frozen

from .._values import ValueObject

if TYPE_CHECKING:
    from ._dependencies import Dependencies

T = TypeVar("T")


@frozen(kw_only=True, eq=False, repr=False)
class Info(ValueObject):
    """Metadata of one run of a durable function. A leaf receives it by annotating its first parameter with `Info`.

    Attributes:
        id: the id of the function's promise.
        parent_id: the id of the calling function; None for a root.
        origin_id: the id of the root of the lineage, across workers.
        branch_id: the id of the root function of the execution: the part of the call graph that one worker runs.
        func_name: the registered name of the function.
        timeout_at: the deadline of the function, in UTC.
        tags: the tags of the function's promise.
        attempt: 1 for the first attempt, and one more for each retry (see `RetryPolicy`), and for each crash of the
            process since the call was recorded (docs/semantics.md 7.6).
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
        """Return the object that was given to `Resonate.with_dependency` for this type.

        Raises:
            UsageError: no object was given for it.
        """
        return self._dependencies.get(kind)

    def check_cancelled(self) -> None:
        """Raise the backend's cancellation if the call was cancelled, so that a synchronous leaf can stop early.

        Call it regularly in long loops. An asynchronous function does not need it: it is cancelled at its next `await`.
        """
        from anyio import from_thread  # noqa: PLC0415 - few programs have synchronous leaves

        from_thread.check_cancelled()
