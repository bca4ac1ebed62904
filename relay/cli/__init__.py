"""Floor 13: the commands, one file each."""
