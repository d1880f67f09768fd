"""Every exception that this package raises.

* ResonateError
  * UsageError (also RuntimeError): the package was called in a way that cannot work
    * NotRegistered
    * AlreadyRegistered
    * InvalidFunction
    * WrongWorld
    * TooLate
    * BuilderUsed
    * NotRunning
    * DuplicateId
  * InvalidArgument (also ValueError): one argument is unusable; nothing was sent
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
  * RequestError: the server refused or failed a request (`status`, `kind`)
  * NetworkError: a request was not answered, so that it is unknown whether it had an effect (`kind`)
    * BadAnswer: a response arrived that is not an answer to the request (`status`)
  * TooLarge (also ValueError): a request is larger than the server accepts; it had no effect (`kind`, `size`, `limit`)
  * StoreError: the database file cannot be used
    * StoreInUse: another process owns the file (`pid`)
    * StoreUnavailable (also NetworkError): the file cannot be written now, because it is locked or the disk is full
    * StoreLost: the file was deleted, replaced or damaged while it was in use (`path`)

An exception that a durable function raised comes back with its own type (see `ApplicationError`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence


class ResonateError(Exception):
    """The base class of every exception that this package defines."""


class UsageError(ResonateError, RuntimeError):
    """The package was called in a way or at a time that cannot work; the message says what to do instead."""


@final
class NotRegistered(UsageError):
    """A function was called that is not registered in this program.

    Attributes:
        name: the name of the function.
        version: the requested version, or None.
        known: the registered functions.
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
    """A second function was registered under the same name and version."""

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
    """The object or its signature cannot be a durable function."""


@final
class WrongWorld(UsageError):
    """A client call was made inside a durable function, or a `Context` was used outside of its own function."""


@final
class TooLate(UsageError):
    """A function made a durable call after its own promise had been settled, so that the call could not be recorded."""


@final
class BuilderUsed(UsageError):
    """A builder was awaited or spawned a second time, or changed after it was started."""


@final
class NotRunning(UsageError):
    """The `Resonate` object is not inside its `async with` block, was stopped, or runs in another event loop."""


@final
class DuplicateId(UsageError):
    """Two calls of one durable function were given the same id."""


class InvalidArgument(ResonateError, ValueError):
    """An argument is unusable; nothing was sent."""


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
    """A durable promise ended without a value. `id` is the id of the promise, where it is known."""

    id: str | None = None


@final
class ApplicationError(DurableError):
    """A durable function failed with an exception whose type is unknown to this program.

    An exception comes back with its own type if its module is imported here already and it can be rebuilt from its
    arguments; otherwise, and for functions written with another SDK, it comes back as this type.

    Attributes:
        name: the name of the original exception type, as far as it was recorded.
        message: the message of the original exception.
        traceback: the remote traceback as text, or None.
        data: the recorded JSON, of any shape.
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
        by: the reason: `scope` (a scope around its await), `deadline` (a durable scope around its await), `group` (its
            task group), `parent` (the function that called it ended), `choice` (another call was the first), `future`
            (the function that called it cancelled its future), or `outside`; None if this package did not cancel it.
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

    The promise stays pending and its task is halted: repair the program, then call `await resonate.resume(task)`.

    Attributes:
        id: the id of the call that differs.
        recorded: a description of the recorded call.
        requested: a description of the call that the code makes now.
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
            f"its history (read clocks, random numbers, files and networks in leaves, with ctx.run), then call "
            f"await resonate.resume({self.task!r})"
            f"{_PLAIN_TASK_HINT if _OF_A_PLAIN_TASK.search(self.id) else ''}"
        )


@final
class ExecutionMismatch(ResonateError):
    """The id already belongs to a call of another function or another version."""

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
        what: the kind of object that was looked up.
        id: its id.
        hint: advice on what to do; may be empty.
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
    """A request was not answered, so that it is unknown whether it had an effect. Another attempt may succeed.

    Attributes:
        kind: the kind of the request, e.g. `promise.create`.
        subject: the id that it is about; empty if there is none.
        reason: the reason why it was not answered.
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
    """A response is not an answer to the request: the page of a proxy, the answer to another request, another protocol.

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
        subject: the id that it is about; empty if there is none.
        size: its size, in bytes.
        limit: the largest size that the server accepts, where that is known.
    """

    def __init__(self, kind: str, subject: str, size: int, limit: int | None = None) -> None:
        super().__init__(kind, subject, size, limit)
        self.kind = kind
        self.subject = subject
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        limit = "more than the server takes" if self.limit is None else f"and the server takes {self.limit}"
        return (
            f"{self.kind} {self.subject!r} has {self.size} bytes, {limit}; keep large values elsewhere, and record "
            f"where they are"
        )


class StoreError(ResonateError):
    """The database file cannot be used: it is another program's, too new or damaged, or the disk failed."""


@final
class StoreInUse(StoreError):
    """Another embedded engine owns the database file.

    Attributes:
        path: the path of the file.
        pid: the process id of the owner, where it is known.
        here: whether the owner is in this process.
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
    wait until the store can be written. A call outside of durable functions raises this error after half a minute.

    Attributes:
        path: the path of the file.
        reason: the reason of the failure.
        kind: the kind of the request that was not done, e.g. `promise.create`; empty if the failure belongs to no
            request.
        subject: the id that it is about; empty if there is none.
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

    The embedded engine stops: its writes since then are not in the file.

    Attributes:
        path: the path of the file.
        reason: what happened to the file.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
