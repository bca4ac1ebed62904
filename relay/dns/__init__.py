"""Floor 3: what the DNS says, and how far it can be believed."""
