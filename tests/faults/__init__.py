"""What goes wrong between a worker and a server: each kind of fault by itself, many of them mixed, long outages.

`weather` says what goes wrong, `transport` does it to requests and `streams` to messages, `meter` counts what is sent
and `site` is where it all happens: a server in this process that can be stopped, and the programs that use it.
"""
