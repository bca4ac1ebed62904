"""Floor 10: what would become of mail to a destination now, and why: a delivery walked through and told, never made."""
