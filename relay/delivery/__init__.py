"""Floor 9: one attempt at one next-hop: find hosts, decide, connect, judge, send."""
