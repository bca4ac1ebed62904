"""Floor 2: TLSA records, what they match, and the names a DANE peer must carry. Pure."""
