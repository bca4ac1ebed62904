"""Floor 9: what is remembered of destinations beyond their mail: findings of audits, the best level seen."""
