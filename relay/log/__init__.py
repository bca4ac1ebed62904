"""Floor 8: facts worth telling, and the one place that words them."""
