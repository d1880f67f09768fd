"""Requests: how a worker asks the server, and how it learns that promises are settled."""
