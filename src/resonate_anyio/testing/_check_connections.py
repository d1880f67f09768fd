"""Checks of a network: connections, their messages, clocks and leases."""

from __future__ import annotations

from typing import Final

import anyio
from anyio import CancelScope, ClosedResourceError, EndOfStream, current_time, to_thread

from .._errors import UsageError
from ..abc import Connection, Gap
from ..protocol import Execute, PromiseGet, RegisterCallback, Request, TaskGet, TaskHeartbeat, TaskRef, TaskState
from ._bench import GLOBAL, QUIET, TTL_MS, Bench, Check, expect, fail

_UNREAD: Final = 20

_CLOCK_SLACK_MS: Final = 1_500
"""How far a network may be wrong about the server's clock: over HTTP it gets whole seconds."""

_A_WHILE: Final = 0.25


# Messages


async def _delivers_to_one_connection(bench: Bench) -> None:
    one, two = bench.identity("one"), bench.identity("two")
    async with bench.network.connect(one) as first, bench.network.connect(two) as second:
        for target in (one.unicast, one.preferred):
            id = await bench.create(first, "pref" if target == one.preferred else "uni", target=target)
            await bench.execute(first, id, "a message arrives at the connection that it is addressed to")
            expect("a message arrives at no other connection", [], await bench.waiting(second))
            expect("a message arrives once", [], await bench.waiting(first))


async def _delivers_to_the_group(bench: Bench) -> None:
    one, two, other = bench.identity("one"), bench.identity("two"), bench.identity("one", "other")
    async with (
        bench.network.connect(one) as first,
        bench.network.connect(two) as second,
        bench.network.connect(other) as outside,
    ):
        ids = [await bench.create(first, f"any-{number}", target=bench.any_of()) for number in range(6)]
        arrived = [*await bench.waiting(first), *await bench.waiting(second)]
        expect(
            "each message for a group arrives at one connection of it", [f"execute {id}" for id in ids], sorted(arrived)
        )
        expect("a message for a group arrives at no other group", [], await bench.waiting(outside))


async def _tells_listeners(bench: Bench) -> None:
    one, two = bench.identity("one"), bench.identity("two")
    async with bench.network.connect(one) as first, bench.network.connect(two) as second:
        id = await bench.create(first, "heard")
        await bench.listen(first, id, one)
        await bench.settle(second, id)
        message = await bench.message(first, "a listener gets a message when the promise settles")
        expect("the message has the promise", await bench.found(first, id), getattr(message, "promise", None))
        expect("only the listener gets a message", [], await bench.waiting(second))


async def _keeps_what_is_not_read(bench: Bench) -> None:
    me = bench.identity()
    async with bench.network.connect(me) as connection:
        ids = [await bench.create(connection, f"unread-{number:02}") for number in range(_UNREAD)]
        for id in ids:
            await bench.listen(connection, id, me)
        for id in ids:
            await bench.settle(connection, id)
        await anyio.sleep(_A_WHILE)
        for _ in range(_UNREAD):
            # Each time another point of `receive` is cancelled, or none.
            with CancelScope() as scope:
                scope.cancel()
                message = await connection.messages.receive()
                if not isinstance(message, Gap | Execute):
                    ids.remove(message.promise.id)
        arrived = await bench.waiting(connection)
        expect("messages wait until they are read", [f"unblock {id} resolved" for id in ids], sorted(arrived))


async def _routes_elsewhere_when_messages_are_closed(bench: Bench) -> None:
    one, two = bench.identity("one"), bench.identity("two")
    async with bench.network.connect(one) as first, bench.network.connect(two) as second:
        await first.messages.aclose()
        await anyio.sleep(_A_WHILE)
        ids = [await bench.create(first, f"elsewhere-{number}", target=one.preferred) for number in range(4)]
        for id in ids:
            await bench.execute(second, id, "messages arrive elsewhere when a stream is closed")
        await _expect_ended(bench, first, "a closed stream of messages has ended")


async def _says_where_messages_may_be_lost(bench: Bench) -> None:
    if bench.interrupt is None:
        return
    me = bench.identity()
    async with bench.network.connect(me) as connection:
        await bench.waiting(connection)
        await bench.interrupt()
        with bench.soon("an interruption of the messages is reported as a Gap"):
            while not isinstance(await connection.messages.receive(), Gap):
                pass
        id = await bench.create(connection, "after")
        await bench.listen(connection, id, me)
        await bench.settle(connection, id)
        await bench.message(connection, "messages arrive again after an interruption")


# Clocks


async def _has_clocks_that_go_on(bench: Bench) -> None:
    async with bench.network.connect(bench.identity()) as connection:
        began, loop_began, readings = connection.elapsed(), current_time(), [connection.now()]
        for number in range(5):
            await bench.create(connection, f"clock-{number}")
            await anyio.sleep(_A_WHILE / 5)
            readings += [connection.now(), connection.now()]
        expect("now() never goes back", sorted(readings), readings)
        passed = current_time() - loop_began
        _expect_about("elapsed() counts seconds", passed, connection.elapsed() - began)
        _expect_about("now() counts milliseconds", passed, (readings[-1] - readings[0]) / 1000)
        before = connection.elapsed()
        there = await to_thread.run_sync(connection.elapsed)
        if not before <= there <= connection.elapsed():
            fail("elapsed() may be read in another thread")


def _expect_about(duty: str, expected: float, actual: float) -> None:
    # A machine that is busy may delay a reading, and a server's clock may be put right meanwhile.
    if not expected / 2 <= actual <= 2 * expected + 2 * _CLOCK_SLACK_MS / 1000:
        fail(f"{duty}: expected about {expected:g} s, got {actual:g} s")


async def _knows_the_time_of_the_server(bench: Bench) -> None:
    async with bench.network.connect(bench.identity()) as connection:
        before = connection.now()
        promise = await bench.found(connection, await bench.create(connection, "instant"))
        created_at = before if promise is None else promise.created_at
        if not before - _CLOCK_SLACK_MS <= created_at <= connection.now() + _CLOCK_SLACK_MS:
            fail(f"now() is the server's instant: it was {before}, and the server says {created_at}")


async def _says_how_often_to_look(bench: Bench) -> None:
    if bench.network.request_timeout < 0:
        fail("request_timeout is not negative")
    async with bench.network.connect(bench.identity()) as connection:
        if connection.clock_check <= 0:
            fail("clock_check is positive")
        if connection.recheck <= 0:
            fail("recheck is positive")


# Leases and ids


async def _keeps_leases_as_it_says(bench: Bench) -> None:
    one, two = bench.identity("one"), bench.identity("two")
    async with bench.network.connect(two) as second:
        async with bench.network.connect(one) as first:
            id = await bench.create(first, "leased", target=one.preferred)
            message = await bench.execute(first, id, "a task is sent for")
            held = await bench.acquire(first, one, message)
            heartbeat = TaskHeartbeat(pid=one.holder, tasks=(TaskRef(id, held.version),))
            for _ in range(8):
                await anyio.sleep(TTL_MS / 4000)
                if not first.keeps_leases:
                    await bench.succeed(first, heartbeat)
            task = (await bench.succeed(first, TaskGet(id=id))).task
            kept = None if task is None else (task.state, task.pid)
            how = "by the network that keeps leases" if first.keeps_leases else "by heartbeats"
            expect(f"a lease is renewed {how}", (TaskState.ACQUIRED, one.holder), kept)
            if not first.keeps_leases:
                message = await bench.execute(
                    first, id, "without heartbeats a lease lapses, unless the network keeps it"
                )
                await bench.acquire(first, one, message)
        await bench.execute(second, id, "a lease lapses after its connection has closed")


async def _knows_how_the_server_reads_ids(bench: Bench) -> None:
    me = bench.identity()
    async with bench.network.connect(me) as connection:
        refs: list[TaskRef] = []
        for name in ("root", "other"):
            id = await bench.create(connection, name, target=me.unicast)
            message = await bench.execute(connection, id, "a task is sent for")
            refs.append(TaskRef(id, (await bench.acquire(connection, me, message)).version))
        dialect = connection.dialect
        below = f"{refs[0].id}{dialect.separator}1"
        tags = {"resonate:origin": refs[0].id, "resonate:parent": refs[0].id, "resonate:branch": below}
        duty = f"the server reads {dialect.separator!r} as the end of the id of a root, as the dialect says"
        answer = await bench.ask(connection, bench.creation(connection, below, tags={**tags, **GLOBAL}))
        expect(f"{duty}, when a promise is created", 200, answer.status)
        answer = await bench.ask(connection, RegisterCallback(awaited=below, awaiter=refs[0].id))
        expect(f"{duty}, when it is awaited", 200, answer.status)
        if dialect.origins_mix:
            answer = await bench.ask(connection, TaskHeartbeat(pid=me.holder, tasks=tuple(refs)))
            expect("a heartbeat may name tasks of several roots, as the dialect says", 200, answer.status)


# Life


async def _keeps_the_state_between_connections(bench: Bench) -> None:
    me = bench.identity()
    async with bench.network.connect(me) as connection:
        id = await bench.create(connection, "kept")
        before = await bench.found(connection, id)
    async with bench.network.connect(me) as connection:
        expect("what was recorded is there for the next connection", before, await bench.found(connection, id))


async def _lets_others_go_on(bench: Bench) -> None:
    one, two = bench.identity("one"), bench.identity("two")
    async with bench.network.connect(two) as second:
        async with bench.network.connect(one):
            pass
        id = await bench.create(second, "on", target=two.unicast)
        await bench.execute(second, id, "a connection goes on when another one closes")


async def _refuses_requests_when_closed(bench: Bench) -> None:
    me = bench.identity()
    async with bench.network.connect(me) as connection:
        creation = bench.creation(connection, bench.id("late"))
    await _expect_refused(bench, connection, creation)
    await _expect_ended(bench, connection, "the messages of a closed connection have ended")
    async with bench.network.connect(me) as another:
        expect("a closed connection has no effect", None, await bench.found(another, creation.id))


async def _expect_refused(bench: Bench, connection: Connection, request: Request) -> None:
    with bench.soon("a closed connection refuses requests"):
        try:
            await connection.request(request)
        except UsageError:
            pass
        else:
            fail("a closed connection refuses requests with UsageError")
        if connection.blocking_request is None:
            return
        try:
            await to_thread.run_sync(connection.blocking_request, request)
        except UsageError:
            pass
        else:
            fail("a closed connection refuses blocking requests with UsageError")


async def _expect_ended(bench: Bench, connection: Connection, duty: str) -> None:
    with bench.soon(duty):
        try:
            while True:
                await connection.messages.receive()
        except (EndOfStream, ClosedResourceError):
            pass


async def _can_be_cancelled(bench: Bench) -> None:
    me = bench.identity()
    with bench.soon("a block whose task is cancelled ends"):
        with anyio.move_on_after(_A_WHILE):
            async with bench.network.connect(me) as connection:
                id = await bench.create(connection, "before")
                await anyio.sleep_forever()
        with CancelScope() as scope:
            scope.cancel()
            async with bench.network.connect(me):
                await anyio.sleep_forever()
    async with bench.network.connect(me) as connection:
        if await bench.found(connection, id) is None:
            fail("what was recorded before a cancellation is kept")


async def _answers_while_the_host_is_cancelled(bench: Bench) -> None:
    answers: list[object] = []
    with CancelScope() as scope:
        async with bench.network.connect(bench.identity()) as connection:
            scope.cancel()
            with CancelScope(shield=True):
                await anyio.sleep(QUIET)
                try:
                    answers.append((await bench.ask(connection, PromiseGet(id=bench.id("missing")))).status)
                except Exception as error:  # noqa: BLE001 - the cancellation could take its place on the way out
                    answers.append(error)
    expect("requests under a shield are answered until the block is left", [404], answers)


CONNECTION_CHECKS: Final[tuple[Check, ...]] = (
    _delivers_to_one_connection,
    _delivers_to_the_group,
    _tells_listeners,
    _keeps_what_is_not_read,
    _routes_elsewhere_when_messages_are_closed,
    _says_where_messages_may_be_lost,
    _has_clocks_that_go_on,
    _knows_the_time_of_the_server,
    _says_how_often_to_look,
    _keeps_leases_as_it_says,
    _knows_how_the_server_reads_ids,
    _keeps_the_state_between_connections,
    _lets_others_go_on,
    _refuses_requests_when_closed,
    _can_be_cancelled,
    _answers_while_the_host_is_cancelled,
)
