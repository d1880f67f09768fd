"""The server inside this process: the state machine, a store, and the way of messages to connections."""
