"""One leased task: a root function and everything that runs locally below it."""
