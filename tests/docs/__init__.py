"""The pages under `docs/` and the code say the same."""
