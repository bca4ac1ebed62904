"""dane-relay: an asyncio SMTP relay that enforces DANE and per-destination TLS policy on outbound mail.

The rooms below stack in the order of a message; ``docs/path-of-a-message.md`` walks through them.
"""

__version__ = "0.1.0"
