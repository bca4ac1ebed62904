"""Floor 11: the lock on a state directory, and the socket in it over which commands act on a running relay."""
