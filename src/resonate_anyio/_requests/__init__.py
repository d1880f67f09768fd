"""Requests: how a worker asks the server, and how it hears of promises that settle."""
