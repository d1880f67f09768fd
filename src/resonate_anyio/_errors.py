"""Every exception that this package raises.

* ResonateError
  * UsageError (also RuntimeError): the program calls the package in a way that cannot work
    * NotRegistered
    * AlreadyRegistered
    * InvalidFunction
    * WrongWorld
    * TooLate
    * BuilderUsed
    * NotRunning
    * DuplicateId
  * InvalidArgument (also ValueError): an argument is unusable; no request was sent
    * InvalidId
  * EncodeError (also TypeError): a value cannot be turned into JSON
  * DecodeError (also ValueError): JSON does not fit the requested type
  * DurableError: a durable promise ended without a value
    * ApplicationError: the function raised an exception whose type is unknown to this program
    * DurableTimeoutError (also TimeoutError): its deadline passed
    * DurableCancelledError: it was cancelled
  * NonDeterminismError: a replay made another call than the recorded one
  * ExecutionMismatch: the id belongs to a call of another function or version
  * NotFound (also LookupError): nothing is recorded under the id
  * RequestError: the server refused a request, or failed to handle it (`status`, `kind`)
  * NetworkError: a request was not answered, so it is unknown whether it had an effect (`kind`)
    * BadAnswer: a response arrived that is not an answer to the request (`status`)
  * TooLarge (also ValueError): a request is larger than the server accepts; it had no effect (`kind`, `size`, `limit`)
  * StoreError: the database file cannot be used
    * StoreInUse: another process owns the file (`pid`)
    * StoreUnavailable (also NetworkError): the file cannot be written at present: it is locked, or the disk is full
    * StoreLost: the file was deleted, replaced or damaged while it was in use (`path`)

An error that a durable function raised is raised again with its own type where that is possible (see
`ApplicationError`).
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence


class ResonateError(Exception):
    """The base class of every exception that this package defines."""


class UsageError(ResonateError, RuntimeError):
    """The package was called in a way or at a moment that cannot work; the message says what to do instead."""


@final
class NotRegistered(UsageError):
    """The program asked for a function that is not registered.

    Attributes:
        name: the name of the function.
        version: the requested version, or None.
        known: the registered names.
        changed: whether another function is registered under this name: this one was defined later, or elsewhere.
    """

    def __init__(
        self,
        name: str,
        version: int | None = None,
        known: Sequence[str] = (),
        changed: bool = False,  # noqa: FBT001, FBT002 - kept in args
    ) -> None:
        super().__init__(name, version, tuple(known), changed)
        self.name = name
        self.version = version
        self.known: tuple[str, ...] = tuple(known)
        self.changed = changed

    def __str__(self) -> str:
        if self.changed:
            return (
                f"this function {self.name!r} is not the one that is registered under this name: it was defined again "
                f"later (for example by a notebook cell that was edited or run again), or is another function. To "
                f"replace the registered one: resonate.register({self.name}, replace=True); to keep both, give this "
                f"one another name or version"
            )
        wanted = self.name if self.version is None else f"{self.name} (version {self.version})"
        listing = ", ".join(sorted(self.known)) or "none"
        return (
            f"function {wanted!r} is not registered with this Resonate object; call "
            f"resonate.register(...) on it first. Registered: {listing}"
        )


@final
class AlreadyRegistered(UsageError):
    """Another function is registered under the same name and version."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__(name, version)
        self.name = name
        self.version = version

    def __str__(self) -> str:
        return (
            f"a function is already registered as {self.name!r} version {self.version}; give the new one another "
            f"name or version (register(func, name=..., version=...)), or replace the old one, for example when a "
            f"notebook cell is run again (register(func, replace=True))"
        )


@final
class InvalidFunction(UsageError):
    """The object cannot be a durable function, or its signature cannot be that of one."""


@final
class WrongWorld(UsageError):
    """A call of the client was made in a durable function, or a `Context` was used outside its own function."""


@final
class TooLate(UsageError):
    """A function made a durable call after its own promise was settled, so the call could not be recorded."""


@final
class BuilderUsed(UsageError):
    """A builder was awaited or spawned a second time, or changed after it was started."""


@final
class NotRunning(UsageError):
    """The `Resonate` object is not in its `async with` block, was stopped, or runs in another event loop."""


@final
class DuplicateId(UsageError):
    """Two calls of one durable function were given the same id."""


class InvalidArgument(ResonateError, ValueError):
    """An argument is unusable; no request was sent."""


@final
class InvalidId(InvalidArgument):
    """A root id breaks the rules of ids: 1 to 128 bytes, no `.` and no `:`."""


@final
class EncodeError(ResonateError, TypeError):
    """A value cannot be turned into JSON, or does not fit its annotation."""


@final
class DecodeError(ResonateError, ValueError):
    """Recorded JSON does not fit the requested type."""


class DurableError(ResonateError):
    """A durable promise ended without a value.

    Attributes:
        id: the id of the promise; None if it is unknown.
    """

    id: str | None = None


def add_id(error: DurableError, id: str) -> None:
    """Give an error the id of the promise that has failed with it, unless it has one already."""
    if error.id is None:
        # A subclass of a user may have made the attribute read-only.
        with suppress(Exception):
            error.id = id


@final
class ApplicationError(DurableError):
    """A durable function failed with an exception whose type cannot be rebuilt in this program.

    An exception is raised again with its own type if the module of the type is imported here and the exception can be
    made from its recorded arguments. Any other exception, and that of a function of another SDK, is raised as this one.

    Attributes:
        name: the name of the original type; `Error` if none was recorded.
        message: the text of the original exception.
        traceback: the recorded traceback as text, or None.
        data: the recorded JSON.
    """

    def __init__(self, name: str, message: str, traceback: str | None = None, data: object = None) -> None:
        super().__init__(name, message, traceback, data)
        self.name = name
        self.message = message
        self.traceback = traceback
        self.data = data

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


@final
class DurableTimeoutError(DurableError, TimeoutError):
    """The deadline of a durable promise passed before it was settled."""

    def __init__(self, id: str, timeout_at: int | None = None) -> None:
        super().__init__(id, timeout_at)
        self.id: str | None = id
        self.timeout_at = timeout_at

    def __str__(self) -> str:
        return f"the deadline of {self.id!r} passed before it was settled"


@final
class DurableCancelledError(DurableError):
    """A durable promise was cancelled.

    Attributes:
        by: the cause: `scope` (a scope around the await), `deadline` (a durable scope around the await), `group` (the
            task group of the call), `parent` (the calling function ended), `choice` (another call was the first),
            `future` (the calling function cancelled the future), or `outside`; None if another SDK cancelled it.
    """

    def __init__(self, id: str, by: str | None = None) -> None:
        super().__init__(id, by)
        self.id: str | None = id
        self.by = by

    def __str__(self) -> str:
        reasons = {
            "scope": "its await was cancelled",
            "deadline": "a deadline around its await passed",
            "group": "its task group was cancelled",
            "parent": "the function that called it ended",
            "choice": "another call was the first",
            "future": "the function that called it cancelled its future",
        }
        return f"{self.id!r} was cancelled: {reasons.get(self.by or '', 'from outside')}"


_OF_A_PLAIN_TASK: Final = re.compile(r"t[pq]\d+(-\d+)*$")
_PLAIN_TASK_HINT: Final = (
    ". The call was made by a task of a plain task group or nursery, and tasks that begin with the same call may be "
    "mistaken for each other: start them with start_soon of ctx.task_group(), or name their calls with .named()"
)


@final
class NonDeterminismError(ResonateError):
    """A replay made another call than the one that is recorded under the same id.

    The promise stays pending and its task is halted: correct the program, then `await resonate.resume(task)`.

    Attributes:
        id: the id of the call.
        recorded: the recorded call.
        requested: the call that the code makes now.
        task: the id of the halted execution.
    """

    def __init__(self, id: str, recorded: str, requested: str, task: str | None = None) -> None:
        super().__init__(id, recorded, requested, task)
        self.id = id
        self.recorded = recorded
        self.requested = requested
        self.task: str = task or id

    def __str__(self) -> str:
        return (
            f"non-deterministic replay at {self.id!r}: recorded {self.recorded}, but the code now asks for "
            f"{self.requested}. The execution is halted and nothing is lost: bring the function back in line with "
            f"its history (make decisions that depend on clocks, random numbers or I/O in leaves), then call "
            f"await resonate.resume({self.task!r})"
            f"{_PLAIN_TASK_HINT if _OF_A_PLAIN_TASK.search(self.id) else ''}"
        )


@final
class ExecutionMismatch(ResonateError):
    """The id belongs to a call of another function, or of another version."""

    def __init__(self, id: str, recorded: str, requested: str) -> None:
        super().__init__(id, recorded, requested)
        self.id = id
        self.recorded = recorded
        self.requested = requested

    def __str__(self) -> str:
        return (
            f"id {self.id!r} already belongs to a call of {self.recorded}, not of {self.requested}; use another id, "
            f"or resonate.get({self.id!r}, T) to wait for that call"
        )


@final
class NotFound(ResonateError, LookupError):
    """Nothing is recorded under the id.

    Attributes:
        what: the kind of object that was requested.
        id: the requested id.
        hint: what to do; may be empty.
    """

    def __init__(self, what: str, id: str, hint: str = "") -> None:
        super().__init__(what, id, hint)
        self.what = what
        self.id = id
        self.hint = hint

    def __str__(self) -> str:
        return f"there is no {self.what} with the id {self.id!r}" + (f": {self.hint}" if self.hint else "")


@final
class RequestError(ResonateError):
    """The server answered a request with an error status that the caller cannot handle.

    Attributes:
        kind: the kind of the request, e.g. `promise.create`.
        status: the status of the answer (docs/protocol.md 3.2).
    """

    def __init__(self, kind: str, status: int, message: str) -> None:
        super().__init__(kind, status, message)
        self.kind = kind
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind} was answered with {self.status}: {self.message}"


class NetworkError(ResonateError):
    """A request was not answered, so it is unknown whether it had an effect. Another attempt may succeed.

    Attributes:
        kind: the kind of the request, e.g. `promise.create`.
        subject: the id in the request; empty if it has none.
        reason: the cause, as text.
        url: the address of the server; empty if it has none.
    """

    def __init__(self, kind: str, subject: str, reason: str, url: str = "") -> None:
        super().__init__(kind, subject, reason, url)
        self.kind = kind
        self.subject = subject
        self.reason = reason
        self.url = url

    @property
    def _request(self) -> str:
        return f"{self.kind} {self.subject!r}" if self.subject else self.kind

    @property
    def _server(self) -> str:
        return f" by {self.url}" if self.url else ""

    def __str__(self) -> str:
        return f"{self._request} was not answered{self._server}: {self.reason}"


@final
class BadAnswer(NetworkError):
    """The response is not an answer to the request, but a proxy's page, another request's answer, or another protocol.

    Attributes:
        status: the HTTP status of the response.
    """

    def __init__(self, kind: str, subject: str, reason: str, status: int, url: str = "") -> None:
        super().__init__(kind, subject, reason, url)
        self.args: tuple[object, ...] = (kind, subject, reason, status, url)
        self.status = status

    def __str__(self) -> str:
        return f"{self._request} was answered{self._server} with status {self.status}, but {self.reason}"


@final
class TooLarge(ResonateError, ValueError):
    """A request is larger than the server accepts. It had no effect, and would have none if it were sent again.

    Attributes:
        kind: the kind of the request, e.g. `promise.settle`.
        subject: the id in the request; empty if it has none.
        size: the size of the request in bytes.
        limit: the largest size that the server accepts, in bytes; None if it is unknown.
    """

    def __init__(self, kind: str, subject: str, size: int, limit: int | None = None) -> None:
        super().__init__(kind, subject, size, limit)
        self.kind = kind
        self.subject = subject
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        limit = "more than the server accepts" if self.limit is None else f"and the server accepts {self.limit}"
        return (
            f"{self.kind} {self.subject!r} has {self.size} bytes, {limit}; keep large values elsewhere, and record "
            f"their location"
        )


class StoreError(ResonateError):
    """The database file cannot be used: it is another program's, too new, or damaged, or the disk fails."""


@final
class StoreInUse(StoreError):
    """Another embedded engine owns the database file.

    Attributes:
        path: the path of the file.
        pid: the process id of the owner; None if it is unknown.
        here: whether the owner is this process.
    """

    def __init__(self, path: str, pid: int | None, here: bool = False) -> None:  # noqa: FBT001, FBT002 - kept in args
        super().__init__(path, pid, here)
        self.path = path
        self.pid = pid
        self.here = here

    def __str__(self) -> str:
        if self.here:
            return (
                f"{self.path} is in use by process {self.pid}, this process; one engine owns a file at a time. "
                f"Make one network = LocalNetwork(SQLiteStore(path)) and give it to both: Resonate(network=network)"
            )
        owner = "another process" if self.pid is None else f"process {self.pid}"
        return (
            f"{self.path} is in use by {owner}; one engine owns a file at a time (SQLite tools may read it). "
            f"Stop that process, or give this one a file of its own. Several processes share a file through a server: "
            f"stop them, run `resonate-anyio dev {self.path}`, and start each with "
            f"RESONATE_URL=http://localhost:8001 or with Resonate(url)"
        )


@final
class StoreUnavailable(StoreError, NetworkError):  # pyright: ignore[reportUnsafeMultipleInheritance] - has one init
    """The store cannot be written at present, and nothing was changed. Try again later.

    Another program holds the write lock of the database file, the disk is full, or the disk fails. Durable functions
    wait until the store can be written. A call outside durable functions raises this error after half a minute.

    Attributes:
        path: the path of the file.
        reason: the cause, as text.
        kind: the kind of the request that was not handled, e.g. `promise.create`; empty if there was no request.
        subject: the id in the request; empty if it has none.
    """

    def __init__(self, path: str, reason: str, kind: str = "", subject: str = "") -> None:
        super().__init__(kind, subject, reason)
        self.args: tuple[object, ...] = (path, reason, kind, subject)
        self.path = path

    def __str__(self) -> str:
        state = f"{self.path}: {self.reason}"
        return f"{self._request} was not done: {state}" if self.kind else state


@final
class StoreLost(StoreError):
    """The database file was deleted, moved, replaced or damaged while it was in use.

    The engine stops. Records that were written since then are not in the file.

    Attributes:
        path: the path of the file.
        reason: the cause, as text.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
