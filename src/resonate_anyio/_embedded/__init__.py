"""The embedded engine: the server inside this process, which applies the protocol's rules to a store."""
