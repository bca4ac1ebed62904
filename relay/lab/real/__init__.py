"""The lab with real servers: the same destinations, served by programs that we did not write."""
