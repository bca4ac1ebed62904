"""Floor 11: what a relay shows over HTTP, read-only."""
