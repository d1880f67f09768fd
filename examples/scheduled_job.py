"""A function that is called by cron. Each run is an execution of its own, whose id contains the time it was due."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from resonate_anyio import Context, Info, Resonate
from resonate_anyio.abc import Network


async def write_report(due: datetime, title: str) -> str:
    """Write the report. This is a leaf."""
    return f"{title} of {due:%H:%M:%S}"


async def report(ctx: Context, title: str) -> None:
    """Write the report and send it. This is a workflow."""
    due = datetime.fromtimestamp(int(ctx.id.rpartition("-")[2]) / 1000, tz=UTC)
    text = await ctx.run(write_report, due, title)
    await ctx.run(deliver, text)


async def deliver(info: Info, text: str) -> None:
    """Send the report to a listener in this process. The stream is a dependency, since it cannot be recorded."""
    await info.get_dependency(MemoryObjectSendStream).send(text)


async def main(network: Network | None = None, cron: str = "*/2 * * * * *", reports: int = 3) -> list[str]:
    """Let the schedule fire a few times. With six fields, the first is the seconds; the usual five work as well."""
    send, receive = anyio.create_memory_object_stream[str](1)
    resonate = Resonate(network=network)
    resonate.register(report)
    resonate.with_dependency(send)

    received: list[str] = []
    async with resonate, send, receive:
        schedule = await resonate.schedule("status", cron, report, "status report").timeout(60)
        print(f"scheduled; it fires for the first time at {schedule.next_run_at:%H:%M:%S}")
        async for text in receive:
            print(text)
            received.append(text)
            if len(received) == reports:
                break
        await schedule.delete()
    return received


if __name__ == "__main__":
    anyio.run(main)
