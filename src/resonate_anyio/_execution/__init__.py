"""One leased task: a root function and all functions that it runs locally."""
