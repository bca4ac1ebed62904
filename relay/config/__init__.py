"""Floor 6: every option of the relay: name, type, default, unit, meaning; all errors of a file at once."""
