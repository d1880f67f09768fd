"""The process: everything that one started `Resonate` object runs."""
