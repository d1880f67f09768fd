"""A saga: when a later step fails, the earlier ones are undone, in reverse order, each of them durably."""

from __future__ import annotations

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network


class CardDeclinedError(Exception):
    """What the bank says. It comes back as this type, on a replay as well."""


async def book_flight(trip: str) -> str:
    """Book, and say what was booked."""
    print(f"{trip}: flight booked")
    return "flight"


async def book_hotel(trip: str) -> str:
    """Book, and say what was booked."""
    print(f"{trip}: hotel booked")
    return "hotel"


async def charge_card(trip: str, card: str) -> str:
    """The step that may fail."""
    if card == "expired":
        raise CardDeclinedError(card)
    print(f"{trip}: card charged")
    return "charge"


async def undo(trip: str, booking: str) -> str:
    """Cancel what was booked."""
    print(f"{trip}: {booking} cancelled")
    return booking


async def book_trip(ctx: Context, trip: str, card: str) -> list[str]:
    """Return what is booked in the end."""
    done: list[str] = []
    try:
        done.append(await ctx.run(book_flight, trip))
        done.append(await ctx.run(book_hotel, trip))
        done.append(await ctx.run(charge_card, trip, card))
    except CardDeclinedError:
        # If the process dies in the middle of this, the next one goes on where it stopped.
        for booking in reversed(done):
            await ctx.run(undo, trip, booking)
        raise
    return done


async def main(network: Network | None = None) -> list[str]:
    """Book a trip that can be paid and one that cannot."""
    resonate = Resonate(network=network)
    resonate.register(book_trip)

    async with resonate:
        booked = await resonate.run("trip-1", book_trip, "Oslo", "visa")
        print(f"Oslo: {', '.join(booked)}")
        try:
            await resonate.run("trip-2", book_trip, "Rome", "expired")
        except CardDeclinedError as error:
            print(f"Rome: not booked, {error!r}")
    return booked


if __name__ == "__main__":
    anyio.run(main)
