"""Floor 7: what became of each recipient, in words and as reports. Pure."""
