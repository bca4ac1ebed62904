"""Floor 8: a Postfix configuration in, ours and what has no counterpart out."""
