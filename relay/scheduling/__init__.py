"""Floor 4: which destination gets how many deliveries at a time, and whose turn it is. Pure: time comes in as a number."""
