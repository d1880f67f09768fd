"""Schedules: functions that are started again and again by cron."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import define, evolve, field, frozen

from .._api._options import WithBareArgs
from .._codec import Codec
from .._concurrency._tasks import caller
from .._errors import InvalidArgument, NotFound, UsageError
from .._ids import check_unicode
from .._protocol import (
    Missed as RecordedMissed,
    Request,
    Response,
    Schedule as ScheduleRecord,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleGet,
    ScheduleSearch,
)
from .._requests._queries import refusal
from .._time import from_ms, to_ms
from .._values import ValueObject
from ._calls import RootCall
from ._checks import check_id, check_tags
from ._promises import _readable

if TYPE_CHECKING:
    from typing import NoReturn, Self

    from .._functions._function import Function
    from .._worker._face import Face
    from ._lifecycle import Lifecycle

# With a dot in it, the children of what is fired would be refused by newer servers (docs/distribution.md 5.1).
_TEMPLATE: Final = "{{.id}}-{{.timestamp}}"

Missed: TypeAlias = Literal["all", "latest", "none"]
"""What a schedule does about occurrences that passed while no server ran."""


@frozen(kw_only=True, eq=False, repr=False)
class Schedule(ValueObject):
    """A schedule as it is recorded.

    Attributes:
        id: its name.
        cron: when it fires, in UTC, in the server's dialect.
        promise_id: the template of the ids that it fires.
        promise_timeout: how long each of them may take.
        param: what each is created with.
        tags: what each is tagged with.
        created_at: when the schedule was created.
        next_run_at: when it fires next.
        last_run_at: when it has fired last, or None.
        missed: what it does about occurrences that passed while no server ran; see `Schedules.create`.
    """

    id: str
    cron: str
    promise_id: str
    promise_timeout: timedelta
    param: Any
    tags: Mapping[str, str]
    created_at: datetime
    next_run_at: datetime
    last_run_at: datetime | None
    missed: Missed
    _schedules: Schedules = field(alias="schedules", repr=False, eq=False)

    async def delete(self) -> None:
        """Delete the schedule. Executions that it has fired go on.

        Raises:
            NotFound: it has been deleted already.
        """
        await self._schedules.delete(self.id)


@define(eq=False, repr=False)
class Schedules:
    """Schedules by hand. `resonate.schedule(...)` makes one that calls a function."""

    _codec: Codec
    _worker: Callable[[str, str | None], Face]

    async def create(  # noqa: PLR0913 - the optional ones are given by name
        self,
        id: str,
        cron: str,
        promise_id: str,
        promise_timeout: float | timedelta,
        *,
        promise_param: object = None,
        promise_tags: Mapping[str, str] | None = None,
        missed: Missed = "all",
    ) -> Schedule:
        """Create a schedule, or return the one that has the id already.

        Args:
            id: its name, without `.` and `:`.
            cron: five fields (minute hour day month weekday) or six with seconds first, in UTC. Weekdays count from
                1 = Sunday, so spell them: `mon-fri`. When day and weekday are both restricted, both must match.
            promise_id: the template of the promise ids, with `{{.id}}` and `{{.timestamp}}` (epoch milliseconds).
            promise_timeout: seconds, or a `timedelta`, from each firing to the deadline of what it fires.
            promise_param: what each promise is created with.
            promise_tags: what each promise is tagged with; `resonate:target` says who runs it.
            missed: what is done about occurrences that are more than ten seconds late, because nothing ran when they
                were due, or the clock was set forward. `"all"`: each is fired, in order. `"latest"`: one is fired, the
                latest that is due, for all of them. `"none"`: none is fired, the schedule goes on with the next one.
                Only the engine of this package, in process or as `resonate-anyio dev`, knows the last two.

        Raises:
            InvalidArgument: an argument is unusable.
            UsageError: the server does not know `missed`; no schedule was left there.
            EncodeError: `promise_param` cannot be turned into JSON.
        """
        return await self._create(
            ScheduleCreate(
                id=check_schedule_id(id),
                cron=checked_cron(cron),
                promise_id=promise_id,
                promise_timeout=to_ms(promise_timeout),
                promise_param=self._codec.encode(promise_param),
                promise_tags=check_tags(promise_tags),
                missed=check_missed(missed),
            ),
            caller(),
        )

    async def get(self, id: str) -> Schedule:
        """Return the schedule.

        Raises:
            NotFound: it does not exist.
        """
        request = ScheduleGet(id=check_id(id, "schedule"))
        return self._public(
            self._checked(request, await self._worker("resonate.schedules.get()", None).ask(request), id)
        )

    async def delete(self, id: str) -> None:
        """Delete the schedule. Executions that it has fired go on.

        Raises:
            NotFound: it does not exist.
        """
        request = ScheduleDelete(id=check_id(id, "schedule"))
        response = await self._worker("resonate.schedules.delete()", None).ask(request)
        if response.status != 200:
            self._checked(request, response, id)

    async def search(self, *, tags: Mapping[str, str] | None = None) -> AsyncIterator[Schedule]:
        """Iterate over all schedules in the order of their ids, or those whose promises have all of these tags."""
        worker = self._worker("resonate.schedules.search()", None)
        tags = check_tags(tags)
        cursor: str | None = None
        while True:
            response = await worker.ask(ScheduleSearch(tags=tags, cursor=cursor))
            for record in response.schedules:
                yield self._public(record)
            cursor = response.cursor
            if cursor is None:
                return

    async def _create(self, request: ScheduleCreate, made_at: tuple[str, int]) -> Schedule:
        worker = self._worker("resonate.schedules.create()", None)
        record = None
        if request.missed is not RecordedMissed.ALL:
            # One that is there already must not be taken for what is made below.
            record = (await worker.ask(ScheduleGet(id=request.id))).schedule
        if record is None:
            record = self._checked(request, await worker.ask(request), request.id)
            if record.missed is not request.missed and _content(record) == _content(
                evolve(request, missed=record.missed)
            ):
                await self._take_back(request)
        wanted = _content(request)
        found = _content(record)
        if wanted != found:
            message = (
                f"the schedule {record.id!r} exists already and says something else ({record.cron!r}); it stays as it "
                f"is. To change it: await resonate.schedules.delete({record.id!r}), then create it again"
            )
            _warn(message, made_at)
        return self._public(record)

    async def _take_back(self, request: ScheduleCreate) -> NoReturn:
        """Delete a schedule that the server has created without the option `missed`, and raise."""
        await self.delete(request.id)
        msg = (
            f"this server does not know missed={request.missed.value!r} for the schedule {request.id!r}: a Resonate "
            f"Server fires all that was missed, one after the other. No schedule was left there. Leave the option out "
            f"and let the function itself look how late it is, or use the engine of this package (a file, or "
            f"resonate-anyio dev)"
        )
        raise UsageError(msg)

    @staticmethod
    def _checked(request: Request, response: Response, id: str) -> ScheduleRecord:
        if response.status == 404:
            raise NotFound("schedule", id)  # noqa: EM101 - the kind of thing, not a message
        if response.status != 200 or response.schedule is None:
            raise refusal(request, response)
        return response.schedule

    def _public(self, record: ScheduleRecord) -> Schedule:
        return Schedule(
            id=record.id,
            cron=record.cron,
            promise_id=record.promise_id,
            promise_timeout=timedelta(milliseconds=record.promise_timeout),
            param=_readable(record.promise_param, self._codec),
            tags=dict(record.promise_tags),
            created_at=from_ms(record.created_at),
            next_run_at=from_ms(record.next_run_at),
            last_run_at=None if record.last_run_at is None else from_ms(record.last_run_at),
            missed=record.missed.value,
            schedules=self,
        )


class ScheduleCall(RootCall[Schedule], WithBareArgs):
    """`resonate.schedule(...)`: awaiting it creates the schedule and returns it."""

    __slots__ = ("_cron", "_missed", "_name", "_schedules")

    def __init__(  # noqa: PLR0913, PLR0917 - one for each part of the call
        self,
        resonate: Lifecycle,
        schedules: Schedules,
        name: str,
        cron: str,
        func: Function | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._schedules = schedules
        self._name = check_schedule_id(name)
        self._cron = checked_cron(cron)
        self._missed = RecordedMissed.ALL
        label = func if isinstance(func, str) else func.name
        super().__init__(resonate, f"resonate.schedule({name!r}, {cron!r}, {label}, ...)", func, args, kwargs, None)

    def missed(self, missed: Missed) -> Self:
        """Say what is done about occurrences that passed while no server ran, or because the clock was set forward.

        `"all"`, the default, fires each of them, in order; `"latest"` the latest that is due, once; `"none"` none of
        them. An occurrence counts as missed when it is more than ten seconds late. Awaiting the call raises
        `UsageError` on a server that does not know the last two: they are an addition of this package's engine, in
        process and as `resonate-anyio dev`.

        Raises:
            InvalidArgument: it is not one of the three.
        """
        self._missed = self._checked(check_missed, missed)
        return self

    async def _run(self) -> Schedule:
        self._resonate._worker_for(self._label, "ctx.detached()")
        settings = self._resonate._settings
        target = self._target or settings.own_group
        return await self._schedules._create(
            ScheduleCreate(
                id=self._name,
                cron=self._cron,
                promise_id=settings.prefix + _TEMPLATE,
                promise_timeout=self._lifetime_ms,
                promise_param=self._param(self._func),
                promise_tags={**self._tags, "resonate:target": target, "resonate:scope": "global"},
                missed=self._missed,
            ),
            self._made_at,
        )


def _warn(message: str, made_at: tuple[str, int]) -> None:
    filename, line = made_at
    warnings.warn_explicit(message, UserWarning, filename, line)


def _content(schedule: ScheduleCreate | ScheduleRecord) -> tuple[object, ...]:
    tags = dict(schedule.promise_tags)
    return (
        schedule.cron,
        schedule.promise_id,
        schedule.promise_timeout,
        schedule.promise_param,
        tags,
        schedule.missed,
    )


def check_missed(missed: Missed) -> RecordedMissed:
    """Return the option `missed` of a schedule.

    Raises:
        InvalidArgument: it is not one of the three words.
    """
    try:
        return RecordedMissed(missed)
    except ValueError:
        msg = f"missed must be 'all', 'latest' or 'none', got {missed!r}"
        raise InvalidArgument(msg) from None


def check_schedule_id(id: str) -> str:
    """Return the id of a schedule, which is part of the ids that it fires.

    Raises:
        InvalidArgument: it is empty or has a separator in it.
    """
    if not isinstance(id, str) or not id or "." in id or ":" in id:
        msg = f"the name of a schedule is not empty and has no '.' and no ':' in it, unlike {id!r}"
        raise InvalidArgument(msg)
    check_unicode(id, "name of a schedule")
    return id


def checked_cron(cron: str) -> str:
    """Return a cron expression in the server's dialect.

    Raises:
        InvalidArgument: it is not valid.
    """
    from .._protocol import counts_weekdays, parse_cron  # noqa: PLC0415 - few programs have schedules

    try:
        if not isinstance(cron, str):
            reason = f"it is {type(cron).__name__}, not a string"
            raise ValueError(reason)  # noqa: TRY004, TRY301 - told like any other fault of the expression
        parse_cron(cron)
    except ValueError as exc:
        msg = (
            f"{cron!r} is not a valid cron expression: {exc}. The five usual ones are minute hour day month weekday, "
            f"e.g. '0 9 * * mon-fri'; of six the first is the second, and of seven the last is the year"
        )
        raise InvalidArgument(msg) from None
    if counts_weekdays(cron):
        message = (
            f"{cron!r} has numbers in its weekday field, which counts from 1 = Sunday to 7 = Saturday here, unlike "
            f"most crons; spell the days instead: sun, mon, tue, ..."
        )
        _warn(message, caller())
    return cron
