"""A saga: when a step fails, the steps before it are undone in reverse order, each by a durable call."""

from __future__ import annotations

import anyio

from resonate_anyio import Context, Resonate
from resonate_anyio.abc import Network


class CardDeclinedError(Exception):
    """An error of the bank. The workflow gets it as this type, on a replay as well."""


async def book_flight(trip: str) -> str:
    """Book a flight, and return the name of the booking."""
    print(f"{trip}: flight booked")
    return "flight"


async def book_hotel(trip: str) -> str:
    """Book a hotel, and return the name of the booking."""
    print(f"{trip}: hotel booked")
    return "hotel"


async def charge_card(trip: str, card: str) -> str:
    """Charge the card. This step may fail."""
    if card == "expired":
        raise CardDeclinedError(card)
    print(f"{trip}: card charged")
    return "charge"


async def undo(trip: str, booking: str) -> str:
    """Cancel a booking."""
    print(f"{trip}: {booking} cancelled")
    return booking


async def book_trip(ctx: Context, trip: str, card: str) -> list[str]:
    """Book a trip, and return the bookings. If the card is refused, cancel them."""
    done: list[str] = []
    try:
        done.append(await ctx.run(book_flight, trip))
        done.append(await ctx.run(book_hotel, trip))
        done.append(await ctx.run(charge_card, trip, card))
    except CardDeclinedError:
        # If the process dies in the middle of this, the next process continues from there.
        for booking in reversed(done):
            await ctx.run(undo, trip, booking)
        raise
    return done


async def main(network: Network | None = None) -> list[str]:
    """Book a trip that can be paid, and one that cannot."""
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
