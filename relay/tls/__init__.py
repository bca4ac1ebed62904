"""Floor 6: handshakes, what the peer showed in them, and the verdict on it."""
