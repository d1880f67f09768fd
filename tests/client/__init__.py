"""What users meet first: the client, and everything that can be done wrong with it."""
