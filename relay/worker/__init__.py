"""Floor 10: leases what is due, makes attempts, settles them. The queue and delivery do not know each other; they meet here."""
