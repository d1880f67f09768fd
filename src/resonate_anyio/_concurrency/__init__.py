"""Concurrency: tools that anyio does not offer, for asyncio and trio alike."""
