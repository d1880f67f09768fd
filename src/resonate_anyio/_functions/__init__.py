"""Durable functions: how they are described, registered and called."""
