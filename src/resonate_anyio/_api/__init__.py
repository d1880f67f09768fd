"""What users hold inside durable functions."""
