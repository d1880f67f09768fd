"""Concurrency: what anyio does not have, for asyncio and for trio alike."""
