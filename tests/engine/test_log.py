"""What the log says about executions: one line per event of a life, an ERROR for a failure that nobody waits for."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from typing import Any

import anyio
import pytest

from resonate_anyio import Context, NonDeterminismError, Resonate, Retry, durable
from resonate_anyio._protocol import Request, Response, TaskGet
from resonate_anyio._worker._worker import Worker
from resonate_anyio.abc import Network

from ..inside import worker_of
from .harness import Oops, Wire, World, creates

LOGGER = "resonate_anyio.executions"


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)


def lines(caplog: pytest.LogCaptureFixture, id: str = "w") -> list[str]:
    """What was said about an execution: the level and the line, its duration left out."""
    return [
        f"{record.levelname} {re.sub(r' duration=[0-9]+[.][0-9]{3}', '', record.getMessage())}"
        for record in caplog.records
        if record.name == LOGGER and re.search(rf"\bid={re.escape(id)} ", record.getMessage())
    ]


def ends(caplog: pytest.LogCaptureFixture, id: str = "w") -> list[tuple[str, str, bool]]:
    """How executions with this id ended: level, event, and whether there is a traceback."""
    return [
        (record.levelname, record.getMessage().split()[0], record.exc_info is not None)
        for record in caplog.records
        if record.name == LOGGER and f" id={id} " in record.getMessage() and "duration=" in record.getMessage()
    ]


def running(resonate: Resonate) -> Worker:
    """The worker of a `Resonate` object that is entered."""
    return worker_of(resonate)


AWAITED = [("INFO", "execution.failed", False)]
NOT_AWAITED = [("ERROR", "execution.failed", True)]


async def double(x: int) -> int:
    await anyio.sleep(1)
    return x * 2


async def flow(ctx: Context, x: int) -> int:
    return await ctx.run(double, x)


async def fail(seconds: float = 1) -> None:
    await anyio.sleep(seconds)
    msg = "no unicorns\nin stock"
    raise Oops(msg)


async def wait(ctx: Context) -> Any:
    await ctx.run(double, 1)
    return await ctx.promise().named("answer")


async def forever() -> None:
    await anyio.sleep_forever()


# Lives


async def test_an_execution_is_told_in_two_lines(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """Its start, and its end with how long it took; calls, arguments and results are not in them."""
    resonate.register(flow)
    async with resonate:
        await resonate.run("w", flow, 1234)
    assert [
        "INFO execution.started id=w func=flow version=1 task_version=1",
        "INFO execution.completed id=w func=flow version=1",
    ] == lines(caplog)
    [duration] = re.findall(r"duration=([0-9.]+)", caplog.text)
    assert 1 <= float(duration) < 2
    assert "1234" not in caplog.text
    assert "2468" not in caplog.text


async def test_parking_and_resuming(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """Each is told with the version of the task, and suspension with how many promises are awaited."""
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(wait)
    async with resonate:
        handle = await resonate.run("w", wait).spawn()
        await anyio.sleep(300)
        await resonate.promises.resolve("w.answer")
        await handle
    assert [
        "INFO execution.started id=w func=wait version=1 task_version=1",
        "INFO execution.parked id=w func=wait version=1 task_version=1 awaited=1",
        "INFO execution.resumed id=w func=wait version=1 task_version=2",
        "INFO execution.completed id=w func=wait version=1",
    ] == lines(caplog)


async def test_a_restart_is_told_with_the_number_of_records(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A life that replays says so, and how much it has to replay."""
    process = world.process(wait)
    process.kill_at(creates("w.answer"), answered=True)
    await world.run_until_killed(process, "w", wait)
    caplog.clear()
    async with world.process(wait) as again:
        await again.resonate.promises.resolve("w.answer", 7)
        assert 7 == await (await again.resonate.get("w"))
    first, last = lines(caplog)
    assert re.fullmatch(r"INFO execution.replaying id=w func=wait version=1 task_version=\d records=2", first)
    assert "INFO execution.completed id=w func=wait version=1" == last


async def test_a_stop_unloads(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """What a stop puts out of memory is told."""
    resonate.register(wait)
    async with resonate:
        await resonate.run("w", wait).spawn()
        await anyio.sleep(5)
    assert "INFO execution.unloaded id=w func=wait version=1 task_version=1" == lines(caplog)[-1]


async def test_a_lost_task_is_told(resonate: Resonate, wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """An execution whose task another worker has is lost, which is no failure of its."""
    resonate.register(wait)
    async with resonate:
        await resonate.run("w", wait).spawn()
        await anyio.sleep(5)
        wire.answer = lambda request: Response(status=404, error="gone") if isinstance(request, TaskGet) else None
        running(resonate).executions["w"].suspension.verify_lease()
        await anyio.sleep(5)
    assert "INFO execution.lost id=w func=wait version=1 task_version=1" == lines(caplog)[-1]


async def test_a_halt_is_an_error_and_says_why(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The line of a halted execution has the error, which shows both sides."""
    process = world.process(wait)
    process.kill_at(creates("w.answer"), answered=True)
    await world.run_until_killed(process, "w", wait)

    async def changed(ctx: Context) -> None:
        await ctx.run(fail).named("double-1")

    async with world.process(durable(name="wait")(changed)) as again:
        with pytest.raises(NonDeterminismError):
            await (await again.resonate.get("w"))
    halted = lines(caplog)[-1]
    assert halted.startswith("ERROR execution.halted id=w func=wait version=1 task_version=")
    assert "recorded ctx.run(double, version 1)" in halted


async def test_what_the_engine_fails_under_is_an_error(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """A crash is told with its traceback, and the execution is taken again: nothing of it was on record."""
    resonate = Resonate(network=wire, pid="p", one_request=False)

    def broken(request: Request) -> Response | None:
        if creates("w.double-1")(request):
            wire.answer = lambda _: None
            msg = "out of order"
            raise ZeroDivisionError(msg)
        return None

    wire.answer = broken
    resonate.register(flow)
    async with resonate:
        await resonate.rpc("w", flow, 1)
    started, crashed, again, completed = lines(caplog)
    assert started.startswith("INFO execution.started")
    assert "ERROR execution.crashed id=w func=flow version=1 task_version=1" == crashed
    assert again.startswith("INFO execution.started id=w func=flow version=1 task_version=")
    assert completed.startswith("INFO execution.completed")
    assert "ZeroDivisionError: out of order" in caplog.text


# Failures


async def test_a_failure_that_nobody_waits_for_is_an_error_with_its_traceback(
    resonate: Resonate, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, on one line before the traceback, which leads to the line that raised."""
    resonate.register(fail)
    async with resonate:
        await resonate.run("w", fail).spawn()
        await anyio.sleep(5)
    assert NOT_AWAITED == ends(caplog)
    assert r"ERROR execution.failed id=w func=fail version=1 error='Oops: no unicorns\nin stock'" == lines(caplog)[-1]
    assert "raise Oops(msg)" in caplog.text


@pytest.mark.parametrize("how", ["run", "rpc", "get"])
async def test_a_failure_that_code_of_the_process_waits_for_is_no_error(
    resonate: Resonate, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Whoever waits gets the error; the log has a line at INFO, however the wait began."""
    resonate.register(fail)
    async with resonate:
        if how == "run":
            handle = await resonate.run("w", fail).spawn()
        else:
            handle = await resonate.rpc("w", fail).spawn()
        if how == "get":
            handle = await resonate.get("w", type(None))
        with pytest.raises(Oops):
            await handle
        await anyio.sleep(1)
    assert AWAITED == ends(caplog)


async def test_a_wait_that_was_given_up_does_not_count(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """A failure that comes after the last wait for it was cancelled is an ERROR; one waiter of two is enough."""
    resonate.register(fail)
    async with resonate:
        left = await resonate.run("left", fail, 10).spawn()
        kept = await resonate.run("kept", fail, 10).spawn()
        for handle in (left, kept):
            with anyio.move_on_after(1):
                await handle
        with pytest.raises(Oops):
            await kept
        await anyio.sleep(5)
        with pytest.raises(Oops):
            await left
    assert NOT_AWAITED == ends(caplog, "left")
    assert AWAITED == ends(caplog, "kept")


async def test_a_failed_call_is_no_error_since_its_caller_sees_it(
    resonate: Resonate, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure of what `ctx.rpc` runs is its caller's: only the root that fails with it is an ERROR."""

    async def outer(ctx: Context) -> None:
        await ctx.rpc(fail)

    resonate.register(fail)
    resonate.register(outer)
    async with resonate:
        await resonate.run("w", outer).spawn()
        await anyio.sleep(5)
    assert AWAITED == ends(caplog, "w.fail-1")
    assert NOT_AWAITED == ends(caplog)


async def test_a_detached_failure_is_an_error(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """Its caller does not wait for it, and is done."""

    async def outer(ctx: Context) -> str:
        return await ctx.detached(fail)

    resonate.register(fail)
    resonate.register(outer)
    async with resonate:
        id = await resonate.run("w", outer)
        await anyio.sleep(5)
    assert NOT_AWAITED == ends(caplog, id)
    assert [("INFO", "execution.completed", False)] == ends(caplog)


async def test_a_scheduled_failure_is_an_error(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for what a schedule starts."""
    resonate.register(fail)
    async with resonate:
        await resonate.schedule("daily", "0 0 * * *", fail)
        await anyio.sleep(24 * 3600 + 5)
        await resonate.schedules.delete("daily")
    assert 1 == sum(record.levelname == "ERROR" for record in caplog.records)
    assert "ERROR execution.failed id=daily-" in "\n".join(
        f"{record.levelname} {record.getMessage()}" for record in caplog.records
    )


async def test_a_result_that_cannot_be_recorded_is_a_failure(
    resonate: Resonate, caplog: pytest.LogCaptureFixture
) -> None:
    """The ERROR is what is on record, although the function returned."""

    async def odd() -> object:
        return object()

    resonate.register(odd)
    async with resonate:
        await resonate.run("w", odd).spawn()
        await anyio.sleep(5)
    assert NOT_AWAITED == ends(caplog)
    assert "EncodeError: the result of function 'odd'" in caplog.text
    assert "EncodeError: " in lines(caplog)[-1]


async def test_an_error_that_cannot_be_shown_is_told_by_its_type(
    resonate: Resonate, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception whose text raises, and one whose text is very long, make one short line."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    async def odd() -> None:
        raise Odd

    async def long() -> None:
        raise Oops("x" * 10_000)

    resonate.register(odd)
    resonate.register(long)
    async with resonate:
        await resonate.run("odd", odd).spawn()
        await resonate.run("long", long).spawn()
        await anyio.sleep(5)
    assert "ERROR execution.failed id=odd func=odd version=1 error='Odd'" == lines(caplog, "odd")[-1]
    assert len(lines(caplog, "long")[-1]) < 300


async def test_a_deadline_that_nobody_sees_pass_is_an_error(
    resonate: Resonate, caplog: pytest.LogCaptureFixture
) -> None:
    """An execution that timed out has failed; with a waiter it is no ERROR."""
    resonate.register(forever)
    async with resonate:
        await resonate.run("w", forever).timeout(10).spawn()
        with pytest.raises(TimeoutError):
            await resonate.run("awaited", forever).timeout(10)
        await anyio.sleep(20)
    assert [("ERROR", "execution.timed_out", False)] == ends(caplog)
    assert [("INFO", "execution.timed_out", False)] == ends(caplog, "awaited")


async def test_a_deadline_that_passes_while_parked(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """An execution that is in memory only when its deadline passes is told to have timed out, like any other."""
    resonate = Resonate(network=wire, hot_for=1)
    resonate.register(wait)
    async with resonate:
        await resonate.run("w", wait).timeout(1000).spawn()
        with pytest.raises(TimeoutError):
            await resonate.run("awaited", wait).timeout(1000)
        await anyio.sleep(100)
    assert [("ERROR", "execution.timed_out", False)] == ends(caplog)
    assert [("INFO", "execution.timed_out", False)] == ends(caplog, "awaited")
    assert "INFO execution.parked" in lines(caplog)[1]


# Cancellations


async def test_a_cancellation_is_told_with_its_reason(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """By its id; with its caller; by a scope around the await of its caller."""

    async def outer(ctx: Context) -> None:
        with anyio.move_on_after(5):
            await ctx.rpc(forever)
        await ctx.rpc(forever)

    resonate.register(forever)
    resonate.register(outer)
    async with resonate:
        await resonate.run("w", outer).spawn()
        await anyio.sleep(20)
        await resonate.cancel("w")
        await anyio.sleep(5)
    reasons = [(id, lines(caplog, id)[-1]) for id in ("w", "w.forever-1", "w.forever-2")]
    assert [
        ("w", "INFO execution.cancelled id=w func=outer version=1 by=outside"),
        ("w.forever-1", "INFO execution.cancelled id=w.forever-1 func=forever version=1 by=scope"),
        ("w.forever-2", "INFO execution.cancelled id=w.forever-2 func=forever version=1 by=parent"),
    ] == reasons


async def test_a_promise_that_is_settled_from_outside(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """An execution whose own promise somebody else settles is told with the state; it is no failure of its."""
    resonate.register(forever)
    async with resonate:
        for state in ("resolved", "rejected"):
            await resonate.run(state, forever).spawn()
            await anyio.sleep(5)
            await resonate.promises.settle(state, state)
        await anyio.sleep(5)
    for state in ("resolved", "rejected"):
        assert (
            f"INFO execution.settled id={state} func=forever version=1 state={state} by=outside"
            == (lines(caplog, state)[-1])
        )


# Calls


async def test_calls_are_told_at_debug(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    """Started, recorded, settled: for each call a line, with nothing of its values."""
    resonate = Resonate(network=network, pid="p", one_request=True)
    caplog.set_level(logging.DEBUG, LOGGER)
    resonate.register(flow)
    async with resonate:
        await resonate.run("w", flow, 1234)
    assert [
        "DEBUG call.started id=w.double-1 execution=w func=double version=1",
        "DEBUG call.recorded id=w.double-1 execution=w state=pending",
        "DEBUG call.settled id=w.double-1 execution=w state=resolved",
    ] == lines(caplog, "w.double-1")
    assert "1234" not in caplog.text
    assert "2468" not in caplog.text


async def test_a_replayed_call_is_told_as_such(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A call that has its outcome on record is not started: one line says that it is there."""
    process = world.process(wait)
    process.kill_at(creates("w.answer"), answered=True)
    await world.run_until_killed(process, "w", wait)
    caplog.clear()
    caplog.set_level(logging.DEBUG, LOGGER)
    async with world.process(wait) as again:
        await again.resonate.promises.resolve("w.answer", 7)
        await (await again.resonate.get("w"))
    assert ["DEBUG call.replayed id=w.double-1 execution=w state=resolved"] == lines(caplog, "w.double-1")


async def test_a_retry_is_a_warning(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """Each attempt that is followed by another is told with its number, its error and the pause."""
    attempts: list[None] = []

    async def flaky() -> str:
        attempts.append(None)
        if len(attempts) < 3:
            raise Oops(len(attempts))
        return "yes"

    async def outer(ctx: Context) -> str:
        return await ctx.run(flaky).retry(Retry(delay=1, jitter=0))

    resonate.register(outer)
    async with resonate:
        assert "yes" == await resonate.run("w", outer)
    call = "WARNING call.retried id=w.flaky-1 execution=w func=flaky version=1"
    assert [
        f"{call} attempt=1 retry_in=1.000 error='Oops: 1'",
        f"{call} attempt=2 retry_in=2.000 error='Oops: 2'",
    ] == lines(caplog, "w.flaky-1")


async def test_a_name_cannot_forge_a_line(resonate: Resonate, caplog: pytest.LogCaptureFixture) -> None:
    """An id with a space or a line break in it is quoted, and one that is printable is not."""
    resonate.register(double)
    async with resonate:
        await resonate.run("a b\nexecution id=w ", double, 1)
        await resonate.run("zürich", double, 1)
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert r"execution.started id='a b\nexecution id=w ' func=double" in caplog.text
    assert "execution.started id=zürich func=double" in caplog.text


# Without any configuration

PROGRAM = """
import anyio
from resonate_anyio import Resonate

async def fail():
    raise LookupError("no unicorns in stock")

async def main():
    resonate = Resonate()
    resonate.register(fail)
    async with resonate:
        await resonate.run("w", fail).spawn()
        try:
            await resonate.run("seen", fail)
        except LookupError:
            pass

anyio.run(main)
"""


@pytest.mark.wall
def test_a_program_without_logging_sees_the_failure() -> None:
    """Python prints what nobody has configured to be logged from WARNING on: the traceback, and nothing else."""
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert "" == result.stdout
    assert result.stderr.startswith("execution.failed id=w func=fail version=1 duration=")
    assert result.stderr.endswith("LookupError: no unicorns in stock\n")
    assert 1 == result.stderr.count("execution.")
