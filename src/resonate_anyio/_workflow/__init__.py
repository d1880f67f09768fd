"""One run of a durable function. This package knows no server, no lease and no worker."""
