"""`Race`: several calls, whose outcomes the code gets in the order in which they end, or only the first of them.

The order in which calls ended cannot be found out afterwards. So each such choice is recorded before the code sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from anyio import CancelScope, create_task_group, get_cancelled_exc_class
from attrs import define, field

from ._awaits import deliver, end_again
from ._choices import RecordedChoice
from ._frame import Frame
from ._lanes import lane_of
from ._node import Node, cancel_all
from ._reasons import CHOICE, Reason
from ._regions import reason_for
from ._started import Started

if TYPE_CHECKING:
    from ._invocation import Invocation
    from ._lanes import Place


@define(eq=False, repr=False)
class Race:
    """Several calls. Those that were not started before are started here.

    Attributes:
        frame: the frame whose code runs the race.
        runners: all entrants, once they have been started.
        own: the entrants that were started here.
    """

    frame: Frame
    _entrants: Sequence[Started | Callable[[], Invocation]]
    runners: list[Started] = field(factory=list, init=False)
    own: list[Started] = field(factory=list, init=False)

    async def start(self) -> None:
        """Record and start all entrants at once that are not futures yet."""
        for entrant in self._entrants:
            if isinstance(entrant, Started):
                self.runners.append(entrant)
            else:
                self.runners.append(Started(entrant()))
                self.own.append(self.runners[-1])
        # In this task and not in the tasks that open the calls, since this code may have to be cancelled.
        try:
            for started in self.own:
                await started.invocation.meet()
        finally:
            for started in self.own:
                started.invocation.follow()
        refused: list[Exception] = []
        async with create_task_group() as tasks:
            for started in self.own:
                tasks.start_soon(self._open, started, refused)
        if refused:
            # Outside of the task group, which would wrap the exception in a group.
            raise refused[0]
        for started in self.own:
            if started.node is not None:
                await started.invocation.refuse_again(started.node)

    async def first(self, place: Place) -> tuple[int, object]:
        """Choose the first entrant to end, cancel the others that were started here, return its index and result."""
        choice = RecordedChoice.plan(self.frame, place, "ctx.first")
        try:
            await self.start()
            every = range(len(self.runners))
            index = await choice.choose(partial(self.next, every), every)
        except get_cancelled_exc_class():
            choice.follow()
            if not self.frame.execution.interrupted():
                await self.cancel(reason_for(self.frame))
            raise
        winner = await self.outcome(index)
        await self.cancel(Reason(CHOICE))
        for node in self.nodes():
            self.frame.children.mark_seen(node)
        return index, await deliver(self.frame, winner)

    async def next_completed(self, place: Place, left: Sequence[int]) -> int:
        """Choose the next entrant to end of those that are left, and return its index once it has ended."""
        choice = RecordedChoice.plan(self.frame, place, "ctx.as_completed")
        index = await choice.choose(partial(self.next, left), left)
        runner = self.runners[index]
        await runner.settled()
        if runner.node is not None:
            runner.node.mark_known()
        await self.frame.order.turn(lane_of(self.frame))
        return index

    async def _open(self, started: Started, refused: list[Exception]) -> None:
        started.invocation.set_apart()
        try:
            node = await started.open()
        except Exception as exc:  # noqa: BLE001 - it is raised in the code that makes the call
            refused.append(exc)
            return
        except BaseException as exc:
            self.frame.execution.interrupt(exc)
            raise
        if isinstance(node, Frame) and node.pending:
            self.frame.start(node)

    async def next(self, left: Sequence[int]) -> int:
        """Return the index of the entrant that ended first of those that are left; wait for it if necessary."""
        await self._end_here()
        if not self._ended(left):
            await self.frame.before_wait(lane_of(self.frame))
            async with create_task_group() as tasks:
                for index in left:
                    tasks.start_soon(self._watch, index, tasks.cancel_scope)
            await self._end_here()
        return min(self._ended(left))[1]

    async def _end_here(self) -> None:
        """End the running code, if an entrant that was started here has ended together with something around the code.

        A replay finds no choice on record then. On a live run the deadline of a scope may end a call shortly before the
        code.
        """
        for node in self.nodes():
            if not (node.pending or node.known):
                await end_again(self.frame, node)

    def _ended(self, left: Sequence[int]) -> list[tuple[int, int]]:
        runners = [(self.runners[index], index) for index in left]
        return [(_ended_at(runner), index) for runner, index in runners if _has_ended(runner)]

    async def _watch(self, index: int, scope: CancelScope) -> None:
        await self.runners[index].settled()
        scope.cancel()

    async def cancel(self, reason: Reason) -> None:
        """Cancel the unfinished calls that were started here."""
        with CancelScope(shield=True):
            await cancel_all(self.nodes(), reason)

    def nodes(self) -> list[Node]:
        """Return the calls that were started here."""
        return [started.node for started in self.own if started.node is not None]

    async def outcome(self, index: int) -> Node:
        """Return the chosen call, once it has ended."""
        runner = self.runners[index]
        await runner.settled()
        if runner.node is None:
            assert runner.forgone is not None
            raise runner.forgone
        return runner.node


def _has_ended(runner: Started) -> bool:
    return runner.forgone is not None or (runner.node is not None and not runner.node.pending)


def _ended_at(runner: Started) -> int:
    node = runner.node
    return 0 if node is None else node.record.settled_at or 0
