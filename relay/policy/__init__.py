"""Floor 5: which TLS policy holds for a host, and why. Pure."""
