"""Crashes at every point: a corpus of workflows, each killed before and after every request that it makes."""
