"""Floor 1: the nouns of SMTP (names, replies, envelopes, header fields). Pure."""
