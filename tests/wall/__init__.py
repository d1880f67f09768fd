"""What goes over a real socket to a real server, by the wall clock.

The server is the one that `RESONATE_TEST_URL` names, else a `resonate-anyio dev` that is started for these tests. It
may be in use by others and hold anything: every id and every group is this run's own.
"""
