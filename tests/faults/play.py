"""`play`: the job from its start to its end, through whatever weather there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import anyio
from anyio import create_task_group, current_time
from attrs import define, field

from resonate_anyio import NetworkError, RequestError, Resonate
from resonate_anyio.abc import Clock

from .job import FAR, RESULT, job
from .meter import busy_loops
from .site import Site
from .weather import Trouble

T = TypeVar("T")

_WORD_AFTER: Final = 5.0
"""Seconds after the nap when somebody outside says the word that the job waits for."""

_AGAIN: Final = 5.0
"""Seconds after which a program tries again what it was told had failed."""

_UNTIL_QUIET: Final = 400.0
"""Seconds after which nothing is left to be put in order: the longest lease, then the longest pause before a retry."""


@define(eq=False)
class Story:
    """What came of it.

    Attributes:
        result: of the job.
        errors: what the program was told had failed.
        took: how many seconds.
    """

    site: Site
    result: Any = None
    errors: list[Exception] = field(factory=list, init=False)
    took: float = field(default=0, init=False)

    @property
    def faults(self) -> list[str]:
        """What must not have happened: something run that was finished, something lost, a busy loop."""
        records, runs = self.site.records, self.site.runs
        faults = [*runs.faults, *records.faults, *busy_loops(self.site.meter)]
        if self.result != RESULT:
            faults.append(f"the job came to {self.result}")
        faults += [f"{id} is pending for ever" for id in records.pending]
        faults += [f"task {task}" for task in records.unfinished_tasks()]
        steps = {id for id in records.promises if ".step-" in id}
        faults += [f"{id} is on record and did not run" for id in sorted(steps - set(runs.ended))]
        faults += [f"{id} ran and is not on record" for id in sorted(set(runs.counts) - steps)]
        return faults

    def __str__(self) -> str:
        return "\n".join([*self.site.weather.happened, *map(repr, self.errors)])


async def nothing_else(_: Site) -> None:
    """Let things be as they are."""


async def play(
    clock: Clock,
    *troubles: Trouble,
    meanwhile: Callable[[Site], Coroutine[Any, Any, None]] = nothing_else,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Story:
    """Run the job, with a worker for each half of it, through these troubles. What fails is tried again.

    Args:
        clock: the clock of them all.
        troubles: what goes wrong.
        meanwhile: what happens besides.
        options: of the server.
        settings: of the clients.
    """
    async with Site.open(clock, **(options or {})) as site:
        site.weather.expect(*troubles)
        story = Story(site)
        began = current_time()
        async with site.client("near", **settings) as near, site.client("far", group=FAR, **settings):
            async with create_task_group() as tasks:
                tasks.start_soon(meanwhile, site)
                tasks.start_soon(_say, story, near)
                story.result = await persist(story, lambda: near.run("job", job))
            story.took = current_time() - began
            with anyio.move_on_after(_UNTIL_QUIET):
                await site.until(lambda records: records.quiet and not records.unfinished_tasks())
    return story


async def _say(story: Story, resonate: Resonate) -> None:
    await story.site.until(lambda _: story.site.settled("job.sleep-1"))
    await anyio.sleep(_WORD_AFTER)
    await persist(story, lambda: resonate.promises.resolve("job.word", "word"))


async def persist(story: Story, do: Callable[[], Awaitable[T]]) -> T:
    """Do something that may fail because nothing answers, until it does not."""
    while True:
        try:
            return await do()
        except (NetworkError, RequestError, LookupError) as exc:
            story.errors.append(exc)
            await anyio.sleep(_AGAIN)


def told(story: Story) -> str:
    """What has gone wrong, for the message of an assertion."""
    return f"\n{story}"
