"""The objects that users hold inside durable functions."""
