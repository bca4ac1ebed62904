"""Floor 1: Postfix's lookup tables, one door for every option that names maps."""
