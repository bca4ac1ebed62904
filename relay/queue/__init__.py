"""Floor 9: keeps mail: accepted means committed, and every outcome is one transaction."""
