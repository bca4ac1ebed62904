"""Floor 6: an Internet in one process: certificates, a name server and mail hosts that behave and misbehave by script."""
